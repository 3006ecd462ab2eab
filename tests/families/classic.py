"""Optimizers of all kinds that PyTorch or optax have: Rprop, ASGD, OptimisticAdam, MADGRAD, FTRL, NoisySGD."""

from itertools import count

import numpy as np

from fastopt import ASGD, FTRL, MADGRAD, NoisySGD, OptimisticAdam, Rprop
from fastopt.optimizers import asgd, ftrl, madgrad, noisysgd, optimisticadam, rprop
from tests.row import Row


def rprop_oracle(theta, grad, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0)):
    """PyTorch's documentation of Rprop, element by element."""
    (eta_minus, eta_plus), (gamma_min, gamma_max) = etas, step_sizes
    previous, eta = np.zeros_like(theta), np.zeros_like(theta) + lr
    while True:
        g = grad(theta).copy()
        for i in range(g.size):
            if previous[i] * g[i] > 0:
                eta[i] = min(eta[i] * eta_plus, gamma_max)
            elif previous[i] * g[i] < 0:
                eta[i] = max(eta[i] * eta_minus, gamma_min)
                g[i] = 0
            eta[i] = min(max(eta[i], gamma_min), gamma_max)
        theta = theta - eta * np.sign(g)
        previous = g
        yield theta


def asgd_oracle(theta, grad, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6):
    """PyTorch's implementation as it describes it: eta is computed after each step, for the next."""
    eta = lr
    for t in count(1):
        g = grad(theta)
        theta = theta * (1 - lambd * eta) - eta * g
        eta = lr / (1 + lambd * lr * t) ** alpha
        yield theta


def optimistic_adam_oracle(theta, grad, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, optimism=1.0):
    """Daskalakis et al. (2018), algorithm 1: theta - 2 eta u_t + eta u_{t-1} with Adam's u; the first step is Adam's."""
    beta_1, beta_2 = betas
    m, v, before = np.zeros_like(theta), np.zeros_like(theta), None
    for t in count(1):
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        u = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + eps)
        before = u if before is None else before
        theta = theta - lr * (1 + optimism) * u + lr * optimism * before
        before = u
        yield theta


def madgrad_oracle(theta, grad, lr=1e-2, momentum=0.9, eps=1e-6):
    """Defazio and Jelassi (2022), algorithm 1; eps is added to the rate as well, as in the authors' code."""
    c = 1 - momentum
    x_0, s, nu = theta.copy(), np.zeros_like(theta), np.zeros_like(theta)
    for k in count():
        g = grad(theta)
        lamb = (lr + eps) * np.sqrt(k + 1)
        s = s + lamb * g
        nu = nu + lamb * (g * g)
        z = x_0 - s / (np.cbrt(nu) + eps)
        theta = (1 - c) * theta + c * z
        yield theta


def ftrl_oracle(theta, grad, lr=0.1, beta=1.0, l1=0.0, l2=0.0, initial_accumulator_value=0.0):
    """McMahan et al. (2013), algorithm 1, element by element; the first weights are the given ones."""
    alpha = np.broadcast_to(lr, theta.shape)
    z, n, w = np.zeros_like(theta), np.full_like(theta, initial_accumulator_value), theta
    while True:
        g, w = grad(w), w.copy()
        for i in range(g.size):
            sigma = (np.sqrt(n[i] + g[i] ** 2) - np.sqrt(n[i])) / alpha[i]
            z[i] = z[i] + g[i] - sigma * w[i]
            n[i] = n[i] + g[i] ** 2
            if abs(z[i]) <= l1:
                w[i] = 0
            else:
                w[i] = -1 / ((beta + np.sqrt(n[i])) / alpha[i] + l2) * (z[i] - np.sign(z[i]) * l1)
        yield w


def noisy_sgd_oracle(theta, grad, lr=1e-3, eta=0.01, gamma=0.55):
    """Neelakantan et al. (2015), section 3, with the noise of NumPy's generator."""
    noise = np.random.default_rng(0)
    for t in count():
        g = grad(theta) + np.sqrt(eta / (1 + t) ** gamma) * noise.standard_normal(theta.size)
        theta = theta - lr * g
        yield theta


RPROP = (rprop.rprop, ("size", "previous"), rprop_oracle)

ROWS = [
    Row(Rprop, {}, {}, *RPROP, torch=("Rprop", {}), bench="Rprop"),
    Row(
        *(Rprop, {}, {"lr": 0.02, "etas": (0.4, 1.1), "step_sizes": (1e-3, 0.1)}, *RPROP),
        torch=("Rprop", {"lr": 0.02, "etas": (0.4, 1.1), "step_sizes": (1e-3, 0.1)}),
    ),
    Row(ASGD, {}, {}, asgd.asgd, ("ax",), asgd_oracle, torch=("ASGD", {}), bench="ASGD"),
    Row(
        *(ASGD, {}, {"lr": 0.02, "lambd": 0.1, "alpha": 0.5, "t0": 3.0}, asgd.asgd, ("ax",), asgd_oracle),
        torch=("ASGD", {"lr": 0.02, "lambd": 0.1, "alpha": 0.5, "t0": 3.0}),
    ),
    Row(
        *(OptimisticAdam, {}, {}, optimisticadam.optimistic_adam, ("m", "v", "previous"), optimistic_adam_oracle),
        optax=("optimistic_adam_v2", {"learning_rate": 0.001, "nesterov": False}),
        bench="OptimisticAdam",
    ),
    Row(
        *(OptimisticAdam, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "optimism": 0.5}),
        *(optimisticadam.optimistic_adam, ("m", "v", "previous"), optimistic_adam_oracle),
        optax=(
            "optimistic_adam_v2",
            {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-4, "beta": 0.5, "nesterov": False},
        ),
    ),
    # Optax has it, too, but takes the root of the step in single precision.
    Row(MADGRAD, {}, {}, madgrad.madgrad, ("s", "r", "start"), madgrad_oracle, bench="MADGRAD"),
    Row(MADGRAD, {}, {"lr": 0.003, "momentum": 0.5, "eps": 1e-4}, madgrad.madgrad, ("s", "r", "start"), madgrad_oracle),
    Row(FTRL, {}, {}, ftrl.ftrl, ("z", "n"), ftrl_oracle, bench="FTRL"),
    Row(
        *(FTRL, {}, {"lr": 0.3, "beta": 0.5, "l1": 0.5, "l2": 0.1, "initial_accumulator_value": 0.1}),
        *(ftrl.ftrl, ("z", "n"), ftrl_oracle),
    ),
    Row(NoisySGD, {}, {}, noisysgd.noisy_descent, (), noisy_sgd_oracle, bench="NoisySGD"),
    Row(NoisySGD, {}, {"lr": 0.01, "eta": 0.5, "gamma": 1.0}, noisysgd.noisy_descent, (), noisy_sgd_oracle),
]
