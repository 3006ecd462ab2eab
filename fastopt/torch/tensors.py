"""Tensors of PyTorch as arrays that are views of their memory, whatever the order of their dimensions there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastopt.arrays.layout import COMPLEX, FLOATS
from fastopt.engine.tables import address
from fastopt.step.groups import Group

Order = tuple[int, ...]


def order_of(tensor: torch.Tensor) -> Order:
    """The dimensions as a view of the memory has them.

    They stay as they are where that is contiguous, in C or Fortran order. Else those with larger strides come first: of
    filters whose channels come last in memory, these are last.
    """
    own = tuple(range(tensor.dim()))
    if tensor.is_contiguous() or tensor.permute(own[::-1]).is_contiguous():
        return own
    return tuple(sorted(own, key=lambda dimension: -tensor.stride(dimension)))


def view(tensor: torch.Tensor, order: Order | None = None) -> NDArray[Any]:
    """The tensor's memory as an array with its dimensions in some order, by default its own `order_of`.

    Raises
    ------
    TypeError
        If it is sparse or on another device, or NumPy has no such numbers.
    """
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        raise TypeError(f"tensors must be dense and on the CPU, got one on {tensor.device} with layout {tensor.layout}")
    plain = tensor.detach().resolve_conj().resolve_neg()
    ordered = plain.permute(order_of(tensor) if order is None else order)
    try:
        return bits(ordered) if tensor.dtype == torch.bfloat16 else ordered.numpy()  # type: ignore[no-any-return, unused-ignore]
    except TypeError:  # such as those of 8 bits
        known = ", ".join(map(str, (*FLOATS, *COMPLEX, "float16")))
        raise TypeError(f"tensors must be of {known} or bfloat16, got {tensor.dtype}") from None


def bits(tensor: torch.Tensor) -> NDArray[Any]:
    """The memory of a tensor of bfloat16, which NumPy doesn't know, as an array of uint16."""
    array: NDArray[Any] = tensor.view(torch.int16).numpy()
    return array.view(np.uint16)


def from_bits(array: NDArray[Any]) -> torch.Tensor:
    """A tensor of bfloat16 with the memory of an array of uint16."""
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


class Place:
    """Where a tensor lies in memory, and the group that steps it."""

    def __init__(self, tensor: torch.Tensor, own: Group) -> None:
        self.tensor, self.own = tensor, own
        self._order = order_of(tensor)
        self._is_plain = self._order == tuple(range(tensor.dim()))
        self._known: tuple[Any, ...] | None = None  # its address and strides, once they are found to be those of the group

    def require_memory(self) -> None:
        """Raise ValueError if the tensor has other memory than the group."""
        p = self.tensor
        if (lies := (p.data_ptr(), p.stride())) != self._known:
            array, known = view(p), self.own.parameters[0].array
            if p.numel() and (address(array), array.strides, array.shape) != (address(known), known.strides, known.shape):
                raise ValueError("a parameter has other memory than before; wrap it again")
            self._known = lies

    def view(self, gradient: torch.Tensor) -> NDArray[Any]:
        """The memory of a gradient as an array with the dimensions of the parameter's."""
        if self._is_plain and type(gradient) is torch.Tensor and not gradient.requires_grad:
            try:
                if gradient.dtype == torch.bfloat16:
                    return bits(gradient)
                return gradient.numpy()  # type: ignore[no-any-return, unused-ignore]
            except (RuntimeError, TypeError):  # what is no plain memory, or not on the CPU
                pass
        return view(gradient, self._order)


def differs(value: Any, before: Any) -> bool:
    """Whether a hyper-parameter has another value than before; of arrays, whether it is another object."""
    plain = (bool, int, float, str, tuple, type(None))
    return value is not before and not (isinstance(value, plain) and isinstance(before, plain) and value == before)


def as_saved(state: Any, orders: Mapping[str, Order]) -> Any:
    """State arrays by state and parameter name, turned from the order of views to that of tensors."""
    return _turned(state, {name: tuple(np.argsort(order)) for name, order in orders.items()})


def as_viewed(state: Any, orders: Mapping[str, Order]) -> Any:
    """State arrays by state and parameter name, turned from the order of tensors to that of views."""
    return _turned(state, orders)


def _turned(state: Any, orders: Mapping[str, Order]) -> Any:
    """What is no state at all stays as it is, to be refused by those who load it."""
    if not (isinstance(state, Mapping) and all(isinstance(arrays, Mapping) for arrays in state.values())):
        return state
    return {key: {name: turned(array, orders.get(name, ())) for name, array in arrays.items()} for key, arrays in state.items()}


def turned(array: Any, order: Order) -> Any:
    """An array or tensor with its dimensions in another order, if it has as many."""
    if getattr(array, "ndim", 0) != len(order):
        return array
    return array.permute(order) if isinstance(array, torch.Tensor) else array.transpose(order)


def is_of_torch(state: Any) -> bool:
    """Whether a state is one of PyTorch's own optimizers, by the numbers of their tensors."""
    return isinstance(state, Mapping) and all(isinstance(key, int) for key in state)


def one_by_one(state_dict: Mapping[str, Any], orders: Sequence[Order]) -> dict[str, Any]:
    """A state dict of PyTorch's own optimizers with a group for each tensor, and what it keeps in the order of views."""
    groups = [{**group, "params": [index]} for group in state_dict["param_groups"] for index in group["params"]]
    state = dict(state_dict["state"])
    for group, order in zip(groups, orders, strict=True):
        (index,) = group["params"]
        if isinstance(entry := state.get(index), Mapping):
            state[index] = {key: turned(value, order) for key, value in entry.items()}
    return {"state": state, "param_groups": groups}
