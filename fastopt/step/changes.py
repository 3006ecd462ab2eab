"""What was changed since the last step: groups note it, and the optimizer looks at it, so that no step looks at each group."""

from __future__ import annotations

from typing import Any

from fastopt.description.hyperparameters import checked


class Changes:
    """Shared by an optimizer and its groups, which need not know it.

    Attributes
    ----------
    any : bool
        Whether there are others than of rates.
    of_plan : bool
        Whether the plan must be built anew.
    groups, rates : set of int
        Those whose numbers changed, and those of which nothing but the learning rate did.
    is_apart : bool
        Whether it was loaded with arrays that nobody else can have, and neither stepped since nor asked for them.
    """

    __slots__ = ("any", "groups", "is_apart", "of_plan", "rates")

    def __init__(self) -> None:
        self.any, self.of_plan, self.is_apart = True, True, False
        self.groups: set[int] = set()
        self.rates: set[int] = set()

    def note_numbers(self, group: int) -> None:
        """Other numbers for the same passes."""
        self.groups.add(group)
        self.any = True

    def note_rate(self, group: int) -> None:
        """Another learning rate, and nothing else."""
        self.rates.add(group)

    def note_plan(self) -> None:
        """Other passes, arrays, or groups."""
        self.any = self.of_plan = True

    def clear(self) -> None:
        """All of them are taken note of."""
        self.any = self.of_plan = False
        self.groups.clear()
        self.rates.clear()


class OfWhole:
    """An option that belongs to no group, as an attribute that can be set at any time."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, optimizer: Any, owner: type | None = None) -> Any:
        return self if optimizer is None else optimizer._whole[self._name]

    def __set__(self, optimizer: Any, value: Any) -> None:
        made = checked(optimizer.checks, self._name, value)
        optimizer._changes.note_plan()  # first, for an exception may come up before the next line
        optimizer._whole[self._name] = made
        optimizer._changes.note_plan()  # again, for a signal handler may have taken a step before that
