"""The function that is minimized, and its gradient, in each form that SciPy takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.minimization.answers import gradient_of, number_of, pair_of
from fastopt.minimization.bounds import Box, Ring
from fastopt.minimization.differences import SCHEMES, differences

FORMS = f"callable, True, None or one of {', '.join(map(repr, SCHEMES))}"


class Objective:
    """The function and its gradient, and how often they were called.

    Parameters
    ----------
    fun, jac, args
        As `minimize` takes them.
    bounds : Box or None
    needs_value : bool
        Whether somebody looks at the function's value in each step.
    """

    def __init__(self, fun: Callable[..., Any], jac: Any, args: Any, bounds: Box | None, needs_value: bool) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        if isinstance(jac, (bool, np.bool_)):
            jac = True if jac else None
        if not (jac is None or jac is True or callable(jac) or (isinstance(jac, str) and jac in SCHEMES)):
            raise TypeError(f"jac must be {FORMS}, got {jac!r}")
        if isinstance(bounds, Ring) and not (jac is True or callable(jac)):
            raise ValueError(
                "jac must give the gradient where bounds are those of the modulus: differences along real and imaginary axes "
                f"would leave them; got {jac!r}"
            )
        self._fun, self._jac, self._scheme = fun, jac, jac if isinstance(jac, str) else SCHEMES[0]
        self._args = args if isinstance(args, tuple) else (args,)
        self._bounds, self._needs_value = bounds, needs_value
        self.nfev = self.njev = 0

    def __call__(self, x: Any) -> tuple[float | None, Any]:
        """The value, None if nobody needs it, and the gradient; the point is theirs to keep, and to write to."""
        self.njev += 1
        if callable(self._jac):
            value = self.value(x.copy()) if self._needs_value else None
            return value, gradient_of(self._jac(x, *self._args), "jac", x)
        if self._jac is True:
            self.nfev += 1
            value, g = pair_of(self._fun(x, *self._args))
            return number_of(value, "fun"), gradient_of(g, "fun with jac=True", x)
        value = self.value(x.copy())
        fun = self._raw if self._scheme == "cs" else self.value
        return value, differences(fun, x, value, self._bounds, self._scheme)

    def value(self, x: Any) -> float:
        """The value at a point."""
        return number_of(self._raw(x), "fun")

    def value_and_more(self, x: Any) -> float:
        """The value at a point, also where `fun` gives its gradient with it."""
        answer = self._raw(x)
        return number_of(pair_of(answer)[0] if self._jac is True else answer, "fun")

    def _raw(self, x: Any) -> Any:
        self.nfev += 1
        return self._fun(x, *self._args)

    @property
    def is_value_missing(self) -> bool:
        """Whether nobody knows the value where the gradient was taken."""
        return callable(self._jac) and not self._needs_value
