"""The base class: groups, state, step counter. Each optimizer adds its recipe."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from fastopt import checkpoint, survey
from fastopt.adapting import Progress, adapted, measured, warm
from fastopt.arrays import FLOATS, one_of
from fastopt.assembly import Assembly
from fastopt.flat import equal
from fastopt.groups import Group, Launch
from fastopt.hyperparameters import finite, hint
from fastopt.options import DEFAULTS, WHOLE, Options
from fastopt.parameters import Parameter
from fastopt.partition import are_groups, partition
from fastopt.schedules.nested import remembers
from fastopt.training import Training
from fastopt.tree import map_leaves


class Optimizer(Training):
    r"""Base class of all optimizers.

    A subclass gives hyper-parameters to ``super().__init__`` and overrides `choose` and `coefficients`; `initial`, `advance`,
    `measure`, `measure_coefficients` and `is_steady` if it needs them. The options that all optimizers have are carried out
    around its rule, which must not do it again.

    Parameters
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        Arrays of float32, float64, complex64 or complex128, C- or Fortran-contiguous, aligned, writable, that don't overlap.
        They are held, and each step updates them in place. A group is a dict with the key ``"params"`` and hyper-parameters
        of its own.
    options : mapping, optional
        What every optimizer takes besides, which is off by default. A group can have values of its own, but for the last
        four.

        - ``weight_decay`` (float): coupled weight decay :math:`\lambda`, unless the optimizer says otherwise:
          :math:`g + \lambda\theta` takes the place of :math:`g`.
        - ``decoupled_weight_decay`` (bool): instead, :math:`\theta` shrinks by :math:`\alpha\lambda\theta` before the step.
        - ``maximize`` (bool): step up instead of down; weights decay all the same.
        - ``clip_norm`` (float): limit the norm of all gradients, of all groups together, to this; with infinity it is only
          computed. In a group, limit the norm of the gradients of this group, before that.
        - ``clip_value`` (float): limit each element of the gradient to this and its negative.
        - ``l1`` (float): after the step, move each element towards 0 by :math:`\alpha` times this, and set it to 0 where it
          is closer: the proximal step of an L1 penalty.
        - ``bounds`` (pair): a lower and an upper bound, each None, a number, or arrays nested as the parameters; where the step
          leads out of them, it ends at the bound.
        - ``ema_decay`` (float): keep an exponential average of the parameters, `ema`, with this decay, in [0, 1].
        - ``copy_to`` (arrays nested as the parameters): write a copy of the parameters there in each step: float32, float64,
          float16, bfloat16, or uint16 for the bits of bfloat16; complex for complex parameters.
        - ``zero_grad`` (bool): leave zeros in the gradient.
        - ``flush_subnormals`` (bool): write zero where a state would be subnormal.
        - ``cautious`` (bool): step only those elements whose update goes against the gradient, and further, by the share of
          elements that this leaves out of each tensor.
        - ``mask`` (array of bool, nested as the parameters): elements with False, and their state, stay as they are.
        - ``frozen`` (bool): parameters, state and steps of the group stay as they are; its gradients may be None.
        - ``by_name`` (mapping): values for parameters in dicts and lists, by patterns for the keys that lead to them, joined by
          dots: ``{"*.bias": {"weight_decay": 0.0}}``. The first pattern that matches counts, as `fnmatch` has it.
        - ``nonfinite`` ({"propagate", "skip", "raise"}): what to do about gradients that are not finite.
        - ``reduction`` ({"mean", "sum"}): what a step takes of accumulated gradients, see `accumulate`.
        - ``complex_mode`` ({"parts", "modulus"}): whether rules take real and imaginary parts one by one, or complex numbers,
          whose products are then real: second moments of the modulus.
    **hyper
        Hyper-parameters, with their values for all groups that don't set them.

    Raises
    ------
    TypeError, ValueError
        If a parameter can't be updated in place, or a hyper-parameter is not allowed. The message names it.
    """

    def __init__(self, params: Any, *, options: Options | None = None, **hyper: Any) -> None:
        given: dict[str, Any] = dict(options or {})
        by_name = given.pop("by_name", None)
        whole = {key: given.pop(key, value) for key, value in WHOLE.items()}
        if unknown := [key for key in given if key not in DEFAULTS]:
            names = [*(hyper | DEFAULTS | WHOLE), "by_name"]
            what = f"{unknown[0]!r}{hint(unknown[0], names)}"
            raise TypeError(f"{type(self).__name__} has no argument {what}; it takes {', '.join(names)}")
        if twice := [key for key in given if key in hyper]:
            raise TypeError(f"{type(self).__name__} sets {twice[0]} itself")
        hyper = {**hyper, **{key: given.get(key, value) for key, value in DEFAULTS.items() if key not in hyper}}
        if is_grouped := are_groups(params):
            if by_name is not None:
                raise ValueError("by_name is for parameters that are not in groups; give each group its own values")
            groups = list(params)
        else:
            groups = [{"params": params}] if by_name is None else partition(params, by_name)
        self._build(groups, hyper, whole, is_grouped, structure=params if by_name is not None else None)

    def step(self, grads: Any = None, scale: float = 1.0) -> None:
        """Update the parameters and the state in place.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            Gradients of float32 or float64 (complex for complex parameters), nested as the parameters are; with groups, a list
            with the gradients of each group. They are only read, unless `zero_grad` asks for zeros. A gradient whose elements
            lie in another order than the parameter's (a transposed array, say) is copied first, to a buffer that is kept.
            Without `grads` the step takes what `accumulate` has added up.
        scale : float, default 1
            Multiplies the gradients before all else, in the same pass: the reciprocal of what a loss was scaled by, say.

        Raises
        ------
        TypeError
            If a container or an array is of another kind, a dtype is another one, or a schedule gives no real number.
        ValueError
            If a key or an item is missing or too many, a shape differs, a gradient lies in memory that the step writes to,
            a schedule gives a number that is not allowed, or, with ``nonfinite="raise"``, a gradient is not finite.
        RuntimeError
            While the parameters are swapped with their averages.
        RuleError
            If a rule of one's own doesn't compile.

        Notes
        -----
        After an error, parameters, state and step counter are as they were.
        """
        # What most steps are, without anything around it: for small arrays the way there takes longer than the work.
        if (plain := self._plain) is not None and grads is not None and type(scale) is float and scale == 1.0:
            group, p = plain
            g = p.gradient("grads", grads)
            coefficients = self._coefficients(group) if group.steady is None else group.steady
            kernel = p.kernels.get(g.dtype) or group.kernel(p, g.dtype, coefficients)
            (kernel.run or kernel.prepare())(p.arrays, g, p.elements.get("lr", group.current["lr"]), coefficients)
            group.step_count += 1
            self._step_count += 1
        else:
            self._step(grads, scale)

    def _step(self, grads: Any, scale: float) -> None:
        """Take a step with all that may be around the update."""
        if type(scale) is not float or scale != 1.0:
            scale = finite("scale", scale)
        if self._has_schedules:
            self._follow_schedules()
        if grads is None or self._accumulation.count or self._is_swapped:
            vectors, scale = self._accumulated(grads, scale)
        elif self._is_lone:
            (p,) = self._parameters
            vectors = {p: p.gradient("grads", grads)}
        else:
            vectors = self._vectors(grads, "grads")
        if scale != 1.0:
            self._start_scaling()
        active = self._active
        apart = self._require_zeroable(vectors, grads) if self._zeroes else ()
        for group in active:
            group.scale = scale
        if self._surveys and not self._pass(vectors, apart):
            return
        launches, progress = self._launches(active, vectors)
        # Nothing has changed so far, and nothing can fail from here on.
        for run, arguments in launches:
            run(*arguments)
        for kept, scalars_of_step in progress:
            kept.update(scalars_of_step)
        for array in apart:
            array[...] = 0
        for group in active:
            group.step_count += 1
        self._step_count += 1
        self.discard()

    def _launches(self, active: Sequence[Group], vectors: Mapping[Parameter, NDArray[Any]]) -> tuple[list[Launch], Progress]:
        """What updates each parameter, and the scalars to keep afterwards."""
        sums = measured(self, active, vectors) if self._measures else {}
        launches: list[Launch] = []
        progress: Progress = []
        for group in active:
            if group.adapts:
                each, scalars = adapted(self, group, sums)
                progress += scalars
                launches += [group.launch(p, vectors[p], each[p]) for p in group.parameters]
                continue
            coefficients = self._coefficients(group) if group.steady is None else group.steady
            if group.scales:
                coefficients += (group.scale,)
            if self._is_grouped:
                # With one group a wrong number fails at the first launch, with several after others may have run.
                group.require_numbers(coefficients)
            launches += [group.launch(p, vectors[p], coefficients) for p in group.parameters]
        return launches, progress

    def _coefficients(self, group: Group) -> tuple[Any, ...]:
        """What the kernels of a group take in its next step, but for the scale."""
        t = group.step_count + 1
        coefficients = self.coefficients(group.current, t) + group.option_coefficients
        if self.is_steady(group.hyper, t) and not group.schedules:
            group.steady = coefficients
        return coefficients

    def step_async(self, grads: Any = None, scale: float = 1.0) -> Future[None]:
        """Take a step in a thread in the background, while this one computes something else.

        Steps of one optimizer are taken one after the other, in the order in which they were asked for. Until one is done, its
        gradients must not be changed, and the parameters, the state and the optimizer must not be used otherwise. Parallel
        code of one's own, compiled by Numba, must not run meanwhile where Numba has its workqueue layer.

        Parameters
        ----------
        grads, scale
            As `step` takes them.

        Returns
        -------
        concurrent.futures.Future
            Its ``result()`` waits for the step, and raises what the step has raised.
        """
        process = os.getpid()  # in a forked child the thread is not there
        if self._background is None or self._background[0] != process:
            self._background = process, ThreadPoolExecutor(max_workers=1, thread_name_prefix="fastopt")
        return self._background[1].submit(self.step, grads, scale)

    @property
    def params(self) -> Any:
        """The parameter arrays, nested as they were given (with groups, a list with those of each group)."""
        return map_leaves(lambda leaf: leaf, self._structure)

    @property
    def param_groups(self) -> tuple[Group, ...]:
        """The groups, each a mapping of hyper-parameters and ``"params"``; assign to its items at any time."""
        return tuple(self._groups)

    @property
    def step_count(self) -> int:
        """How many steps were taken."""
        return self._step_count

    @property
    def lr(self) -> Any:
        """The learning rate: a number, an array in the parameter's shape (nested as they are), or a schedule.

        A schedule is called before each step with the number of steps taken so far, and returns a number. An array is copied
        when it is assigned, and read-only afterwards. Assigning sets the rate of every group.

        Raises
        ------
        ValueError
            On reading, if groups have different rates: then see `param_groups`.
        """
        first, *others = [group["lr"] for group in self._groups]
        if not all(equal(first, lr) for lr in others):
            raise ValueError("the groups have different learning rates; read param_groups[i]['lr']")
        return first

    @lr.setter
    def lr(self, value: Any) -> None:
        for group, hyper in [(group, group.check({"lr": value})) for group in self._groups]:
            group.commit(hyper)

    @property
    def state(self) -> Mapping[str, Any]:
        """The state arrays by name, nested as the parameters are: views of flat buffers (None in a group without it)."""
        return MappingProxyType({name: self._state(name) for name in self._state_names})

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
        gradients = {p: given or p.theta.dtype for p in self._parameters}
        self._follow_schedules()
        for group in self._groups:
            warm(self, group, gradients)
            if self._surveys:
                survey.warm(group, gradients)

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs, besides the parameters, to go on with the same bits.

        Returns
        -------
        dict
            Plain Python values, and copies of the state arrays by state and parameter name. A schedule is left out: the
            optimizer that loads the dict keeps its own.
        """
        self._require_unswapped()
        return checkpoint.save(type(self).__name__, self._step_count, self._whole(), self._groups)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave. The values are copied.

        Parameters
        ----------
        state_dict : mapping
            From an optimizer of the same class, with parameters of the same structure, shapes and dtypes.

        Raises
        ------
        TypeError, ValueError
            If it is damaged or belongs to another optimizer or to other parameters. Nothing is changed then.
        """
        self._require_unswapped()
        self._step_count, whole = checkpoint.load(type(self).__name__, self.checks, self._groups, state_dict)
        self._skipped_steps = whole.pop("skipped_steps")
        self._reduction = whole.pop("reduction")
        self._survey = survey.Survey(whole["clip_norm"], whole["nonfinite"])
        self._accumulation.clear()
        for group in self._groups:
            group.fill_copies()  # parameters may have been loaded before
        self._note_changes()

    def _whole(self) -> dict[str, Any]:
        """What belongs to no group."""
        return {
            "clip_norm": self.clip_norm,
            "nonfinite": self.nonfinite,
            "reduction": self._reduction,
            "complex_mode": self._complex_mode,
            "skipped_steps": self._skipped_steps,
        }

    def __repr__(self) -> str:
        parts = list(map(repr, self._groups))
        parts += [f"{key}={value!r}" for key, value in self._whole().items() if value != WHOLE.get(key, 0)]
        return f"{type(self).__name__}({', '.join(parts)}, step_count={self._step_count})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "groups": [dict(group) for group in self._groups],
            "defaults": dict(self._defaults),
            "whole": {key: value for key, value in self._whole().items() if key in WHOLE},
            "is_grouped": self._is_grouped,
            "structure": self._structure if self._by_name else None,
            # Not those of the present rule: momentum may have been switched off since.
            "state_names": [group.state_names for group in self._groups],
            "paired": self._paired,
            "state_dict": self.state_dict(),
            "attributes": {key: value for key, value in vars(self).items() if key not in Assembly.__annotations__},
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved["attributes"])
        kept = (saved[key] for key in ("groups", "defaults", "whole", "is_grouped", "structure", "state_names", "paired"))
        self._build(*kept)
        self.load_state_dict(saved["state_dict"])

    def __copy__(self) -> Optimizer:
        saved = self.__getstate__()
        memo: dict[int, Any] = {}
        for hyper in (*saved["groups"], saved["defaults"]):  # what schedules remember is the copy's own, too
            hyper |= {key: copy.deepcopy(value, memo) for key, value in hyper.items() if remembers(value)}
        copied = type(self).__new__(type(self))
        copied.__setstate__(saved)
        return copied

    def _follow_schedules(self) -> None:
        """Call each schedule once, before all else: it is the caller's code, and may change arrays and the optimizer."""
        schedules = {id(s): s for group in self._groups for s in group.schedules.values()}
        if not schedules:
            return
        values = {key: schedule(self._step_count) for key, schedule in schedules.items()}
        for group in self._groups:
            if group.schedules:
                given = {key: values[id(s)] for key, s in group.schedules.items() if id(s) in values}
                group.follow(given, self._step_count)


def warmup(*optimizers: Optimizer, gradient_dtype: Any = None) -> None:
    """Compile what the next step of some optimizers will run, or load it from the cache, so that no step waits for it.

    Parameters
    ----------
    *optimizers : Optimizer
        With the parameters they will step: their sizes and dtypes decide which kernels are needed.
    gradient_dtype : float32 or float64, optional
        By default each parameter's own.

    Raises
    ------
    TypeError
        If `gradient_dtype` is another one.
    """
    for optimizer in optimizers:
        optimizer.warmup(gradient_dtype)
