"""The optimizers of the demo: what they are called, and the hyper-parameters with which each problem learns."""

from __future__ import annotations

from typing import Any, NamedTuple


class System(NamedTuple):
    """One configuration of an optimizer."""

    title: str
    family: str  # the class in `fastopt` and in `fastopt.commands.demo.in_place`
    digits: dict[str, Any]
    inversion: dict[str, Any]
    has_rate_vector: bool = False  # lr scales the problem's own rate for each element

    def hyper(self, problem: str) -> dict[str, Any]:
        """The hyper-parameters for ``"digits"`` or ``"inversion"``."""
        return self.inversion if problem == "inversion" else self.digits


# Summed-up rates grow with every step, and where a gradient is nearly zero they grow by lr / eps at once: a large eps and
# a small lr keep them within what gradient descent would bear.
SYSTEMS = {
    "gradient-descent": System("gradient descent", "SGD", {"lr": 0.1}, {"lr": 16.0}),
    "rate-vector": System("gradient descent, rate vector", "SGD", {"lr": 1.0}, {"lr": 16.0}, has_rate_vector=True),
    "momentum": System("momentum", "SGD", {"lr": 0.02, "momentum": 0.9}, {"lr": 4.0, "momentum": 0.9}),
    "adagrad": System("AdaGrad", "AdaGrad", {"lr": 0.01}, {"lr": 0.5}),
    "adagrad-rates": System(
        "AdaGrad, rates",
        "AdaGrad",
        {"lr": 1e-4, "eps": 0.1, "accumulate": "rates"},
        {"lr": 0.02, "eps": 0.1, "accumulate": "rates"},
    ),
    "rmsprop": System("RMSProp", "RMSProp", {"lr": 3e-4, "rho": 0.9}, {"lr": 0.1, "rho": 0.9}),
    "rmsprop-rates": System(
        "RMSProp, rates",
        "RMSProp",
        {"lr": 1e-3, "rho": 0.9, "eps": 1e-2, "accumulate": "rates"},
        {"lr": 1.0, "rho": 0.9, "eps": 0.1, "accumulate": "rates"},
    ),
    "adam": System("Adam", "Adam", {"lr": 1e-3}, {"lr": 0.2}),
}
