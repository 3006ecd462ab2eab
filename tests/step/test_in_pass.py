"""What is done around the update in the same pass, against a plain sequence of separate passes over NumPy arrays."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from tests.passes import check
from tests.table import ELEMENTWISE, FLOATS, RULES, assert_same_bits, every_dtype, form, singles

FREE = (fastopt.ScheduleFreeSGD, fastopt.ScheduleFreeAdamW)
# The options are made around any rule alike: all of them at once for every rule, and all combinations for a few.
ROWS = [row for row in RULES if row in ELEMENTWISE and row.optimizer not in (*FREE, fastopt.FTRL)]
FEW = [row for row in ROWS if row.rule.__name__ in ("gradient_descent", "momentum", "rprop")]

options = st.fixed_dictionaries(
    {},
    optional={
        "bounds": st.tuples(st.none() | singles(-2.0, 0.0), st.none() | singles(0.0, 2.0)),
        "clip_norm": st.floats(0.01, 30.0),
        "clip_value": st.floats(0.01, 3.0),
        "copy_to": st.sampled_from([np.float16, np.float32, np.float64]),
        "ema_decay": singles(0.0, 1.0),
        "flush_subnormals": st.booleans(),
        "l1": singles(0.0, 2.0),
        "mask": st.booleans(),
        "maximize": st.booleans(),
        "nonfinite": st.sampled_from(["skip", "propagate"]),
        "project_gradient": st.booleans(),
        "zero_grad": st.booleans(),
    },
)


@given(
    st.sampled_from(FEW),
    options,
    st.sampled_from([1.0, 0.5, -3.0, 1e-3]),
    st.sampled_from(FLOATS),
    st.sampled_from(FLOATS),
    st.integers(0, 70),
    st.integers(0, 2**32 - 1),
)
def test_one_pass_has_the_bits_of_many(row, options, scale, dtype, gradient, size, seed):
    options = {key: value for key, value in options.items() if key != "mask" or value}
    check(row, options, scale, dtype, gradient, size, seed)


ALL = {"bounds": (-0.5, 0.75), "clip_norm": 20.0, "clip_value": 0.5, "copy_to": np.float16, "ema_decay": 0.9}
ALL |= {
    "flush_subnormals": True,
    "l1": 0.1,
    "mask": True,
    "maximize": True,
    "nonfinite": "skip",
    "project_gradient": True,
    "zero_grad": True,
}


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_dtype
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_rule_takes_all_of_them(row, dtype):
    check(row, ALL, 0.5, dtype, dtype, size=1003, seed=0)


WATCHING = {"clip_norm": np.inf, "ema_decay": 0.75, "zero_grad": True}


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_dtype
@pytest.mark.parametrize("row", RULES, ids=str)
def test_what_only_watches_changes_no_bit_of_any_rule(row, dtype):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=1003).astype(dtype)
    plain, copy = theta.copy(), np.zeros(1003, np.float16)
    opt, bare = row.make(theta, **WATCHING, copy_to=copy), row.make(plain)
    ema = theta.copy()
    for _ in range(3):
        g = rng.normal(size=1003).astype(dtype)
        bare.step(g)
        opt.step(g)
        ema = ema + dtype(0.25) * (plain - ema)
        assert_same_bits(theta, plain)
        assert_same_bits(opt.ema, ema)
        assert_same_bits(copy, plain.astype(np.float16))
        assert not g.any()
    for name in row.states:
        assert_same_bits(opt.state[name], bare.state[name], name)


@pytest.mark.wide(by=lambda row, dtype: (form(row), dtype))
@every_dtype
@pytest.mark.parametrize("row", [row for row in RULES if row.optimizer not in FREE], ids=str)
def test_nothing_leaves_its_bounds(row, dtype):
    rng = np.random.default_rng(0)
    theta = rng.uniform(-1, 1, size=200).astype(dtype)
    opt = row.make(theta, lr=10.0, bounds=(-1.0, np.linspace(1.0, 2.0, 200)))
    for scale in (1e-30, 1.0, 1e30):
        opt.step((scale * rng.normal(size=200)).astype(dtype))
        finite = theta[np.isfinite(theta)]
        assert np.all(finite >= -1.0)
        assert np.all(theta[~np.isnan(theta)] <= np.linspace(1.0, 2.0, 200).astype(dtype)[~np.isnan(theta)])


def test_bounds_are_a_projection():
    w = np.array([0.5, 0.5, -0.5, 3.0])
    opt = fastopt.SGD(w, lr=1.0, bounds=(0.0, 1.0))
    opt.step(np.array([0.25, 5.0, 0.0, 0.0]))
    np.testing.assert_array_equal(w, [0.25, 0.0, 0.0, 1.0])
    assert not np.signbit(w).any()


@pytest.mark.parametrize("maximize", [False, True])
def test_a_projected_gradient_leaves_a_bound_at_once(maximize):
    steps = {}
    for project in (False, True):
        w, sign = np.zeros(2), -1.0 if maximize else 1.0
        opt = fastopt.Adam(w, lr=0.01, bounds=(0.0, 1.0), project_gradient=project, maximize=maximize)
        for _ in range(200):
            opt.step(sign * np.array([100.0, 0.0]))
        np.testing.assert_array_equal(w, 0.0)
        count = 0
        while w[0] < 0.1 and count < 1000:
            opt.step(sign * np.array([-1.0, 0.0]))
            count += 1
        steps[project] = count
    assert steps[False] > 500
    assert steps[True] <= 15


def test_only_the_outward_part_of_the_gradient_is_taken_as_zero():
    w = np.array([0.0, 0.0, 1.0, 1.0, 0.5, 0.0])
    low, high = np.zeros(6), np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    opt = fastopt.SGD(w, lr=0.25, momentum=0.5, bounds=(low, high), project_gradient=True)
    opt.step(np.array([1.0, -1.0, 1.0, -1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(opt.state["p"], [0.0, -1.0, 1.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(w, [0.0, 0.25, 0.75, 1.0, 0.25, 0.0])
    opt.param_groups[0]["bounds"] = None  # then there is nothing to project on
    opt.step(np.ones(6))
    np.testing.assert_array_equal(w, [-0.25, 0.125, 0.375, 0.75, -0.125, -0.25])


def test_bounds_are_arrays_nested_as_the_parameters_and_of_each_group():
    params = {"W": np.zeros((2, 3), np.float32), "b": np.zeros(3)}
    low = {"W": np.full((2, 3), -0.25), "b": np.array([-1.0, -np.inf, 0.0])}
    opt = fastopt.SGD(params, lr=1.0, bounds=(low, None))
    opt.step({"W": np.ones((2, 3)), "b": np.full(3, 2.0)})
    np.testing.assert_array_equal(params["W"], -0.25)
    np.testing.assert_array_equal(params["b"], [-1.0, -2.0, 0.0])
    low["b"][...] = 5.0
    assert opt.param_groups[0]["bounds"][0]["b"][0] == -1.0
    assert "bounds=" in repr(opt)

    a, b = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD([{"params": a, "bounds": (None, 0.5)}, {"params": b}], lr=1.0, bounds=(-0.1, 0.1))
    opt.step([np.full(2, -3.0), np.full(2, -3.0)])
    assert (a[0], b[0]) == (0.5, 0.1)

    flat = fastopt.flatten([np.zeros(2), np.zeros(1)])
    high = flat.like()
    high[0][...] = 0.25
    opt = fastopt.SGD(flat, lr=1.0, bounds=(None, high))
    opt.step(fastopt.flatten([np.full(2, -1.0), np.full(1, -1.0)]))
    np.testing.assert_array_equal(flat.buffer, [0.25, 0.25, 0.0])


def test_bounds_can_change_and_are_saved():
    w = np.zeros(3)
    opt = fastopt.Adam(w, lr=1.0, bounds=(-0.5, np.array([0.1, 0.2, 0.3])))
    opt.step(-np.ones(3))
    np.testing.assert_array_equal(w, [0.1, 0.2, 0.3])
    other, model = fastopt.Adam(w.copy(), lr=1.0), w.copy()
    other.load_state_dict(opt.state_dict())
    _, loaded = pickle.loads(pickle.dumps((model, opt)))
    for each in (opt, other, loaded):
        each.step(-np.ones(3))
        np.testing.assert_array_equal(each.params, [0.1, 0.2, 0.3])
    opt.param_groups[0]["bounds"] = None
    opt.step(-np.ones(3))
    assert np.all(w > 0.5)


def test_l1_leaves_exact_zeros_and_shortens_the_rest():
    w = np.array([1.0, -1.0, 0.05, -0.05, 0.0])
    opt = fastopt.SGD(w, lr=0.5, l1=0.2)
    opt.step(np.zeros(5))
    np.testing.assert_array_equal(w, [0.9, -0.9, 0.0, 0.0, 0.0])


def test_ftrl_keeps_its_own_l1():
    w = np.zeros(3)
    opt = fastopt.FTRL(w, lr=0.1, l1=0.5)
    assert opt.param_groups[0].rule is fastopt.optimizers.ftrl.ftrl
    opt.step(np.array([1.0, 0.1, -1.0]))
    assert w[1] == 0


def test_clipped_gradients_are_limited_and_nan_stays():
    w = np.zeros(4)
    fastopt.SGD(w, lr=1.0, clip_value=0.5).step(np.array([3.0, -np.inf, 0.25, np.nan]))
    np.testing.assert_array_equal(w, [-0.5, 0.5, -0.25, np.nan])


def test_a_clip_value_may_follow_a_schedule_of_numbers():
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0, clip_value=lambda step: [1.0, 0.5, None][step])
    opt.step(np.full(2, 3.0))
    opt.step(np.full(2, 3.0))
    with pytest.raises(TypeError, match=r"the schedule's clip_value\(2\) must be a real number, got None"):
        opt.step(np.full(2, 3.0))
    np.testing.assert_array_equal(w, -1.5)
    assert opt.step_count == 2


def test_a_scale_takes_part_in_norms_too():
    one, other = np.full(5, 2.0), np.full(5, 2.0)
    a, b = fastopt.LARS(one, lr=0.1), fastopt.LARS(other, lr=0.1)
    g = np.linspace(1.0, 2.0, 5)
    a.step(g, scale=0.25)
    b.step(0.25 * g)
    assert_same_bits(one, other)
    a.step(g)
    b.step(g)
    assert_same_bits(one, other)


BAD = [
    ({"bounds": 3.0}, TypeError, "bounds must be None, or a lower and an upper bound, got 3.0"),
    ({"bounds": (1.0, 2.0, 3.0)}, TypeError, "a lower and an upper bound"),
    ({"bounds": ("a", None)}, TypeError, "bounds must be a real number, got 'a'"),
    ({"bounds": (1.0, 0.5)}, ValueError, "no lower bound above the upper one"),
    ({"bounds": (float("nan"), None)}, ValueError, "bounds must hold no NaN, got"),
    ({"bounds": (np.array([0.0, np.nan, 0.0]), None)}, ValueError, "bounds must hold no NaN"),
    ({"bounds": (np.zeros(4), None)}, ValueError, r"bounds must have the shape \(3,\)"),
    ({"bounds": (np.ones(3), np.zeros(3))}, ValueError, "no lower bound above the upper one, which those of params have"),
    ({"clip_value": 0.0}, ValueError, "clip_value must be None or a finite number of more than 0, got 0.0"),
    ({"clip_value": "x"}, TypeError, "clip_value must be a real number"),
    ({"l1": -1.0}, ValueError, "l1 must be a finite number of at least 0"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=str)
def test_bad_options_are_refused_and_change_nothing(options, error, message):
    w = np.zeros(3)
    with pytest.raises(error, match=message):
        fastopt.Adam(w, **options)
    opt = fastopt.Adam(w)
    with pytest.raises(error, match=message):
        opt.param_groups[0].update(options)
    assert all(opt.param_groups[0][key] in (None, 0.0) for key in options)


@pytest.mark.parametrize(("scale", "error"), [("x", TypeError), (np.nan, ValueError), (np.inf, ValueError), (None, TypeError)])
def test_a_bad_scale_is_refused_and_changes_nothing(scale, error):
    w = np.zeros(3)
    opt = fastopt.Adam(w)
    with pytest.raises(error, match="scale must be"):
        opt.step(np.ones(3), scale=scale)
    assert opt.step_count == 0
    assert not w.any()


@pytest.mark.parametrize("optimizer", FREE)
@pytest.mark.parametrize("options", [{"bounds": (0.0, 1.0)}, {"l1": 0.1}])
def test_schedule_free_optimizers_refuse_what_would_lose_their_average(optimizer, options):
    (key,) = options
    with pytest.raises(ValueError, match=f"{key}=.* is not for schedule-free optimizers"):
        optimizer(np.ones(3), **options)


def test_options_that_are_off_leave_the_rule_alone():
    off = {"bounds": None, "l1": 0.0, "clip_value": None, "clip_norm": None, "nonfinite": "propagate", "ema_decay": None}
    off |= {"copy_to": None, "zero_grad": False, "flush_subnormals": False, "complex_mode": "parts"}
    (group,) = fastopt.Adam(np.zeros(3), **off).param_groups
    assert group.rule is fastopt.optimizers.adam.adam
    assert not group.scales
