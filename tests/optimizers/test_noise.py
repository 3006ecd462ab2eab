"""NoisySGD's random numbers: the same for every dtype and structure, in runs that go on, and after steps that failed."""

import contextlib
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt
from fastopt.step.stepping import Stepping
from tests.table import assert_same_bits


def steps(opt, theta, count):
    for _ in range(count):
        opt.step(np.zeros_like(theta))
    return theta


def test_the_noise_is_that_of_numpys_generator_and_fades():
    theta = np.zeros(5)
    opt = fastopt.NoisySGD(theta, lr=1.0, eta=0.25, gamma=1.0, seed=7)
    generator = np.random.default_rng(7)
    expected = np.zeros(5)
    for t in (1, 2, 3):
        opt.step(np.zeros(5))
        expected = expected - np.sqrt(0.25 / t) * generator.standard_normal(5)
        np.testing.assert_allclose(theta, expected, rtol=1e-14)


def test_it_has_mean_zero_and_the_variance_that_it_should():
    theta = np.zeros(100_000, np.float32)
    fastopt.NoisySGD(theta, lr=1.0, eta=0.25).step(np.zeros_like(theta))
    assert abs(theta.mean()) < 5 * 0.5 / np.sqrt(theta.size)
    assert abs(theta.std() / 0.5 - 1) < 5 / np.sqrt(2 * theta.size)


def test_structures_see_the_same_numbers_as_one_vector():
    vector = np.zeros(10)
    params = {"W": np.zeros((2, 3)), "b": np.zeros(4)}
    fastopt.NoisySGD(vector, lr=1.0).step(np.zeros(10))
    fastopt.NoisySGD(params, lr=1.0).step({"W": np.zeros((2, 3)), "b": np.zeros(4)})
    np.testing.assert_array_equal(np.concatenate([params["W"].ravel(), params["b"]]), vector)


def test_seeds_differ_and_repeat():
    one, same, other = (
        steps(fastopt.NoisySGD(w, seed=s), w, 3) for w, s in ((np.zeros(9), 1), (np.zeros(9), 1), (np.zeros(9), 2))
    )
    assert_same_bits(same, one)
    assert not np.any(other == one)


@pytest.mark.parametrize("saved_after", [0, 1, 4])
def test_a_run_that_goes_on_sees_the_same_noise(saved_after):
    theta = np.zeros(600)
    opt = fastopt.NoisySGD(theta, lr=0.5, seed=3)
    steps(opt, theta, saved_after)
    copy = theta.copy()
    resumed = fastopt.NoisySGD(copy, lr=0.5, seed=99)
    resumed.load_state_dict(opt.state_dict())
    model, loaded = pickle.loads(pickle.dumps((theta, opt)))
    for own, each in ((theta, opt), (copy, resumed), (model, loaded)):
        steps(each, own, 3)
    assert_same_bits(copy, theta)
    assert_same_bits(model, theta)


def test_a_failed_step_draws_nothing():
    theta, twin = np.zeros(5), np.zeros(5)
    opt, other = fastopt.NoisySGD(theta), fastopt.NoisySGD(twin)
    with pytest.raises(ValueError, match="grads must have the shape"):
        opt.step(np.zeros(6))
    assert_same_bits(steps(opt, theta, 2), steps(other, twin, 2))


def test_no_noise_comes_twice_after_a_step_that_was_taken_and_interrupted(monkeypatch):
    theta, twin = np.zeros(5), np.zeros(5)
    opt, other = fastopt.NoisySGD(theta), fastopt.NoisySGD(twin)
    take = Stepping.take

    def interrupted(*arguments):
        monkeypatch.undo()
        take(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Stepping, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opt.step(np.zeros(5))
    assert_same_bits(steps(opt, theta, 1), steps(other, twin, 2))


def before_the_second_draw(opt, happen):
    """Let something happen when noise is drawn for the second time."""
    generator, drawn = opt._generator, []

    def standard_normal(size):
        drawn.append(size)
        if len(drawn) == 2:
            happen()
        return generator.standard_normal(size)

    opt._generator = SimpleNamespace(bit_generator=generator.bit_generator, standard_normal=standard_normal)


def test_noise_that_an_interrupt_has_left_half_drawn_is_drawn_again():
    theta, twin = np.zeros(1000), np.zeros(1000)
    opt, other = fastopt.NoisySGD(theta), fastopt.NoisySGD(twin)

    def interrupt():
        raise KeyboardInterrupt

    before_the_second_draw(opt, interrupt)
    with pytest.raises(KeyboardInterrupt):
        opt.step(np.zeros(1000))
    assert_same_bits(steps(opt, theta, 1), steps(other, twin, 2))


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_signal_handler_may_step_while_noise_is_drawn(is_refused):
    theta, twin = np.zeros(1000), np.zeros(1000)
    opt, other = fastopt.NoisySGD(theta), fastopt.NoisySGD(twin)

    def handler():
        with contextlib.suppress(ValueError):
            opt.step(np.zeros(3 if is_refused else 1000))

    before_the_second_draw(opt, handler)
    opt.step(np.zeros(1000))
    assert_same_bits(steps(opt, theta, 2), steps(other, twin, 3 if is_refused else 4))


@pytest.mark.parametrize("generator", [{}, {"bit_generator": "MT19937"}, 3, None])
def test_a_damaged_generator_is_refused_and_changes_nothing(generator):
    theta, twin = np.zeros(5), np.zeros(5)
    opt, other = fastopt.NoisySGD(theta), fastopt.NoisySGD(twin)
    saved = {**opt.state_dict(), "generator": generator}
    with pytest.raises(ValueError, match=r"state_dict\['generator'\] is not the state"):
        opt.load_state_dict(saved)
    with pytest.raises(ValueError, match="state_dict lacks the key 'generator'"):
        opt.load_state_dict({key: value for key, value in saved.items() if key != "generator"})
    assert_same_bits(steps(opt, theta, 2), steps(other, twin, 2))


def test_a_dict_that_is_refused_otherwise_leaves_the_noise_alone():
    theta, twin = np.zeros(5), np.zeros(5)
    opt, other = fastopt.NoisySGD(theta), fastopt.NoisySGD(twin)
    foreign = fastopt.NoisySGD(np.zeros(5), seed=5).state_dict() | {"step_count": -1}
    with pytest.raises(ValueError, match="step_count"):
        opt.load_state_dict(foreign)
    assert_same_bits(steps(opt, theta, 2), steps(other, twin, 2))


def test_a_group_that_is_added_draws_after_the_others():
    theta, late, whole = np.zeros(4), np.zeros(3), np.zeros(7)
    opt = fastopt.NoisySGD(theta, lr=1.0)
    opt.add_param_group({"params": late})
    opt.step([np.zeros(4), np.zeros(3)])
    fastopt.NoisySGD(whole, lr=1.0).step(np.zeros(7))
    np.testing.assert_array_equal(np.concatenate([theta, late]), whole)
