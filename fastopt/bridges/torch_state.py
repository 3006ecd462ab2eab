"""State dicts of PyTorch's optimizers, read and written: a training run that was started there goes on here, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt import optimizers
from fastopt.arrays import masters
from fastopt.arrays.codes import read
from fastopt.arrays.flat import Flat
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.per_element import is_tree
from fastopt.arrays.tree import leaves
from fastopt.description.hyperparameters import real
from fastopt.description.options import DEFAULTS
from fastopt.optimizer import Optimizer
from fastopt.step.groups import Group

# Options that change nothing in what an optimizer keeps: PyTorch has functions for them, to be called around its step.
AROUND = ("clip_norm", "copy_to", "frozen", "zero_grad")

# How states are kept, of which PyTorch gets the numbers.
FORMAT = ("state_dtype", "rounding", "seed")


class Counterpart(NamedTuple):
    """An optimizer of PyTorch's, and what it calls the same things."""

    name: str
    hyper: Mapping[str, str]  # from our names to PyTorch's
    states: Mapping[str, str]
    scalars: tuple[str, ...] = ()  # running scalars, of one name in both
    numbers: Callable[[Mapping[str, Any], int], Mapping[str, float]] = lambda hyper, t: {}  # what PyTorch keeps besides


def _asgd_numbers(hyper: Mapping[str, Any], t: int) -> Mapping[str, float]:
    eta = hyper["lr"] / (1.0 + hyper["lambd"] * hyper["lr"] * t) ** hyper["alpha"]
    return {"eta": eta, "mu": 1.0 / max(1.0, t - hyper["t0"])}


def _names(names: str, **others: str) -> Mapping[str, str]:
    return {name: name for name in ("lr", "maximize", *names.split())} | others


_ADAM = _names("betas eps weight_decay amsgrad decoupled_weight_decay")
_AVERAGES = {"m": "exp_avg", "v": "exp_avg_sq"}

COUNTERPARTS: Mapping[type[Optimizer], Counterpart] = {
    optimizers.ASGD: Counterpart("ASGD", _names("lambd alpha t0 weight_decay"), {"ax": "ax"}, numbers=_asgd_numbers),
    optimizers.AdaDelta: Counterpart("Adadelta", _names("rho eps weight_decay"), {"v": "square_avg", "delta": "acc_delta"}),
    optimizers.AdaGrad: Counterpart("Adagrad", _names("eps lr_decay weight_decay initial_accumulator_value"), {"r": "sum"}),
    optimizers.AdaMax: Counterpart("Adamax", _names("betas eps weight_decay"), {"m": "exp_avg", "u": "exp_inf"}),
    optimizers.Adam: Counterpart("Adam", _ADAM, {**_AVERAGES, "v_max": "max_exp_avg_sq"}),
    optimizers.AdamW: Counterpart("AdamW", _ADAM, {**_AVERAGES, "v_max": "max_exp_avg_sq"}),
    optimizers.NAdam: Counterpart(
        "NAdam", _names("betas eps weight_decay momentum_decay decoupled_weight_decay"), _AVERAGES, ("mu_product",)
    ),
    optimizers.RAdam: Counterpart("RAdam", _names("betas eps weight_decay decoupled_weight_decay"), _AVERAGES),
    optimizers.RMSProp: Counterpart(
        "RMSprop",
        _names("eps weight_decay momentum centered", rho="alpha"),
        {"v": "square_avg", "m": "grad_avg", "b": "momentum_buffer"},
    ),
    optimizers.Rprop: Counterpart("Rprop", _names("etas step_sizes"), {"size": "step_size", "previous": "prev"}),
    optimizers.SGD: Counterpart("SGD", _names("momentum dampening nesterov weight_decay"), {"p": "momentum_buffer"}),
}


def from_torch_state_dict(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Continue from the state dict of PyTorch's optimizer of the same kind.

    Parameters
    ----------
    optimizer : Optimizer
        With the same parameters in the same order and groups; its state, hyper-parameters and step counter are changed, not
        its parameters. The arrays in a `Flat` count one by one.
    state_dict : mapping
        What ``state_dict()`` of PyTorch's optimizer gave, with tensors on the CPU; or the same with NumPy arrays. Everything
        is copied.

    Raises
    ------
    TypeError
        If PyTorch has no such optimizer, or the state dict is none of its.
    ValueError
        If groups, parameters or shapes differ, or the optimizer does what PyTorch's doesn't. Nothing is changed then.

    Notes
    -----
    Schedules stay as they are. A group counts its steps here, and each parameter its own there, so those of a group must
    be equal. PyTorch's SGD doesn't count: one step is assumed where there is momentum, else none.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, 2.0])
    >>> opt = fastopt.SGD(w, momentum=0.9)
    >>> state = {0: {"momentum_buffer": np.array([1.0, -1.0])}}
    >>> saved = {"state": state, "param_groups": [{"lr": 0.5, "params": [0]}]}
    >>> fastopt.from_torch_state_dict(opt, saved)
    >>> opt.lr, opt.state["p"]
    (0.5, array([ 1., -1.]))
    """
    counterpart = counterpart_of(optimizer)
    groups = optimizer.param_groups
    own = optimizer.state_dict()
    holders = [p for group in groups for p in group.parameters]
    own["state"] = {  # as numbers, which loading brings to their formats
        state: {p.name: p.shaped(np.array(read(p.states[state]))) for p in holders if state in p.states}
        for state in optimizer.state
    }
    for i, (group, (their, entries)) in enumerate(zip(groups, _saved_groups(state_dict, len(groups)), strict=True)):
        hyper, progress = own["groups"][i], own["progress"][i]
        hyper |= {key: plain(their[other]) for key, other in counterpart.hyper.items() if key in hyper and other in their}
        _require_their_way(optimizer, counterpart, i)
        tensors = [(p, view) for p in group.parameters for view in range(len(_arrays(p, p.theta)))]
        if len(tensors) != len(entries):
            raise ValueError(f"group {i} of the state_dict must have {len(tensors)} parameters, got {len(entries)}")
        _, needed = optimizer.choose({**group.current, **group.check(hyper)})
        for (p, view), (name, entry) in zip(tensors, entries.items(), strict=True):
            for state, other in counterpart.states.items():
                if state in group.state_names:
                    array = _arrays(p, own["state"][state][p.name].reshape(-1, order=p.order))[view]
                    if entry.get(other) is not None:
                        _take(array, entry[other], f"{name}[{other!r}]")
                    elif state in needed and "step" in entry:
                        raise ValueError(f"{name} lacks the key {other!r}")
                    else:  # as before the first step
                        start = np.broadcast_to(optimizer.initial(state, hyper, masters.values(p)), p.theta.shape)
                        array[...] = _arrays(p, start)[view]
        kept = [*entries.values()]
        progress["step_count"] = _steps(kept, i)
        for scalar in counterpart.scalars:
            progress["scalars"][scalar] = _common(kept, scalar, type(optimizer).scalars[scalar], i)
    own["step_count"] = max(progress["step_count"] for progress in own["progress"])
    optimizer.load_state_dict(own)


def to_torch_state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """What PyTorch's optimizer of the same kind needs to go on. PyTorch must be installed.

    Parameters
    ----------
    optimizer : Optimizer
        Only read, but for its schedules, which are asked for the next step's numbers.

    Returns
    -------
    dict
        For ``load_state_dict`` of PyTorch's optimizer, with copies as tensors; parameters are numbered in the order of the
        groups, the arrays in a `Flat` one by one.

    Raises
    ------
    TypeError
        If PyTorch has no such optimizer.
    ValueError
        If this one does what PyTorch's doesn't.
    RuntimeError
        As `Optimizer.state_dict` does.
    """
    counterpart = counterpart_of(optimizer)
    optimizer._require_ready()
    import torch

    template = getattr(torch.optim, counterpart.name)([torch.zeros(1, requires_grad=True)]).state_dict()["param_groups"][0]
    optimizer._stepping.prepare(optimizer)
    state: dict[int, dict[str, Any]] = {}
    param_groups: list[dict[str, Any]] = []
    count = 0
    for i, group in enumerate(optimizer.param_groups):
        _require_their_way(optimizer, counterpart, i)
        first = count
        for p in group.parameters:
            for view in range(len(_arrays(p, p.theta))):
                state[count] = {
                    name: torch.from_numpy(np.array(_arrays(p, value)[view], order="C"))
                    if isinstance(value, np.ndarray)
                    else torch.tensor(value)
                    for name, value in _entry(counterpart, group, p).items()
                }
                count += 1
        hyper = {other: group.current[key] for key, other in counterpart.hyper.items()}
        param_groups.append({**template, **hyper, "params": list(range(first, count))})
    return {"state": {index: entry for index, entry in state.items() if entry}, "param_groups": param_groups}


def counterpart_of(optimizer: Optimizer) -> Counterpart:
    """PyTorch's optimizer of the same kind; raise TypeError if there is none."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be one of fastopt's, got {type(optimizer).__name__}")
    try:
        return COUNTERPARTS[type(optimizer)]
    except KeyError:
        known = ", ".join(cls.__name__ for cls in COUNTERPARTS)
        raise TypeError(f"PyTorch has no counterpart of {type(optimizer).__name__}, only of {known}") from None


def _require_their_way(optimizer: Optimizer, counterpart: Counterpart, index: int) -> None:
    """Raise ValueError if a group does what PyTorch's optimizer has no argument for."""
    hyper = optimizer.param_groups[index].hyper
    parameters = inspect.signature(type(optimizer)).parameters
    for key, value in hyper.items():
        if key in (*AROUND, *FORMAT, *counterpart.hyper):
            continue
        default = parameters[key].default if key in parameters else DEFAULTS[key]
        if value is not default and (is_tree(value) or value != default):
            raise ValueError(f"group {index} has {key}={value!r}, which PyTorch's {counterpart.name} can't do")
    if is_tree(hyper["lr"]):
        raise ValueError(f"group {index} has a learning rate for every element, which PyTorch's {counterpart.name} can't have")


def _arrays(p: Parameter, vector: NDArray[Any]) -> list[NDArray[Any]]:
    """Views of a vector of a parameter's size, in the shapes of its tensors."""
    view = p.view(vector)
    return [array for _, array in leaves(view.tree, "")] if isinstance(view, Flat) else [view]


def _entry(counterpart: Counterpart, group: Group, p: Parameter) -> dict[str, Any]:
    """What PyTorch keeps for the tensors of a parameter: vectors and numbers."""
    t = group.step_count
    if t == 0 and counterpart.name != "Adagrad":  # all others make their state at the first step
        return {}
    used = {other: read(p.states[name]) for name, other in counterpart.states.items() if name in group.state_names}
    if counterpart.name == "SGD":
        return used
    scalars = {name: float(group.scalars[name]) for name in counterpart.scalars}
    return {"step": float(t), **scalars, **counterpart.numbers(group.current, t), **used}


def _saved_groups(state_dict: Any, count: int) -> list[tuple[Mapping[str, Any], dict[str, Mapping[str, Any]]]]:
    """The hyper-parameters of each group, and what is kept for each of its parameters, by what messages call it."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        raise TypeError("state_dict must be a state dict of PyTorch, with the keys 'state' and 'param_groups'")
    state, groups = state_dict["state"], state_dict["param_groups"]
    if not isinstance(state, Mapping) or not all(isinstance(entry, Mapping) for entry in state.values()):
        raise TypeError("state_dict['state'] must be a mapping of mappings")
    if not isinstance(groups, (list, tuple)) or not all(
        isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple)) for group in groups
    ):
        raise TypeError("state_dict['param_groups'] must be a list of mappings with the key 'params'")
    if len(groups) != count:
        raise ValueError(f"state_dict must have {count} groups, got {len(groups)}")
    return [({**g}, {f"state_dict['state'][{i!r}]": state.get(i, {}) for i in g["params"]}) for g in groups]


def _take(own: NDArray[Any], saved: Any, name: str) -> None:
    """Copy an array that PyTorch saved."""
    if hasattr(saved, "detach"):
        saved = saved.detach().cpu()
        saved = saved.double() if saved.is_floating_point() else saved  # NumPy has no bfloat16
    array = np.asarray(saved)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    if array.shape != own.shape:
        raise ValueError(f"{name} must have the shape {own.shape}, got {array.shape}")
    own[...] = array


def _steps(entries: list[Mapping[str, Any]], index: int) -> int:
    if not any("step" in entry for entry in entries):  # of SGD
        entries = [{"step": float(entry.get("momentum_buffer") is not None)} for entry in entries]
    steps = _common(entries, "step", 0.0, index)
    if not (steps >= 0 and steps.is_integer()):
        raise ValueError(f"'step' of the parameters of group {index} must be an integer of at least 0, got {steps}")
    return int(steps)


def _common(entries: list[Mapping[str, Any]], name: str, start: float, index: int) -> float:
    """The number that all parameters of a group have under a name."""
    values = {real(repr(name), plain(entry[name])) if name in entry else start for entry in entries}
    if len(values) > 1:
        raise ValueError(f"the parameters of group {index} have different values of {name!r}: {sorted(values)}")
    return values.pop() if values else start


def plain(value: Any) -> Any:
    """A number or tuple of numbers in the place of tensors."""
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    return value.item() if hasattr(value, "item") else value
