"""Gradient descent with noise that fades."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import InitVar
from typing import Any

import numpy as np

from fastopt.description.fields import argument, hyper
from fastopt.description.hyperparameters import nonnegative
from fastopt.description.options import Rate
from fastopt.engine.compile import rule
from fastopt.optimizer import Optimizer

# Numbers drawn at a time, so that little memory is needed besides the noise itself.
CHUNK = 512


@rule
def noisy_descent(theta, g, lr, noise, deviation):
    return theta - lr * (g + deviation * noise)


def _generator(name: str, value: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be what numpy.random.default_rng takes: {error}") from None


class NoisySGD(Optimizer):
    r"""Gradient descent with Gaussian noise on the gradient, as Neelakantan and others have it.

    .. math::

        \theta \leftarrow \theta - \alpha \odot (g + \sigma_t \xi), \qquad \sigma_t^2 = \frac{\eta}{t^\gamma},
        \qquad \xi \sim \mathcal N(0, 1)

    Notes
    -----
    There is no state, but a generator of random numbers; `state_dict` has it, so that a run that goes on sees the same
    noise. The noise of a step is drawn after the one before, for all elements in the order of the parameters, in double
    precision, so that it doesn't depend on dtypes or on the number of threads.

    References
    ----------
    .. [1] Neelakantan and others, "Adding gradient noise improves learning for very deep networks", 2015.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.zeros(1000)
    >>> opt = fastopt.NoisySGD(w, lr=1.0, eta=0.25)
    >>> opt.step(np.ones(1000))
    >>> float(w.std().round(1)), float(w.mean().round(1))
    (0.5, -1.0)
    """

    rule, state_names = noisy_descent, ()
    takes_modulus = False
    elements = ("noise",)
    lr: Rate = hyper(1e-3)
    eta: float = hyper(0.01, nonnegative, r":math:`\eta`: variance of the noise in the first step.")
    gamma: float = hyper(0.55, doc=r":math:`\gamma`: how fast it fades.")
    seed: InitVar[int] = argument(0, _generator, "Of NumPy's generator `numpy.random.default_rng`.", kind="int")
    weight_decay: float = hyper(0.0)

    def begin(self, **arguments: Any) -> None:
        self._generator: np.random.Generator = arguments["seed"]
        self._draw(self._generator.bit_generator.state)

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[Any, ...]:
        return "noise", math.sqrt(hyper["eta"] / t ** hyper["gamma"])

    def step(self, grads: Any = None, scale: float = 1.0, *, lr: Any = None) -> None:
        if not self._is_drawn:
            self._draw(self._drawn_from)
        before = self.step_count
        try:
            super().step(grads, scale, lr=lr)
        finally:  # for a signal handler may raise when the step is taken
            if self.step_count > before:  # not where it was skipped
                self._draw(self._generator.bit_generator.state)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        super().add_param_group(group)
        self._draw(self._drawn_from)

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        return {**super().state_dict(copy=copy), "generator": deepcopy(self._drawn_from)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        if "generator" not in state_dict:
            raise ValueError("state_dict lacks the key 'generator'")
        # A generator of its own: one that is refused must leave this one as it was.
        generator = np.random.default_rng()
        try:
            generator.bit_generator.state = state_dict["generator"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state_dict['generator'] is not the state of a PCG64 generator: {error}") from None
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "generator"})
        self._generator = generator
        self._draw(generator.bit_generator.state)

    def _draw(self, state: Mapping[str, Any]) -> None:
        """Fill the arrays of noise from a state of the generator on."""
        state = {**state}  # told from that of a signal handler that steps, and draws, meanwhile
        self._drawn_from, self._is_drawn = state, False  # until all is drawn, which takes longer than a step
        self._generator.bit_generator.state = state
        for p in self._model.parameters:
            noise = p.elements["noise"]
            for begin in range(0, noise.size, CHUNK):
                part = noise[begin : begin + CHUNK]
                part[...] = self._generator.standard_normal(part.size)
        self._is_drawn = self._drawn_from is state
