"""The machine code: whole vectors, packed square roots and divisions, and no double precision in single-precision kernels."""

from __future__ import annotations

import platform
import re

import numpy as np
import pytest

import fastopt
from fastopt.engine.compile import compiled, jitted

CASES = [
    (fastopt.SGD, {}),
    (fastopt.SGD, {"momentum": 0.9}),
    (fastopt.SGD, {"momentum": 0.9, "nesterov": True}),
    (fastopt.AdaGrad, {}),
    (fastopt.AdaGrad, {"accumulate": "rates"}),
    (fastopt.RMSProp, {}),
    (fastopt.RMSProp, {"accumulate": "rates"}),
    (fastopt.Adam, {}),
]


def assembly(cls: type[fastopt.Optimizer], kwargs: dict[str, object], dtype: str, parallel: bool) -> str:
    """The assembly of the kernel, compiled anew: Numba shows none for code from the cache."""
    opt = cls(np.zeros(8, dtype), **kwargs)
    opt.warmup()
    (kernel,) = opt.param_groups[0].parameters[0].kernels.values()
    variant = kernel.variant._replace(parallel=parallel)
    (text,) = compiled(jitted(variant, cache=False), variant).inspect_asm().values()
    functions = re.split(r"^(?!\.L)(?=[\w.$]+:\s*$)", text, flags=re.MULTILINE)
    # LLVM inlines the span into the kernel or into the parallel region, or doesn't. Only Python's wrappers are left out.
    kernels = [f for f in functions if f.startswith(("_ZN", "__gufunc__")) and not f.startswith("_ZN7cpython")]
    assert kernels
    return "\n".join(kernels)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("cls", "kwargs"), CASES)
def test_no_double_precision_in_a_float32_kernel(
    cls: type[fastopt.Optimizer], kwargs: dict[str, object], parallel: bool
) -> None:
    assert platform.machine() in ("x86_64", "AMD64"), "this test reads x86 assembly"
    text = assembly(cls, kwargs, "float32", parallel)
    # cvtsd2ss may be there: the coefficients come in double precision, and are cast once, before the loop.
    double = re.findall(r"\bv?(?:add|sub|mul|div|sqrt|min|max|fn?m\w+)[sp]d\b|\bv?cvt(?:ss2sd|ps2pd|pd2ps)\b", text)
    assert double == []
    assert re.search(r"\bv?mulps\b", text)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cls", "kwargs"), [case for case in CASES if case[0] is not fastopt.SGD])
def test_square_roots_and_divisions_are_packed(
    cls: type[fastopt.Optimizer], kwargs: dict[str, object], dtype: str, parallel: bool
) -> None:
    text = assembly(cls, kwargs, dtype, parallel)
    suffix = "ps" if dtype == "float32" else "pd"
    assert re.search(rf"\bv?div{suffix}\b.*[yz]mm", text)
    if kwargs.get("accumulate") != "rates":
        assert re.search(rf"\bv?sqrt{suffix}\b.*[yz]mm", text)
