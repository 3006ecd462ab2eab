"""Steps of all options and storages write nothing beside what they should, and need nothing that lies there."""

import numpy as np
import pytest

import fastopt
from tests.guards import Guards, guarded
from tests.step.test_in_pass import ALL
from tests.step.test_rows import NARROW, OPTIONS, ROWS, WIDTH

SHAPE = ROWS, WIDTH  # which fills no vector at its end
CASES = {name: (fastopt.RMSProp, np.float32, options) for name, options in OPTIONS.items()}
CASES |= {name: (fastopt.Adam, dtype, options) for name, (dtype, options) in NARROW.items()}
CASES |= {
    "all at once": (fastopt.SGD, np.float32, ALL | {"mask": np.arange(ROWS * WIDTH).reshape(SHAPE) % 3 > 0}),
    "8 bits": (fastopt.Adam, np.float32, {"state_dtype": "int8", "rounding": "stochastic"}),
    "masters": (fastopt.Adam, np.float16, {"master_weights": True}),
    "parts": (fastopt.Adam, np.complex64, {"clip_norm": 1.0}),
    "moduli": (fastopt.Adam, np.complex64, {"clip_norm": 1.0, "complex_mode": "modulus"}),
    "a moment of each row": (fastopt.Adam, np.float32, {"per_row": True}),
    "copies": (fastopt.Adam, np.float32, {"copy_to": np.float16}),
}
WHOLE_ONLY = ("all at once", "8 bits")  # not by rows


def stepped(opt, guards, g, by_rows):
    """Let an optimizer do all that writes to arrays."""
    opt.step(g)
    if g.dtype == opt.params.dtype:
        opt.accumulate(g)
        opt.step()
    if by_rows:
        rows = guards.copy(np.array([ROWS - 1, 0, 7, 0]))
        for lazy in (True, isinstance(opt.lr, np.ndarray)):  # steps with a rate for each element can't be missed
            opt.step_rows(rows, guards.copy(g[rows]), lazy=lazy)
        opt.catch_up()
    if opt.param_groups[0]["ema_decay"] is not None:
        with opt.swap_ema():
            guards.check()
    guards.check()


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_written_beside_arrays(case, threads):
    optimizer, dtype, options = CASES[case]
    rng = np.random.default_rng(0)
    fastopt.set_num_threads(threads)
    fastopt.set_parallel_threshold(0)
    with guarded() as guards:
        if "copy_to" in options:
            options = options | {"copy_to": guards.full(SHAPE, 0, options["copy_to"])}
        theta = guards.copy(rng.normal(size=SHAPE).astype(dtype))
        opt = optimizer(theta, **{"lr": 0.1} | options)
        for _ in range(2):
            g = rng.normal(size=SHAPE).astype(dtype if theta.dtype.kind == "c" else np.float32)
            stepped(opt, guards, guards.copy(g), case not in WHOLE_ONLY)
        assert np.isfinite(theta).all()


def test_guards_see_what_is_written_beside_an_array():
    guards = Guards()
    array = guards.zeros(3, np.float32, page_offset=64)
    array.base[array.ctypes.data - array.base.ctypes.data + 12] = 0
    with pytest.raises(AssertionError):
        guards.check()
