"""Optimizers for tensors of PyTorch on the CPU, with its hooks, schedulers and state dicts."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fastopt.arrays.tree import map_leaves
from fastopt.bridges.torch_state import Counterpart, counterpart_of, from_torch_state_dict, plain
from fastopt.optimizer import Optimizer
from fastopt.step.groups import Group
from fastopt.torch.tensors import (
    Order,
    Place,
    as_saved,
    as_viewed,
    bits,
    differs,
    from_bits,
    is_of_torch,
    one_by_one,
    order_of,
    view,
)

__all__ = ["WrappedOptimizer", "wrap"]


class WrappedOptimizer(torch.optim.Optimizer):  # type: ignore[misc, unused-ignore]
    """An optimizer of this library as one of PyTorch's. Made by `wrap`.

    The tensors are stepped where they are, through NumPy views of their memory. Each tensor counts its own steps, and one whose
    gradient is None is left out, as PyTorch does.

    Attributes
    ----------
    optimizer : Optimizer
        What takes the steps; each tensor is a group of its own.
    """

    def __init__(self, optimizer: type[Optimizer], params: Any, arguments: Mapping[str, Any]) -> None:
        hyper = optimizer(np.zeros(1), **arguments).param_groups[0]
        self._class, self._arguments = optimizer, dict(arguments)
        self.optimizer: Optimizer | None = None
        self._places: list[Place] = []  # made anew when tensors or their optimizer have changed
        self._is_begun = False
        super().__init__(params, {key: value for key, value in hyper.items() if key != "params"})
        self._is_begun = True
        made = [each for group in self.param_groups for each in self._groups_of(group)]
        self.optimizer = self._class(made, **self._arguments) if made else None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of tensors, as PyTorch's optimizers do.

        Parameters
        ----------
        param_group : dict
            With the key ``"params"``, and hyper-parameters of its own.

        Raises
        ------
        TypeError, ValueError
            If a tensor can't be stepped in place, or a hyper-parameter is not allowed. Nothing is changed.
        """
        count = len(self.param_groups)
        try:
            super().add_param_group(param_group)
            if not self._is_begun:  # by the constructor, which takes all groups at once
                return
            self._places = []
            made = self._groups_of(self.param_groups[-1])
            if self.optimizer is None and made:
                self.optimizer = self._class(made, **self._arguments)
            elif self.optimizer is not None:
                added = copy.copy(self.optimizer)  # steps the same tensors; if a group is refused, the old one is as it was
                for each in made:
                    added.add_param_group(each)
                self.optimizer = added
        except BaseException:
            del self.param_groups[count:]
            raise

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override, unused-ignore]
        """Step all tensors that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients, and gives the loss.

        Returns
        -------
        object
            What the closure gave.

        Raises
        ------
        TypeError, ValueError
            As `Optimizer.step`; or if the memory of a tensor is another one than before. Nothing is changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.optimizer is None:  # there are no tensors
            return loss
        places = self._places or self._placed()
        grads: list[Any] = []
        for place in places:
            place.require_memory()
            grads.append(place.tensor.grad)
        self._follow(places, grads)
        self.optimizer.step([None if g is None else place.view(g) for place, g in zip(places, grads, strict=True)])
        for place, g in zip(places, grads, strict=True):
            if g is not None:  # so that a graph that needs the old values says so
                torch.autograd.graph.increment_version(place.tensor)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The hyper-parameters in PyTorch's form, and the state in that of this library, with tensors in place of arrays.

        Returns
        -------
        dict
            For `torch.save` and `load_state_dict`. Schedules are left out: the optimizer that loads it keeps its own.
        """
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        count = itertools.count()
        groups = [{**_numbers(group), "params": [next(count) for _ in group["params"]]} for group in self.param_groups]
        state: dict[str, Any] = {}
        if self.optimizer is not None:
            own = self.optimizer.state_dict()
            state = map_leaves(_as_tensor, {**own, "state": as_saved(own["state"], self._orders())})
        saved: dict[str, Any] = {"param_groups": groups, "state": state}
        for after in self._optimizer_state_dict_post_hooks.values():
            saved = after(self, saved) or saved
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave, or the state dict of PyTorch's own optimizer of the same kind.

        Parameters
        ----------
        state_dict : dict
            From an optimizer of the same class with the same tensors; or from that of PyTorch's, see `from_torch_state_dict`:
            tensors that never had a gradient have no state in it.

        Raises
        ------
        TypeError, ValueError
            If it is damaged or of another optimizer. Nothing is changed then.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        if not isinstance(state_dict, Mapping) or not {"param_groups", "state"} <= state_dict.keys():
            raise ValueError("state_dict must have the keys 'param_groups' and 'state'")
        saved = state_dict["param_groups"]
        if not isinstance(saved, (list, tuple)) or not all(isinstance(each, Mapping) and "params" in each for each in saved):
            raise ValueError("state_dict['param_groups'] must be a list of mappings with the key 'params'")
        if [len(group["params"]) for group in saved] != [len(group["params"]) for group in self.param_groups]:
            raise ValueError("state_dict has other groups than this optimizer")
        if self.optimizer is not None and is_of_torch(state_dict["state"]):
            from_torch_state_dict(self.optimizer, one_by_one(state_dict, [*self._orders().values()]))
            saved = [_from_torch(counterpart_of(self.optimizer), each) for each in saved]
        elif self.optimizer is not None:
            values = [each for each in saved for _ in each["params"]]
            for own, given in zip(self.optimizer.param_groups, values, strict=True):
                own.check({key: value for key, value in _numbers(given).items() if key in self.defaults})
            state = map_leaves(_as_array, state_dict["state"])
            if isinstance(state, Mapping) and "state" in state:
                state = {**state, "state": as_viewed(state["state"], self._orders())}
            self.optimizer.load_state_dict(state)
        self._places = []
        for group, given in zip(self.param_groups, saved, strict=True):
            group.update({key: value for key, value in _numbers(given).items() if not callable(group.get(key))})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        state = None if self.optimizer is None else self.optimizer.state_dict()
        return {**super().__getstate__(), "made_by": (self._class, self._arguments), "saved": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        (self._class, self._arguments), saved = state.pop("made_by"), state.pop("saved")
        super().__setstate__(state)
        self._places, self._is_begun = [], True
        made = [each for group in self.param_groups for each in self._groups_of(group)]
        self.optimizer = self._class(made, **self._arguments) if made else None
        if self.optimizer is not None:
            self.optimizer.load_state_dict(saved)

    def _placed(self) -> list[Place]:
        """Where each tensor lies; and what groups are as they were at the last step is not known."""
        assert self.optimizer is not None
        tensors = (p for group in self.param_groups for p in group["params"])
        self._places = [Place(p, own) for p, own in zip(tensors, self.optimizer.param_groups, strict=True)]
        self._seen: list[dict[str, Any]] = [{} for _ in self.param_groups]
        return self._places

    def _follow(self, places: Sequence[Place], grads: Sequence[Any]) -> None:
        """Give each tensor the hyper-parameters that changed in its group, and freeze those without a gradient."""
        begin = 0
        for group, seen in zip(self.param_groups, self._seen, strict=True):
            end = begin + len(group["params"])
            given = {key: value for key, value in group.items() if key in self.defaults and key != "frozen"}
            if changes := {key: value for key, value in given.items() if key not in seen or differs(value, seen[key])}:
                for own, checked in _checked([place.own for place in places[begin:end]], changes):
                    own.commit(checked)
                seen |= changes
            is_frozen = bool(group["frozen"])
            for place, g in zip(places[begin:end], grads[begin:end], strict=True):
                if place.own.hyper["frozen"] != (is_frozen or g is None):
                    place.own["frozen"] = is_frozen or g is None
            begin = end

    def _orders(self) -> dict[str, Order]:
        """How the view of each tensor has its dimensions, by the name of the parameter."""
        assert self.optimizer is not None
        tensors = (p for group in self.param_groups for p in group["params"])
        names = [own.parameters[0].name for own in self.optimizer.param_groups]
        return {name: order_of(p) for name, p in zip(names, tensors, strict=True)}

    def _groups_of(self, group: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A group for each tensor of a group of PyTorch's."""
        hyper = {key: value for key, value in group.items() if key in self.defaults}
        if odd := [p for p in group["params"] if p.is_conj() or p.is_neg()]:
            raise TypeError(f"tensors must have memory of their own, got a conjugate or negative view of shape {odd[0].shape}")
        return [{**hyper, "params": view(p)} for p in group["params"]]


def wrap(optimizer: type[Optimizer], params: Any, **arguments: Any) -> WrappedOptimizer:
    """Make an optimizer for tensors of PyTorch.

    Parameters
    ----------
    optimizer : type
        A class of optimizers, such as ``fastopt.Adam``.
    params : iterable of tensor, or of dict
        As PyTorch's optimizers take them: on the CPU, of float32, float64, complex64, complex128, float16 or bfloat16,
        contiguous, with the dimensions in any order in memory, such as channels last.
    **arguments
        What the class takes after the parameters.

    Returns
    -------
    WrappedOptimizer
        A `torch.optim.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If a tensor can't be stepped in place, or an argument is not allowed.

    Examples
    --------
    >>> import fastopt.torch, torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = fastopt.torch.wrap(fastopt.Lion, model.parameters(), lr=0.5)
    >>> before = model.weight.detach().clone()
    >>> model(torch.ones(2)).backward()
    >>> optimizer.step()
    >>> (before - model.weight).round(decimals=3).tolist()
    [[0.5, 0.5]]
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        raise TypeError(f"optimizer must be a class of optimizers, got {optimizer!r}")
    return WrappedOptimizer(optimizer, params, arguments)


def _checked(owns: Sequence[Group], changes: Mapping[str, Any]) -> list[tuple[Group, dict[str, Any]]]:
    """What the groups of one of PyTorch's groups are after changes: plain values are checked once, for they are alike."""
    if not owns or not all(_is_plain(value) for value in changes.values()):
        return [(own, own.check(changes)) for own in owns]
    checked = owns[0].check(changes)
    return [(own, checked) for own in owns]


def _is_plain(value: Any) -> bool:
    """Whether a hyper-parameter is a number, a word, or some numbers, and means the same for every tensor."""
    return isinstance(value, (bool, float, int, str)) or (type(value) is tuple and all(map(_is_plain, value)))


def _numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    """What state dicts have of a group: neither its tensors nor schedules."""
    return {key: value for key, value in group.items() if key != "params" and not callable(value)}


def _from_torch(counterpart: Counterpart, group: Mapping[str, Any]) -> dict[str, Any]:
    """A group of PyTorch's own optimizer by our names, with what its learning-rate schedulers keep there."""
    ours = {key: plain(group[other]) for key, other in counterpart.hyper.items() if other in group}
    theirs = {"params", "param_names", *inspect.signature(getattr(torch.optim, counterpart.name)).parameters}
    return ours | {key: value for key, value in group.items() if key not in theirs}


def _as_tensor(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return from_bits(value) if value.dtype == np.uint16 else torch.from_numpy(value)


def _as_array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return bits(value) if value.dtype == torch.bfloat16 else value.numpy()
