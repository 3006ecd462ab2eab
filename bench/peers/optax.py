"""Optax."""

from __future__ import annotations

import functools
from operator import attrgetter

import numpy as np

from bench.cases import Problem
from bench.contender import Contender, Running


def start(problem: Problem) -> Running:
    """Optax under ``jax.jit``, which updates in place because parameters and state are donated."""
    import jax
    import optax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    case, theta, g, lr = problem
    name, hyper = case.optax
    make = attrgetter(name)(optax)
    if case.has_rates:
        make = optax.inject_hyperparams(make)  # else the array would be a constant of the compiled code
    transformation = make(learning_rate=lr, **hyper)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, gradient):
        updates, state = transformation.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, gradient = jax.numpy.array(theta), jax.numpy.array(g)
    state = jax.tree.map(jax.numpy.array, transformation.init(params))  # a copy: what is donated may be there only once

    def step():
        nonlocal params, state
        params, state = update(params, state, gradient)
        params.block_until_ready()  # as with all others, the step is done when it returns

    return Running(step, lambda: np.asarray(params))


CONTENDER = Contender("optax under jit", start, requires=("jax", "optax"), has=lambda case: case.optax is not None)
