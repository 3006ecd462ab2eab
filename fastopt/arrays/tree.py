"""Nested containers of arrays: a leaf, or a list, tuple or mapping of such trees."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any


def leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a tree in order, each with its name, such as ``params['W'][0]``."""
    if isinstance(tree, Mapping):
        for key in tree:
            yield from leaves(tree[key], f"{name}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for index, item in enumerate(tree):
            yield from leaves(item, f"{name}[{index}]")
    else:
        yield name, tree


def paths(tree: Any, prefix: str = "") -> Iterator[str]:
    """The keys and indices that lead to each leaf, joined by dots, such as ``layers.0.bias``."""
    if not isinstance(tree, (Mapping, list, tuple)):
        yield prefix
        return
    for key, item in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        yield from paths(item, f"{prefix}.{key}" if prefix else str(key))


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same containers, with ``function(leaf)`` in place of each leaf, called in the order of `leaves`."""
    if isinstance(tree, Mapping):
        return {key: map_leaves(function, tree[key]) for key in tree}
    if isinstance(tree, (list, tuple)):
        items = [map_leaves(function, item) for item in tree]
        if isinstance(tree, list):
            return items
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return function(tree)


def with_leaves(tree: Any, values: Iterable[Any]) -> Any:
    """The same containers with these values as leaves, in the order of `leaves`."""
    remaining = iter(values)
    return map_leaves(lambda _: next(remaining), tree)


def matching_leaves(tree: Any, other: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of `other`, named, in the order of those of `tree`.

    Raises
    ------
    TypeError
        Where `tree` has a container and `other` does not.
    ValueError
        Where the keys or the lengths of containers differ; the message names them.
    """
    if isinstance(tree, Mapping):
        if not isinstance(other, Mapping):
            raise TypeError(f"{name} must be a mapping with the keys {list(tree)}, got {type(other).__name__}")
        if missing := [key for key in tree if key not in other]:
            raise ValueError(f"{name} lacks the key {missing[0]!r}")
        if extra := [key for key in other if key not in tree]:
            raise ValueError(f"{name} has the key {extra[0]!r}, which the parameters lack")
        for key in tree:
            yield from matching_leaves(tree[key], other[key], f"{name}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        if not isinstance(other, (list, tuple)):
            raise TypeError(f"{name} must be a list or tuple of length {len(tree)}, got {type(other).__name__}")
        if len(other) != len(tree):
            raise ValueError(f"{name} must have length {len(tree)}, got {len(other)}")
        for index, (item, other_item) in enumerate(zip(tree, other, strict=True)):
            yield from matching_leaves(item, other_item, f"{name}[{index}]")
    else:
        yield name, other


# Gives the leaves of a tree; None, or a KeyError, if it isn't made as it should be.
Picker = Callable[[Any], Sequence[Any] | None]


def picker(tree: Any) -> Picker:
    """Make a function that gives the leaves of trees in the order of those of this one, if they are as plain as nearly all are.

    That means plain dicts, lists and tuples, nested as this tree is, and is found out in much less time than `matching_leaves`
    takes, which has names and sees everything. What else is in the place of a leaf is taken for one.
    """
    kind = type(tree)
    if kind not in (dict, list, tuple):
        return lambda other: None
    length = len(tree)
    kinds = (dict,) if kind is dict else (list, tuple)
    keys: Sequence[Any] = tuple(tree) if kind is dict else range(length)
    pickers = [picker(tree[key]) if isinstance(tree[key], (Mapping, list, tuple)) else None for key in keys]
    if not any(pickers) and (kind is not dict or length > 1):  # all are leaves
        items: Picker = operator.itemgetter(*keys) if kind is dict else lambda other: other
        return lambda other: items(other) if type(other) in kinds and len(other) == length else None
    inner = [*zip(keys, pickers, strict=True)]

    def pick(other: Any) -> Sequence[Any] | None:
        if type(other) not in kinds or len(other) != length:
            return None
        found: list[Any] = []
        for key, own in inner:
            if own is None:
                found.append(other[key])
                continue
            leaves = own(other[key])
            if leaves is None:
                return None
            found += leaves
        return found

    return pick
