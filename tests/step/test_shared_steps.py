"""Steps that several take together, here threads of one process: the sums go over all of them."""

import copy
import functools
import math
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.step.shared_steps import rooted, squared
from tests.refusal import refused
from tests.table import RULES, assert_same_bits, form


class Participants:
    """So many threads that add up arrays, in their order."""

    def __init__(self, count):
        self.count = count
        self.lengths = []
        self._meeting = threading.Barrier(count, timeout=60)
        self._arrays = [None] * count

    def reduce(self, who, array):
        self._arrays[who] = array.copy()
        self._meeting.wait()
        total = functools.reduce(np.add, self._arrays)
        self._meeting.wait()
        if who == 0:
            self.lengths.append(array.size)
        return total

    def run(self, function):
        """What ``function(who, reduce)`` gives, or the exception that it raises, in each thread."""
        results = [None] * self.count

        def call(who):
            try:
                results[who] = function(who, functools.partial(self.reduce, who))
            except BaseException as error:
                results[who] = error

        threads = [threading.Thread(target=call, args=(who,)) for who in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


SIZES = (40, 7)  # of two tensors, cut at these places
CUTS = [(0, 0), (13, 0), (13, 5), SIZES]
STEPS = 3

# But for the optimizer whose noise each of them draws.
ALIKE = [row for row in RULES if row.optimizer is not fastopt.NoisySGD]


def numbers(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(dtype) for size in SIZES]


def part(arrays, who):
    return [array[begin:end].copy() for array, begin, end in zip(arrays, CUTS[who], CUTS[who + 1], strict=True)]


def steps_of(make, params, cut=lambda arrays: arrays, **options):
    opt = make(params, **options)
    for seed in range(STEPS):
        opt.step(cut(numbers(10 + seed)))
    return opt


def is_possible(row, options):
    try:
        return row.make([np.ones(1)], **options) is not None
    except (TypeError, ValueError):
        return False


@pytest.mark.wide(by=lambda row, options: ((form(row), str(options)),))
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5, "weight_decay": 0.01}, {"cautious": True}], ids=str)
@pytest.mark.parametrize("row", ALIKE, ids=lambda row: row.compiled_rule.__name__)
def test_parts_move_as_the_whole_does(row, options):
    options = options if is_possible(row, options) else {"nonfinite": "skip"}
    whole = steps_of(row.make, numbers(1), **options)
    participants = Participants(3)
    parts = participants.run(
        lambda who, reduce: steps_of(row.make, part(numbers(1), who), lambda g: part(g, who), reduce=reduce, **options)
    )
    for tensor, expected in enumerate(whole.params):
        joined = np.concatenate([opt.params[tensor] for opt in parts])
        if participants.lengths:
            np.testing.assert_allclose(joined, expected, rtol=1e-12, atol=1e-14)
        else:
            assert_same_bits(joined, expected)
    messages = ("clip_norm" in options or "nonfinite" in options) + (whole.param_groups[0].measure is not None)
    assert len(participants.lengths) == STEPS * messages
    assert max(participants.lengths, default=0) <= 18
    assert {opt.grad_norm for opt in parts} == {parts[0].grad_norm}
    if whole.grad_norm is not None:
        assert parts[0].grad_norm == pytest.approx(whole.grad_norm, rel=1e-14)


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0.5}, {"cautious": True}, {"nonfinite": "raise", "clip_norm": math.inf}], ids=str
)
def test_alone_it_has_the_same_bits(options):
    whole, alone = (steps_of(fastopt.Adam, numbers(1), **options, **more) for more in ({}, {"reduce": lambda array: None}))
    for array, expected in zip(alone.params, whole.params, strict=True):
        assert_same_bits(array, expected)
    assert alone.grad_norm == whole.grad_norm


def test_the_norm_of_gradients_before_a_step():
    grads = numbers(3)
    expected = math.sqrt(sum(np.square(g).sum() for g in grads))
    opt = fastopt.Adam(numbers(1))
    before = copy.deepcopy(opt.params)
    for _ in range(2):
        assert opt.norm(grads) == pytest.approx(expected, rel=1e-14)
        assert opt.norm([g.astype(np.float32) for g in grads]) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_equal(opt.params, before)
    assert (opt.step_count, opt.grad_norm) == (0, None)
    huge = [np.full(40, 1e300), np.zeros(7)]
    assert opt.norm(huge) == pytest.approx(1e300 * math.sqrt(40), rel=1e-14)
    with refused(ValueError, "grads[1]", "shape", opt=opt):
        opt.norm([grads[0], grads[0]])
    opt.param_groups[0]["mask"] = [np.arange(40) < 1, np.zeros(7, bool)]
    assert opt.norm(grads) == pytest.approx(abs(grads[0][0]), rel=1e-14)
    participants = Participants(3)
    norms = participants.run(lambda who, reduce: fastopt.Adam(part(numbers(1), who), reduce=reduce).norm(part(grads, who)))
    assert norms == pytest.approx([expected] * 3, rel=1e-14)
    assert participants.lengths == [7]
    assert len(set(norms)) == 1


@given(st.lists(st.floats(0, 1e307), min_size=1, max_size=9))
def test_norms_are_added_up_without_overflow(norms):
    total = rooted(sum(squared(np.array([norm])) for norm in norms))
    assert total[0] == pytest.approx(math.hypot(*norms), rel=1e-13)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_norms_that_are_not_finite_stay_so(wrong):
    assert not math.isfinite(rooted(squared(np.array([wrong])) + squared(np.array([1.0])))[0])


def test_clipping_where_squares_leave_double_precision():
    def clipped(who, reduce):
        opt = fastopt.SGD(w := np.zeros(1), lr=1.0, clip_norm=5.0, reduce=reduce)
        opt.step(np.array([3e200 if who else 4e200]))
        return float(w[0]), opt.grad_norm

    assert Participants(2).run(clipped) == [
        (pytest.approx(-4.0), pytest.approx(5e200)),
        (pytest.approx(-3.0), pytest.approx(5e200)),
    ]


def of_two(nonfinite, **options):
    """A step after which one of two had a gradient that is not finite, and one after it."""

    def steps(who, reduce):
        opt = fastopt.LAMB(w := np.ones(3), nonfinite=nonfinite, reduce=reduce, **options)
        g = np.array([1.0, math.nan if who else 2.0, 3.0])
        error = None
        try:
            opt.step(g)
        except ValueError as caught:
            error = str(caught)
        assert (opt.step_count, w.tolist()) == (0, [1.0] * 3)
        opt.step(np.ones(3))
        return opt.skipped_steps, opt.step_count, g.tolist(), error

    return Participants(2).run(steps)


def test_all_skip_what_one_has_to():
    assert [found[:2] for found in of_two("skip")] == [(1, 1)] * 2
    assert [found[2] for found in of_two("skip", zero_grad=True)] == [[0.0] * 3] * 2


def test_all_raise_what_one_has_to():
    (*_, other), (*_, own) = of_two("raise")
    assert "another one" in other
    assert own == "the gradient of params must be finite, got nan at index (1,)"


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}, {"cautious": True}, {"clip_norm": 1.0, "cautious": True}], ids=str)
@pytest.mark.parametrize("when", [0, 1])
@pytest.mark.parametrize(
    ("wrong", "expected", "words"),
    [
        ({"grads": np.ones(4)}, ValueError, "shape"),
        ({}, TypeError, "grads is missing"),
        ({"grads": np.ones(3), "lr": -1.0}, ValueError, "lr must be"),
    ],
    ids=["shape", "missing", "lr"],
)
def test_one_that_fails_ends_the_step_of_all(options, when, wrong, expected, words):
    def steps(who, reduce):
        opt = fastopt.Adam(w := np.ones(3), reduce=reduce, **options)
        for _ in range(when):
            opt.step(np.ones(3))
        before = w.copy()
        try:
            opt.step(**(wrong if who == 1 else {"grads": np.ones(3)}))
        except (TypeError, ValueError, RuntimeError) as caught:
            error = caught
        np.testing.assert_array_equal(w, before)
        assert opt.step_count == when
        opt.step(np.ones(3))  # and they go on
        return error

    errors = Participants(3).run(steps)
    assert [type(error) for error in errors] == [RuntimeError, expected, RuntimeError]
    assert "another one of those who take part" in str(errors[0])
    assert words in str(errors[1])


@pytest.mark.parametrize("row", [row for row in ALIKE if row.make([np.ones(1)]).param_groups[0].measure is not None], ids=str)
def test_one_that_fails_before_anything_is_prepared_sends_as_much_as_the_others(row):
    participants = Participants(2)
    failing = threading.Event()

    def rate(step):
        if failing.is_set() and threading.current_thread().name == "1":
            raise ValueError("no rate")
        return 0.1

    def steps(who, reduce):
        threading.current_thread().name = str(who)
        opt = row.make([np.ones(3), np.ones(2)], lr=rate, reduce=reduce)
        failing.set()
        errors = []
        for _ in range(2):
            try:
                opt.step([np.ones(3), np.ones(2)])
            except (ValueError, RuntimeError) as error:
                errors.append(str(error))
            failing.clear()
        return errors, opt.step_count

    (others, count), (own, _) = participants.run(steps)
    assert (len(others), own, count) == (1, ["no rate"], 1)
    assert len(set(participants.lengths)) == 1


def test_accumulated_gradients_are_clipped_together():
    def steps(who, reduce):
        opt = fastopt.SGD(w := np.zeros(1), lr=1.0, clip_norm=5.0, reduce=reduce)
        for _ in range(2):
            opt.accumulate(np.array([60.0 if who else 80.0]))
        opt.step()
        return float(w[0]), opt.grad_norm

    assert Participants(2).run(steps) == [
        (pytest.approx(-4.0), pytest.approx(100.0)),
        (pytest.approx(-3.0), pytest.approx(100.0)),
    ]


def test_tensors_that_are_empty_for_some_or_for_all():
    # Cut between two who take part; the last tensor has no element at all.
    def steps(who, reduce):
        opt = fastopt.Adam(
            [np.ones((2, 0)[who]), np.ones((0, 3)[who]), np.ones(0)], cautious=True, clip_norm=1.0, reduce=reduce
        )
        opt.step([np.ones(len(p)) for p in opt.params])
        return opt.params

    whole = fastopt.Adam([np.ones(2), np.ones(3), np.ones(0)], cautious=True, clip_norm=1.0)
    whole.step([np.ones(2), np.ones(3), np.ones(0)])
    (first, *_), (_, second, _) = Participants(2).run(steps)
    np.testing.assert_allclose(np.concatenate([first, second]), np.concatenate(whole.params), rtol=1e-14)


def test_options_of_all_can_be_set_between_steps():
    def steps(who, reduce):
        opt = fastopt.SGD(w := np.zeros(1), lr=1.0, reduce=reduce)
        opt.step(np.array([3.0 if who else 4.0]))
        opt.clip_norm = 1.0
        opt.step(np.array([3.0 if who else 4.0]))
        return float(w[0])

    assert Participants(2).run(steps) == [pytest.approx(-4.8), pytest.approx(-3.6)]


def test_steps_of_some_rows_send_nothing():
    opt = fastopt.SGD(w := np.zeros((3, 2)), lr=1.0, reduce=doubling)
    opt.step_rows(np.array([1]), np.ones((1, 2)))
    assert w.tolist() == [[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]]
    opt.clip_norm = 1.0
    with refused(ValueError, "clip_norm and nonfinite", "reduce", opt=opt):
        opt.step_rows(np.array([1]), np.ones((1, 2)))


def test_parameters_that_are_only_read_have_a_norm():
    opt = fastopt.SGD(w := np.zeros(2))
    w.flags.writeable = False
    assert opt.norm(np.array([3.0, 4.0])) == 5.0


def doubling(array):
    array *= 2


def test_sums_come_back_in_place_or_as_a_result():
    norms = []
    for reduce in (doubling, lambda array: 2 * array):
        opt = fastopt.SGD(np.zeros(2), clip_norm=1.0, reduce=reduce)
        opt.step(np.array([3.0, 4.0]))
        norms.append(opt.grad_norm)
    assert norms == pytest.approx([5 * math.sqrt(2)] * 2)


def test_what_is_no_reduction_is_refused():
    with refused(TypeError, "reduce must be None or callable", "3"):
        fastopt.SGD(np.zeros(2), reduce=3)
    for wrong in (lambda array: 1.0, lambda array: array[:1], lambda array: array.astype(np.float32)):
        opt = fastopt.SGD(np.zeros(2), clip_norm=1.0, reduce=wrong)
        with refused(TypeError, "reduce must add an array of float64", opt=opt):
            opt.step(np.ones(2))

    def failing(array):
        raise OSError("no connection")

    opt = fastopt.SGD(np.zeros(2), clip_norm=1.0, reduce=failing)
    with refused(OSError, "no connection", opt=opt):
        opt.step(np.ones(2))


def test_copies_share_the_reduction_and_state_dicts_have_none():
    opt = fastopt.SGD(np.zeros(2), clip_norm=1.0, reduce=doubling)
    for twin in (copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        twin.step(np.array([3.0, 4.0]))
        assert twin.grad_norm == pytest.approx(5 * math.sqrt(2))
    assert "reduce" not in opt.state_dict()["whole"]
    other = fastopt.SGD(np.zeros(2))
    other.load_state_dict(opt.state_dict())
    other.step(np.array([3.0, 4.0]))
    assert other.grad_norm == 5.0
