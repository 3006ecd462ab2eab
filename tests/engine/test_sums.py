"""Sums over elements: the bits of a plain model of blocks and lanes, whatever the threads, and each tensor on its own."""

import numpy as np
import pytest

import fastopt
from fastopt.engine import runtime, steps
from fastopt.engine.sums import BLOCK, LANES
from tests.passes import model_of_tensors
from tests.table import RULES, assert_same_bits, every_dtype

MEASURING = [row for row in RULES if row.make(np.zeros(1)).param_groups[0].measure is not None]
BY_TENSOR = [row for row in MEASURING if row.optimizer.per_tensor]

every_measure = pytest.mark.parametrize("row", MEASURING, ids=str)
every_measure_by_tensor = pytest.mark.parametrize("row", BY_TENSOR, ids=str)

SIZES = (0, 1, LANES - 1, LANES, LANES + 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + LANES + 7)


def expected(optimizer, group, p, g, bounds):
    """What the measure gives on NumPy arrays, summed up by the model: shape (products, tensors)."""
    dtype = p.theta.dtype.type
    coefficients = group.measure_coefficients(optimizer.measure_coefficients({**group.current, **group.running}, 1))
    with np.errstate(all="ignore"):
        lr = dtype(group.current["lr"])
        pairs = group.measure(p.theta, g.astype(dtype), lr, *group.measured(p)[1:], *(dtype(c) for c in coefficients))
    products = [np.broadcast_to(np.float64(a) * np.float64(b), p.theta.shape) for a, b in pairs]
    return np.array([model_of_tensors(each, bounds) for each in products])


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 4], ids=lambda n: f"{n} threads" if n else "serial")
@every_dtype
@every_measure
def test_sums_have_the_bits_of_the_model(row, dtype, threads, monkeypatch):
    if threads:
        monkeypatch.setattr(runtime, "_parallel_threshold", 0)
        fastopt.set_num_threads(threads)
    rng = np.random.default_rng(0)
    flat = fastopt.flatten([rng.normal(size=size).astype(dtype) for size in SIZES])
    optimizer = row.make(flat)
    for state in optimizer.state.values():
        state.buffer[...] = rng.normal(size=flat.buffer.size) ** 2
    (group,) = optimizer.param_groups
    (p,) = group.parameters
    g = rng.normal(size=p.theta.size).astype(dtype)
    for name in p.scalars:
        p.scalars[name] = 0.0
    plan = optimizer._stepping.settled(optimizer)
    plan.write_gradients({p: g}, token := plan.begin())
    assert plan.call(steps.BEGIN | steps.MEASURES, token) == steps.DONE
    sums = np.ascontiguousarray(plan.totals("measure", plan.works[0]))
    assert_same_bits(sums, expected(optimizer, group, p, g, np.cumsum([0, *SIZES])), row)
    assert sums.shape[1] == len(SIZES)


@every_dtype
@every_measure_by_tensor
def test_the_arrays_in_a_flat_are_tensors_of_their_own(row, dtype):
    rng = np.random.default_rng(1)
    arrays = [rng.normal(scale=scale, size=size).astype(dtype) for scale, size in ((1.0, 40), (1e-3, BLOCK + 5), (30.0, 7))]
    flat = fastopt.flatten(arrays)
    single, whole = row.make(arrays), row.make(flat)
    for _ in range(3):
        grads = [rng.normal(size=array.shape).astype(dtype) for array in arrays]
        like = flat.like()
        for view, g in zip(like.tree, grads, strict=True):
            view[...] = g
        single.step(grads)
        whole.step(like)
    for one, other in zip(arrays, flat.tree, strict=True):
        assert_same_bits(other, one)
    # And they are stepped by norms of their own, not by a common one.
    lone = row.make(flat.like().buffer.copy())
    assert lone.param_groups[0].parameters[0].tensors == 1


LARGE = [
    (fastopt.LARS, {}, 1e25),
    (fastopt.LAMB, {}, 1e15),
    (fastopt.DoG, {}, 1e25),
    (fastopt.DoWG, {"first_distance": 1e24}, 1e25),
]


@pytest.mark.parametrize(("optimizer", "numbers", "gradient"), LARGE, ids=str)
def test_norms_of_float32_do_not_overflow(optimizer, numbers, gradient):
    # The squares of these have no place in single precision; LAMB also keeps those of the gradient, as states.
    theta = np.full(1000, 1e25, np.float32)
    opt = optimizer(theta, lr=0.5, **numbers)
    for _ in range(2):
        opt.step(np.full(1000, gradient, np.float32))
    assert np.isfinite(theta).all()
    assert np.all(theta < 1e25)


def test_lars_takes_the_norms_of_the_tensor():
    theta, g = np.full(10_000, 3.0), np.full(10_000, 0.5)
    opt = fastopt.LARS(theta, lr=0.1, trust_coefficient=0.01, momentum=0.9)
    opt.step(g)
    np.testing.assert_allclose(theta, 3.0 - 0.1 * 0.01 * (3.0 / 0.5) * 0.5, rtol=1e-12)


def test_masked_elements_are_not_summed():
    theta, g = np.full(8, 2.0), np.full(8, 1.0)
    mask = np.arange(8) < 4
    theta[4:], g[4:] = 1e100, 1e100
    opt = fastopt.LARS(theta, lr=0.1, trust_coefficient=0.01, mask=mask)
    opt.step(g)
    np.testing.assert_allclose(theta[:4], 2.0 - 0.1 * 0.01 * 2.0, rtol=1e-12)
    np.testing.assert_array_equal(theta[4:], 1e100)
