"""What can be told from values of hyper-parameters alone."""

from __future__ import annotations

from typing import Any

from fastopt.arrays.per_element import is_tree
from fastopt.description.options import DEFAULTS


def is_number(value: Any, own: Any) -> bool:
    """Whether a number takes the place of another one, and options that are on stay on."""
    if type(value) is tuple and type(own) is tuple:  # of decay rates, not of bounds, which may be arrays
        return all(type(each) is float for each in (*value, *own))
    return type(value) is float and type(own) is float and (value > 0.0) == (own > 0.0)


def is_off(key: str, value: Any) -> bool:
    """Whether a hyper-parameter is an option that does nothing."""
    return value is False or (key in DEFAULTS and not is_tree(value) and value == DEFAULTS[key])
