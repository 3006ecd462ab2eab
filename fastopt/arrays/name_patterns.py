"""How parameters become groups: as they come, or by patterns for the keys that lead to them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from fastopt.arrays.tree import leaves, paths


def are_groups(params: Any) -> bool:
    """Whether parameters come in groups: a list of mappings with the key ``"params"``."""
    return (
        isinstance(params, (list, tuple))
        and len(params) > 0
        and all(isinstance(item, Mapping) and "params" in item for item in params)
    )


def grouped(params: Any, by_name: Mapping[str, Mapping[str, Any]] | None) -> tuple[list[Mapping[str, Any]], bool, Any]:
    """Groups of parameters, whether they came as such, and how the parameters are nested, if the groups are made by names.

    Raises
    ------
    TypeError, ValueError
        If there are groups and names, or as `partition` does.
    """
    if are_groups(params):
        if by_name is not None:
            raise ValueError("by_name is for parameters that are not in groups; give each group its own values")
        return list(params), True, None
    return ([{"params": params}], False, None) if by_name is None else ([*partition(params, by_name)], False, params)


def partition(params: Any, by_name: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of leaves by the first pattern that matches their path, and before them one of those that none matches.

    Raises
    ------
    TypeError
        If `by_name` is no mapping of mappings.
    ValueError
        If a pattern matches nothing, or two leaves have the same path.
    """
    if not isinstance(by_name, Mapping) or not all(isinstance(values, Mapping) for values in by_name.values()):
        raise TypeError(f"by_name must be a mapping of patterns to mappings of hyper-parameters, got {by_name!r}")
    named = dict(zip(paths(params), (leaf for _, leaf in leaves(params, "")), strict=True))
    if len(named) < sum(1 for _ in paths(params)):
        raise ValueError("params has two arrays with the same path of keys, so that by_name could not tell them apart")
    rest = dict(named)
    groups: list[dict[str, Any]] = []
    for pattern, values in by_name.items():
        own = {path: rest.pop(path) for path in list(rest) if fnmatch.fnmatchcase(path, pattern)}
        if not own:
            raise ValueError(f"by_name has the pattern {pattern!r}, which matches none of {', '.join(named)} that is left")
        groups.append({**values, "params": own})
    return [{"params": rest}, *groups] if rest else groups
