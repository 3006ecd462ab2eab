"""A training step as a NumPy user writes it: one pass over the arrays after the other, around a bare optimizer."""

import itertools
import math

import numpy as np

from fastopt.engine.sums import BLOCK, LANES
from tests.table import assert_same_bits


def model(products):
    """The sum of a tensor's products: lanes first, element by element, then NumPy's sum of the lanes, then the blocks."""
    total = 0.0
    for begin in range(0, max(products.size, 1), BLOCK):
        block = products[begin : begin + BLOCK]
        lanes = np.zeros(LANES)
        for i in range(0, block.size, LANES):
            row = block[i : i + LANES]
            lanes[: row.size] += row
        total += lanes.sum()
    return total


def model_of_tensors(products, bounds):
    """The same for tensors that lie one after the other."""
    return [model(products[lo:hi]) for lo, hi in itertools.pairwise(bounds)]


def flushed(state):
    """Subnormal numbers replaced by zero."""
    return np.where(np.abs(state) < np.finfo(state.dtype).tiny, 0, state).astype(state.dtype)


class Separately:
    """An optimizer without options, with what options do in passes of their own.

    Parameters
    ----------
    row : Row
        The optimizer.
    theta : ndarray
        The parameter; updated in place.
    lr : float
    options : dict
    """

    def __init__(self, row, theta, lr, options):
        self.theta, self.lr, self.options = theta, lr, options
        self.bare = row.make(theta, lr=lr)
        self.ema = theta.copy()
        self.norm = None

    def step(self, g, scale):
        """Take one step; False if it is skipped."""
        dtype, options, theta = self.theta.dtype.type, self.options, self.theta
        mask = options.get("mask", np.ones(theta.shape, bool))
        g = g.astype(dtype)
        if "clip_norm" in options or options.get("nonfinite", "propagate") != "propagate":
            scaled = np.where(mask, dtype(scale) * g, dtype(0))
            self.norm = math.sqrt(model(np.square(scaled.astype(np.float64))))
            if not np.isfinite(scaled).all():
                return False
            limit = options.get("clip_norm", math.inf)
            scale *= 1.0 if self.norm <= limit else limit / self.norm
        g = dtype(scale) * g
        if clip := options.get("clip_value"):
            g = np.clip(g, -dtype(clip), dtype(clip))
        if options.get("maximize"):
            g = -g
        if options.get("project_gradient"):
            low, high = (
                dtype(unbounded if side is None else side)
                for side, unbounded in zip(options.get("bounds", (None, None)), (-np.inf, np.inf), strict=True)
            )
            g = np.where(theta > low, g, np.minimum(g, dtype(0)))
            g = np.where(theta < high, g, np.maximum(g, dtype(0)))
        before = {name: state.copy() for name, state in {**self.bare.state, "theta": theta}.items()}
        self.bare.step(g)
        if l1 := options.get("l1"):
            least = dtype(self.lr) * dtype(l1)
            theta -= np.clip(theta, -least, least)
        bounds = options.get("bounds", ())
        if any(side is not None for side in bounds):  # else NumPy before 2 refuses to clip
            np.clip(theta, *(None if side is None else dtype(side) for side in bounds), out=theta)
        ema = self.ema
        if (decay := options.get("ema_decay")) is not None:
            change = theta - ema
            ema = ema + dtype(1.0 - decay) * change if dtype(1.0 - decay) < 0.5 else theta - dtype(decay) * change
        if options.get("flush_subnormals"):
            ema = flushed(ema)
            for state in self.bare.state.values():
                state[...] = flushed(state)
        self.ema = np.where(mask, ema, self.ema)
        for name, array in {**self.bare.state, "theta": theta}.items():
            np.copyto(array, before[name], where=~mask)
        return True


def check(row, options, scale, dtype, gradient, size, seed, steps=3):
    """Step both and compare bits; of two zeros of both signs either may come out."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=size).astype(dtype)
    plain = theta.copy()
    if options.get("mask"):
        options = options | {"mask": rng.random(size) < 0.5}
    copy = np.zeros(size, options["copy_to"]) if "copy_to" in options else None
    opt = row.make(theta, **options | {"copy_to": copy}, lr=0.05)
    separate = Separately(row, plain, 0.05, options)
    taken = 0
    for _ in range(steps):
        g = rng.normal(size=size).astype(gradient)
        g[rng.random(size) < 0.01] = np.nan if options.get("nonfinite") == "skip" else 1e-41
        given = g.copy()
        opt.step(given, scale=scale)
        taken += separate.step(g, scale)
        assert_same_bits(theta + dtype(0), plain + dtype(0))
        assert_same_bits(given, np.zeros_like(g) if options.get("zero_grad") else g, "the gradient")
        assert opt.step_count == taken
        if separate.norm is not None:
            np.testing.assert_equal(opt.grad_norm, separate.norm)
        if copy is not None:
            with np.errstate(all="ignore"):
                assert_same_bits(copy + copy.dtype.type(0), theta.astype(copy.dtype) + copy.dtype.type(0), "the copy")
    for name in row.states:
        assert_same_bits(opt.state[name] + dtype(0), separate.bare.state[name] + dtype(0), name)
    if "ema_decay" in options:
        assert_same_bits(opt.ema + dtype(0), separate.ema + dtype(0), "the average")
