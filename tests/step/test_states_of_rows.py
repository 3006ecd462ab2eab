"""Second moments with one number for each row of a table: FBGEMM's row-wise AdaGrad and partial row-wise Adam."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.engine.loop import PART
from fastopt.engine.sums import LANES
from tests.refusal import refused

ROWS, WIDTH = 30, 6


def mean_of_squares(g):
    return np.mean(g**2, axis=1)


def adagrad(w, grads, lr, eps=1e-10, weight_decay=0.0, decouples=False):
    """FBGEMM's EXACT_ROWWISE_ADAGRAD, with weight decay of its kinds L2 and DECOUPLE."""
    momentum1 = np.zeros(len(w))
    for grad in grads:
        momentum1 += mean_of_squares(grad if decouples else grad + weight_decay * w)
        multiplier = lr / (np.sqrt(momentum1) + eps)
        correction = 1.0 - (lr if decouples else multiplier) * weight_decay
        w = np.broadcast_to(correction, len(w))[:, None] * w - multiplier[:, None] * grad
    return w, momentum1


def adam(w, grads, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """FBGEMM's PARTIAL_ROWWISE_ADAM, with weight decay of the kind DECOUPLE."""
    m, v = np.zeros_like(w), np.zeros(len(w))
    for t, grad in enumerate(grads, 1):
        v = v * beta2 + mean_of_squares(grad) * (1.0 - beta2)
        m = m * beta1 + grad * (1.0 - beta1)
        v_hat, m_hat = v / (1.0 - beta2**t), m / (1.0 - beta1**t)
        w = w - lr * (m_hat / (np.sqrt(v_hat) + eps)[:, None] + weight_decay * w)
    return w, v


def rmsprop(w, grads, lr, rho, eps):
    """Hinton's lecture, with the mean over a row in the place of the square."""
    v = np.zeros(len(w))
    for grad in grads:
        v = rho * v + (1.0 - rho) * mean_of_squares(grad)
        w = w - lr * grad / (np.sqrt(v) + eps)[:, None]
    return w, v


CASES = {
    "AdaGrad": (fastopt.AdaGrad, {"lr": 0.1}, adagrad, {"lr": 0.1}, "r"),
    "AdaGrad, decay": (fastopt.AdaGrad, {"lr": 0.1, "weight_decay": 0.2}, adagrad, {"lr": 0.1, "weight_decay": 0.2}, "r"),
    "AdaGrad, decoupled": (
        *(fastopt.AdaGrad, {"lr": 0.1, "weight_decay": 0.2, "decoupled_weight_decay": True}, adagrad),
        *({"lr": 0.1, "weight_decay": 0.2, "decouples": True}, "r"),
    ),
    "RMSProp": (fastopt.RMSProp, {"lr": 0.1, "rho": 0.8}, rmsprop, {"lr": 0.1, "rho": 0.8, "eps": 1e-8}, "v"),
    "Adam": (fastopt.Adam, {"lr": 0.1}, adam, {"lr": 0.1}, "v"),
    "AdamW": (fastopt.AdamW, {"lr": 0.1, "weight_decay": 0.2}, adam, {"lr": 0.1, "weight_decay": 0.2}, "v"),
}


def tables(rng, count, dtype=np.float64, rows=ROWS, width=WIDTH):
    return [rng.standard_normal((rows, width)).astype(dtype) for _ in range(count)]


def sum_in_lanes(terms):
    """What the sum over a row is, to the last bit: lanes first, then NumPy's sum of them, then parts in double precision."""
    total = 0.0
    for part in np.split(terms, range(PART, terms.size, PART)):
        rounds = np.zeros((-(-part.size // LANES), LANES), terms.dtype)
        rounds.flat[: part.size] = part
        total += float(np.add.accumulate(rounds)[-1].sum())
    return total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 8, LANES - 1, LANES, 100, PART, 2 * PART + LANES + 1])
def test_the_mean_over_a_row_has_its_bits_whatever_the_vectors_of_the_processor(width, dtype):
    g = np.random.default_rng(width).standard_normal((3, width), dtype)
    opt = fastopt.AdaGrad(np.zeros((3, width), dtype), per_row=True)
    opt.step(g)
    assert opt.state["r"].tolist() == [dtype(sum_in_lanes(own * own) / width) for own in g]


@pytest.mark.parametrize("touches", [False, True], ids=["whole", "rows"])
@pytest.mark.parametrize(("optimizer", "options", "oracle", "arguments", "state"), CASES.values(), ids=CASES)
def test_steps_are_those_of_the_formulas(optimizer, options, oracle, arguments, state, touches):
    rng = np.random.default_rng(0)
    start, *grads = tables(rng, 5)
    opt = optimizer(w := start.copy(), per_row=True, **options)
    order = rng.permutation(ROWS)
    for g in grads:
        opt.step_rows(order, g[order]) if touches else opt.step(g)
    expected, of_rows = oracle(start, grads, **arguments)
    assert opt.state[state].shape == (ROWS,)
    np.testing.assert_allclose(w, expected, rtol=1e-12)
    np.testing.assert_allclose(opt.state[state], of_rows, rtol=1e-13)


@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(1, 60),
    width=st.sampled_from([1, 3, 32, 65, 700]),
    threads=st.integers(1, 4),
)
def test_touched_rows_have_the_bits_of_a_whole_step(seed, rows, width, threads):
    rng = np.random.default_rng(seed)
    (start,) = tables(rng, 1, np.float32, rows, width)
    fastopt.set_num_threads(threads)
    fastopt.set_parallel_threshold(0)
    opt, whole = (fastopt.Adam(start.copy(), lr=0.1, per_row=True) for _ in range(2))
    touched = np.unique(rng.integers(0, rows, rng.integers(1, rows + 1)))
    for _ in range(2):
        g = np.zeros_like(start)
        g[touched] = rng.standard_normal((len(touched), width))
        opt.step_rows(touched, g[touched])
        whole.step(g)
    assert np.array_equal(opt.params[touched], whole.params[touched])
    assert np.array_equal(opt.state["v"][touched], whole.state["v"][touched])
    others = np.setdiff1d(np.arange(rows), touched)
    assert np.array_equal(opt.params[others], start[others])
    assert not opt.state["v"][others].any()


OPTIONS = {
    "norms, decay, average": (np.float32, {"clip_norm": 1.0, "weight_decay": 0.1, "ema_decay": 0.5}),
    "elements clipped, l1, bounds": (np.float32, {"clip_value": 0.5, "l1": 0.3, "bounds": (-0.5, None), "maximize": True}),
    "16 bits": (np.float16, {"state_dtype": "float16", "rounding": "stochastic", "seed": 3}),
    "master": (
        np.float16,
        {"master_weights": True, "lr": np.linspace(0, 1, ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)},
    ),
    "schedule": (np.float32, {"lr": lambda step: 0.5 / (1 + step), "flush_subnormals": True, "lr_decay": 0.1}),
}


@pytest.mark.parametrize(("dtype", "options"), OPTIONS.values(), ids=OPTIONS)
def test_options_work_with_states_of_rows(dtype, options):
    """As without them, on rows of one length whose numbers are all the same: there the mean is each of its terms."""
    rng = np.random.default_rng(1)
    column = [np.repeat(rng.standard_normal((ROWS, 1)), WIDTH, axis=1) for _ in range(4)]
    start, *grads = [each.astype(dtype) for each in column]
    is_noisy, has_rates = "rounding" in options, isinstance(options.get("lr"), np.ndarray)
    by_element, by_row = (fastopt.AdaGrad(start.copy(), per_row=each, **options) for each in (False, True))
    touching = fastopt.AdaGrad(start.copy(), per_row=True, **options)
    order = rng.permutation(ROWS)
    for g in grads:
        by_element.step(g)
        by_row.step(g)
        touching.step_rows(order, g[order].astype(np.float32))
    assert np.array_equal(touching.params, by_row.params)
    assert np.array_equal(touching.state["r"], by_row.state["r"])
    assert by_row.state["r"].dtype == (np.float16 if is_noisy else np.float32)
    tolerance = 0.02 if is_noisy else 1e-6
    if not is_noisy:
        np.testing.assert_allclose(
            by_row.params.astype(float), by_element.params.astype(float), rtol=2 * tolerance, atol=tolerance
        )
        if not has_rates:
            np.testing.assert_allclose(by_row.state["r"], by_element.state["r"][:, 0], rtol=1e-5)


def test_gradients_are_zeroed_and_copies_written():
    rng = np.random.default_rng(2)
    start, g = tables(rng, 2, np.float32)
    half = np.zeros_like(start, np.float16)
    opt, plain = fastopt.AdaGrad(start.copy(), per_row=True, zero_grad=True, copy_to=half), fastopt.AdaGrad(start, per_row=True)
    plain.step(g)
    opt.step(g)
    assert np.array_equal(opt.params, start)
    assert np.array_equal(half, start.astype(np.float16))
    assert not g.any()


def test_copies_state_dicts_and_files_go_on(tmp_path):
    rng = np.random.default_rng(3)
    start, *grads = tables(rng, 3, np.float32)
    opt = fastopt.Adam(start.copy(), per_row=True)
    opt.step(grads[0])
    loaded, from_file = (fastopt.Adam(opt.params.copy(), per_row=True) for _ in range(2))
    loaded.load_state_dict(opt.state_dict())
    fastopt.save(tmp_path / "file", opt)
    fastopt.load(tmp_path / "file", from_file)
    others = [copy.deepcopy(opt), loaded, from_file]
    for each in (opt, *others):
        each.step(grads[1])
        assert np.array_equal(each.params, opt.params)
    assert opt.state_dict()["state"]["v"]["params"].shape == (ROWS,)
    by_element = fastopt.Adam(start.copy())
    with refused(ValueError, "must have the shape (30, 6), got (30,)", opt=by_element):
        by_element.load_state_dict(opt.state_dict())


def test_groups_may_differ():
    rng = np.random.default_rng(4)
    table, bias = tables(rng, 2, np.float32)
    opt = fastopt.AdaGrad([{"params": table, "per_row": True}, {"params": bias}])
    opt.step(tables(rng, 2, np.float32))
    assert [each.shape for each in opt.state["r"]] == [(ROWS,), (ROWS, WIDTH)]
    with refused(ValueError, "per_row must stay as at construction, True, got False", opt=opt):
        opt.param_groups[0]["per_row"] = False


REFUSED = {
    "rates": (fastopt.AdaGrad, {"accumulate": "rates", "eps": 1e-5}, "per_row=True is not for accumulate='rates'"),
    "momentum": (fastopt.RMSProp, {"momentum": 0.9}, "per_row=True is not for momentum=0.9"),
    "centered": (fastopt.RMSProp, {"centered": True}, "per_row=True is not for centered=True"),
    "amsgrad": (fastopt.Adam, {"amsgrad": True}, "per_row=True is not for amsgrad=True"),
    "cautious": (fastopt.Adam, {"cautious": True}, "cautious is not for states of rows"),
    "mask": (fastopt.Adam, {"mask": np.ones((3, 2), bool)}, "mask is not for states of rows"),
}


@pytest.mark.parametrize(("optimizer", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_states_of_rows(optimizer, options, message):
    with refused(ValueError, message):
        optimizer(np.ones((3, 2)), per_row=True, **options)


def test_arrays_without_rows():
    with refused(TypeError, "params is a Flat"):
        fastopt.AdaGrad(fastopt.flatten([np.ones((3, 2))]), per_row=True)
    for array in (np.ones((3, 2), order="F"), np.array(1.0)):
        with refused(ValueError, "params must have rows that lie side by side"):
            fastopt.AdaGrad(array, per_row=True)
    with refused(ValueError, "params is complex"):
        fastopt.AdaGrad(np.ones((3, 2), complex), per_row=True)
    opt = fastopt.Adam(np.ones((3, 2)), per_row=True)
    with refused(ValueError, "mask is not for states of rows", opt=opt):
        opt.mask = np.ones((3, 2), bool)
    with refused(ValueError, "can't be embedded: with these arguments it needs means over rows"):
        fastopt.embed(fastopt.AdaGrad, per_row=True)
