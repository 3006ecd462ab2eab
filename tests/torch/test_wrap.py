"""Optimizers of this library as PyTorch's: the same paths, and hooks, schedulers and copies that work."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from tests.refusal import refused

pytestmark = pytest.mark.peers


def models(torch, count=2):
    made = []
    for _ in range(count):
        torch.manual_seed(0)
        made.append(torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)))
    return made


def loss_of(torch, model, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(7, 3)))
    return (model(x) ** 2).sum()


def assert_same(model, other):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_paths_groups_and_schedulers_are_those_of_pytorch(torch, wrap):
    ours, theirs = models(torch)
    optimizers = []
    for model, make in (
        (ours, lambda groups: wrap(fastopt.AdamW, groups, lr=0.1)),
        (theirs, lambda g: torch.optim.AdamW(g, lr=0.1)),
    ):
        groups = [{"params": model[0].parameters(), "weight_decay": 0.3}, {"params": model[2].parameters(), "lr": 0.05}]
        optimizer = make(groups)
        optimizers.append((model, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)))
    for step in range(6):
        for model, optimizer, scheduler in optimizers:
            optimizer.zero_grad()
            loss_of(torch, model, step).backward()
            optimizer.step()
            scheduler.step()
        assert_same(ours, theirs)
    assert optimizers[0][1].param_groups[1]["lr"] == pytest.approx(0.05 * 0.8**6)


def test_tensors_without_a_gradient_are_left_out(torch, wrap):
    ours, theirs = models(torch)
    pair = [(ours, wrap(fastopt.Adam, ours.parameters(), lr=0.1)), (theirs, torch.optim.Adam(theirs.parameters(), lr=0.1))]
    for step in range(4):
        for model, optimizer in pair:
            optimizer.zero_grad()
            loss_of(torch, model, step).backward()
            if step % 2:
                model[0].bias.grad = None
            optimizer.step()
        assert_same(ours, theirs)


def test_closures_and_hooks(torch, wrap):
    (model,) = models(torch, 1)
    optimizer = wrap(fastopt.SGD, model.parameters(), lr=0.01)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure():
        optimizer.zero_grad()
        loss = loss_of(torch, model, 0)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses[-1] < losses[0]
    assert calls == ["before", "after"] * 5
    assert isinstance(optimizer, torch.optim.Optimizer)


def test_groups_are_added_later(torch, wrap):
    a, b = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    optimizer = wrap(fastopt.SGD, [a], lr=1.0)
    optimizer.add_param_group({"params": [b], "lr": 0.5})
    for p in (a, b):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert (a.tolist(), b.tolist()) == ([0.0, 0.0], [0.5, 0.5])
    with refused(ValueError, "lr must be"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": -1.0})
    assert len(optimizer.param_groups) == 2


def test_complex_tensors(torch, wrap):
    z = torch.nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    optimizer = wrap(fastopt.Adam, [z], lr=0.1, complex_mode="modulus")
    z.grad = torch.full((3,), 3 - 4j, dtype=torch.complex64)
    optimizer.step()
    np.testing.assert_allclose(z.detach().numpy(), -0.1 * (0.6 - 0.8j), rtol=1e-6)


def test_what_can_not_be_stepped_is_refused(torch, wrap):
    with refused(TypeError, "must be of float32, float64"):
        wrap(fastopt.SGD, [torch.nn.Parameter(torch.ones(2, dtype=torch.int32), requires_grad=False)])
    with refused(ValueError, "must be contiguous"):
        wrap(fastopt.SGD, [torch.nn.Parameter(torch.ones(4, 4)[:, ::2])])
    with refused(TypeError, "optimizer must be a class of optimizers"):
        wrap(torch.optim.SGD, [torch.nn.Parameter(torch.ones(2))])
    with refused(TypeError, "must be dense and on the CPU"):
        wrap(fastopt.SGD, [torch.nn.Parameter(torch.ones(2, device="meta"))])
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = wrap(fastopt.SGD, [p], lr=1.0)
    p.grad = torch.ones(2)
    p.data = torch.zeros(2)
    with refused(ValueError, "a parameter has other memory than before"):
        optimizer.step()
    assert p.tolist() == [0.0, 0.0]


def test_a_group_that_is_refused_leaves_nothing_behind(torch, wrap, monkeypatch):
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = wrap(fastopt.SGD, [a], lr=1.0)
    with refused(TypeError, "must be of float32"):
        optimizer.add_param_group({"params": [b, torch.nn.Parameter(torch.ones(2).to(torch.float8_e5m2))]})

    for cls in (fastopt.SGD, torch.optim.Optimizer):
        add = cls.add_param_group

        def interrupted(*arguments, add=add):
            add(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(cls, "add_param_group", interrupted)
            with pytest.raises(KeyboardInterrupt):
                optimizer.add_param_group({"params": [b]})
    optimizer.add_param_group({"params": [b]})
    for p in (a, b):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert (a.tolist(), b.tolist()) == ([0.0, 0.0], [0.0, 0.0])


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_copies_and_pickles_go_on(torch, wrap, duplicate):
    (model,) = models(torch, 1)
    optimizer = wrap(fastopt.Adam, model.parameters(), lr=0.1)
    loss_of(torch, model, 0).backward()
    optimizer.step()
    twin, other = duplicate((model, optimizer))
    for each, own in ((model, optimizer), (twin, other)):
        own.zero_grad()
        loss_of(torch, each, 1).backward()
        own.step()
    assert_same(model, twin)


def test_a_graph_that_needs_the_old_values_says_so(torch, wrap):
    a = torch.nn.Parameter(torch.ones(2))
    optimizer = wrap(fastopt.SGD, [a], lr=1.0)
    loss = (a * a).sum()
    a.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_odd_tensors(torch, wrap):
    a = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = wrap(fastopt.SGD, [{"params": []}, {"params": [a]}], lr=1.0)
    a.data = a.data.t()
    a.grad = torch.ones(2, 2)
    with refused(ValueError, "a parameter has other memory than before"):
        optimizer.step()
    with refused(TypeError, "tensors must have memory of their own"):
        wrap(fastopt.SGD, [torch.ones(2, dtype=torch.complex64).conj().requires_grad_()])


def filters(torch, memory_format):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 1)).to(memory_format=memory_format)


def test_channels_may_come_last(torch, wrap):
    ours, plain, theirs = (filters(torch, getattr(torch, name)) for name in ("channels_last", *["contiguous_format"] * 2))
    assert not ours[0].weight.is_contiguous()
    x = torch.linspace(-1.0, 1.0, 2 * 3 * 5 * 6).reshape(2, 3, 5, 6)
    trained = [(ours, wrap(fastopt.AdamW, ours.parameters(), lr=0.1)), (plain, wrap(fastopt.AdamW, plain.parameters(), lr=0.1))]
    trained += [(theirs, torch.optim.AdamW(theirs.parameters(), lr=0.1))]

    def step():
        for model, optimizer in trained:
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        assert_same(ours, theirs)
        assert_same(plain, theirs)

    step()
    assert ours[0].weight.is_contiguous(memory_format=torch.channels_last)
    # State dicts have the tensors' own order of dimensions, whatever the memory has.
    last, first = (optimizer.state_dict() for _, optimizer in trained[:2])
    for name, m in first["state"]["state"]["m"].items():
        np.testing.assert_allclose(last["state"]["state"]["m"][name].numpy(), m.numpy(), rtol=1e-12, atol=1e-14)
    for source in range(3):
        saved = trained[source][1].state_dict()
        trained[:2] = [(model, wrap(fastopt.AdamW, model.parameters())) for model, _ in trained[:2]]
        for _, optimizer in trained[:2]:
            optimizer.load_state_dict(copy.deepcopy(saved))
        step()


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (2, 1, 0), (0, 2, 1)], ids=str)
def test_dimensions_may_have_any_order_in_memory(order, torch, wrap):
    p = torch.nn.Parameter(torch.zeros(2, 3, 4).permute(order))
    optimizer = wrap(fastopt.SGD, [p], lr=1.0, momentum=0.5)
    g = torch.arange(24.0).reshape(p.shape)
    for expected in (-g, -2.5 * g):
        p.grad = g.clone()
        optimizer.step()
        assert torch.equal(p.detach(), expected)
    saved = optimizer.state_dict()["state"]["state"]["p"]
    assert torch.equal(next(iter(saved.values())), 1.5 * g)
    assert copy.deepcopy(optimizer).optimizer.step_count == 2


def test_tensors_that_never_had_a_gradient_stay(torch, wrap):
    for name in ("Adam", "LAMB", "DoG", "ScheduleFreeSGD"):
        a, b = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
        optimizer = wrap(getattr(fastopt, name), [a, b], clip_norm=1.0, zero_grad=True)
        optimizer.step()  # of nothing
        for _ in range(2):
            a.grad = torch.ones(3)
            optimizer.step()
        assert b.tolist() == [1.0] * 3
        assert a[0] < 1.0
        again = wrap(getattr(fastopt, name), [a, b], clip_norm=1.0, zero_grad=True)
        again.load_state_dict(optimizer.state_dict())
        assert [group.step_count for group in again.optimizer.param_groups] == [2, 0]
        b.grad = torch.ones(3)
        again.step()
        assert b[0] < 1.0


def test_dtypes_that_numpy_lacks_are_refused_by_name(torch, wrap):
    with refused(
        TypeError, "tensors must be of float32, float64, complex64, complex128, float16 or bfloat16, got torch.float8"
    ):
        wrap(fastopt.SGD, [torch.nn.Parameter(torch.ones(2).to(torch.float8_e5m2))])


def low_precision_model(torch, dtype, seed=0):
    """Two layers of 16 bits, the filters of one with their channels last, and a norm between them in float32."""
    torch.manual_seed(seed)
    layers = [
        torch.nn.Conv2d(3, 4, 3, dtype=dtype),
        torch.nn.GroupNorm(2, 4, dtype=torch.float32),
        torch.nn.Linear(5, 2, dtype=dtype),
    ]
    return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)


def low_precision_gradients(torch, model, step):
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = (
            torch.randn(p.shape, generator=generator, dtype=torch.float32)
            .to(p.dtype)
            .contiguous(memory_format=torch.channels_last if p.dim() == 4 else torch.contiguous_format)
        )


@pytest.mark.parametrize("master", [True, "lost bits"])
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_models_of_16_bits_follow_those_of_32(torch, wrap, name, master):
    dtype = getattr(torch, name)
    model = low_precision_model(torch, dtype)
    full = [torch.nn.Parameter(p.detach().float().clone()) for p in model.parameters()]
    theirs = torch.optim.AdamW(full, lr=0.01)
    ours = wrap(
        fastopt.AdamW, model.parameters(), lr=0.01, weight_decay=0.01, master_weights=True if name == "float16" else master
    )
    for step in range(4):
        low_precision_gradients(torch, model, step)
        for p, own in zip(full, model.parameters(), strict=True):
            p.grad = own.grad.float()
        theirs.step()
        ours.step()
    for p, own in zip(full, model.parameters(), strict=True):
        assert own.dtype in (dtype, torch.float32)
        # The master follows to float32's last places, and the parameter is the nearest to it but for these.
        eps = torch.finfo(own.dtype).eps
        torch.testing.assert_close(own.float(), p, rtol=eps, atol=1e-6)
