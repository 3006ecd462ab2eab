"""Where libraries put the same things differently: the small constant, and the rate in momentum. Each formula stands once.

What a convention leaves out is added as 0 or multiplied by 1, which changes no bit; so one rule does for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.description.hyperparameters import OneOf
from fastopt.engine.compile import part

ACCUMULATE = OneOf("squares", "rates")

DECOUPLED = r"Decoupled weight decay :math:`\lambda`: besides the step, :math:`\theta` shrinks by :math:`\alpha\lambda\theta`."


@part
def normalized(x, square, eps_root, eps):
    """``x`` over the root of a mean or sum of squares, with small constants inside and outside of the root."""
    return x / (np.sqrt(square + eps_root) + eps)


@part
def split_rate(lr, within, without):
    """The rate for what momentum accumulates, and that for the momentum itself: one is `lr`, the other 1."""
    return within * lr + without, without * lr + within


def eps_places(eps: float, inside: bool) -> tuple[float, float]:
    """What `normalized` takes, for a small constant inside or outside of the root."""
    return (eps, 0.0) if inside else (0.0, eps)


def rate_places(accumulate_lr: bool) -> tuple[float, float]:
    """What `split_rate` takes, for momentum that accumulates steps or gradients."""
    return (1.0, 0.0) if accumulate_lr else (0.0, 1.0)


# What `per_row` is, for optimizers whose state is a second moment.
PER_ROW = """Keep one {state} for each row of a table, that is for each index of its first axis, fed by the mean of the squares
of the row's gradient: the state shrinks by the length of a row. It must stay as at construction."""


def refuse_per_row(hyper: Mapping[str, Any], *others: str) -> None:
    """Raise ValueError if rows shall have one state together with options that know only states of elements."""
    for key in others if hyper["per_row"] else ():
        if hyper[key] not in (False, 0.0, "squares"):
            raise ValueError(f"per_row=True is not for {key}={hyper[key]!r}")


def refuse_root_of_rates(hyper: Mapping[str, Any]) -> None:
    """Raise ValueError if a small constant shall be inside of a root that accumulated rates don't have."""
    if hyper["eps_inside_sqrt"]:
        raise ValueError("eps_inside_sqrt=True needs accumulate='squares': with 'rates' there is no root")
