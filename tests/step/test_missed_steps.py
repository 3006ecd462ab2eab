"""Steps of touched rows with ``lazy=False``: rows that were not touched catch up, and have the bits of whole steps."""

import copy

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.step import missed_steps
from fastopt.step import rows as row_steps
from tests.refusal import refused
from tests.row import Row
from tests.step.test_rows import ELEMENTWISE

ROWS, WIDTH = 20, 6


# Without eps, zero by zero is no number in a whole step: there it is better to stand still.
CATCHING_UP = [row for row in ELEMENTWISE if row.numbers.get("eps") != 0.0]


def table(rng, dtype=np.float32, shape=(ROWS, WIDTH)):
    return rng.standard_normal(shape).astype(dtype)


def scattered(w, rows, grads):
    """The gradient of the whole table, with duplicates added up in the order in which they come."""
    g = np.zeros(w.shape, grads.dtype)
    np.add.at(g, rows, grads)
    return g


def arrays(optimizer):
    averages = [optimizer.ema] if "theta_ema" in optimizer.state else []
    return [optimizer.params, *averages, *optimizer.state.values()]


def assert_same(optimizer, whole):
    for own, expected in zip(arrays(optimizer), arrays(whole), strict=True):
        assert own.tobytes() == expected.tobytes()


def assert_follows_whole_steps(make, batches, before=None):
    """Step the touched rows, and, beside that, the whole table; after each step some rows are needed, and are the same."""
    rng = np.random.default_rng(len(batches))
    optimizer, whole = make(), make()
    for i, (rows, grads) in enumerate(batches):
        for each in (optimizer, whole):
            if before is not None:
                before(each, i)
        needed = rng.integers(0, len(whole.params), 4)
        optimizer.catch_up(needed)
        assert optimizer.params[needed].tobytes() == whole.params[needed].tobytes()
        optimizer.step_rows(rows, grads, lazy=False)
        whole.step(scattered(whole.params, rows, grads))
        assert optimizer.params[rows].tobytes() == whole.params[rows].tobytes()
    assert optimizer.step_count == optimizer.param_groups[0].step_count == len(batches)
    optimizer.catch_up()
    assert_same(optimizer, whole)


def drawn(rng, count, dtype=np.float32, rows=ROWS, shape=(WIDTH,)):
    sizes = rng.integers(0, 6, count)
    return [(rng.integers(0, rows, n), table(rng, dtype, (n, *shape))) for n in sizes]


OPTIONS = {
    "SGD": (fastopt.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "AdaGrad": (fastopt.AdaGrad, {"weight_decay": 0.1, "lr_decay": 0.01}),
    "RMSProp": (fastopt.RMSProp, {"lr": lambda step: 0.1 / (1 + step)}),
    "Adam": (fastopt.Adam, {"ema_decay": 0.9}),
    "AdamW": (fastopt.AdamW, {"lr": 0.1, "l1": 0.1, "bounds": (-1.0, 1.0)}),
    "rows": (fastopt.Adam, {"per_row": True}),
    "still": (fastopt.AdaGrad, {}),
}


@given(
    seed=st.integers(0, 2**16),
    case=st.sampled_from(sorted(OPTIONS)),
    count=st.integers(1, 25),
    rows=st.integers(1, 50),
    threads=st.integers(1, 4),
)
def test_any_pattern_has_the_bits_of_whole_steps(seed, case, count, rows, threads):
    rng = np.random.default_rng(seed)
    optimizer, options = OPTIONS[case]
    start = table(rng, shape=(rows, WIDTH))
    fastopt.set_num_threads(threads)
    fastopt.set_parallel_threshold(0)
    assert_follows_whole_steps(lambda: optimizer(start.copy(), **options), drawn(rng, count, rows=rows))


@pytest.mark.wide
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", CATCHING_UP, ids=str)
def test_every_rule_catches_up(row: Row, dtype):
    rng = np.random.default_rng(1)
    start = table(rng, dtype)
    assert_follows_whole_steps(lambda: row.make(start.copy()), drawn(rng, 8, dtype))


NARROW = {
    "states": (np.float32, {"state_dtype": "bfloat16", "rounding": "stochastic", "ema_decay": 0.5}),
    "parameters": (np.float16, {"rounding": "stochastic", "seed": 7}),
    "lost bits": (ml_dtypes.bfloat16, {"master_weights": "lost bits", "state_dtype": "float16", "rounding": "stochastic"}),
}


@pytest.mark.parametrize(("dtype", "options"), NARROW.values(), ids=NARROW)
def test_noise_is_that_of_the_steps_that_were_missed(dtype, options):
    rng = np.random.default_rng(2)
    start = table(rng).astype(dtype)
    assert_follows_whole_steps(lambda: fastopt.Adam(start.copy(), lr=0.1, **options), drawn(rng, 8))


@pytest.mark.parametrize("width", [1, 700])
def test_any_width_and_complex_numbers(width):
    rng = np.random.default_rng(3)
    start = table(rng, np.complex64, (ROWS, width)) + np.complex64(1j) * table(rng, shape=(ROWS, width))
    for mode in ("parts", "modulus"):
        make = lambda: fastopt.Adam(start.copy(), complex_mode=mode)  # noqa: E731, B023
        assert_follows_whole_steps(make, drawn(rng, 6, np.complex64, shape=(width,)))


def change(optimizer, i):
    """Other numbers, another rule, and a table that catches up before."""
    optimizer.lr = 0.1 / (1 + i)
    if i == 3:
        optimizer.weight_decay = 0.1
    if i == 6:
        optimizer.momentum = 0.0


def test_what_was_missed_is_taken_as_it_was_then():
    rng = np.random.default_rng(4)
    start = table(rng)
    assert_follows_whole_steps(lambda: fastopt.SGD(start.copy(), momentum=0.9), drawn(rng, 9), change)


def test_more_steps_than_are_kept(monkeypatch):
    monkeypatch.setattr(missed_steps, "MOST", 4)
    rng = np.random.default_rng(5)
    start = table(rng)
    assert_follows_whole_steps(lambda: fastopt.Adam(start.copy()), drawn(rng, 19))


def test_lazy_steps_and_whole_gradients_come_between():
    rng = np.random.default_rng(6)
    w = table(rng)
    optimizer, whole = fastopt.Adam(w.copy(), lr=0.1), fastopt.Adam(w.copy(), lr=0.1)
    rows, grads = np.array([3, 5]), table(rng, shape=(2, WIDTH))
    optimizer.step_rows(rows, grads, lazy=False)
    whole.step(scattered(w, rows, grads))
    others, g = np.array([5, 7]), table(rng, shape=(2, WIDTH))
    optimizer.step_rows(others, g)  # which stands still elsewhere
    kept = np.delete(np.arange(ROWS), others)
    before = [array[kept] for array in arrays(whole)]
    whole.step(scattered(w, others, g))
    for array, own in zip(arrays(whole), before, strict=True):
        array[kept] = own
    optimizer.catch_up()
    assert_same(optimizer, whole)
    optimizer.step_rows(rows, grads, lazy=False)
    whole.step(scattered(w, rows, grads))
    g = table(rng)
    optimizer.step_rows(None, g)
    whole.step(g)
    assert_same(optimizer, whole)


def test_tables_groups_and_norms():
    rng = np.random.default_rng(7)
    start = [table(rng, np.float64), table(rng, np.float64, (9, 3)), table(rng, np.float64, (4,))]

    def made():
        first, second, third = (each.copy() for each in start)
        groups = [{"params": first, "clip_norm": 1.0}, {"params": [second, third], "weight_decay": 0.1}]
        return fastopt.SGD(groups, lr=0.1, momentum=0.9, clip_norm=2.0), [first, second, third]

    (optimizer, own), (whole, others) = made(), made()
    for i in range(6):
        users, items = rng.integers(0, ROWS, 5), rng.integers(0, 9, 2)
        grads = [table(rng, np.float64, (5, WIDTH)), table(rng, np.float64, (2, 3)), table(rng, np.float64, (4,))]
        scale = 0.5 if i > 2 else 1.0
        optimizer.step_rows([users, [items, None]], [grads[0], grads[1:]], lazy=False, scale=scale)
        whole.step([scattered(own[0], users, grads[0]), [scattered(own[1], items, grads[1]), grads[2]]], scale=scale)
    optimizer.catch_up(param=own[1])
    np.testing.assert_allclose(own[1], others[1], rtol=1e-13)
    assert not np.allclose(own[0], others[0], rtol=1e-6)
    optimizer.catch_up(scipy.sparse.csr_array(np.ones((1, ROWS))), param=own[0])
    for array, expected in zip(own, others, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-13)


def test_what_takes_the_whole_table_waits():
    w = np.ones((4, 2))
    optimizer = fastopt.Adam(w, ema_decay=0.5)
    optimizer.step_rows(np.array([1]), np.ones((1, 2)), lazy=False)
    state = fastopt.Adam(w.copy(), ema_decay=0.5).state_dict()
    for call in (
        lambda: optimizer.step(np.ones((4, 2))),
        optimizer.state_dict,
        lambda: optimizer.load_state_dict(state),
        lambda: copy.deepcopy(optimizer),
        optimizer.swap_ema().__enter__,
        optimizer.reset,
        lambda: fastopt.to_torch_state_dict(optimizer),
    ):
        with refused(RuntimeError, "rows of params have steps to catch up with; call catch_up() first"):
            call()
    assert optimizer.step_count == 1
    optimizer.catch_up(np.array([0, 1]))  # not all of them
    with refused(RuntimeError, "call catch_up() first"):
        optimizer.state_dict()
    optimizer.catch_up()
    loaded = fastopt.Adam(w.copy(), ema_decay=0.5)
    loaded.load_state_dict(optimizer.state_dict())
    for each in (optimizer, loaded):
        each.step(np.ones((4, 2)))
    assert_same(optimizer, loaded)


def test_what_optimizers_do_with_whole_tables_besides_steps_waits():
    sophia, schedule_free = (each(np.ones((4, 2))) for each in (fastopt.Sophia, fastopt.ScheduleFreeSGD))
    calls = {sophia: lambda: sophia.update_hessian(np.ones((4, 2))), schedule_free: schedule_free.eval_params}
    for optimizer, call in calls.items():
        optimizer.step_rows(np.array([1]), np.ones((1, 2)), lazy=False)
        with refused(RuntimeError, "rows of params have steps to catch up with; call catch_up() first"):
            call()
        optimizer.catch_up()
        call()


def test_where_rows_stand_still_there_is_nothing_to_wait_for():
    optimizer = fastopt.AdaGrad(np.ones((4, 2)))
    optimizer.step_rows(np.array([1]), np.ones((1, 2)), lazy=False)
    optimizer.state_dict()
    optimizer.catch_up()


def test_a_wrong_call_leaves_all_as_it_was():
    optimizer = fastopt.Adam(np.ones((4, 2)))
    for _ in range(2):  # before anything waits, too
        with pytest.raises(ValueError, match="rows must be from 0 to 3, as params has rows, got 4 at index 0"):
            optimizer.catch_up(np.array([4]))
        with pytest.raises(TypeError, match="rows must be of int32 or int64"):
            optimizer.catch_up(np.array([1.0]))
        if not optimizer.step_count:
            optimizer.step_rows(np.array([1]), np.ones((1, 2)), lazy=False)
    with pytest.raises(TypeError, match="lazy must be"):
        optimizer.step_rows(np.array([1]), np.ones((1, 2)), lazy=1)
    with pytest.raises(ValueError, match="from 0 to 3"):
        optimizer.step_rows(np.array([-1]), np.ones((1, 2)), lazy=False)
    assert optimizer.step_count == 1
    rates = fastopt.Adam(np.ones((4, 2)), lr=np.ones((4, 2)))
    with refused(ValueError, "lazy=False needs a learning rate that is a number", opt=rates):
        rates.step_rows(np.array([1]), np.ones((1, 2)), lazy=False)


def touching(optimizer, whole, row):
    """Step one row, and beside that the whole table."""
    g = np.full((1, WIDTH), 0.5 + row, np.float32)
    optimizer.step_rows(np.array([row]), g, lazy=False)
    whole.step(scattered(whole.params, [row], g))


def test_a_copy_that_is_written_from_now_on():
    start = table(np.random.default_rng(9))
    optimizer, whole = (fastopt.Adam(start.copy(), copy_to=np.zeros_like(start)) for _ in range(2))
    for row in (1, 2, 1):
        touching(optimizer, whole, row)
    optimizer.copy_to = other = np.zeros_like(start)
    optimizer.catch_up()
    assert_same(optimizer, whole)
    assert np.array_equal(other, optimizer.params)


def test_tables_beside_more_choices_than_plans_are_kept_for(monkeypatch):
    monkeypatch.setattr(row_steps, "MOST_PLANS", 1)
    rng = np.random.default_rng(10)
    start = table(rng)
    params = [start.copy() for _ in range(3)]
    optimizer, alone = fastopt.Adam(params), [fastopt.Adam(start.copy()) for _ in params]
    for chosen in ([0, 1, 2], [1, 2], [0, 2], [0], [1], [0, 1, 2]):
        touched = [rng.integers(0, ROWS, 3) if k in chosen else None for k in range(3)]
        grads = [None if own is None else table(rng, shape=(3, WIDTH)) for own in touched]
        optimizer.step_rows(touched, grads, lazy=False)
        for k, each in enumerate(alone):
            each.param_groups[0].step_count = optimizer.step_count - 1
            if k in chosen:
                each.step(scattered(start, touched[k], grads[k]))
    optimizer.catch_up()
    for own, each in zip(params, alone, strict=True):
        assert np.array_equal(own, each.params)


def test_skipped_steps_are_not_missed():
    w = np.ones((4, 2))
    optimizer = fastopt.Adam(w, nonfinite="skip")
    optimizer.step_rows(np.array([1]), np.full((1, 2), np.nan), lazy=False)
    optimizer.catch_up()
    assert (optimizer.step_count, optimizer.skipped_steps) == (0, 1)
    assert np.array_equal(w, np.ones((4, 2)))
