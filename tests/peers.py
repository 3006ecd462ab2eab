"""How fastopt is stepped side by side with other libraries, in float64, with the same gradients."""

import importlib.metadata
import re
from operator import attrgetter

import numpy as np

# Those that the extra of this name installs, each of which is imported by the name that it has there.
REQUIREMENTS = (each for each in importlib.metadata.requires("fastopt") if each.endswith("extra == 'peers'"))
PEERS = {re.match(r"[\w-]+", each).group() for each in REQUIREMENTS}
STEPS = 20
SHAPES = ((), (1,), (17,), (4, 5), (2, 3, 4))
TOLERANCE = 1e-12  # relative, of the largest element


def start():
    rng = np.random.default_rng(3)
    return [np.asarray(rng.normal(size=shape)) for shape in SHAPES]


def gradients():
    """For every step, with magnitudes from 1e-3 to 1e3: what eps does where must show."""
    rng = np.random.default_rng(4)
    for scale in np.geomspace(1e-3, 1e3, STEPS):
        yield [np.asarray(scale * rng.normal(size=shape)) for shape in SHAPES]


def torch_path(torch, name, arguments):
    """The parameters after each step of an optimizer of PyTorch."""
    params = [torch.nn.Parameter(torch.from_numpy(theta)) for theta in start()]
    optimizer = getattr(torch.optim, name)(params, **arguments)
    for g in gradients():
        for p, own in zip(params, g, strict=True):
            p.grad = torch.from_numpy(own)
        optimizer.step()
        yield [p.detach().numpy() for p in params]


def optax_path(optax, name, arguments):
    """The parameters after each step of an optimizer of optax."""
    params = start()
    optimizer = attrgetter(name)(optax)(**arguments)
    state = optimizer.init(params)
    for g in gradients():
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
        yield [np.asarray(p) for p in params]


def sklearn_path(name, arguments):
    """The parameters after each step of what scikit-learn trains its networks with."""
    from sklearn.neural_network import _stochastic_optimizers

    params = start()
    optimizer = getattr(_stochastic_optimizers, f"{name}Optimizer")(params, **arguments)
    for g in gradients():
        optimizer.update_params(params, g)
        yield params


def pennylane_path(name, arguments):
    """The parameters after each step of an optimizer of PennyLane."""
    import pennylane

    params = [pennylane.numpy.array(theta, requires_grad=True) for theta in start()]
    optimizer = getattr(pennylane, name)(**arguments)
    for g in gradients():
        params = optimizer.apply_grad(g, params)
        yield [np.asarray(p) for p in params]


def formula_path(oracle, arguments):
    """The parameters after each step by a formula that is written down in the form of ``tests/oracles.py``."""
    paths = []
    for theta, *own in zip(start(), *gradients(), strict=True):
        steps = iter(own)
        paths.append(oracle(theta.ravel(), lambda _, steps=steps: next(steps).ravel(), **arguments))
    for _ in range(STEPS):
        yield [next(path).reshape(shape) for path, shape in zip(paths, SHAPES, strict=True)]


def assert_equal_paths(make, theirs):
    """Step the optimizer that ``make(params)`` gives along the parameters that another library gave after each step."""
    params = start()
    optimizer = make(params)
    for step, (g, expected) in enumerate(zip(gradients(), theirs, strict=True), start=1):
        optimizer.step(g)
        for own, other in zip(params, expected, strict=True):
            assert other.dtype == own.dtype
            assert_close(own, other, f"shape {own.shape}, step {step}")
    assert step == STEPS


def assert_close(own, other, what):
    """Raise AssertionError unless the relative error is within the tolerance."""
    error = np.abs(own - other).max() / max(np.abs(other).max(), np.finfo(float).tiny)
    assert error <= TOLERANCE, f"{what}: relative error {error:.1e}"
