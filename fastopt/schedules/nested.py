"""Schedules that hold schedules: what those remember, and the metrics that they wait for, at any depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastopt.description.hyperparameters import real


class Nested:
    """Base class of schedules that are made of others.

    What it holds may be schedules with a memory, such as `ReduceOnPlateau`: then the optimizer's state dict has it, and
    `update` reaches it.
    """

    def _parts(self) -> Iterable[tuple[str, Any]]:
        """The schedules and numbers it is made of, by the names of the attributes."""
        raise NotImplementedError

    def update(self, metric: float) -> None:
        """Pass a new value of the metric on to all schedules in here that look at one, whether their turn has come or not.

        Parameters
        ----------
        metric : float
            For example the loss on validation data after an epoch.

        Raises
        ------
        TypeError
            If it is no number, or no schedule in here looks at one.
        """
        metric = real("metric", metric)
        takers = {id(each): each for _, each in _within(self) if hasattr(each, "update")}
        if not takers:
            raise TypeError(f"no schedule in {self!r} looks at a metric")
        for each in takers.values():
            each.update(metric)

    def state_dict(self) -> dict[str, Any]:
        """What the schedules in here remember.

        Returns
        -------
        dict
            Their state dicts, by the way that leads to them, such as ``"schedules[1].then"``.
        """
        return {path: each.state_dict() for path, each in _remembering(self)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Parameters
        ----------
        state_dict : mapping
            From a schedule of the same make.

        Raises
        ------
        TypeError, ValueError
            If it is of another one. Nothing is changed then.
        """
        own = dict(_remembering(self))
        require_state(self, state_dict, own)
        load_together((each, state_dict[path]) for path, each in own.items())


def require_state(schedule: Any, state_dict: Any, keys: Iterable[str]) -> None:
    """Raise TypeError or ValueError unless a schedule's state is a mapping with these keys."""
    name = f"the state of {type(schedule).__name__}"
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{name} must be a mapping, got {type(state_dict).__name__}")
    if set(state_dict) != set(keys):
        raise ValueError(f"{name} must have the keys {sorted(keys)}, got {sorted(map(str, state_dict))}")


def load_together(pairs: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
    """Let schedules go on from their states: all of them, or none if one refuses its own."""
    pairs = list(pairs)
    before = [(schedule, schedule.state_dict()) for schedule, _ in pairs]
    try:
        for schedule, state in pairs:
            schedule.load_state_dict(state)
    except BaseException:
        for schedule, state in before:
            schedule.load_state_dict(state)
        raise


def remembers(schedule: Any) -> bool:
    """Whether a schedule has a memory, which state dicts have, too."""
    return hasattr(schedule, "state_dict") and hasattr(schedule, "load_state_dict")


def _within(schedule: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The schedules in one, at any depth, that are made of no others, and the ways that lead to them."""
    if not isinstance(schedule, Nested):
        yield path, schedule
        return
    for name, part in schedule._parts():
        yield from _within(part, f"{path}.{name}" if path else name)


def _remembering(schedule: Nested) -> list[tuple[str, Any]]:
    return [(path, each) for path, each in _within(schedule) if remembers(each)]
