"""Without a compiler everything works, slowly, and gives the bits that compiled code gives; one warning says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numba
import numpy as np
import pytest

import fastopt
from fastopt.engine.sums import BLOCK, LANES
from fastopt.minimization import points
from tests import fresh
from tests.table import RULES, with_one_nan

SIZES = (1, 33, 600)


def arrays(seed: int, dtype: Any = np.float32, sizes: Any = SIZES) -> list[Any]:
    """Random numbers, NaN and subnormal ones among them."""
    rng = np.random.default_rng(seed)
    made = [rng.normal(size=size).astype(dtype) for size in sizes]
    made[-1][3:5] = np.nan, 1e-39
    return made


def stepped(optimizer: Any, gradients: Callable[[int], Any], steps: int = 3) -> list[Any]:
    for t in range(steps):
        optimizer.step(gradients(t))
    return [optimizer.params, dict(optimizer.state), optimizer.step_count, optimizer.skipped_steps, optimizer.grad_norm]


def with_options(cls: Any = fastopt.Adam, dtype: Any = np.float32, **options: Any) -> list[Any]:
    return stepped(cls(arrays(0, dtype), lr=0.01, **options), lambda t: arrays(1 + t, dtype))


def in_groups() -> list[Any]:
    first, second = arrays(0), arrays(1)
    groups = [{"params": first, "clip_norm": 0.5}, {"params": second, "lr": 0.1, "clip_norm": 2.0, "weight_decay": 0.1}]
    optimizer = fastopt.AdamW(groups, lr=fastopt.schedules.Cosine(0.1, 5), clip_norm=1.0)
    return stepped(optimizer, lambda t: [[np.nan_to_num(g) for g in arrays(2 + t)], [np.nan_to_num(g) for g in arrays(9 + t)]])


def accumulated() -> list[Any]:
    optimizer = fastopt.RMSProp(arrays(0), lr=0.1)
    for t in range(3):
        optimizer.accumulate(arrays(1 + t))
    optimizer.step()
    return [optimizer.params, dict(optimizer.state)]


def averaged() -> list[Any]:
    optimizer = fastopt.SGD(arrays(0), lr=0.1, ema_decay=0.75)
    before = stepped(optimizer, lambda t: arrays(1 + t))
    with optimizer.swap_ema():
        return [before, [np.copy(each) for each in optimizer.params]]


def narrow(dtype: Any, cls: Any = fastopt.Adam, **options: Any) -> list[Any]:
    """Parameters and gradients of 16 bits."""
    gradients = [arrays(1 + t, dtype) for t in range(3)]
    return [*stepped(cls(arrays(0, dtype), lr=0.01, **options), lambda t: gradients[t]), gradients]


def complex_numbers(mode: str, **options: Any) -> list[Any]:
    theta = [real + 1j * real[::-1] for real in arrays(0, sizes=(1, 5, 300))]
    gradients = [real - 1j * real for real in arrays(1, sizes=(1, 5, 300))]
    return stepped(fastopt.Adam(theta, lr=0.1, complex_mode=mode, clip_norm=1.0, **options), lambda t: gradients)


def copied() -> list[Any]:
    copies = [np.zeros(size, np.float16) for size in SIZES]
    return [with_options(copy_to=copies), copies]


def flat() -> list[Any]:
    params = fastopt.flatten({"W": np.ones((5, 7)), "b": np.zeros(3)})
    grads = params.like()
    grads.buffer[...] = np.linspace(-1.0, 1.0, params.buffer.size)
    return [*stepped(fastopt.LAMB(params, lr=0.1), lambda t: grads)[2:], params.buffer]


def zeroed() -> list[Any]:
    gradients = arrays(1)
    return [stepped(fastopt.SGD(arrays(0), lr=0.1, zero_grad=True), lambda t: gradients), gradients]


def long_sums() -> list[Any]:
    theta, g = np.ones(3 * BLOCK + LANES + 7, np.float32), np.linspace(-1, 1, 3 * BLOCK + LANES + 7)
    return stepped(fastopt.Adam(theta, lr=0.1, clip_norm=1.0, cautious=True), lambda t: g)


def inside_of_compiled_code() -> list[Any]:
    adam = fastopt.embed(fastopt.Adam, np.float32, lr=0.1, weight_decay=0.01)
    rule, values, step = adam.rule, adam.values, adam.step

    @numba.njit(error_model="numpy")
    def fit(theta: Any, m: Any, v: Any, table: Any) -> None:
        for row in table:
            numbers = values(row)
            for i in range(theta.size):
                theta[i], m[i], v[i] = rule(theta[i], theta[i], numbers[0], m[i], v[i], *numbers[1:])
            step(theta, theta.copy(), (m, v), row, 0, theta.size)

    theta = np.linspace(-1, 1, 40, dtype=np.float32)
    states = adam.states(theta)
    fit(theta, *states, adam.table(5))
    return [theta, *states]


def touched(lazy: bool, **options: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    table, bias = rng.normal(size=(30, 40)).astype(np.float32), np.ones(5, np.float32)
    optimizer = fastopt.Adam([table, bias], lr=0.1, clip_norm=1.0, **options)
    for _ in range(4):
        rows, grads = rng.integers(0, 30, 9), rng.normal(size=(9, 40)).astype(np.float32)
        optimizer.step_rows([rows, None], [grads, np.ones(5, np.float32)], lazy=lazy)
    optimizer.catch_up()
    return [optimizer.params, dict(optimizer.state), optimizer.step_count, optimizer.grad_norm]


def minimized() -> list[Any]:
    result = fastopt.minimize(lambda x: ((x - 3) ** 2).sum(), [0.0, 1.0], jac=lambda x: 2 * (x - 3), bounds=[(0, 2), (0, 9)])
    return [result.x, result.nit, result.success]


def large_points(dtype: Any) -> list[Any]:
    """Points that are copied around the caches, and looked at for what is not finite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "LARGE_BYTES", 0)
        slopes, start, few = (0.5, np.nan), np.ones(3001, dtype), {"maxiter": 3}
        results = [fastopt.minimize(np.sum, start, jac=lambda x, g=g: np.full_like(x, g), options=few) for g in slopes]
    return [[each.x, each.nit, each.status] for each in results]


def out_of_range() -> list[Any]:
    """Gradients whose squares are no float64, or all zero."""
    optimizer = fastopt.SGD([np.zeros(3), np.zeros(2)], lr=0.1, clip_norm=1.0)
    sizes = iter([(1e-200, 0.0), (1e200, 1.0), (0.0, 0.0), (1.0, 1e-200)])
    return stepped(optimizer, lambda t: [np.full(size, g) for size, g in zip((3, 2), next(sizes), strict=True)], 4)


@fastopt.rule(state="p", hyper="lr beta=0.9")
def own(theta, g, lr, p, beta, one_minus_beta):
    p = np.where(g > theta, p, beta * p + one_minus_beta * np.exp(-np.abs(g)))
    return theta - lr * np.sign(p) * g, p


def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is done in both ways, by names."""
    for row in RULES:
        yield str(row), lambda row=row: stepped(row.make(arrays(0), lr=0.01), lambda t: arrays(1 + t))
    yield "float64", lambda: with_options(dtype=np.float64, weight_decay=0.1)
    yield "another dtype", lambda: stepped(fastopt.Adam(arrays(0), lr=0.1), lambda t: arrays(1, np.float64))
    yield "rates", lambda: with_options(fastopt.SGD) + stepped(fastopt.SGD(np.ones(9), lr=np.arange(9.0)), lambda t: np.ones(9))
    yield "limits", lambda: with_options(clip_value=0.1, bounds=(-0.5, 0.5), maximize=True, l1=0.1)
    yield "mask", lambda: with_options(fastopt.SGD, mask=[g > 0 for g in arrays(0)], momentum=0.9)
    yield "skipped", lambda: with_options(nonfinite="skip")
    yield "subnormal", lambda: with_options(fastopt.SGD, momentum=0.9, flush_subnormals=True)
    functions = (
        in_groups,
        accumulated,
        averaged,
        copied,
        flat,
        zeroed,
        long_sums,
        out_of_range,
        inside_of_compiled_code,
        minimized,
    )
    yield from ((function.__name__, function) for function in functions)
    for dtype in (np.float32, np.float64):
        yield f"large points {dtype.__name__}", lambda dtype=dtype: large_points(dtype)
    for rounding in ("nearest", "stochastic"):
        blocks = {"state_dtype": "int8", "rounding": rounding, "seed": 3}
        yield f"blocks {rounding}", lambda blocks=blocks: with_options(clip_norm=1.0, **blocks)
        yield f"complex blocks {rounding}", lambda blocks=blocks: complex_numbers("modulus", **blocks)
    yield "rows", lambda: touched(True)
    yield "rows that catch up", lambda: touched(False, state_dtype="float16", rounding="stochastic")
    yield "states of rows", lambda: touched(False, per_row=True)
    yield "complex parts", lambda: complex_numbers("parts")
    yield "complex modulus", lambda: complex_numbers("modulus")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        name = np.dtype(dtype).name
        for rounding in ("nearest", "stochastic"):
            rounded = {"state_dtype": name, "rounding": rounding, "seed": 3}
            yield f"states {rounding} {name}", lambda rounded=rounded: with_options(ema_decay=0.5, **rounded)
            yield f"complex {rounding} {name}", lambda rounded=rounded: complex_numbers("modulus", **rounded)
            yield (
                f"parameters {rounding} {name}",
                lambda dtype=dtype, rounding=rounding: narrow(dtype, rounding=rounding, zero_grad=True, cautious=True),
            )
        yield f"master {name}", lambda dtype=dtype: narrow(dtype, fastopt.LAMB, master_weights=True)
    for way in ("lost bits", "8 lost bits"):
        yield way, lambda way=way: narrow(ml_dtypes.bfloat16, fastopt.LAMB, master_weights=way)


def digest(value: Any) -> str:
    """Of all bits."""
    total = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for each in value:
                add(each)
        elif isinstance(value, dict):
            add(list(value.items()))
        elif isinstance(value, np.ndarray) and value.dtype.names:
            add([value[name] for name in value.dtype.names])
        elif isinstance(value, np.ndarray):
            # Any NaN equals any other, as IEEE 754 leaves their bits open.
            total.update(with_one_nan(value).tobytes())
        else:
            total.update(repr(value).encode())

    add(value)
    return total.hexdigest()


def digests() -> dict[str, str]:
    with np.errstate(all="ignore"):
        return {name: digest(case()) for name, case in cases()}


SCRIPT = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from tests.engine import test_interpreted
    found = test_interpreted.digests()
report(found=found, warnings=[str(c.message) for c in caught], compiled=len(engine_compile._spans))
"""


def test_the_bits_are_those_of_compiled_code(tmp_path: Path) -> None:
    result = fresh.run(SCRIPT, tmp_path, NUMBA_DISABLE_JIT="1", NUMBA_NUM_THREADS="2")
    expected = digests()
    assert len(expected) > len(RULES) + 15
    assert [name for name in expected if expected[name] != result["found"][name]] == []
    (warning,) = result["warnings"]
    assert "NUMBA_DISABLE_JIT" in warning


WRONG = """
warnings.simplefilter("ignore")

@fastopt.rule(state="m", hyper="lr")
def short(theta, g, lr, m):
    return theta - lr * g

@fastopt.rule(state="m", hyper="lr")
def wide(theta, g, lr, m):
    return theta - lr * g, np.float64(m)

@fastopt.rule(hyper="lr")
def broken(theta, g, lr):
    return theta - lr * np.linalg.inv(g)

found = {}
for make in (short, wide, broken):
    w = np.ones(3, np.float32)
    opt = make(w, lr=0.1)
    for _ in range(2):  # an error leaves nothing behind that would be another one
        try:
            opt.step(np.ones(3, np.float32))
        except Exception as error:
            found[make.__name__] = [type(error).__name__, str(error), w.tolist(), opt.step_count]
report(**found)
"""


def test_errors_of_rules_are_those_that_the_compiler_would_give(tmp_path: Path) -> None:
    result = fresh.run(WRONG, tmp_path, NUMBA_DISABLE_JIT="1")
    unchanged = [[1.0] * 3, 0]
    kind, message, *rest = result["short"]
    assert (kind, rest) == ("RuleError", unchanged)
    assert "the rule short returned 1 values where theta and 1 states are stored" in message
    kind, message, *rest = result["wide"]
    assert (kind, rest) == ("RuleError", unchanged)
    assert "the rule wide returned float64 where it was given float32" in message
    kind, message, *rest = result["broken"]  # the rule's own, as a debugger wants it
    assert (kind, rest) == ("LinAlgError", unchanged)


def test_the_compiler_can_not_be_switched_off_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)

    @fastopt.rule(hyper="lr")
    def descend(theta, g, lr):
        return theta - lr * g

    with pytest.raises(RuntimeError, match="set NUMBA_DISABLE_JIT before"):
        descend(np.ones(3), lr=0.1).step(np.ones(3))
