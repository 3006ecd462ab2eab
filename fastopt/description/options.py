"""What every optimizer can do besides its own rule: hyper-parameters that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, InitVar
from typing import Any, ClassVar, TypeAlias

from fastopt.description.fields import Fields, argument, hyper
from fastopt.description.hyperparameters import (
    OneOf,
    count_or_none,
    function_or_none,
    integer,
    limit_or_none,
    master_weights,
    nonnegative,
    path_or_none,
    positive_or_none,
    share_or_none,
    state_formats,
)
from fastopt.engine.compile import Rule
from fastopt.engine.transforms import (
    agreement,
    ascending,
    averaging,
    cautious,
    clipping,
    copying,
    decaying,
    excluding,
    flushing,
    holding,
    masked,
    projecting,
    scaling,
    shrinking,
    thresholding,
    zeroing,
)

# A number, or the name of an array that each parameter has of its own: see `Parameter.elements`.
Coefficient = float | str


PARAMS = """Arrays of float32, float64, complex64, complex128, float16 or bfloat16 (of ml_dtypes, or uint16 for its bits), C- or
Fortran-contiguous, aligned, writable, that don't overlap. They are held, and each step updates them in place. A group is a dict
with the key ``"params"`` and hyper-parameters of its own."""

SCHEDULE = "a schedule, called with the number of steps taken so far."
RATE = (
    f"a number; an array in the parameter's shape, nested as the parameters are, with a rate for every element; or {SCHEDULE}"
)
ONE_RATE = f"a number, or {SCHEDULE}"

# A number, an array nested as the parameters are, or a schedule: more than a type can tell of what is read back.
Rate: TypeAlias = Any


class Options(Fields):
    """What every optimizer takes, which each of them may declare again at a place of its own among its arguments."""

    takes_rates: ClassVar[bool] = True
    """Whether the learning rate may be an array."""

    params: Any
    _: KW_ONLY
    lr: Rate = hyper(1e-3, nonnegative, r"Learning rate :math:`\alpha`")  # of arrays see `groups.Group`
    # Not annotated, or to type checkers its place in all optimizers would be this one.
    weight_decay = hyper(
        0.0,
        nonnegative,
        r"""Weight decay :math:`\lambda`: :math:`g + \lambda\theta` takes the place of :math:`g`, or, with
        `decoupled_weight_decay`, :math:`\theta` shrinks by :math:`\alpha\lambda\theta` before the step.""",
    )
    decoupled_weight_decay: bool = hyper(
        False, doc="Let parameters shrink before the step, instead of adding them to the gradient, see `weight_decay`."
    )
    maximize: bool = hyper(False, doc="Step up instead of down; weights decay all the same.")
    clip_norm: float | None = argument(
        None,
        limit_or_none,
        """Limit the norm of all gradients, of all groups together, to this; with infinity it is only computed. In a group,
        limit the norm of the gradients of this group, before that.""",
    )
    clip_value: float | None = hyper(
        None, positive_or_none, "Limit each element of the gradient to this and its negative, see `complex_mode`."
    )
    l1: float = hyper(
        0.0,
        nonnegative,
        r"""After the step, move each element towards 0 by :math:`\alpha` times this, and set it to 0 where it is closer: the
        proximal step of an L1 penalty.""",
    )
    bounds: Any = hyper(
        None,
        doc="""A lower and an upper bound, each None, a number, or arrays nested as the parameters; where the step leads out of
        them, it ends at the bound.""",
        kind="pair",
    )
    project_gradient: bool = hyper(
        False,
        doc="""Where a bound is active, take the part of the gradient that would lead out of it as 0, so that averages don't
        go on pushing there.""",
    )
    ema_decay: Any = hyper(
        None, share_or_none, "Keep an exponential average of the parameters, `ema`, with this decay, in [0, 1]."
    )
    copy_to: Any = hyper(
        None,
        doc="""Write a copy of the parameters there in each step: float32, float64, float16, bfloat16, or uint16 for the bits of
        bfloat16; complex for complex parameters.""",
        kind="arrays nested as the parameters",
    )
    zero_grad: bool = hyper(False, doc="Leave zeros in the gradient.")
    flush_subnormals: bool = hyper(False, doc="Write zero where a state would be subnormal.")
    cautious: bool = hyper(
        False,
        doc="""Step only those elements whose update goes against the gradient, and further, by the share of elements that this
        leaves out of each tensor.""",
    )
    state_dtype: Any = hyper(
        None,
        state_formats,
        """The format in which states are kept: ``"float64"``, ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"``
        (8 bits, and a scale for each 32 numbers), for all but those that hold a copy of the parameters, or a mapping with
        formats by state. By default that in which the rule computes.""",
        kind="str or mapping",
    )
    rounding: str = hyper(
        "nearest",
        OneOf("nearest", "stochastic"),
        """How states of 16 or 8 bits and parameters of 16 bits are rounded: to nearest, or up as often as they are close to the
        number above, by a hash of `seed`, step and element.""",
    )
    seed: int = hyper(0, integer, "Of the noise that stochastic rounding takes.", kind="int")
    master_weights: bool | str = hyper(
        False,
        master_weights,
        """Keep what parameters of 16 bits lose: with True or ``"float32"`` as a float32 copy of them, in the state
        ``theta_master``; with ``"lost bits"`` as the 16 bits that bfloat16 lacks, in the state ``theta_lost``; with
        ``"8 lost bits"`` as the first 8 of them, in ``theta_lost_8``.""",
        kind='bool, "float32", "lost bits" or "8 lost bits"',
    )
    mask: Any = hyper(
        None,
        doc="Elements with False, and their state, stay as they are.",
        kind="array of bool, nested as the parameters",
    )
    frozen: bool = hyper(False, doc="Parameters, state and steps of the group stay as they are; its gradients may be None.")
    nonfinite: str = argument(
        "propagate", OneOf("propagate", "skip", "raise"), "What to do about gradients that are not finite."
    )
    threads: int | None = argument(
        None,
        count_or_none,
        "The most threads that a step takes, where `set_num_threads` allows more; not in state dicts. By default it finds out.",
        kind="int",
    )
    reduction: InitVar[str] = argument(
        "mean", OneOf("mean", "sum"), "What a step takes of accumulated gradients, see `accumulate`."
    )
    complex_mode: InitVar[str] = argument(
        "parts",
        OneOf("parts", "modulus"),
        """Whether rules take real and imaginary parts one by one, or complex numbers, whose products are then real: second
        moments of the modulus. `bounds`, `l1` and `clip_value` then are about the modulus, too, and keep the phase.""",
    )
    reduce: InitVar[Callable[..., Any] | None] = argument(
        None,
        function_or_none,
        """Where several processes step parts of the same parameters: adds an array of float64, shape (n,), over all of them,
        in place, or gives the sums. All sums over elements that a step needs go through it.""",
        kind="callable",
    )
    state_path: InitVar[Any] = argument(
        None,
        path_or_none,
        """Keep the states in this file instead of in memory, where they may be larger than that. A file that an optimizer with
        the same parameters was closed with (`close`) is gone on from as by `load_state_dict`.""",
        kind="path",
    )
    by_name: InitVar[Mapping[str, Mapping[str, Any]] | None] = argument(
        None,
        doc="""Values for parameters in dicts and lists, by patterns for the keys that lead to them, joined by dots:
        ``{"*.bias": {"weight_decay": 0.0}}``. The first pattern that matches counts, as `fnmatch` has it.""",
        kind="mapping",
    )

    @classmethod
    def _described(cls, name: str) -> tuple[str, str]:
        if name == "params":
            kind = "ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups"
            return kind, "float32, float64, float16 or bfloat16; updated in place." if cls.fields else " ".join(PARAMS.split())
        if name == "options":
            return "", "What every optimizer takes besides, see `Optimizer`."
        kind, doc = super()._described(name)
        if name == "lr":
            kind = "float, array or callable" if cls.takes_rates else "float or callable"
            doc += f": {RATE if cls.takes_rates else ONE_RATE}"
        return kind, doc


# Of each group, where `clip_norm` is a limit of its own.
DEFAULTS: dict[str, Any] = {name: field.default for name, field in Options.common.items() if not field.is_whole}
DEFAULTS["clip_norm"] = None
del DEFAULTS["lr"]  # the rate is never off

# Of the optimizer as a whole.
WHOLE: dict[str, Any] = {name: field.default for name, field in Options.common.items() if field.is_whole and name != "by_name"}


class Wrapped:
    """A rule with what some hyper-parameters ask for around it, or a measure with what changes the gradient it sees.

    Parameters
    ----------
    inner : callable
        The rule, or the measure.
    hyper : mapping
        Hyper-parameters; a schedule counts as an option that is on.
    own : collection of str
        Hyper-parameters that the rule itself carries out.
    measures : bool, default False
        Whether it is a measure.
    scales : bool, default False
        Whether the gradient is scaled; then the scale comes after all other coefficients.

    Attributes
    ----------
    rule : callable
        The result.
    names : list of float or str
        What it takes after the rule's own coefficients: constants, and names of hyper-parameters and arrays.
    """

    def __init__(
        self, inner: Rule, hyper: Mapping[str, Any], own: Collection[str], measures: bool = False, scales: bool = False
    ) -> None:
        self.names: list[Coefficient] = []
        if hyper["cautious"]:
            inner = agreement(inner) if measures else cautious(inner)
            self.names += [0.0, 1.0]  # in a rule the second one follows from a sum
        if "weight_decay" not in own and is_on(hyper["weight_decay"]):
            inner = shrinking(inner) if hyper["decoupled_weight_decay"] else decaying(inner)
            self.names += ["weight_decay"]
        if not measures and "l1" not in own and is_on(hyper["l1"]):
            inner = thresholding(inner)
            self.names += ["l1"]
        if not measures and hyper["bounds"] is not None:
            inner = projecting(inner)
            self.names += ["lower", "upper"]
        if not measures and hyper["ema_decay"] is not None:
            inner = averaging(inner)
            self.names += ["ema_decay", "ema_share", 0.5]
        if not measures and hyper["flush_subnormals"]:
            inner = flushing(inner)
        if hyper["mask"] is not None:
            inner = excluding(inner) if measures else masked(inner)
            self.names += [0.0, "mask"] if measures else ["mask"]
        if hyper["project_gradient"] and hyper["bounds"] is not None:
            inner = holding(inner)
            self.names += [0.0, "lower", "upper"]
        if hyper["maximize"]:
            inner = ascending(inner)
        if hyper["clip_value"] is not None:
            inner = clipping(inner)
            self.names += ["clip_value"]
        if scales:
            inner = scaling(inner)
        if not measures and hyper["copy_to"] is not None:
            inner = copying(inner)
        if not measures and hyper["zero_grad"]:
            inner = zeroing(inner)
        self.rule = inner

    def coefficients(self, numbers: Mapping[str, Any]) -> tuple[Coefficient, ...]:
        """What this takes after the rule's own coefficients, with the numbers of hyper-parameters by name."""
        if not self.names:  # as it is for most
            return ()
        values = {name: numbers[name] for name in ("weight_decay", "l1", "clip_value", "ema_decay")}
        if "ema_share" in self.names and not callable(numbers["ema_decay"]):
            values["ema_share"] = 1.0 - numbers["ema_decay"]
        if numbers["bounds"] is not None:
            sides = zip(("lower", "upper"), numbers["bounds"], strict=True)
            values |= {name: side for name, side in sides if isinstance(side, float)}
        return tuple(values.get(name, name) if isinstance(name, str) else name for name in self.names)


def is_on(value: Any) -> bool:
    """Whether a number does anything: a schedule counts as one that does."""
    return callable(value) or value > 0.0
