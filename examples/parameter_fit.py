"""A parameter fit with noise: a decay of two components, from mini-batches of photon counts.

The rates are per nanosecond and differ tenfold, the amplitudes are counts, so that the variables need scales. Each draw sees 50
of 5,000 measurements.
"""

import numpy as np

rng = np.random.default_rng(0)
TRUTH = np.array([800.0, 0.05, 3000.0, 0.6, 40.0])  # amplitude and rate of both components, background
TIMES = rng.uniform(0, 60, 5000)  # nanoseconds


def model(p, t):
    """Expected counts, and their derivatives by the parameters."""
    slow, fast = np.exp(-p[1] * t), np.exp(-p[3] * t)
    return p[0] * slow + p[2] * fast + p[4], np.array([slow, -p[0] * t * slow, fast, -p[2] * t * fast, np.ones_like(t)])


COUNTS = rng.poisson(model(TRUTH, TIMES)[0])


def misfit(p, which):
    """Half the mean of the squared errors, in units of their spread, and its gradient."""
    expected, derivatives = model(p, TIMES[which])
    weights = 1 / np.maximum(COUNTS[which], 1)
    errors = expected - COUNTS[which]
    return 0.5 * float(np.mean(weights * errors**2)), derivatives @ (weights * errors) / errors.size


draws = np.random.default_rng(1)


def fun(p):
    """A draw of the misfit and its gradient."""
    return misfit(p, draws.integers(0, TIMES.size, 50))


x0 = np.array([500.0, 0.1, 2000.0, 1.0, 100.0])
bounds = [(0, 5000), (0, 1), (0, 10_000), (0, 5), (0, 500)]
options = {"lr": 0.01, "maxiter": 5000, "noisy": True, "x_scale": np.abs(x0)}


def quality(p):
    """The misfit to all measurements; that of the true parameters is 0.5."""
    return misfit(p, slice(None))[0]
