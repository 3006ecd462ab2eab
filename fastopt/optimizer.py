"""The base class: groups, state, step counter. Each optimizer adds its description."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any

from fastopt.arrays.layout import FLOATS, one_of
from fastopt.arrays.name_patterns import grouped
from fastopt.arrays.per_element import is_tree
from fastopt.arrays.tree import map_leaves
from fastopt.description.hyperparameters import checked
from fastopt.description.options import WHOLE
from fastopt.description.recipe import Description
from fastopt.saving import copies, state_dicts, state_files
from fastopt.step.accumulation import Accumulation
from fastopt.step.averages import ema, swap_ema
from fastopt.step.background import Background, progress
from fastopt.step.changes import Changes, OfWhole
from fastopt.step.groups import Group
from fastopt.step.model import Model, checked_all
from fastopt.step.rows import RowSteps, catch_up, step_rows
from fastopt.step.shared_steps import SharedStepping
from fastopt.step.stepping import Stepping
from fastopt.step.turn import Turn

# The attributes of every optimizer.
OWN = ("_accumulation", "_background", "_barred", "_changes", "_model", "_rows", "_stepping", "_turn", "_whole")


class Optimizer(Description):
    """Base class of all optimizers.

    A subclass declares its hyper-parameters by `hyper`, a `rule` with `state_names` (or `choose`, where hyper-parameters choose
    the rule), and overrides `coefficients`, or `decide` with `decision_numbers`; and `initial`, `is_steady`, `measure` with
    `decide_measure` or `measure_coefficients` if it needs them. What is listed here all of them take by keyword, and what they
    don't say themselves is off by default. The options are carried out around the rule, which must not do it again. A group can
    have values of its own, but for `nonfinite`, `threads`, `reduction`, `complex_mode` and `by_name`.

    Raises
    ------
    TypeError, ValueError
        If a parameter can't be updated in place, or a hyper-parameter is not allowed. The message names it.

    Notes
    -----
    Each hyper-parameter is an attribute, too: ``opt.lr`` is the value that all groups have, and raises ValueError if they have
    different ones; then see `param_groups`. Assigning sets it in every group, or, if one refuses it, in none. An array is
    copied when it is assigned, and read-only afterwards. A schedule is called before each step with the number of steps taken
    so far, and returns a number.
    """

    def _build(
        self, groups: Sequence[Mapping[str, Any]], hyper: Mapping[str, Any], whole: Mapping[str, Any], *nesting: Any
    ) -> None:
        """Make everything anew; of the nesting see `Model`."""
        whole = checked_all(type(self), hyper, whole)
        # What groups know of the optimizer: no more than it is before it has any, so that both are freed at once.
        description = type(self).__new__(type(self))
        vars(description).update(self._others())
        changes = Changes()
        model = Model(description, changes, groups, hyper, whole["complex_mode"], whole["state_path"], *nesting)
        self._model, self._changes, self._whole = model, changes, dict(whole)
        self._stepping = (Stepping if whole["reduce"] is None else SharedStepping)(model, changes, self._whole)
        self._rows = RowSteps(model, self._stepping)
        self._accumulation = Accumulation(model, self._stepping.accumulated, self._whole)
        self._background = Background()
        self._turn = Turn()  # to take steps of rows, and to accumulate
        self._barred: str | None = None  # why no step can be taken, but for rows that wait

    def _others(self) -> dict[str, Any]:
        """What a subclass has given the optimizer besides."""
        return {key: value for key, value in vars(self).items() if key not in OWN}

    def _construct(self, params: Any, hyper: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
        own = {key: checked(self.checks, key, value) for key, value in whole.items() if key not in (*WHOLE, "by_name")}
        groups, is_grouped, structure = grouped(params, whole["by_name"])
        self._build(groups, {**hyper, "clip_norm": None}, {key: whole[key] for key in WHOLE}, is_grouped, structure)
        self.begin(**own)
        state_files.go_on(self)

    def step(self, grads: Any = None, scale: float = 1.0, *, lr: Any = None) -> None:
        """Update the parameters and the state in place. After an error, they and the step counter are as they were.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            Gradients of float32, float64, float16 or bfloat16 (complex for complex parameters), nested as the parameters are;
            with groups, a list with the gradients of each. They are only read, unless `zero_grad` asks for zeros. One whose
            elements lie in another order than the parameter's (a transposed array, say) is copied first, to a kept buffer.
            Without `grads` the step takes what `accumulate` has added up.
        scale : float, default 1
            Multiplies the gradients before all else, in the same pass: the reciprocal of what a loss was scaled by, say.
        lr : float, array or callable, optional
            The learning rate of all groups from this step on, as if it had been assigned before.

        Raises
        ------
        TypeError
            If a container or an array is of another kind, a dtype is another one, or a schedule gives no real number.
        ValueError
            If a key or an item is missing or too many, a shape differs, a gradient lies in memory that the step writes to,
            a schedule gives a number that is not allowed, or, with ``nonfinite="raise"``, a gradient is not finite.
        RuntimeError
            While the parameters are swapped with their averages, rows have steps to catch up with (see `step_rows`), or another
            thread takes a step.
        RuleError
            If a rule of one's own doesn't compile.
        """
        if lr is not None:
            self._step_at_rate(grads, scale, lr)
        elif grads is None or self._accumulation.waiting[0] or self._barred:
            self._take_accumulated(grads, scale)
        else:
            self._stepping.take(self, grads, scale)

    ema, swap_ema = ema, swap_ema
    step_rows, catch_up = step_rows, catch_up
    close, progress = state_files.close, progress

    def reset(self) -> None:
        """Begin anew: states, running scalars and counters are as at construction, parameters and hyper-parameters as now.

        States that start from the parameters (``z``, ``start``, averages) start from what they are now. Accumulated gradients
        are forgotten; schedules keep what they remember.

        Raises
        ------
        RuntimeError
            As `state_dict` does.
        """
        self._require_ready()
        self._stepping.reset()

    def rebind(self, params: Any) -> None:
        """Step other arrays from now on, with the states, counters and hyper-parameters as they are.

        Parameters
        ----------
        params : ndarray, Flat, or list, tuple or dict of them, nested
            As many as before, nested as `params` is, with the same shapes and dtypes. Groups are made anew: read `param_groups`
            again.

        Raises
        ------
        TypeError, ValueError
            If they are nested otherwise, or one of them can't take the place of the one before; TypeError, too, if the states
            are in a file. Nothing is changed then.
        RuntimeError
            As `state_dict` does.
        """
        other = copies.restored(type(self), copies.with_other_arrays(self.__getstate__(), self._model, params))
        vars(self).update(vars(other))

    def step_async(self, grads: Any = None, scale: float = 1.0) -> Future[None]:
        """Take a step in a thread in the background, while this one computes something else.

        Steps are taken in the order in which they were asked for. Until one is done, its gradients must not be changed, nor
        the optimizer be used, but for `progress`. Numba's own parallel code must not run meanwhile on its workqueue layer.

        Parameters
        ----------
        grads, scale
            As `step` takes them.

        Returns
        -------
        concurrent.futures.Future
            Its ``result()`` waits for the step, and raises what the step has raised.
        """
        return self._background.submit(self.step, grads, scale)

    def accumulate(self, grads: Any) -> None:
        """Add the gradients of a micro-batch to a buffer of the optimizer's own, from which ``step()`` will take them.

        With ``reduction="mean"`` that step is one with their mean, with ``"sum"`` with their sum. The buffer has the dtypes of
        the parameters. Pending gradients are no part of state dicts, copies and pickles; `discard` forgets them, and so does a
        step that is skipped.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            As `step` takes them; only read.

        Raises
        ------
        TypeError, ValueError
            As `step` does for gradients. Nothing is changed then.
        RuntimeError
            While another thread takes a step, or accumulates.
        """
        with self._turn:
            self._accumulation.add(grads)

    def discard(self) -> None:
        """Forget the gradients that were accumulated since the last step."""
        self._stepping.accumulated[0] = 0

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group of parameters, as in PyTorch. From then on gradients are a list with those of each group.

        Parameters
        ----------
        group : mapping
            With the key ``"params"``, and hyper-parameters of its own; for others the values given at construction hold. Its
            steps are counted from 1.

        Raises
        ------
        TypeError, ValueError
            If a parameter or a hyper-parameter is not allowed, or the optimizer was made with `by_name`. Nothing is changed.
        """
        self._model.add(group)

    @property  # type: ignore[misc]  # to type checkers it is a field
    def params(self) -> Any:
        """The parameter arrays, nested as they were given (with groups, a list with those of each group)."""
        self._changes.is_apart = False  # whoever asks for them has them
        return map_leaves(lambda leaf: leaf, self._model.structure)

    @property
    def param_groups(self) -> tuple[Group, ...]:
        """The groups, each a mapping of hyper-parameters and ``"params"``; assign to its items at any time."""
        return tuple(self._model.groups)

    @property
    def step_count(self) -> int:
        """How many steps were taken."""
        return int(self._stepping.counter[0])

    def _read(self, name: str) -> Any:
        return self._model.common(name)

    def _assign(self, name: str, value: Any) -> None:
        self._model.assign(name, value)

    @property
    def state(self) -> Mapping[str, Any]:
        """The state arrays by name, nested as the parameters are: views of flat buffers (None in a group without it)."""
        return MappingProxyType({name: self._model.state(name) for name in self._model.state_names})

    def warmup(self, gradient_dtype: Any = None) -> None:
        """Compile what the next step will run, or load it from the cache.

        Parameters
        ----------
        gradient_dtype : float32 or float64, optional
            By default each parameter's own.

        Raises
        ------
        TypeError
            If `gradient_dtype` is another one.
        """
        given = None if gradient_dtype is None else one_of("gradient_dtype", gradient_dtype, FLOATS)
        self._stepping.compile(self, {p: given or p.theta.dtype for p in self._model.parameters})

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """All that a later run needs, besides the parameters, to go on with the same bits.

        Parameters
        ----------
        copy : bool, default True
            Whether the arrays are copies; if not, they are views of the state, which the next step changes.

        Returns
        -------
        dict
            Plain Python values, and the state arrays by state and parameter name. A schedule is left out: the optimizer that
            loads the dict keeps its own.

        Raises
        ------
        RuntimeError
            While the parameters are swapped with their averages, or rows have steps to catch up with.
        """
        self._require_ready()
        of_whole = (type(self).__name__, self.step_count, self._whole | {"skipped_steps": self.skipped_steps})
        return state_dicts.save(*of_whole, self._model.groups, copy)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave. The values are copied.

        Parameters
        ----------
        state_dict : mapping
            From an optimizer of the same class, with parameters of the same structure, shapes and dtypes. States that have
            another `state_dtype` here are converted, which a UserWarning says.

        Raises
        ------
        TypeError, ValueError
            If it is damaged or belongs to another optimizer or to other parameters. Nothing is changed then.
        RuntimeError
            As `state_dict` does.
        """
        self._require_ready()
        count, whole = state_dicts.load(type(self).__name__, self.checks, self._model.groups, state_dict)
        self._stepping.go_on(count, whole.pop("skipped_steps"), whole)

    clip_norm = OfWhole()
    nonfinite = OfWhole()
    threads = OfWhole()

    def norm(self, grads: Any) -> float:
        """Compute the norm of all gradients as `grad_norm` has it after a step, without one.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            As `step` takes them; only read.

        Returns
        -------
        float
            With `reduce` that of the gradients of all who take part, who must all ask for it.

        Raises
        ------
        TypeError, ValueError
            As `step` does for gradients.
        RuntimeError
            While another thread takes a step.
        """
        return self._stepping.norm(self, grads)

    @property
    def grad_norm(self) -> float | None:
        """The norm of all gradients of the last step, scaled but not clipped; None if no option, like `clip_norm`, needs it."""
        return self._stepping.last_norm

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped because gradients were not finite."""
        return int(self._stepping.skipped[0])

    def _require_ready(self) -> None:
        if self._barred:
            raise RuntimeError(self._barred)
        self._stepping.missed.require_none()

    def _step_at_rate(self, grads: Any, scale: float, lr: Any) -> None:
        """Take a step with another learning rate, which stays as it was if the step fails."""
        before = [(group, group["lr"]) for group in self._model.groups]
        if is_tree(lr):  # which may be written where those before lie
            before = [(group, copy.deepcopy(rate) if is_tree(rate) else rate) for group, rate in before]
        with self._stepping.telling_failure(self):
            self._assign("lr", lr)
        try:
            Optimizer.step(self, grads, scale)  # not a subclass's, which has called this one
        except BaseException:
            for group, rate in before:
                group["lr"] = rate
            raise

    def _take_accumulated(self, grads: Any, scale: float) -> None:
        """Take a step with the gradients that were added up."""
        with contextlib.ExitStack() as turn:
            with self._stepping.telling_failure(self):
                turn.enter_context(self._turn)
                self._require_ready()
                count = self._accumulation.count if self._whole["reduction"] == "mean" else 1
                taken = self._accumulation.taken(grads)
            self._stepping.take_vectors(self, taken, scale, count)

    def __repr__(self) -> str:
        parts = list(map(repr, self._model.groups))
        parts += [f"{key}={value!r}" for key, value in self._whole.items() if value != WHOLE[key]]
        counts = {"skipped_steps": self.skipped_steps} if self.skipped_steps else {}
        parts += [f"{key}={count}" for key, count in (counts | {"step_count": self.step_count}).items()]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __getstate__(self) -> dict[str, Any]:
        return copies.parts(self._model, self._whole, self._others(), self.state_dict())

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self._restore(copies.with_writable_copies(saved))
        self._changes.is_apart = copies.are_apart(saved, self._model)

    def _restore(self, saved: dict[str, Any]) -> None:
        """Be what `__getstate__` gave."""
        vars(self).update(saved["attributes"])
        self._build(*(saved[key] for key in copies.BUILT_FROM))
        self.load_state_dict(saved["state_dict"])

    def __copy__(self) -> Optimizer:
        return copies.restored(type(self), copies.with_own_schedules(self.__getstate__()))
