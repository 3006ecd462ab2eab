"""State dicts of wrapped optimizers: saved and loaded by PyTorch, and those of its own optimizers."""

import io

import pytest

import fastopt
from tests.refusal import refused
from tests.torch.test_wrap import assert_same, loss_of, low_precision_gradients, low_precision_model, models

pytestmark = pytest.mark.peers


def test_state_dicts_are_saved_by_pytorch_and_resume(torch, wrap):
    ours, theirs = models(torch)
    first = wrap(fastopt.AdamW, ours.parameters(), lr=0.1, ema_decay=0.5)
    second = wrap(fastopt.AdamW, theirs.parameters(), lr=0.3, ema_decay=0.5)
    loss_of(torch, ours, 0).backward()
    first.param_groups[0]["lr"] = 0.02
    first.step()
    theirs.load_state_dict(ours.state_dict())
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.param_groups[0]["lr"] == 0.02
    for model, optimizer in ((ours, first), (theirs, second)):
        optimizer.zero_grad()
        loss_of(torch, model, 1).backward()
        optimizer.step()
    assert_same(ours, theirs)
    with refused(ValueError, "state_dict must have the keys"):
        second.load_state_dict({})
    with refused(ValueError, "state_dict has other groups"):
        second.load_state_dict({**first.state_dict(), "param_groups": []})


def test_damaged_state_dicts_change_nothing(torch, wrap):
    a = torch.nn.Parameter(torch.ones(2))
    optimizer = wrap(fastopt.SGD, [a], lr=1.0)
    for damage, error in (({"lr": "x"}, TypeError), ({"lr": -1.0}, ValueError)):
        saved = optimizer.state_dict()
        saved["param_groups"][0].update(damage)
        with refused(error, "lr must be"):
            optimizer.load_state_dict(saved)
    for groups in (None, [{}]):
        with refused(ValueError, "must be a list of mappings with the key 'params'"):
            optimizer.load_state_dict({**optimizer.state_dict(), "param_groups": groups})
    assert optimizer.param_groups[0]["lr"] == 1.0
    a.grad = torch.ones(2)
    optimizer.step()


def test_hooks_of_state_dicts(torch, wrap):
    optimizer = wrap(fastopt.SGD, [torch.nn.Parameter(torch.ones(2))], lr=1.0)
    calls = []
    optimizer.register_state_dict_pre_hook(lambda own: calls.append("saving"))
    optimizer.register_state_dict_post_hook(lambda own, saved: {**saved, "more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda own, saved: {k: v for k, v in saved.items() if k != "more"})
    optimizer.register_load_state_dict_post_hook(lambda own: calls.append("loaded"))
    saved = optimizer.state_dict()
    assert saved["more"] == 1
    optimizer.load_state_dict(saved)
    assert calls == ["saving", "loaded"]


LIKE = [
    (fastopt.Adam, "Adam", {"lr": 0.03, "betas": (0.8, 0.9)}, {}),
    (fastopt.AdamW, "AdamW", {"lr": 0.03, "amsgrad": True}, {"amsgrad": True}),
    (fastopt.RMSProp, "RMSprop", {"lr": 0.03, "alpha": 0.8, "momentum": 0.5}, {"momentum": 0.1}),
    (fastopt.SGD, "SGD", {"lr": 0.03, "momentum": 0.9}, {"momentum": 0.1}),
    (fastopt.SGD, "SGD", {"lr": 0.03}, {}),
]


@pytest.mark.parametrize(("cls", "name", "arguments", "own"), LIKE, ids=str)
def test_state_dicts_of_pytorchs_own_optimizers_are_taken(cls, name, arguments, own, torch, wrap):
    ours, theirs = models(torch)
    never = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]  # a gradient, that is
    groups = [([*model[0].parameters(), p], [*model[2].parameters()]) for model, p in ((ours, never[0]), (theirs, never[1]))]
    made = [[{"params": first}, {"params": second, "lr": 0.01}] for first, second in groups]
    original = getattr(torch.optim, name)(made[1], **arguments)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(original, 0.9)
    for step in range(3):
        original.zero_grad()
        loss_of(torch, theirs, step).backward()
        original.step()
        scheduler.step()
    ours.load_state_dict(theirs.state_dict())
    optimizer = wrap(cls, made[0], **own)
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in original.param_groups]
    assert optimizer.param_groups[0]["initial_lr"] == 0.03
    assert not {"params", "foreach", "alpha"} & (optimizer.param_groups[0].keys() - optimizer.defaults.keys() - {"params"})
    pair = [(ours, optimizer), (theirs, original)]
    for step in range(3, 6):
        for model, each in pair:
            each.zero_grad()
            loss_of(torch, model, step).backward()
            each.step()
        assert_same(ours, theirs)
    assert never[0].tolist() == [1.0, 1.0]


def test_state_dicts_of_other_optimizers_change_nothing(torch, wrap):
    (model,) = models(torch, 1)
    adamw = torch.optim.AdamW(model.parameters(), lr=0.5, amsgrad=True)
    loss_of(torch, model, 0).backward()
    adamw.step()
    for cls, error, words in (
        (fastopt.Lion, TypeError, "PyTorch has no counterpart of Lion"),
        (fastopt.Adam, ValueError, "needs the state 'v_max', which this optimizer was constructed without"),
        (fastopt.RMSProp, ValueError, "lacks the key 'square_avg'"),
    ):
        optimizer = wrap(cls, model.parameters(), lr=0.1)
        with refused(error, words):
            optimizer.load_state_dict(adamw.state_dict())
        assert (optimizer.param_groups[0]["lr"], optimizer.optimizer.step_count) == (0.1, 0)


def test_a_run_in_16_bits_goes_on_from_its_state_dict(torch, wrap):
    options = {"state_dtype": "bfloat16", "rounding": "stochastic", "seed": 5, "master_weights": "lost bits"}
    model = low_precision_model(torch, torch.bfloat16)
    optimizer = wrap(fastopt.Adam, model.parameters(), lr=0.01, **options)
    for step in range(2):
        low_precision_gradients(torch, model, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    assert state["state"]["state"]["m"]["params[0]['params']"].dtype == torch.bfloat16
    again = low_precision_model(torch, torch.bfloat16, seed=1)
    again.load_state_dict(weights)
    resumed = wrap(fastopt.Adam, again.parameters(), lr=0.01, **options)
    resumed.load_state_dict(state)
    for one, other in ((model, optimizer), (again, resumed)):
        for step in (2, 3):
            low_precision_gradients(torch, one, step)
            other.step()
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_schedules_stay_with_the_optimizer_that_loads(torch, wrap):
    schedule = fastopt.schedules.Cosine(0.5, 10)
    p, q = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    following, led = wrap(fastopt.SGD, [p], lr=schedule), wrap(fastopt.SGD, [q], lr=0.25)
    for optimizer, other in ((following, led), (led, following)):
        file = io.BytesIO()
        torch.save(other.state_dict(), file)
        file.seek(0)
        optimizer.load_state_dict(torch.load(file, weights_only=True))
        optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
        optimizer.step()
    following.load_state_dict(torch.optim.SGD([q], lr=0.1).state_dict())
    assert (following.param_groups[0]["lr"], led.param_groups[0]["lr"]) == (schedule, 0.25)
    assert (p[0].item(), q[0].item()) == (0.5, 0.75)
