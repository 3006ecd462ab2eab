"""Nested values as JSON holds them, with their arrays apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Dicts of one such key stand for what JSON hasn't got.
ARRAY, TUPLE, ITEMS = "$array", "$tuple", "$items"


def encoded(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """The same in dicts with strings as keys, lists, strings, numbers, booleans and None.

    Parameters
    ----------
    value : object
        Made of these, tuples, other mappings, arrays, and NumPy's numbers.
    name : str
        What it is called.
    arrays : dict
        Each array in it is added, under a name that tells the way to it.

    Raises
    ------
    TypeError
        If there is something else in it.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        while name in arrays:
            name += "'"
        arrays[name] = np.asarray(value)
        return {ARRAY: name}
    if isinstance(value, list):
        return [encoded(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {TUPLE: encoded(list(value), name, arrays)}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} can't be saved: it must be made of numbers, strings, arrays and containers, got {value!r}")
    items = [(key, encoded(item, f"{name}/{key}", arrays)) for key, item in value.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return dict(items)
    return {ITEMS: [[encoded(key, f"a key of {name}", arrays), item] for key, item in items]}


def decoded(value: Any, array: Callable[[str], NDArray[Any]]) -> Any:
    """What `encoded` was given, with the arrays that `array` gives by their names.

    Raises
    ------
    ValueError
        If it is nothing that `encoded` gives.
    """
    if isinstance(value, list):
        return [decoded(item, array) for item in value]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith("$") for key in value):
        return {key: decoded(item, array) for key, item in value.items()}
    try:
        ((kind, inner),) = value.items()
        if kind == ARRAY:
            return array(inner)
        if kind == TUPLE:
            return tuple(decoded(item, array) for item in inner)
        if kind == ITEMS:
            return {decoded(key, array): decoded(item, array) for key, item in inner}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{value!r:.100} stands for nothing: {error}") from error
    raise ValueError(f"{kind!r} stands for nothing")
