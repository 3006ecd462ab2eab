"""What hyper-parameters may be: their checks, and what these make of the values."""

from __future__ import annotations

import difflib
import functools
import math
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

# Gives the value in its plain form, or raises TypeError or ValueError with the name in the message.
Check = Callable[[str, Any], Any]

# Kinds of NumPy's dtypes for dates and differences of them.
TIMES = ("M", "m")


class Number:
    """A check for a real number.

    Parameters
    ----------
    holds : callable
        Whether a number is allowed: a condition that can be compiled, too.
    words : str
        What it must be, for messages.
    """

    def __init__(self, holds: Callable[[float], bool], words: str) -> None:
        self.holds, self.words = holds, words

    def __call__(self, name: str, value: Any) -> float:
        """The number as one of Python's."""
        number = real(name, value)
        if not self.holds(number):
            raise ValueError(f"{name} must be {self.words}, got {value!r}")
        return number

    def or_none(self, name: str, value: Any) -> float | None:
        """The number, or None."""
        try:
            return None if value is None else self(name, value)
        except ValueError:
            raise ValueError(f"{name} must be None or {self.words}, got {value!r}") from None


class Several:
    """A check for a tuple of so many numbers.

    Parameters
    ----------
    count : int
        How many.
    each : Number
        The check of each.
    holds : callable, optional
        Whether the numbers, its arguments, are allowed together.
    words : str, default ""
        What they must be, for messages.
    """

    def __init__(self, count: int, each: Number, holds: Callable[..., bool] | None = None, words: str = "") -> None:
        self._count, self.each, self.holds, self.words = count, each, holds, words

    def __call__(self, name: str, value: Any) -> tuple[float, ...]:
        """The numbers as Python's."""
        if not isinstance(value, (tuple, list)) and len(getattr(value, "shape", ())) != 1:
            raise TypeError(f"{name} must be {self._count} numbers, got {value!r}")
        if len(value) != self._count:
            raise ValueError(f"{name} must be {self._count} numbers, got {len(value)}")
        numbers = tuple(self.each(f"{name}[{i}]", item) for i, item in enumerate(value))
        if self.holds is not None and not self.holds(*numbers):
            raise ValueError(f"{name} must be {self.words}, got {value!r}")
        return numbers


finite = Number(lambda x: -math.inf < x < math.inf, "finite")
positive = Number(lambda x: 0 < x < math.inf, "a finite number of more than 0")
nonnegative = Number(lambda x: 0 <= x < math.inf, "a finite number of at least 0")
nonnegative_or_infinite = Number(lambda x: x >= 0, "at least 0")
decay = Number(lambda x: 0 <= x < 1, "in [0, 1)")
positive_or_none = positive.or_none
limit_or_none = Number(lambda x: x > 0, "a number of more than 0").or_none
share_or_none = Number(lambda x: 0 <= x <= 1, "in [0, 1]").or_none


def decays(count: int) -> Several:
    """A check for a tuple of so many decay rates."""
    return Several(count, decay)


def nonnegatives(count: int) -> Several:
    """A check for a tuple of so many finite numbers of at least 0."""
    return Several(count, nonnegative)


class Range:
    """The numbers of a floating dtype, to which rules get theirs rounded.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    least, most : float
        Rounded to the dtype, numbers between these are neither zero nor infinite.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        info = np.finfo(dtype)
        self.dtype = dtype
        # Half of the smallest number is rounded to zero; half of a last place beyond the largest, to infinity.
        self.least = float(info.smallest_subnormal) / 2
        self.most = float(info.max) + 2.0 ** (info.maxexp - info.nmant - 2)

    def kept(self, name: str, value: Any) -> Any:
        """The value, if no number in it becomes zero that was none, or infinite that was finite; else raise ValueError."""
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not self.least < abs(number) < self.most and number and math.isfinite(number):
                what = f"{number!r}, which is {'0' if abs(number) < 1 else 'infinite'} there"
                raise ValueError(f"{name} must be within the range of {self.dtype}, the parameters' dtype, got {what}")
        return value


def plainly(check: Check | None, within: Range) -> Callable[[Any], bool]:
    """A quick look, which is true only of floats that the check and the range let pass as they are; of nearly all of those."""
    if not isinstance(check, Number):
        return lambda value: False
    holds, least, most = check.holds, within.least, within.most
    return lambda value: type(value) is float and (least < value < most or value == 0.0) and holds(value)


_range_of = functools.cache(Range)


def common_range(dtypes: Iterable[np.dtype[Any]]) -> Range:
    """The range that all of some dtypes have."""
    return min(map(_range_of, dtypes), key=lambda each: each.most, default=_range_of(np.dtype(np.float64)))


def boolean(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def function_or_none(name: str, value: Any) -> Callable[..., Any] | None:
    """Something to call, or None."""
    if not (value is None or callable(value)):
        raise TypeError(f"{name} must be None or callable, got {value!r}")
    return value  # type: ignore[no-any-return]


def path_or_none(name: str, value: Any) -> str | None:
    """The path of a file, or None."""
    if not isinstance(value, (str, os.PathLike, type(None))):
        raise TypeError(f"{name} must be None or a path, got {value!r}")
    return value if value is None else os.fspath(value)


class OneOf:
    """A check for one of some words."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def __call__(self, name: str, value: Any) -> str:
        """The word, if it is one of them."""
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError(f"{name} must be {' or '.join(map(repr, self.choices))}, got {value!r}")
        return value


# In which states may be kept.
INT8 = "int8"
STATE_FORMATS = ("float64", "float32", "bfloat16", "float16", INT8)


def state_formats(name: str, value: Any) -> str | dict[str, str] | None:
    """The format of all states, or those of some by the names of the states."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(state): _state_format(f"{name}[{state!r}]", each) for state, each in value.items()}
    return _state_format(name, value)


def _state_format(name: str, value: Any) -> str:
    """The name of a format, or of a dtype that is one."""
    found = value if isinstance(value, str) else getattr(value, "__name__", getattr(value, "name", None))
    if found not in STATE_FORMATS:
        raise ValueError(f"{name} must be {', '.join(map(repr, STATE_FORMATS[:-1]))} or {STATE_FORMATS[-1]!r}, got {value!r}")
    return str(found)


def master_weights(name: str, value: Any) -> bool | str:
    """Whether, or as what, parameters of 16 bits keep what they lose."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if not isinstance(value, str) or value not in ("float32", "lost bits", "8 lost bits"):
        raise ValueError(f"{name} must be True, False, 'float32', 'lost bits' or '8 lost bits', got {value!r}")
    return value


def real(name: str, value: Any) -> float:
    """Any real number, infinity and NaN too: one of Python, of NumPy, or whatever single value turns into a float."""
    if type(value) is float:
        return value
    try:
        number = _scalar(value)
        if number is not None:
            return float(number)
    except OverflowError:
        raise ValueError(f"{name} must be a finite number, got an integer too large for one") from None
    except (TypeError, ValueError, RuntimeError):  # a symbol without a value, say, or a tensor without memory
        pass
    raise TypeError(f"{name} must be a real number, got {value!r}")


def _scalar(value: Any) -> Any:
    """What can become a float, without the library that it came from; None for what only looks as if it could."""
    # Arrays of one element are arrays, and NumPy gives times as integers, and what is masked as 0.
    if (
        len(getattr(value, "shape", ()))
        or hasattr(value, "mask")
        or getattr(getattr(value, "dtype", None), "kind", None) in TIMES
    ):
        return None
    number = value.item() if hasattr(value, "item") else value
    is_real = hasattr(type(number), "__float__") and not isinstance(number, (bool, np.bool_, np.complexfloating))
    return number if is_real else None


def integer(name: str, value: Any, least: int = 0) -> int:
    """An integer of at least so much: one of Python, of NumPy, or whatever is one without rounding."""
    try:
        number = operator.index(_scalar(value))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return number


def count_or_none(name: str, value: Any) -> int | None:
    """An integer of at least 1, or None."""
    return None if value is None else integer(name, value, 1)


def checked(checks: Mapping[str, Check], name: str, value: Any, label: str | None = None, within: Range | None = None) -> Any:
    """The value in its plain form, if its check lets it pass; without a check any finite number does."""
    check: Check = checks.get(name, finite)
    made = check(label or name, value)
    # Norms are limited in double precision.
    return made if within is None or check is limit_or_none else within.kept(label or name, made)


def is_choice(checks: Mapping[str, Check], name: str) -> bool:
    """Whether a hyper-parameter chooses what is done, so that it can't follow a schedule."""
    check = checks.get(name)
    return check in (boolean, integer, master_weights, state_formats) or isinstance(check, OneOf)


# What other libraries call the same.
ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("learning_rate", "learning_rate_init", "eta", "step_size", "stepsize"), "lr"),
    **dict.fromkeys(("beta", "beta1", "beta2", "beta_1", "beta_2", "b1", "b2"), "betas"),
    **dict.fromkeys(("clipnorm", "global_clipnorm", "max_norm", "max_grad_norm"), "clip_norm"),
    "clipvalue": "clip_value",
    "epsilon": "eps",
    "ema_momentum": "ema_decay",
    "wd": "weight_decay",
}


def hint(unknown: Any, names: Collection[str]) -> str:
    """What somebody may have meant by an unknown name, in brackets for messages; else nothing."""
    if not isinstance(unknown, str):
        return ""
    meant = ELSEWHERE.get(unknown)
    if meant in names:
        return f" (here it is {meant!r})"
    close = difflib.get_close_matches(unknown, names, n=1, cutoff=0.75)
    return f" (did you mean {close[0]!r}?)" if close else ""
