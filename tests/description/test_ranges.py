"""Numbers that become zero or infinite in the dtype of the parameters are refused, wherever they come from."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fastopt
from fastopt.description.hyperparameters import (
    common_range,
    decay,
    finite,
    is_choice,
    limit_or_none,
    nonnegative,
    plainly,
    positive,
)
from fastopt.rules import momentum
from tests.refusal import refused
from tests.table import TABLE

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
LEAST, MOST = 2.0**-149, float(np.finfo(np.float32).max)

# What is lost in float32, and how messages say so.
LOST = {1e-46: "got 1e-46, which is 0 there", 1e39: "got 1e+39, which is infinite there"}
every_lost = pytest.mark.parametrize("number", LOST)


@given(st.floats())
@example(LEAST / 2)
@example(math.nextafter(LEAST / 2, 1.0))
@example(MOST + 2.0**103)
@example(math.nextafter(MOST + 2.0**103, 0.0))
def test_the_range_is_that_of_rounding(number):
    with np.errstate(all="ignore"):
        single = np.float32(number)
    is_lost = (single == 0 and number != 0) or (np.isinf(single) and math.isfinite(number))
    within = common_range([DOUBLE, SINGLE])
    assert common_range([DOUBLE]).kept("x", number) is number
    if not is_lost:
        assert within.kept("x", number) is number
        return
    with pytest.raises(ValueError, match="x must be within the range of float32, the parameters' dtype, got"):
        within.kept("x", (0.5, number))


@given(st.floats() | st.integers() | st.booleans() | st.none() | st.just(np.float64(0.5)))
@example(1e-3)
@example(0.5)
@example(0.0)
def test_the_quick_look_lets_pass_what_the_whole_one_leaves_as_it_is(value):
    within = common_range([SINGLE])
    for check in (finite, positive, nonnegative, decay):
        if plainly(check, within)(value):
            assert type(value) is float
            assert within.kept("x", check("x", value)) is value
        else:  # a number that nearly nobody has, or none
            assert not (type(value) is float and (1e-37 < value < 1.0 or (value == 0.0 and check is not positive)))
    assert not plainly(limit_or_none, within)(0.5)


def every_number():
    """Each optimizer with each of its hyper-parameters that is a number or has some, and what these are by default."""
    for cls in dict.fromkeys(row.optimizer for row in TABLE):
        for name, field in {**cls.fields, **cls.common}.items():
            is_number = isinstance(field.default, (float, int, tuple)) and not is_choice(cls.checks, name)
            if is_number and name not in cls.fixed and not field.is_whole:
                yield cls, name, field.default


@pytest.mark.parametrize(
    ("cls", "name", "default"), [*every_number()], ids=lambda value: getattr(value, "__name__", str(value))
)
def test_no_hyperparameter_vanishes_in_the_parameters_dtype(cls, name, default):
    value = 1e-46
    if isinstance(default, tuple):
        value = (value, *default[1:])
    opt = cls(w := np.ones(3, np.float32))
    # Some don't allow so small a number at all.
    with refused(ValueError, name, " must be ", opt=opt):
        opt.param_groups[0][name] = value
    with refused(ValueError, name, " must be "):
        cls(w, **{name: value})


@every_lost
def test_it_is_refused_wherever_a_number_comes_from(number):
    w, words = np.ones(3, np.float32), ("lr must be within the range of float32, the parameters' dtype, ", LOST[number])
    opt = fastopt.SGD([{"params": w}, {"params": np.ones(2)}], lr=0.5)
    for lr in (number, np.float64(number), np.array(number)):
        with refused(ValueError, *words):
            fastopt.SGD(np.ones(3, np.float32), lr=lr)
        with refused(ValueError, *words):
            fastopt.SGD([{"params": np.ones(2)}, {"params": np.ones(3, np.complex64), "lr": lr}])
        with refused(ValueError, *words):
            fastopt.SGD({"a": np.ones(3, np.float32)}, by_name={"a": {"lr": lr}})
        with refused(ValueError, *words, opt=opt):
            opt.add_param_group({"params": np.ones(3, np.float32), "lr": lr})
        with refused(ValueError, *words, opt=opt):
            opt.lr = lr
        with refused(ValueError, *words, opt=opt):
            opt.param_groups[0].update(weight_decay=0.5, lr=lr)
        with refused(ValueError, *words, opt=opt):
            opt.step([np.ones(3), np.ones(2)], lr=lr)
    with refused(ValueError, words[0].replace("lr", "scale"), words[1], opt=opt):
        opt.step([np.ones(3), np.ones(2)], scale=number)
    saved = opt.state_dict()
    saved["groups"][0]["lr"] = number
    with refused(ValueError, *words, opt=opt):
        opt.load_state_dict(saved)
    opt.param_groups[1]["lr"] = number  # whose parameter is of float64
    with refused(ValueError, words[1]):
        fastopt.embed(fastopt.SGD, np.float32, lr=number)


@every_lost
def test_a_schedule_is_named_with_its_step(number):
    opt = fastopt.Adam(np.ones(3, np.float32), lr=lambda step: 0.1 if step < 2 else number)
    opt.step(np.ones(3))
    opt.step(np.ones(3))
    with refused(ValueError, "the schedule's lr(2) must be within the range", LOST[number], opt=opt):
        opt.step(np.ones(3))
    fastopt.Adam(np.ones(3), lr=lambda step: number).step(np.ones(3))


@every_lost
def test_arrays_are_looked_at_element_by_element(number):
    w = np.ones((2, 3), np.float32)
    array = np.full((2, 3), 0.5)
    array[1, 2] = number
    with refused(ValueError, "lr must "):
        fastopt.SGD(w, lr=array)
    with refused(
        ValueError,
        "bounds must be within the range of float32, the parameter's dtype, got -",
        f"at index (1, 2), {LOST[number][11:]}",
    ):
        fastopt.SGD(w, bounds=(-array, None))
    with refused(ValueError, "bounds", LOST[number]):
        fastopt.SGD(w, bounds=(None, number))
    z = np.ones((2, 3), np.complex64)
    with refused(ValueError, "bounds", "at index (1, 2)"):
        fastopt.SGD(z, bounds=(-1j * array, None))
    fastopt.SGD(np.ones((2, 3)), lr=array, bounds=(None, array))


def test_what_stays_a_number_is_allowed():
    w = np.ones(3, np.float32)
    opt = fastopt.SGD(w, lr=LEAST, momentum=1e-42, bounds=(-math.inf, math.inf), clip_norm=1e300)
    assert (opt.lr, opt.param_groups[0]["bounds"]) == (LEAST, (-math.inf, math.inf))
    opt.step(np.ones(3), scale=0.0)
    opt.lr = MOST
    # It rounds to 1, but what the rule takes in place of 1 - beta is computed in double precision.
    fastopt.Adam(w, betas=(0.9, 1.0 - 1e-9)).step(np.ones(3))
    fastopt.Adam([{"params": w, "clip_norm": 1e-50}])


def test_a_default_of_ones_own_is_looked_at_too():
    class Slow(fastopt.Optimizer):
        rule, state_names = momentum, ("p",)
        beta: float = 1e-50

        def coefficients(self, hyper, t):
            return hyper["beta"], 1.0, 0.0, 1.0

    Slow(np.ones(2))
    Slow(np.ones(2, np.float32), beta=0.5)
    with refused(ValueError, "beta must be within the range of float32, the parameters' dtype, got 1e-50, which is 0 there"):
        Slow(np.ones(2, np.float32))
