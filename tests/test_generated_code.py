"""The machine code: whole vectors, packed square roots and divisions, and no double precision in single-precision kernels."""

from __future__ import annotations

import inspect
import platform
import re

import numpy as np
import pytest

from fastopt.engine.compile import compiled, jitted
from fastopt.optimizers.conventions import normalized
from tests.row import Row
from tests.table import every_dtype, every_rule, form


def assembly(row: Row, dtype: type, parallel: bool, lr_is_array: bool = False) -> str:
    """The assembly of the kernel, compiled anew: Numba shows none for code from the cache."""
    opt = row.make(np.zeros(8, dtype))
    opt.warmup()
    (kernel,) = opt.param_groups[0].parameters[0].kernels.values()
    variant = kernel.variant._replace(parallel=parallel, lr_is_array=lr_is_array and row.optimizer.takes_rates)
    (text,) = compiled(jitted(variant, cache=False), variant).inspect_asm().values()
    functions = re.split(r"^(?!\.L)(?=[\w.$]+:\s*$)", text, flags=re.MULTILINE)
    # LLVM inlines the span into the kernel or into the parallel region, or doesn't. Only Python's wrappers are left out.
    kernels = [f for f in functions if f.startswith(("_ZN", "__gufunc__")) and not f.startswith("_ZN7cpython")]
    assert kernels
    return "\n".join(kernels)


@pytest.fixture(autouse=True, scope="module")
def _x86() -> None:
    assert platform.machine() in ("x86_64", "AMD64"), "these tests read x86 assembly"


@pytest.mark.wide(by=lambda row, parallel, lr_is_array: (form(row), parallel, lr_is_array))
@pytest.mark.parametrize(("parallel", "lr_is_array"), [(False, False), (True, False), (False, True)])
@every_rule
def test_no_double_precision_in_a_float32_kernel(row: Row, parallel: bool, lr_is_array: bool) -> None:
    text = assembly(row, np.float32, parallel, lr_is_array)
    # cvtsd2ss and cvtpd2ps may be there: the coefficients come in double precision, and are cast once, before the loop.
    double = re.findall(r"\bv?(?:add|sub|mul|div|sqrt|min|max|fn?m\w+)[sp]d\b|\bv?cvt(?:ss2sd|ps2pd)\b", text)
    assert double == []
    assert re.search(r"\bv?mulps\b", text)


@pytest.mark.wide(by=lambda row, dtype, parallel: (form(row), dtype, parallel))
@pytest.mark.parametrize("parallel", [False, True])
@every_dtype
@every_rule
def test_square_roots_and_divisions_are_packed(row: Row, dtype: type, parallel: bool) -> None:
    text = assembly(row, dtype, parallel)
    suffix = "ps" if dtype is np.float32 else "pd"
    source = inspect.getsource(row.rule)
    if "normalized(" in source:
        source += inspect.getsource(normalized)
    for operation, sign in {"mul": " * ", "div": " / ", "sqrt": "np.sqrt("}.items():
        if sign in source:
            assert re.search(rf"\bv?{operation}{suffix}\b.*[yz]mm", text), operation
