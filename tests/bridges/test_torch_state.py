"""Runs that change between PyTorch and fastopt, with every combination of the keywords that PyTorch has."""

from itertools import islice, product

import numpy as np
import pytest

import fastopt
from fastopt.arrays.codes import read
from fastopt.bridges.torch_state import COUNTERPARTS
from tests.peers import STEPS, assert_close, gradients, start

pytestmark = pytest.mark.peers

HALF = STEPS // 2
DECAY, EITHER = [0.0, 0.1], [False, True]
KEYWORDS = {
    "SGD": {"momentum": [0.0, 0.9], "dampening": [0.0, 0.3], "nesterov": EITHER},
    "Adagrad": {"lr_decay": [0.0, 0.1], "initial_accumulator_value": [0.0, 0.5], "eps": [1e-10, 1e-3]},
    "RMSprop": {"momentum": [0.0, 0.9], "centered": EITHER, "alpha": [0.99, 0.9]},
    "Adam": {"amsgrad": EITHER, "decoupled_weight_decay": EITHER, "betas": [(0.9, 0.999), (0.8, 0.9)]},
    "AdamW": {"amsgrad": EITHER, "eps": [1e-8, 1e-3]},
    "NAdam": {"momentum_decay": [4e-3, 0.1], "decoupled_weight_decay": EITHER},
    "RAdam": {"decoupled_weight_decay": EITHER, "betas": [(0.9, 0.999), (0.8, 0.9)]},
    "Adamax": {"eps": [1e-8, 1e-3], "betas": [(0.9, 0.999), (0.8, 0.9)]},
    "Adadelta": {"rho": [0.9, 0.95], "eps": [1e-6, 1e-3]},
    "Rprop": {"etas": [(0.5, 1.2), (0.4, 1.1)], "step_sizes": [(1e-6, 50.0), (1e-3, 0.1)]},
    "ASGD": {"t0": [1e6, 3.0], "lambd": [1e-4, 0.1], "alpha": [0.75, 0.5]},
}
OURS = {counterpart.name: optimizer for optimizer, counterpart in COUNTERPARTS.items()}


def combinations():
    for name, keywords in KEYWORDS.items():
        common = {"maximize": EITHER} if name == "Rprop" else {"maximize": EITHER, "weight_decay": DECAY}
        choices = keywords | common | {"lr": [0.01]}
        for values in product(*choices.values()):
            chosen = dict(zip(choices, values, strict=True))
            if not (chosen.get("nesterov") and (chosen["momentum"] == 0 or chosen["dampening"] != 0)):
                yield name, chosen


COMBINATIONS = list(combinations())


def translated(name, keywords):
    names = {other: own for own, other in COUNTERPARTS[OURS[name]].hyper.items()}
    return {names[key]: value for key, value in keywords.items()}


def both(torch, name, keywords):
    """Parameters and optimizer of PyTorch and of fastopt."""
    theirs = [torch.nn.Parameter(torch.from_numpy(theta)) for theta in start()]
    ours = start()
    return theirs, getattr(torch.optim, name)(theirs, **keywords), ours, OURS[name](ours, **translated(name, keywords))


def step_theirs(torch, params, optimizer, grads):
    for g in grads:
        for p, own in zip(params, g, strict=True):
            p.grad = torch.from_numpy(own)
        optimizer.step()


def assert_equal_params(ours, theirs):
    for own, other in zip(ours, theirs, strict=True):
        assert_close(own, other.detach().numpy(), f"shape {own.shape}")


def assert_equal_states(own, theirs):
    assert own["state"].keys() == theirs["state"].keys()
    for index, entry in theirs["state"].items():
        assert own["state"][index].keys() == entry.keys()
        for name, value in entry.items():
            mine = own["state"][index][name]
            assert mine.dtype == value.dtype
            assert_close(mine.numpy(), value.numpy(), f"{name} of parameter {index}")
    for mine, group in zip(own["param_groups"], theirs["param_groups"], strict=True):
        assert mine == group


def covered(name, keywords):
    """Each rule, and each value of each keyword."""
    rule = [bool(keywords.get(key)) for key in ("momentum", "centered", "nesterov", "amsgrad")]
    return name, (name, *rule), *((name, *item) for item in keywords.items())


@pytest.mark.wide(by=covered)
@pytest.mark.parametrize(("name", "keywords"), COMBINATIONS, ids=str)
def test_a_run_goes_on_in_the_other_library(name, keywords, torch):
    grads = list(gradients())
    theirs, torch_optimizer, ours, optimizer = both(torch, name, keywords)
    later, later_optimizer, back, back_optimizer = both(torch, name, keywords)

    # The first half here and there; then each goes on with what the other one has.
    step_theirs(torch, theirs, torch_optimizer, grads[:HALF])
    for g in grads[:HALF]:
        optimizer.step(g)
    assert_equal_params(ours, theirs)
    assert_equal_states(fastopt.to_torch_state_dict(optimizer), torch_optimizer.state_dict())

    fastopt.from_torch_state_dict(back_optimizer, torch_optimizer.state_dict())
    later_optimizer.load_state_dict(fastopt.to_torch_state_dict(optimizer))
    for own, other in zip(back, theirs, strict=True):
        own[...] = other.detach().numpy()
    with torch.no_grad():
        for other, own in zip(later, ours, strict=True):
            other.copy_(torch.from_numpy(own))

    step_theirs(torch, theirs, torch_optimizer, grads[HALF:])
    step_theirs(torch, later, later_optimizer, grads[HALF:])
    for g in grads[HALF:]:
        optimizer.step(g)
        back_optimizer.step(g)
    assert_equal_params(ours, theirs)
    assert_equal_params(back, theirs)
    assert_equal_params(ours, later)
    assert_equal_states(fastopt.to_torch_state_dict(back_optimizer), torch_optimizer.state_dict())


def test_every_counterpart_is_tested():
    assert KEYWORDS.keys() == OURS.keys()


@pytest.mark.parametrize("name", KEYWORDS)
def test_before_the_first_step_there_is_nothing(name, torch):
    _, torch_optimizer, ours, optimizer = both(torch, name, {})
    optimizer.step(next(gradients()))
    fastopt.from_torch_state_dict(optimizer, torch_optimizer.state_dict())
    assert optimizer.step_count == 0
    fresh = OURS[name](ours)
    for state in optimizer.state:
        for array, first in zip(optimizer.state[state], fresh.state[state], strict=True):
            np.testing.assert_array_equal(array, first)
    assert_equal_states(fastopt.to_torch_state_dict(optimizer), torch_optimizer.state_dict())


def test_groups_and_flat_buffers_are_numbered_one_by_one(torch):
    W, b, c = np.ones((2, 3)), np.zeros(3), np.full((2, 2), 0.5, order="F")
    tensors = [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in (W, b, c)]
    flat = fastopt.flatten({"W": W, "b": b})
    ours = fastopt.AdamW([{"params": flat, "lr": 0.1}, {"params": [c], "weight_decay": 0.5}], lr=0.01)
    theirs = torch.optim.AdamW([{"params": tensors[:2], "lr": 0.1}, {"params": tensors[2:], "weight_decay": 0.5}], lr=0.01)
    grads = [np.arange(array.size, dtype=float).reshape(array.shape) for array in (W, b, c)]
    step_theirs(torch, tensors, theirs, [grads])
    like = flat.like()
    like["W"][...], like["b"][...] = grads[:2]
    ours.step([like, [grads[2]]])
    assert_equal_states(fastopt.to_torch_state_dict(ours), theirs.state_dict())
    ours.state["m"][0].buffer[...] = 7.0
    fastopt.from_torch_state_dict(ours, theirs.state_dict())
    step_theirs(torch, tensors, theirs, [grads])
    ours.step([like, [grads[2]]])
    assert_equal_params([flat["W"], flat["b"], c], tensors)


def test_a_schedule_stays_and_gives_the_next_rate(torch):
    w = np.ones(3)
    opt = fastopt.Adam(w, lr=fastopt.schedules.Linear(0.1, 0.0, 10))
    tensor = torch.nn.Parameter(torch.ones(3))
    theirs = torch.optim.Adam([tensor], lr=0.5)
    step_theirs(torch, [tensor], theirs, [[np.ones(3)]] * 4)
    fastopt.from_torch_state_dict(opt, theirs.state_dict())
    assert callable(opt.lr)
    assert opt.step_count == 4
    assert fastopt.to_torch_state_dict(opt)["param_groups"][0]["lr"] == pytest.approx(0.06)


def test_numbers_that_are_tensors_and_states_in_single_precision_are_taken(torch):
    w = np.ones(3)
    opt = fastopt.Adam(w)
    tensor = torch.nn.Parameter(torch.ones(3, dtype=torch.float32))
    theirs = torch.optim.Adam([tensor], lr=torch.tensor(0.25), foreach=False)
    tensor.grad = torch.ones(3, dtype=torch.float32)
    theirs.step()
    fastopt.from_torch_state_dict(opt, theirs.state_dict())
    assert opt.lr == 0.25
    assert opt.state["m"].dtype == np.float64
    np.testing.assert_allclose(opt.state["m"], 0.1, rtol=1e-7)


def saved(torch, name="Adam", sizes=(3,), steps=(1,), **keywords):
    """A state dict of PyTorch for vectors of some sizes, each stepped so often."""
    tensors = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    optimizer = getattr(torch.optim, name)(tensors, **keywords)
    for step in range(max(steps)):
        for tensor, count in zip(tensors, steps, strict=True):
            tensor.grad = torch.ones_like(tensor) if step < count else None
        optimizer.step()
    return optimizer.state_dict()


REFUSED = [
    ({}, {"sizes": (4,)}, ValueError, r"'exp_avg'\] must have the shape \(3,\), got \(4,\)"),
    ({}, {"sizes": (3, 3), "steps": (1, 1)}, ValueError, "must have 1 parameters, got 2"),
    ({}, {"amsgrad": True}, ValueError, "needs the state 'v_max'"),
    ({"eps_hat": True}, {}, ValueError, "group 0 has eps_hat=True, which PyTorch's Adam can't do"),
    ({"cautious": True}, {}, ValueError, "cautious=True"),
    ({"lr": np.ones(3)}, {}, ValueError, "a learning rate for every element"),
]


@pytest.mark.parametrize(("own", "theirs", "error", "message"), REFUSED, ids=str)
def test_what_does_not_fit_is_refused_and_changes_nothing(own, theirs, error, message, torch):
    opt = fastopt.Adam(np.ones(3), **own)
    opt.step(np.ones(3))
    before = {name: array.copy() for name, array in opt.state.items()}
    with pytest.raises(error, match=message):
        fastopt.from_torch_state_dict(opt, saved(torch, **theirs))
    assert opt.step_count == 1
    assert opt.param_groups[0]["betas"] == (0.9, 0.999)
    for name, array in opt.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_parameters_of_a_group_must_have_stepped_alike(torch):
    opt = fastopt.Adam([np.ones(3), np.ones(2)])
    with pytest.raises(ValueError, match=r"the parameters of group 0 have different values of 'step': \[1.0, 2.0\]"):
        fastopt.from_torch_state_dict(opt, saved(torch, sizes=(3, 2), steps=(1, 2)))


def test_other_groups_dicts_and_optimizers_are_refused(torch):
    opt = fastopt.Adam([{"params": np.ones(3)}, {"params": np.ones(2)}])
    with pytest.raises(ValueError, match="state_dict must have 2 groups, got 1"):
        fastopt.from_torch_state_dict(opt, saved(torch))
    with pytest.raises(TypeError, match="must be a state dict of PyTorch"):
        fastopt.from_torch_state_dict(opt, opt.state_dict())
    with pytest.raises(TypeError, match="PyTorch has no counterpart of Lion, only of ASGD, AdaDelta"):
        fastopt.from_torch_state_dict(fastopt.Lion(np.ones(3)), saved(torch))
    with pytest.raises(TypeError, match="PyTorch has no counterpart of Lion"):
        fastopt.to_torch_state_dict(fastopt.Lion(np.ones(3)))
    with pytest.raises(TypeError, match="optimizer must be one of fastopt's, got int"):
        fastopt.to_torch_state_dict(3)
    with pytest.raises(ValueError, match="group 0 has mask="):
        fastopt.to_torch_state_dict(fastopt.Adam(np.ones(3), mask=np.ones(3, bool)))


def entry(**changes):
    whole = {"step": 2.0, "exp_avg": np.ones(3), "exp_avg_sq": np.ones(3)} | changes
    return {"state": {0: {key: value for key, value in whole.items() if value is not None}}, "param_groups": [{"params": [0]}]}


def group(**changes):
    return entry() | {"param_groups": [{"params": [0], **changes}]}


DAMAGED = [
    (entry(step=-1.0), ValueError, "'step' of the parameters of group 0 must be an integer of at least 0, got -1.0"),
    (entry(step=float("nan")), ValueError, "'step' .* must be an integer of at least 0, got nan"),
    (entry(step=1.5), ValueError, "'step' .* must be an integer of at least 0, got 1.5"),
    (entry(step="x"), TypeError, "'step' must be a real number, got 'x'"),
    (entry(exp_avg="abc"), TypeError, r"state_dict\['state'\]\[0\]\['exp_avg'\] must hold real numbers, got <U3"),
    (entry(exp_avg=np.ones(3) * 1j), TypeError, "must hold real numbers, got complex128"),
    (entry(exp_avg=None), ValueError, r"state_dict\['state'\]\[0\] lacks the key 'exp_avg'"),
    (group(lr=-1.0), ValueError, "lr must be a finite number of at least 0, got -1.0"),
    (group(lr="x"), TypeError, "lr must be a real number, got 'x'"),
    (group(params=3), TypeError, r"state_dict\['param_groups'\] must be a list of mappings with the key 'params'"),
    (entry() | {"param_groups": [3]}, TypeError, "must be a list of mappings"),
    (entry() | {"state": []}, TypeError, r"state_dict\['state'\] must be a mapping of mappings"),
    (entry() | {"state": {0: 3}}, TypeError, "must be a mapping of mappings"),
]


@pytest.mark.parametrize(("damaged", "error", "message"), DAMAGED, ids=str)
def test_a_damaged_dict_is_refused_and_changes_nothing(damaged, error, message):
    opt = fastopt.Adam(np.ones(3))
    opt.step(np.ones(3))
    before = {name: array.copy() for name, array in opt.state.items()}
    with pytest.raises(error, match=message):
        fastopt.from_torch_state_dict(opt, damaged)
    assert (opt.step_count, opt.lr) == (1, 1e-3)
    for name, array in opt.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_half_precision_is_taken(torch):
    opt = fastopt.Adam(np.ones(3))
    fastopt.from_torch_state_dict(opt, entry(exp_avg=torch.full((3,), 0.5, dtype=torch.bfloat16)))
    np.testing.assert_array_equal(opt.state["m"], 0.5)
    assert opt.step_count == 2


def test_a_frozen_group_needs_no_state(torch):
    opt = fastopt.Adam([{"params": np.ones(3)}, {"params": np.ones(2), "frozen": True}])
    opt.step([np.ones(3), None])
    own = fastopt.to_torch_state_dict(opt)
    assert own["state"].keys() == {0}
    fastopt.from_torch_state_dict(opt, own)
    assert opt.step_count == 1
    assert [group.step_count for group in opt.param_groups] == [1, 0]


def test_a_path_of_twenty_steps_has_twenty_gradients():
    assert len(list(islice(gradients(), 100))) == STEPS == 2 * HALF


@pytest.mark.peers
def test_options_that_pytorch_has_functions_for_do_not_matter(torch):
    w = np.ones(3)
    opt = fastopt.AdamW([w], clip_norm=1.0, zero_grad=True, copy_to=[np.zeros(3, np.float32)])
    opt.step([np.ones(3)])
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.from_numpy(w.copy()))])
    theirs.load_state_dict(fastopt.to_torch_state_dict(opt))
    other = fastopt.AdamW([w.copy()], clip_norm=1.0)
    fastopt.from_torch_state_dict(other, theirs.state_dict())
    np.testing.assert_array_equal(other.state["m"][0], opt.state["m"][0])
    averaging = fastopt.AdamW([w.copy()], ema_decay=0.5)
    with pytest.raises(ValueError, match=r"ema_decay=0\.5, which PyTorch's AdamW can't do"):
        fastopt.from_torch_state_dict(averaging, theirs.state_dict())


@pytest.mark.parametrize("kept", ["bfloat16", "int8"])
def test_states_of_fewer_bits_come_and_go_as_numbers(kept, torch):
    options = {"state_dtype": kept, "rounding": "stochastic", "seed": 1}
    one, other = (fastopt.Adam(start(), **options) for _ in range(2))
    for g in gradients():
        one.step(g)
    saved = fastopt.to_torch_state_dict(one)
    for p, entry in zip(one.param_groups[0].parameters, saved["state"].values(), strict=True):
        np.testing.assert_array_equal(entry["exp_avg"].numpy(), p.shaped(read(p.states["m"])))
    with pytest.warns(UserWarning, match=f"'m' of params.0. from float32 to {'uint16' if kept == 'bfloat16' else kept}"):
        fastopt.from_torch_state_dict(other, saved)
    for p, there in zip(other.param_groups[0].parameters, one.param_groups[0].parameters, strict=True):
        assert other.step_count == one.step_count
        for name in ("m", "v"):
            np.testing.assert_allclose(read(p.states[name]), read(there.states[name]), rtol=2**-6)
