"""The machine code: whole vectors, packed square roots and divisions, and no double precision in single-precision kernels."""

from __future__ import annotations

import inspect
import platform
import re
from typing import Any

import numpy as np
import pytest

from fastopt.engine.compile import compile_span
from fastopt.optimizers.conventions import normalized
from tests.row import Row
from tests.table import RULES, every_dtype, every_rule, form


def assembly(row: Row, dtype: type, lr_is_array: bool = False, **options: Any) -> str:
    """The assembly of the span, compiled anew: Numba shows none for code from the cache."""
    opt = row.make(np.zeros(8, dtype), **options)
    plan = opt._stepping.settled(opt)
    (variant,) = plan.variants(plan.works[0].update)
    if lr_is_array and row.optimizer.takes_rates:
        variant = variant._replace(reads=(np.dtype(dtype), *variant.reads[1:]))
    return compile_span(variant, is_cached=False)._library.get_asm_str()


@pytest.fixture(autouse=True, scope="module")
def _x86() -> None:
    assert platform.machine() in ("x86_64", "AMD64"), "these tests read x86 assembly"


@pytest.mark.wide(by=lambda row, lr_is_array: (form(row), lr_is_array))
@pytest.mark.parametrize("lr_is_array", [False, True])
@every_rule
def test_no_double_precision_in_a_float32_kernel(row: Row, lr_is_array: bool) -> None:
    text = assembly(row, np.float32, lr_is_array)
    # cvtsd2ss and cvtpd2ps may be there: the coefficients come in double precision, and are cast once, before the loop.
    double = re.findall(r"\bv?(?:add|sub|mul|div|sqrt|min|max|fn?m\w+)[sp]d\b|\bv?cvt(?:ss2sd|ps2pd)\b", text)
    assert double == []
    assert re.search(r"\bv?mulps\b", text)


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_dtype
@every_rule
def test_square_roots_and_divisions_are_packed(row: Row, dtype: type) -> None:
    text = assembly(row, dtype)
    suffix = "ps" if dtype is np.float32 else "pd"
    source = inspect.getsource(row.rule)
    if "normalized(" in source:
        source += inspect.getsource(normalized)
    for operation, sign in {"mul": " * ", "div": " / ", "sqrt": "np.sqrt("}.items():
        if sign in source:
            assert re.search(rf"\bv?{operation}{suffix}\b.*[yz]mm", text), operation


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("row", [row for row in RULES if row.rule.__name__ in ("adam", "adagrad", "lion")], ids=str)
def test_loops_over_pairs_are_packed(row: Row, dtype: type) -> None:
    text = assembly(row, dtype, complex_mode="modulus")
    suffix = "ps" if dtype is np.complex64 else "pd"
    for operation in ("mul", "sub") if row.rule.__name__ == "lion" else ("mul", "sub", "div", "sqrt"):
        assert re.search(rf"\bv?{operation}{suffix}\b.*[yz]mm", text), operation


@pytest.mark.parametrize("options", [{"bounds": (-1.0, 1.0)}, {"clip_value": 1.0}, {"l1": 0.1}], ids=str)
@every_dtype
def test_a_limit_is_one_instruction(dtype: type, options: dict[str, Any]) -> None:
    text = assembly(RULES[0], dtype, **options)
    suffix = "ps" if dtype is np.float32 else "pd"
    for operation in ("min", "max"):
        assert re.search(rf"\bv?{operation}{suffix}\b.*[yz]mm", text), operation
    assert not re.search(rf"\bv?(?:cmp\w*|blend\w*|fpclass){suffix}\b", text)
