"""Steps of touched rows: the bits of the rule on these rows, and nothing else moves."""

import copy

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from tests.row import next_numbers
from tests.table import TABLE

ROWS, WIDTH = 40, 6


ELEMENTWISE = [row for row in TABLE if row.make(np.zeros(1)).param_groups[0].measure is None and not row.optimizer.elements]


OTHERS = list({row.optimizer: row for row in TABLE if row not in ELEMENTWISE}.values())


def table(rng, dtype=np.float32, shape=(ROWS, WIDTH)):
    return rng.standard_normal(shape).astype(dtype)


def summed(rows, grads):
    """Unique rows, and their gradients added up in the order in which they came."""
    unique, inverse = np.unique(rows, return_inverse=True)
    total = np.zeros((len(unique), *grads.shape[1:]), grads.dtype)
    np.add.at(total, inverse, grads)
    return unique, total


class Expected:
    """The arrays of an optimizer of one table, stepped by the rule itself on NumPy arrays."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        (self.group,) = optimizer.param_groups
        (self.p,) = self.group.parameters
        self.arrays = [self.by_row(array).copy() for array in self.group.arrays(self.p)]

    def by_row(self, vector):
        return vector.reshape(self.p.shape[0], int(np.prod(self.p.shape[1:])))

    def step(self, rows, grads):
        """Do what the next step of the optimizer should do."""
        unique, total = summed(rows, grads)
        number = self.p.theta.dtype.type
        numbers = next_numbers(self.optimizer, self.p.theta)
        lr, *coefficients = (self.by_row(c)[unique] if isinstance(c, np.ndarray) else number(c) for c in numbers)
        g = total.reshape(len(unique), int(np.prod(total.shape[1:]))).astype(number)
        theta, *states = (array[unique] for array in self.arrays)
        with np.errstate(all="ignore"):
            new = self.group.rule(theta, g, lr, *states, *coefficients)
        for array, values in zip(self.arrays, new if isinstance(new, tuple) else (new,), strict=True):
            array[unique] = values

    def check(self):
        for array, own in zip(self.arrays, self.group.arrays(self.p), strict=True):
            np.testing.assert_array_equal(self.by_row(own), array)


def assert_steps(optimizer, batches):
    expected = Expected(optimizer)
    for i, (rows, grads) in enumerate(batches):
        expected.step(rows, grads)
        optimizer.step_rows(rows, grads)
        expected.check()
        assert optimizer.step_count == optimizer.param_groups[0].step_count == i + 1


def batches(rng, dtype=np.float32, count=3, rows=ROWS, shape=(WIDTH,)):
    sizes = [25, 1, 60][:count]
    return [(rng.integers(0, rows, n), table(rng, dtype, (n, *shape))) for n in sizes]


@pytest.mark.wide
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", ELEMENTWISE, ids=str)
def test_touched_rows_have_the_bits_of_the_rule(row, dtype):
    rng = np.random.default_rng(0)
    assert_steps(row.make(table(rng, dtype)), batches(rng, dtype))


@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_optimizers_that_need_all_elements_refuse(row):
    w = np.ones((3, 2))
    optimizer = row.make(w)
    with pytest.raises(ValueError, match=f"{row.optimizer.__name__} needs .*, so it has no steps of some rows"):
        optimizer.step_rows(np.array([1]), np.ones((1, 2)))
    assert optimizer.step_count == 0
    assert np.array_equal(w, np.ones((3, 2)))


@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(1, 90),
    count=st.integers(0, 300),
    shape=st.sampled_from([(), (1,), (3,), (16,), (2, 5), (700,), (2, 600), (0,)]),
    index=st.sampled_from([np.int32, np.int64]),
    gradient=st.sampled_from([np.float32, np.float64]),
    threads=st.integers(1, 4),
)
def test_any_rows_of_any_width(seed, rows, count, shape, index, gradient, threads):
    rng = np.random.default_rng(seed)
    optimizer = fastopt.Adam(table(rng, shape=(rows, *shape)))
    fastopt.set_num_threads(threads)
    fastopt.set_parallel_threshold(0)
    touched = rng.integers(0, rng.integers(1, rows + 1), count, index)
    assert_steps(optimizer, [(touched, table(rng, gradient, (count, *shape)))] * 2)


def test_sums_don_t_depend_on_threads():
    rng = np.random.default_rng(1)
    rows = rng.zipf(1.3, 20_000) % 3_000
    grads = table(rng, shape=(len(rows), 5)) * np.float32(10.0) ** rng.integers(-6, 6, (len(rows), 1))
    for threads in (1, 2, 3, 4):
        fastopt.set_num_threads(threads)
        assert_steps(fastopt.AdaGrad(table(np.random.default_rng(2), shape=(3_000, 5))), [(rows, grads)])


def test_no_rows_are_a_step_that_moves_nothing():
    w = np.ones((4, 2))
    optimizer = fastopt.Adam(w, weight_decay=0.5)
    optimizer.step_rows(np.zeros(0, np.int32), np.zeros((0, 2)))
    assert optimizer.step_count == 1
    assert np.array_equal(w, np.ones((4, 2)))


OPTIONS = {
    "weight decay": {"weight_decay": 0.1},
    "decoupled": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "l1": {"l1": 0.5},
    "bounds": {"bounds": (np.linspace(-1, 0, ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH), 0.3)},
    "rates": {"lr": np.linspace(0, 1, ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)},
    "mask": {"mask": np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH) % 3 > 0},
    "average": {"ema_decay": 0.9},
    "ascent": {"maximize": True},
    "elements clipped": {"clip_value": 0.25},
    "schedule": {"lr": lambda step: 0.5 / (1 + step)},
    "subnormals": {"flush_subnormals": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_work_in_touched_rows(options):
    rng = np.random.default_rng(3)
    assert_steps(fastopt.RMSProp(table(rng), **options), batches(rng))


def test_copies_follow_touched_rows():
    rng = np.random.default_rng(4)
    w, half = table(rng), np.zeros((ROWS, WIDTH), np.float16)
    optimizer = fastopt.Adam(w, lr=0.5, copy_to=half)
    for rows, grads in batches(rng):
        optimizer.step_rows(rows, grads)
        assert np.array_equal(half, w.astype(np.float16))


NARROW = {
    "states to nearest": (np.float32, {"state_dtype": "float16"}),
    "states": (np.float32, {"state_dtype": "bfloat16", "rounding": "stochastic", "ema_decay": 0.5}),
    "parameters": (np.float16, {"rounding": "stochastic", "seed": 7}),
    "lost bits": (ml_dtypes.bfloat16, {"master_weights": "lost bits", "state_dtype": "float16", "rounding": "stochastic"}),
}


@pytest.mark.parametrize("width", [3, 700])
@pytest.mark.parametrize(("dtype", "options"), NARROW.values(), ids=NARROW)
def test_touched_rows_have_the_bits_of_a_whole_step_in_16_bits_too(dtype, options, width):
    rng = np.random.default_rng(4)
    before, w = np.ones(5, dtype), table(rng, shape=(ROWS, width)).astype(dtype)
    optimizer, whole = (fastopt.Adam([before.copy(), w.copy()], lr=0.1, **options) for _ in range(2))
    rows = np.array([ROWS - 1, 0, 17, 5])
    for _ in range(3):
        g = np.zeros((ROWS, width), np.float32)
        g[rows] = rng.standard_normal((len(rows), width))
        optimizer.step_rows([None, rows], [np.ones(5, np.float32), g[rows]])
        whole.step([np.ones(5, np.float32), g])
    for own, expected in zip((optimizer.params, *optimizer.state.values()), (whole.params, *whole.state.values()), strict=True):
        assert own[0].tobytes() == expected[0].tobytes()
        assert own[1][rows].tobytes() == expected[1][rows].tobytes()
    others = np.delete(np.arange(ROWS), rows)
    assert optimizer.params[1][others].tobytes() == w[others].tobytes()


def test_ftrl_leaves_exact_zeros():
    rng = np.random.default_rng(5)
    w = np.zeros(1000)
    optimizer = fastopt.FTRL(w, lr=0.5, l1=1.0)
    rows = rng.integers(0, 500, 700).astype(np.int32)
    optimizer.step_rows(rows, rng.standard_normal(700))
    assert not w[500:].any()
    touched = w[np.unique(rows)]
    assert 0 < np.count_nonzero(touched) < len(touched)


@pytest.mark.parametrize("mode", ["parts", "modulus"])
def test_complex_rows(mode):
    rng = np.random.default_rng(6)
    w = table(rng, np.complex64) + 1j * table(rng)
    rows = rng.integers(0, ROWS, 30)
    grads = (table(rng, shape=(30, WIDTH)) + 1j * table(rng, shape=(30, WIDTH))).astype(np.complex64)
    unique, total = summed(rows, grads)
    gathered, before = w[unique].copy(), w.copy()
    optimizer, dense = (fastopt.Adam(each, complex_mode=mode, clip_norm=1.0) for each in (w, gathered))
    for _ in range(3):
        optimizer.step_rows(rows, grads)
        dense.step(total)
    np.testing.assert_allclose(w[unique], gathered, rtol=1e-6)
    before[unique] = w[unique]
    assert np.array_equal(w, before)


@pytest.mark.parametrize("clipped", ["all", "group"])
def test_norms_are_those_of_summed_gradients(clipped):
    rng = np.random.default_rng(7)
    w, bias = table(rng, np.float64), table(rng, np.float64, (5,))
    (rows, grads), *_ = batches(rng, np.float64)
    unique, total = summed(rows, grads)
    gathered, other = w[unique].copy(), bias.copy()
    options = {"clip_norm": 0.5}
    made = []
    for first, second in ((w, bias), (gathered, other)):
        groups = [{"params": first} | (options if clipped == "group" else {}), {"params": second}]
        made.append(fastopt.SGD(groups, momentum=0.9, **({} if clipped == "group" else options)))
    g = table(rng, np.float64, (5,))
    for _ in range(2):
        made[0].step_rows([rows, None], [grads, g], scale=0.5)
        made[1].step([total, g], scale=0.5)
    assert made[0].grad_norm == pytest.approx(made[1].grad_norm, rel=1e-14)
    np.testing.assert_allclose(w[unique], gathered, rtol=1e-13)
    np.testing.assert_allclose(bias, other, rtol=1e-13)


def test_norms_don_t_depend_on_threads():
    rng = np.random.default_rng(8)
    rows, grads = rng.integers(0, 2_000, 9_000), table(rng, shape=(9_000, 7))
    norms = set()
    for threads in (1, 2, 3, 4):
        fastopt.set_num_threads(threads)
        fastopt.set_parallel_threshold(0)
        optimizer = fastopt.SGD(np.zeros((2_000, 7), np.float32), clip_norm=float("inf"))
        optimizer.step_rows(rows, grads)
        norms.add(optimizer.grad_norm)
    assert len(norms) == 1


def test_norms_beyond_the_range_of_squares():
    w, small = np.zeros((4, 2)), np.zeros((4, 2))
    rows = np.array([2, 0, 2])
    for array, size in ((w, 1e200), (small, 1.0)):
        fastopt.SGD(array, lr=1.0, clip_norm=1.0).step_rows(rows, size * np.ones((3, 2)))
    np.testing.assert_allclose(w, small, rtol=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradients_that_are_not_finite(value):
    w = np.ones((4, 3))
    grads = np.ones((2, 3))
    grads[1, 2] = value
    optimizer = fastopt.SGD(w, nonfinite="raise")
    with pytest.raises(ValueError, match=rf"the gradient of params must be finite, got {value} at index \(1, 2\)"):
        optimizer.step_rows(np.array([3, 1]), grads)
    optimizer.nonfinite = "skip"
    optimizer.step_rows(np.array([3, 1]), grads)
    assert (optimizer.step_count, optimizer.skipped_steps) == (0, 1)
    assert np.array_equal(w, np.ones((4, 3)))


def test_steps_of_rows_and_whole_steps_take_turns():
    rng = np.random.default_rng(13)
    w = table(rng)
    optimizer, expected = fastopt.Adam(w, lr=0.1), fastopt.Adam(other := w.copy(), lr=0.1)
    every = rng.permutation(ROWS)
    for i in range(6):
        g = table(rng)
        optimizer.step_rows(every, g[every]) if i % 2 else optimizer.step(g)
        expected.step(g)
        optimizer.lr = expected.lr = 0.1 / (1 + i)
        assert np.array_equal(w, other)


def test_copies_and_state_dicts_go_on_with_the_same_bits():
    rng = np.random.default_rng(14)
    w = table(rng)
    optimizer = fastopt.Adam(w, ema_decay=0.9)
    (rows, grads), *others = batches(rng)
    optimizer.step_rows(rows, grads)
    copied = copy.deepcopy(optimizer)
    loaded = fastopt.Adam(w.copy(), ema_decay=0.9)
    loaded.load_state_dict(optimizer.state_dict())
    for each in (optimizer, copied, loaded):
        for batch in others:
            each.step_rows(*batch)
    for each in (copied, loaded):
        assert np.array_equal(each.params, w)
        assert np.array_equal(each.ema, optimizer.ema)


@pytest.mark.peers
def test_parity_with_torch_sparse_adam(torch):
    rng = np.random.default_rng(15)
    w = table(rng, np.float64)
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    theirs = torch.optim.SparseAdam([parameter], lr=0.05, betas=(0.8, 0.95), eps=1e-3)
    optimizer = fastopt.Adam(w, lr=0.05, betas=(0.8, 0.95), eps=1e-3, eps_hat=True)
    for rows, grads in [*batches(rng, np.float64), (np.zeros(0, np.int64), np.zeros((0, WIDTH))), *batches(rng, np.float64)]:
        indices, values = torch.from_numpy(rows)[None], torch.from_numpy(grads)
        parameter.grad = torch.sparse_coo_tensor(indices, values, w.shape, check_invariants=True)
        theirs.step()
        optimizer.step_rows(rows, grads)
        np.testing.assert_allclose(w, parameter.detach().numpy(), rtol=1e-12, atol=1e-14)
