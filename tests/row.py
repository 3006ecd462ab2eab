"""A row of the table of optimizers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastopt.engine import steps


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
    with np.errstate(all="ignore"):
        cast = [c if isinstance(c, np.ndarray) else dtype(c) for c in next_numbers(optimizer, g)]
        new = group.rule(theta, g.astype(dtype), cast[0], *states, *cast[1:])
    return new if isinstance(new, tuple) else (new,)


def next_numbers(optimizer, vector):
    """The rate and the coefficients that the next step of an optimizer of one array will take, with this gradient."""
    stepping = optimizer._stepping
    stepping.settled(optimizer)
    ((group, work),) = stepping._works
    (p,) = group.parameters
    if work.calls:
        plan = stepping._plans.of({p: vector.dtype})
        plan.write_gradients({p: vector}, token := plan.begin())
        assert plan.call(steps.BEGIN | steps.MEASURES | steps.DECIDE, token) == steps.DONE
    row = iter(work.update.rows[0])
    return [next(row) if name is None else p.elements[name] for name in work.update.names]
