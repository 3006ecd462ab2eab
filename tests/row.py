"""A row of the table of optimizers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastopt.adapting import adapted, measured


class Row(NamedTuple):
    """One configuration of an optimizer, and all that computes the same in another way."""

    optimizer: type
    form: dict[str, Any]  # arguments that choose the rule
    numbers: dict[str, Any]  # arguments that the oracle takes as well; those left out test the defaults
    rule: Callable[..., Any]
    states: tuple[str, ...]
    oracle: Callable[..., Any]
    torch: tuple[str, dict[str, Any]] | None = None  # a name in torch.optim, and keyword arguments
    optax: tuple[str, dict[str, Any]] | None = None
    bench: str | None = None  # what the benchmark calls it, if it is measured

    def make(self, params, **numbers):
        """The optimizer for `params`, with other numbers if any are given."""
        return self.optimizer(params, **self.form, **self.numbers | numbers)

    @property
    def compiled_rule(self):
        """The rule with what the options do around it."""
        return self.make(np.zeros(1)).param_groups[0].rule

    def __str__(self):
        arguments = ",".join(f"{key}={value}" for key, value in (self.form | self.numbers).items())
        return f"{self.optimizer.__name__}({arguments})"


def rule_on_arrays(optimizer, theta, states, g):
    """The new theta and states after the next step of an optimizer of one array, by the rule itself on NumPy arrays."""
    dtype = theta.dtype.type
    (group,) = optimizer.param_groups
    (p,) = group.parameters
    coefficients = adapted(optimizer, group, measured(optimizer, [group], {p: g}))[0][p]
    lr = np.asarray(group.current["lr"], dtype)[()]
    with np.errstate(all="ignore"):
        cast = [c if isinstance(c, np.ndarray) else dtype(c) for c in coefficients]
        new = group.rule(theta, g.astype(dtype), lr, *states, *cast)
    return new if isinstance(new, tuple) else (new,)
