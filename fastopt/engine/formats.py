"""Formats in which numbers lie in memory, where these are not the numbers that Numba computes with.

A format is one thing in one place: the dtype of its arrays, and how a number of it is read and written. Compiled code has its
arrays as integers, together with their format; all else that knows of formats is `engine.storage`, which loads and stores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, make_attribute_wrapper, models, register_model, typeof_impl
from numpy.typing import NDArray

from fastopt.engine.jitable import implementation_of
from fastopt.engine.rounding import (
    from_bfloat16,
    from_float16,
    to_bfloat16,
    to_bfloat16_stochastic,
    to_float16,
    to_float16_stochastic,
)


class Format(NamedTuple):
    """How numbers lie in memory, and how they are read and written.

    Attributes
    ----------
    name : str
    bits : type
        The NumPy integer type that compiled code has in place of them.
    decode, encode : callable
        ``decode(bits)`` gives a float32; ``encode(x)``, or ``encode(x, noise)`` if rounding is stochastic, gives bits.
    is_stochastic : bool
        Whether it is.
    is_paired : bool
        Whether two numbers, the parts of a complex one, lie side by side.
    """

    name: str
    bits: type
    decode: Callable[[Any], Any]
    encode: Callable[..., Any]
    is_stochastic: bool = False
    is_paired: bool = False


# By the dtype of arrays. uint16 stands for bfloat16, whose dtype NumPy knows only from others.
FORMATS: Mapping[np.dtype[Any], Format] = {
    np.dtype(np.float16): Format("float16", np.uint16, from_float16, to_float16),
    np.dtype(np.uint16): Format("bfloat16", np.uint16, from_bfloat16, to_bfloat16),
}
STOCHASTIC: Mapping[str, Callable[..., Any]] = {"float16": to_float16_stochastic, "bfloat16": to_bfloat16_stochastic}


@functools.cache
def plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that stands for the same format without the help of other packages."""
    if dtype.names is not None:
        return np.dtype([(name, plain(dtype[name])) for name in dtype.names])
    return np.dtype(np.uint16) if dtype.name == "bfloat16" else dtype


def bfloat16() -> np.dtype[Any]:
    """The dtype of ml_dtypes for bfloat16; where that is missing, uint16, for the bits."""
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype(np.uint16)
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def kind_of(dtype: np.dtype[Any], is_stochastic: bool = False) -> Any:
    """What compiled code is told about arrays of a dtype: a NumPy scalar type, or a format."""
    number = dtype if dtype.names is None else dtype[0]
    if number not in FORMATS:
        return number.type
    chosen = FORMATS[number]._replace(is_paired=dtype.names is not None)
    return chosen._replace(encode=STOCHASTIC[chosen.name], is_stochastic=True) if is_stochastic else chosen


def label(dtype: np.dtype[Any]) -> str:
    """A short name for a dtype."""
    return dtype.str[1:] if dtype.names is None else f"p{dtype[0].str[1:]}"


@functools.cache
def computing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which rules compute with numbers of some dtype."""
    return np.dtype(np.float32) if plain(dtype) in FORMATS else dtype


def encoded(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of float32 or float64 as spans write it to one of some dtype."""
    with np.errstate(all="ignore"):
        known = FORMATS.get(plain(dtype))
        return array.astype(dtype) if known is None else known.encode(array).view(dtype)


def decoded(array: NDArray[Any]) -> NDArray[Any]:
    """An array of any dtype as spans read it: of 16-bit numbers those of float32, else itself."""
    known = FORMATS.get(plain(array.dtype))
    if known is None:
        return array
    with np.errstate(all="ignore"):
        return known.decode(np.atleast_1d(array.view(known.bits))).reshape(array.shape)  # type: ignore[no-any-return]


def converted_to(dtype: np.dtype[Any], array: NDArray[Any]) -> NDArray[Any]:
    """The numbers of an array in another format; of complex ones each part by itself."""
    if array.dtype == dtype:
        return array
    if dtype.kind != "c" and dtype.names is None:
        return encoded(decoded(array), dtype)
    made = np.zeros(array.shape, dtype)
    for part in ("real", "imag"):
        given = array[part] if array.dtype.names else getattr(array, part)
        if dtype.names:
            made[part] = encoded(decoded(given), dtype[0])
        else:
            setattr(made, part, decoded(given))
    return made


class FormatType(types.Dummy):  # type: ignore[misc]
    """The type of a format in compiled code, which is all that is known of it there."""

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__(name=f"Format({form.name}, {form.is_stochastic}, {form.is_paired})")


register_model(FormatType)(models.OpaqueModel)


@typeof_impl.register(Format)
def _typeof(value: Format, context: Any) -> FormatType:
    return FormatType(value)


@lower_constant(FormatType)
def _constant(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.get_dummy_value()


class Formatted(NamedTuple):
    """An array of integers with their format, without a compiler."""

    array: NDArray[Any]
    form: Format


class FormattedType(types.Type):  # type: ignore[misc]
    """An array of integers with their format."""

    def __init__(self, array: Any, form: Format) -> None:
        self.array, self.form = array, form
        super().__init__(name=f"Formatted({array}, {FormatType(form).name})")


@register_model(FormattedType)
class _FormattedModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("array", kind.array)])


make_attribute_wrapper(FormattedType, "array", "array")


def formatted(array: Any, kind: Any) -> Any:
    """An array of integers with their format."""
    return Formatted(array, kind)


@intrinsic
def _formatted(typing_context: Any, array: Any, kind: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = cgutils.create_struct_proxy(signature.return_type)(context, builder)
        made.array = arguments[0]
        return made._getvalue()

    return FormattedType(array, kind.form)(array, kind), generate


@implementation_of(formatted)
def _compiled_formatted(array: Any, kind: Any) -> Callable[..., Any]:
    return lambda array, kind: _formatted(array, kind)


def array_of(source: Any) -> Any:
    """The array of one with its format, and any other as it is."""
    return source.array if isinstance(source, Formatted) else source


@implementation_of(array_of)
def _array_of(source: Any) -> Callable[..., Any]:
    return (lambda source: source.array) if isinstance(source, FormattedType) else (lambda source: source)
