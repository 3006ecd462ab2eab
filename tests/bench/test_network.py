"""The training loop of the bench: its gradients are right, and every contender steps it."""

import numpy as np
import pytest

from bench import network


def test_the_gradient_descends():
    params, grads, fill = network.network(8)
    rng = np.random.default_rng(0)
    for p in params:
        p += rng.normal(scale=0.1, size=p.shape).astype(np.float32)
    fill()
    before = [g.copy() for g in grads]
    # A step against the gradient of the same batch lowers it: 64 batches later the same images come again.
    for _ in range(3):
        for p, g in zip(params, grads, strict=True):
            p -= 0.1 * g
        for _ in range(64):
            fill()
    after = [g.copy() for g in grads]
    assert sum(float(np.vdot(g, g)) for g in after) < sum(float(np.vdot(g, g)) for g in before)
    assert all(np.isfinite(g).all() for g in after)


@pytest.mark.parametrize(
    "contender", [pytest.param(each, marks=[pytest.mark.peers] * each.startswith("PyTorch")) for each in network.CONTENDERS]
)
def test_every_contender_steps(contender):
    params, grads, fill = network.network(8)
    before = [p.copy() for p in params]
    step = network.CONTENDERS[contender](params, grads)
    for _ in range(3):
        fill()
        step()
    moved = [not np.array_equal(p, old) for p, old in zip(params, before, strict=True)]
    assert moved == [contender != network.FLOOR] * len(params)
    assert network.timed(contender, 8, 0.01)["iteration"] > 0.0


@pytest.mark.peers
def test_adam_is_the_same_for_all():
    paths = {}
    for name in (network.OURS, network.NUMPY, "PyTorch fused"):
        params, grads, fill = network.network(8)
        step = network.CONTENDERS[name](params, grads)
        for _ in range(3):
            fill()
            step()
        paths[name] = np.concatenate([p.ravel() for p in params])
    for path in paths.values():
        np.testing.assert_allclose(path, paths[network.NUMPY], rtol=1e-4, atol=1e-6)


def test_the_report_says_what_a_step_adds(capsys):
    network.main(["--hidden", "8", "--rounds", "1", "--seconds", "0.02", "--contender", "fastopt"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("h = 8: gradients alone ")
    assert [line.split("  ")[0] for line in lines[3:]] == [network.OURS, network.NUMPY]
