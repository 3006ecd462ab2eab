"""Schedules: the numbers of PyTorch's and optax's, and as hyper-parameters of optimizers."""

import copy
import pickle
from operator import attrgetter

import numpy as np
import pytest

import fastopt
from fastopt import schedules as s
from tests.refusal import refused
from tests.table import assert_same_bits

STEPS = 40

TORCH = [
    (s.Constant(0.3 * 0.5, 5, 0.5), "ConstantLR", {"factor": 0.3, "total_iters": 5}),
    (s.Linear(0.5 * 0.2, 0.5 * 0.9, 7), "LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 7}),
    (s.Step(0.5, 6, 0.3), "StepLR", {"step_size": 6, "gamma": 0.3}),
    (s.MultiStep(0.5, [9, 4, 4], 0.3), "MultiStepLR", {"milestones": [9, 4, 4], "gamma": 0.3}),
    (s.Exponential(0.5, 0.9), "ExponentialLR", {"gamma": 0.9}),
    (s.Polynomial(0.5, 0.0, 30, power=2.5), "PolynomialLR", {"total_iters": 30, "power": 2.5}),
    (s.Cosine(0.5, STEPS, 0.01), "CosineAnnealingLR", {"T_max": STEPS, "eta_min": 0.01}),
    (s.CosineWarmRestarts(0.5, 7), "CosineAnnealingWarmRestarts", {"T_0": 7}),
    (s.CosineWarmRestarts(0.5, 3, 2, 0.01), "CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
    (s.OneCycle(0.7, STEPS), "OneCycleLR", {"max_lr": 0.7, "total_steps": STEPS}),
    (s.OneCycle(0.7, STEPS, three_phase=True), "OneCycleLR", {"max_lr": 0.7, "total_steps": STEPS, "three_phase": True}),
    (
        s.OneCycle(0.7, STEPS, up=0.4, first_divisor=10, last_divisor=100, linear=True),
        "OneCycleLR",
        {"max_lr": 0.7, "total_steps": STEPS, "pct_start": 0.4, "div_factor": 10, "final_div_factor": 100}
        | {"anneal_strategy": "linear"},
    ),
]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(("own", "name", "arguments"), TORCH, ids=lambda value: value if isinstance(value, str) else "")
def test_pytorch(own, name, arguments, torch):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    for step in range(STEPS):
        assert own(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-15)
        optimizer.step()
        if step < STEPS - 1:
            scheduler.step()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_pytorchs_warmup_joined(torch):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedulers = torch.optim.lr_scheduler
    parts = [schedulers.LinearLR(optimizer, 0.1, 1.0, 5), schedulers.ExponentialLR(optimizer, 0.9)]
    scheduler = schedulers.SequentialLR(optimizer, parts, [5])
    own = s.Warmup(s.Exponential(0.5, 0.9), 5, start=0.05)
    for step in range(20):
        assert own(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.peers
@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ({"signed": True}, {}),
        ({"mode": "max", "relative": False, "threshold": 0.1}, {"mode": "max", "threshold_mode": "abs", "threshold": 0.1}),
        ({"mode": "max", "threshold": 0.1, "signed": True}, {"mode": "max", "threshold": 0.1}),
        ({"cooldown": 3, "lowest": 0.1, "signed": True}, {"cooldown": 3, "min_lr": 0.1}),
    ],
)
def test_pytorchs_plateau(own, theirs, torch):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=2, **theirs)
    schedule = s.ReduceOnPlateau(0.5, factor=0.7, patience=2, **own)
    values = set()
    for metric in np.random.default_rng(0).normal(size=100):
        schedule.update(metric)
        scheduler.step(metric)
        values.add(schedule(0))
        assert schedule(0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert len(values) > 3


OPTAX = [
    (s.Constant(0.5), "constant_schedule", {"value": 0.5}),
    (
        s.Linear(0.1, 0.9, 20, begin=5),
        "linear_schedule",
        {"init_value": 0.1, "end_value": 0.9, "transition_steps": 20, "transition_begin": 5},
    ),
    (
        s.Polynomial(0.9, 0.1, 20, power=3.0, begin=5),
        "polynomial_schedule",
        {"init_value": 0.9, "end_value": 0.1, "power": 3.0, "transition_steps": 20, "transition_begin": 5},
    ),
    (
        s.Exponential(0.5, 0.8, 7, begin=3, final=0.2),
        "exponential_decay",
        {"init_value": 0.5, "transition_steps": 7, "decay_rate": 0.8, "transition_begin": 3, "end_value": 0.2},
    ),
    (
        s.Exponential(0.5, 0.8, 7, staircase=True),
        "exponential_decay",
        {"init_value": 0.5, "transition_steps": 7, "decay_rate": 0.8, "staircase": True},
    ),
    (
        s.Cosine(0.5, 30, final=0.05, power=1.5),
        "cosine_decay_schedule",
        {"init_value": 0.5, "decay_steps": 30, "alpha": 0.1, "exponent": 1.5},
    ),
    (
        s.Warmup(s.Cosine(0.5, 20, final=0.01), 10, start=0.1),
        "warmup_cosine_decay_schedule",
        {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 10, "decay_steps": 30, "end_value": 0.01},
    ),
    (
        s.Joined([s.Cosine(0.02, 12, final=0.5), s.Cosine(0.5, 28, final=2e-6)], [12]),
        "cosine_onecycle_schedule",
        {"transition_steps": 40, "peak_value": 0.5},
    ),
    (
        s.MultiStep(0.5, [4, 9], 0.3),
        "piecewise_constant_schedule",
        {"init_value": 0.5, "boundaries_and_scales": {4: 0.3, 9: 0.3}},
    ),
]


@pytest.mark.peers
@pytest.mark.parametrize(("own", "name", "arguments"), OPTAX, ids=lambda value: value if isinstance(value, str) else "")
def test_optax(own, name, arguments, optax):
    theirs = attrgetter(name)(optax)(**arguments)
    for step in range(STEPS + 5):
        # Whatever the mode, optax computes with the step in single precision.
        assert own(step) == pytest.approx(float(theirs(np.float64(step))), rel=1e-6, abs=1e-9)


ALL = [own for own, _, _ in (*TORCH, *OPTAX)]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_a_schedule_is_a_value(schedule):
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule == copy.deepcopy(schedule)
    assert eval(repr(schedule), vars(s)) == schedule
    assert [again(step) for step in range(50)] == [schedule(np.int64(step)) for step in range(50)]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: s.Constant("1"), TypeError, "value"),
        (lambda: s.Constant(1.0, steps=3), ValueError, "then"),
        (lambda: s.Linear(1.0, np.nan, 3), ValueError, "final"),
        (lambda: s.Linear(1.0, 0.0, 0), ValueError, "steps must be a finite number of more than 0, got 0"),
        (lambda: s.Exponential(1.0, -0.5), ValueError, "factor"),
        (lambda: s.CosineWarmRestarts(1.0, 3, 0), ValueError, "factor"),
        (lambda: s.OneCycle(1.0, 10, up=0.6, three_phase=True), ValueError, r"up .*0\.5, got 0\.6"),
        (lambda: s.Joined([1.0, 0.5], []), ValueError, "one boundary less"),
        (lambda: s.Joined([1.0, 0.5, 0.1], [5, 5]), ValueError, "grow"),
        (lambda: s.ReduceOnPlateau(1.0, factor=1.0), ValueError, "factor"),
        (lambda: s.ReduceOnPlateau(1.0, mode="least"), ValueError, "mode"),
        (lambda: s.ReduceOnPlateau(1.0, patience="3"), TypeError, "patience must be an integer"),
        (lambda: s.ReduceOnPlateau(1.0, patience=-1), ValueError, "patience must be at least 0"),
        (lambda: s.ReduceOnPlateau(1.0, cooldown=0.5), TypeError, "cooldown must be an integer"),
        (lambda: s.ReduceOnPlateau(1.0, threshold=-1e-4), ValueError, "threshold"),
        (lambda: s.ReduceOnPlateau(1.0, eps=np.nan), ValueError, "eps"),
        (lambda: s.ReduceOnPlateau(1.0, relative=1), TypeError, "relative must be True or False"),
        (lambda: s.MultiStep(1.0, "12"), TypeError, "milestones must be a sequence"),
        (lambda: s.MultiStep(1.0, [1, None]), TypeError, r"milestones\[1\] must be a real number, got None"),
        (lambda: s.Joined(1.0, []), TypeError, "schedules must be a sequence, got 1.0"),
        (lambda: s.Joined([1.0, 0.5], ["5"]), TypeError, r"boundaries\[0\] must be a real number"),
        (lambda: s.Warmup(s.Pair(0.9, 0.99), 5), TypeError, r"then\(0\) must be a real number, got \(0.9"),
        (lambda: s.Warmup(1.0, 0), ValueError, "steps"),
        (lambda: s.OneCycle(1.0, 10, linear="no"), TypeError, "linear must be True or False"),
        (lambda: s.OneCycle(1e300, 10, first_divisor=1e-300), ValueError, "highest / first_divisor"),
        (lambda: s.CosineWarmRestarts(1.0, 3, 1.5), TypeError, "factor must be an integer"),
        (lambda: s.PlainAverage(start=True), TypeError, "start must be an integer"),
    ],
)
def test_arguments_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_every_number_can_follow_one():
    betas = s.Pair(s.Linear(0.8, 0.9, 4), 0.99)
    schedules = {"lr": s.Cosine(0.1, 10), "betas": betas, "eps": s.Linear(1e-3, 1e-8, 5), "weight_decay": s.Linear(0.1, 0.0, 3)}
    one, other = np.ones(5), np.ones(5)
    following, led = fastopt.AdamW(one, **schedules), fastopt.AdamW(other, weight_decay=0.1)
    for step in range(6):
        g = np.cos(np.arange(5.0) + step)
        values = {key: schedule(step) for key, schedule in schedules.items()}
        led.param_groups[0].update(values | {"weight_decay": max(values["weight_decay"], 1e-300)})
        following.step(g)
        led.step(g)
    np.testing.assert_allclose(one, other, rtol=1e-15)


def test_what_no_schedule_can_give_is_refused():
    with pytest.raises(TypeError, match="nesterov must be True or False"):
        fastopt.SGD(np.ones(3), momentum=0.9, nesterov=s.Constant(1.0))
    opt = fastopt.SGD(np.ones(3), momentum=s.Linear(0.9, 0.0, 2))
    opt.step(np.ones(3))
    opt.step(np.ones(3))
    with refused(ValueError, "momentum", "after 2 steps", "another rule", opt=opt):
        opt.step(np.ones(3))
    opt = fastopt.Adam(np.ones(3), betas=s.Pair(0.9, s.Linear(0.9, 1.5, 1)))
    opt.step(np.ones(3))
    with refused(ValueError, "the schedule's betas(1)[1]", "[0, 1)", opt=opt):
        opt.step(np.ones(3))


def plateau(initial=1.0):
    return s.ReduceOnPlateau(initial, factor=0.5, patience=0)


NESTS = {
    "itself": plateau,
    "warmup": lambda: s.Warmup(plateau(), 2),
    "joined": lambda: s.Joined([0.1, plateau()], [1]),
    "deep": lambda: s.Warmup(s.Joined([plateau(), s.Warmup(plateau(2.0), 1)], [3]), 2),
}


@pytest.mark.parametrize("make", NESTS.values(), ids=NESTS)
def test_what_schedules_remember_is_in_the_state_dict_at_any_depth(make):
    def start():
        w = np.ones(3)
        return w, fastopt.SGD(w, lr=make())

    w, opt = start()
    for _ in range(4):
        opt.step(np.ones(3))
        opt.lr.update(1.0)
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    other, resumed = start()
    other[...] = w
    assert [resumed.lr(step) for step in range(9)] != [opt.lr(step) for step in range(9)]
    resumed.load_state_dict(saved)
    assert [resumed.lr(step) for step in range(9)] == [opt.lr(step) for step in range(9)]
    assert resumed.lr(9) == (0.125 if make is not NESTS["deep"] else 0.25)
    for each in (opt, resumed):
        each.step(np.ones(3))
    assert_same_bits(other, w)
    saved["progress"][0]["schedules"]["lr"] = {"nosuch": {}}
    with refused(ValueError, "the state of", "must have the keys", opt=resumed):
        resumed.load_state_dict(saved)


def test_a_schedule_of_several_numbers_remembers_too():
    def start():
        return fastopt.Adam(np.ones(3), betas=s.Pair(s.Warmup(plateau(0.9), 1, start=0.5), 0.99))

    opt, resumed = start(), start()
    opt.param_groups[0]["betas"].update(1.0)
    opt.param_groups[0]["betas"].update(1.0)
    resumed.load_state_dict(opt.state_dict())
    assert resumed.param_groups[0]["betas"](5) == (0.45, 0.99)


def test_a_warmup_follows_its_target():
    warmup = s.Warmup(plateau(), 4)
    assert warmup(2) == 0.5
    warmup.update(1.0)
    warmup.update(1.0)
    assert [warmup(step) for step in (0, 2, 4)] == [0.0, 0.25, 0.5]
    twice = plateau()
    s.Joined([twice, 0.1, s.Constant(0.3), twice], [1, 2, 3]).update(3.0)
    twice.update(3.0)
    assert twice(0) == 0.5  # one schedule in two places saw the metric once
    with refused(TypeError, "no schedule in Warmup(then=Constant", "looks at a metric"):
        s.Warmup(s.Constant(1.0), 2).update(1.0)


def test_states_of_schedules_are_taken_all_or_none():
    def start():
        return fastopt.SGD([{"params": [np.ones(3)], "lr": plateau()}, {"params": [np.ones(3)], "lr": s.Warmup(plateau(), 1)}])

    opt, saved = start(), start().state_dict()
    for group in opt.param_groups:
        group["lr"].update(1.0)
        group["lr"].update(1.0)
    memory = saved["progress"][1]["schedules"]["lr"]["then"]
    for damage, error in (({"value": "1"}, TypeError), ({"value": np.inf}, ValueError), ({"bad": 0.5}, TypeError)):
        saved["progress"][1]["schedules"]["lr"] = {"then": memory | damage}
        with refused(error, "the state's", opt=opt):
            opt.load_state_dict(saved)
        assert [group["lr"](9) for group in opt.param_groups] == [0.5, 0.5]
    saved["progress"][1]["schedules"]["lr"] = 3.0
    with refused(TypeError, "must be a mapping", opt=opt):
        opt.load_state_dict(saved)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_remember_for_themselves(duplicate):
    shared = s.Warmup(plateau(), 1)
    opt = fastopt.SGD([{"params": [np.ones(3)]}, {"params": [np.ones(3)], "weight_decay": 0.1}], lr=shared)
    shared.update(1.0)
    other = duplicate(opt)
    other.lr.update(1.0)
    assert (opt.lr(9), other.lr(9)) == (1.0, 0.5)
    assert other.param_groups[0]["lr"] is other.param_groups[1]["lr"]
    assert opt.param_groups[0]["lr"] is shared


def test_a_memory_without_a_counterpart_is_left_alone():
    remembering, forgetting = fastopt.SGD(np.ones(3), lr=plateau()), fastopt.SGD(np.ones(3), lr=s.Cosine(1.0, 10))
    for _ in range(3):
        remembering.lr.update(1.0)
    saved = remembering.state_dict()
    remembering.load_state_dict(forgetting.state_dict())
    assert remembering.lr(0) == 0.25
    for other in (forgetting, fastopt.SGD(np.ones(3), lr=0.5)):
        other.load_state_dict(saved)
    saved["progress"][0]["schedules"]["nosuch"] = {}
    with refused(ValueError, "['schedules'] has the unknown key 'nosuch'", opt=remembering):
        remembering.load_state_dict(saved)


@pytest.mark.parametrize("sign", [1, -1, 0])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_metric_that_stays_is_a_plateau_whatever_its_sign(sign, mode, relative):
    schedule = s.ReduceOnPlateau(1.0, factor=0.5, patience=2, mode=mode, relative=relative)
    better = {"min": -1.0, "max": 1.0}[mode]
    for step in range(8):
        schedule.update(10.0 * sign + 1e-6 * better * step)  # within the margin
    assert schedule(0) == (0.25 if sign or not relative else 1.0)
    schedule.update(10.0 * sign + 0.5 * better)
    schedule.update(np.nan)
    assert schedule.state_dict()["bad"] == 1


def test_pytorchs_margin_has_a_sign():
    ours, theirs = (s.ReduceOnPlateau(1.0, factor=0.5, patience=2, signed=signed) for signed in (False, True))
    for schedule in (ours, theirs):
        for _ in range(20):
            schedule.update(-10.0)
    assert (ours(0), theirs(0)) == (1.0 / 64, 1.0)
    with refused(TypeError, "metric must be a real number, got '1'"):
        ours.update("1")


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        (s.Exponential(1e-5, 1.1, final=0.1), 0.1),
        (s.Exponential(1e-5, 2, staircase=True, final=0.1), 0.1),
        (s.Exponential(-1e-5, 1.1, final=-0.1), -0.1),
        (s.Exponential(-1.0, 0.5, final=-0.1), -0.1),
        (s.Exponential(0.0, 1.1, final=0.1), 0.0),
        (s.Exponential(0.0, 1.1), 0.0),
        (s.Exponential(1.0, 0.5), 0.0),
        (s.Step(1.0, 2, 1.0), 1.0),
        (s.Warmup(s.Exponential(1e-5, 1.1, final=0.1), 5), 0.1),
    ],
    ids=repr,
)
def test_growth_and_decay_end(schedule, end):
    for step in (7448, 10**9, np.int64(10**9)):
        assert schedule(step) == end


@pytest.mark.parametrize(
    "schedule",
    [
        s.Exponential(1e-5, 1.1),
        s.Exponential(-1, 3, staircase=True),
        s.Step(1, 10, 10),
        s.MultiStep(1.0, range(5), 1e100),
        s.Joined([1.0, s.Exponential(1.0, 2.0)], [3]),
    ],
    ids=repr,
)
def test_growth_without_an_end_is_refused_by_name(schedule):
    with refused(ValueError, "must give finite numbers", "steps its value is too large for one", "initial="):
        schedule(10**6)
