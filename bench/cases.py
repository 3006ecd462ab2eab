"""What is measured: every optimizer with the hyper-parameters that make all contenders compute the same update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastopt

DTYPES = ("float32", "float64")
SIZES = tuple(10**n for n in range(3, 9))

LR = 1e-3
# So small that it makes no difference whether it stands inside the root or outside.
NEGLIGIBLE = 1e-30

# Name of an optimizer in another library, and its hyper-parameters besides the learning rate.
Counterpart = tuple[str, dict[str, Any]]


class Problem(NamedTuple):
    """A case with the arrays to run it on."""

    case: Case
    theta: NDArray[Any]
    g: NDArray[Any]
    lr: Any  # a number, or an array with a rate for every element


@dataclass(frozen=True)
class Case:
    """An optimizer with its hyper-parameters, and what it is called elsewhere.

    Attributes
    ----------
    name : str
        How tables call it.
    optimizer : type
        The class in fastopt; that of the same name in `fastopt.demo.in_place`, if there is one, takes the same arguments.
    updated : int
        Arrays that a step reads and writes: the parameter and the states.
    hyper : dict
        Hyper-parameters besides the learning rate.
    has_rates : bool
        Whether the learning rate is an array.
    torch, optax : tuple or None
        The counterparts, None where the library has none.
    """

    name: str
    optimizer: type[fastopt.Optimizer]
    updated: int
    hyper: dict[str, Any] = field(default_factory=dict)
    has_rates: bool = False
    torch: Counterpart | None = None
    optax: Counterpart | None = None

    @property
    def read(self) -> int:
        """Arrays that a step only reads: the gradient, and the rates if each element has its own."""
        return 1 + self.has_rates

    def traffic(self, size: int, dtype: str) -> int:
        """Bytes that a step must move: every array that it updates twice, every other one once."""
        return (2 * self.updated + self.read) * size * np.dtype(dtype).itemsize

    def problem(self, size: int, dtype: str) -> Problem:
        """Arrays of this size: a parameter of zeros, and a gradient that stays the same in every step."""
        theta = np.zeros(size, dtype)
        g = np.random.default_rng(0).standard_normal(size, theta.dtype.type)
        lr = np.linspace(0.5 * LR, 1.5 * LR, size, dtype=dtype) if self.has_rates else LR
        return Problem(self, theta, g, lr)


CASES = (
    Case("SGD", fastopt.SGD, updated=1, torch=("SGD", {}), optax=("sgd", {})),
    Case("SGD rate vector", fastopt.SGD, updated=1, has_rates=True, optax=("sgd", {})),
    Case(
        "SGD momentum",
        fastopt.SGD,
        updated=2,
        hyper={"momentum": 0.9},
        torch=("SGD", {"momentum": 0.9}),
        optax=("sgd", {"momentum": 0.9}),
    ),
    Case(
        "AdaGrad",
        fastopt.AdaGrad,
        updated=2,
        hyper={"eps": NEGLIGIBLE},
        torch=("Adagrad", {"eps": NEGLIGIBLE}),
        optax=("adagrad", {"eps": NEGLIGIBLE, "initial_accumulator_value": 0.0}),
    ),
    Case("AdaGrad rates", fastopt.AdaGrad, updated=2, hyper={"eps": 1e-6, "accumulate": "rates"}),
    Case(
        "RMSProp",
        fastopt.RMSProp,
        updated=2,
        hyper={"rho": 0.99, "eps": 1e-8},
        torch=("RMSprop", {"alpha": 0.99, "eps": 1e-8}),
        optax=("rmsprop", {"decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False}),
    ),
    Case("RMSProp rates", fastopt.RMSProp, updated=2, hyper={"rho": 0.99, "eps": 1e-6, "accumulate": "rates"}),
    Case(
        "Adam",
        fastopt.Adam,
        updated=3,
        hyper={"betas": (0.9, 0.999), "eps": 1e-8},
        torch=("Adam", {"betas": (0.9, 0.999), "eps": 1e-8}),
        optax=("adam", {"b1": 0.9, "b2": 0.999, "eps": 1e-8}),
    ),
    Case(
        "AdamW",
        fastopt.AdamW,
        updated=3,
        hyper={"weight_decay": 0.01},
        torch=("AdamW", {"weight_decay": 0.01}),
        optax=("adamw", {"weight_decay": 0.01}),
    ),
    Case(
        "AdaMax",
        fastopt.AdaMax,
        updated=3,
        hyper={"betas": (0.9, 0.999), "eps": 1e-8},
        torch=("Adamax", {"betas": (0.9, 0.999), "eps": 1e-8}),
        optax=("adamax", {"b1": 0.9, "b2": 0.999, "eps": 1e-8}),
    ),
    Case(
        "AdaDelta",
        fastopt.AdaDelta,
        updated=3,
        hyper={"rho": 0.9, "eps": 1e-6},
        torch=("Adadelta", {"rho": 0.9, "eps": 1e-6}),
        optax=("adadelta", {"rho": 0.9, "eps": 1e-6}),
    ),
    Case(
        "RAdam",
        fastopt.RAdam,
        updated=3,
        hyper={"betas": (0.9, 0.999), "eps": NEGLIGIBLE},
        torch=("RAdam", {"betas": (0.9, 0.999), "eps": NEGLIGIBLE}),
        optax=("radam", {"b1": 0.9, "b2": 0.999, "eps": NEGLIGIBLE}),
    ),
    Case(
        "AdaBelief",
        fastopt.AdaBelief,
        updated=3,
        hyper={"betas": (0.9, 0.999), "eps": 1e-16, "eps_root": 1e-16},
        optax=("adabelief", {"b1": 0.9, "b2": 0.999, "eps": 1e-16, "eps_root": 1e-16}),
    ),
    Case(
        "Lion",
        fastopt.Lion,
        updated=2,
        hyper={"betas": (0.9, 0.99)},
        optax=("lion", {"b1": 0.9, "b2": 0.99, "weight_decay": 0.0}),
    ),
    Case("signSGD", fastopt.Signum, updated=1, hyper={"momentum": 0.0}, optax=("sign_sgd", {})),
    Case("Signum", fastopt.Signum, updated=2, hyper={"momentum": 0.9}, optax=("signum", {"beta": 0.9})),
)
