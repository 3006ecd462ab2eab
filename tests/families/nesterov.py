"""Adam's kin with another momentum: NAdam, Adan, AdEMAMix, ADOPT, Yogi."""

import math
from itertools import count

import numpy as np

from fastopt import ADOPT, Adan, AdEMAMix, NAdam, NAdamW, Yogi
from fastopt.optimizers import adan, ademamix, adopt, nadam, yogi
from tests.row import Row


def nadam_path(theta, grad, lr, betas, eps, momentum_decay, shrink):
    """PyTorch's documentation of NAdam, line by line; ``shrink`` is its decoupled weight decay."""
    gamma, (beta_1, beta_2), psi = lr, betas, momentum_decay
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    mus = {}

    def mu(t):
        return beta_1 * (1 - 0.5 * 0.96 ** (t * psi))

    for t in count(1):
        g = grad(theta)
        theta = theta - gamma * shrink * theta
        mus[t], mus[t + 1] = mu(t), mu(t + 1)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        up_to_t = math.prod(mus[i] for i in range(1, t + 1))
        m_hat = mus[t + 1] * m / (1 - up_to_t * mus[t + 1]) + (1 - mus[t]) * g / (1 - up_to_t)
        v_hat = v / (1 - beta_2**t)
        theta = theta - gamma * m_hat / (np.sqrt(v_hat) + eps)
        yield theta


def nadam_oracle(theta, grad, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, momentum_decay=4e-3):
    """Without weight decay."""
    return nadam_path(theta, grad, lr, betas, eps, momentum_decay, shrink=0.0)


def nadamw_oracle(theta, grad, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, momentum_decay=4e-3):
    """The same with decoupled weight decay."""
    return nadam_path(theta, grad, lr, betas, eps, momentum_decay, shrink=weight_decay)


def yogi_oracle(theta, grad, lr=1e-2, betas=(0.9, 0.999), eps=1e-3, initial_accumulator_value=1e-6):
    """Zaheer et al. (2018), algorithm 2, with the corrections and the start that optax documents."""
    (beta_1, beta_2) = betas
    m, v = np.full_like(theta, initial_accumulator_value), np.full_like(theta, initial_accumulator_value)
    for t in count(1):
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        v = v - (1 - beta_2) * np.sign(v - g**2) * g**2
        theta = theta - lr * (m / (1 - beta_1**t)) / (np.sqrt(v / (1 - beta_2**t)) + eps)
        yield theta


def ademamix_oracle(theta, grad, lr=1e-3, betas=(0.9, 0.999, 0.9999), alpha=5.0, eps=1e-8, weight_decay=0.0, warmup_steps=0):
    """Pagliardini et al. (2025), algorithm 1, with equations 4 and 5 where there is a warm-up."""
    eta, (beta_1, beta_2, beta_3), lam, big_t = lr, betas, weight_decay, warmup_steps
    m_1, m_2, nu = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        alpha_t, beta_3_t = alpha, beta_3
        if big_t:
            alpha_t = min(t * alpha / big_t, alpha)
            ln_start, ln_end = math.log(beta_1), math.log(beta_3)
            inner = (1 - t / big_t) * ln_end + (t / big_t) * ln_start
            beta_3_t = min(math.exp(ln_start * ln_end / inner), beta_3) if t < big_t else beta_3
        m_1 = beta_1 * m_1 + (1 - beta_1) * g
        m_2 = beta_3_t * m_2 + (1 - beta_3_t) * g
        nu = beta_2 * nu + (1 - beta_2) * g**2
        m_1_hat, nu_hat = m_1 / (1 - beta_1**t), nu / (1 - beta_2**t)
        theta = theta - eta * ((m_1_hat + alpha_t * m_2) / (np.sqrt(nu_hat) + eps) + lam * theta)
        yield theta


def adan_oracle(theta, grad, lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, eps_root=0.0, weight_decay=0.0):
    """Xie et al. (2022), algorithm 1, with 1 - beta for their beta; corrections and weight decay as optax documents them."""
    b_1, b_2, b_3 = betas
    m, v, n, before = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta), None
    for t in count(1):
        g = grad(theta)
        diff = np.zeros_like(g) if before is None else g - before
        m = b_1 * m + (1 - b_1) * g
        v = b_2 * v + (1 - b_2) * diff
        n = b_3 * n + (1 - b_3) * (g + (1 - b_2) * diff) ** 2
        m_hat, v_hat, n_hat = m / (1 - b_1**t), v / (1 - b_2**t), n / (1 - b_3**t)
        theta = theta - lr * ((m_hat + (1 - b_2) * v_hat) / (np.sqrt(n_hat + eps_root) + eps) + weight_decay * theta)
        before = g
        yield theta


def adopt_path(theta, grad, lr, betas, eps, clip):
    """Taniguchi et al. (2024), algorithm 2 in its later version, with c_t = t^(1/4) counted as there, from 0."""
    beta_1, beta_2 = betas
    g = grad(theta)
    v, m = g * g, np.zeros_like(theta)
    yield theta
    for t in count(1):
        g = grad(theta)
        normed = g / np.maximum(np.sqrt(v), eps)
        if clip:
            normed = np.clip(normed, -(t**0.25), t**0.25)
        m = beta_1 * m + (1 - beta_1) * normed
        theta = theta - lr * m
        v = beta_2 * v + (1 - beta_2) * g * g
        yield theta


def adopt_oracle(theta, grad, lr=1e-3, betas=(0.9, 0.9999), eps=1e-6):
    """With clipping."""
    return adopt_path(theta, grad, lr, betas, eps, clip=True)


def unclipped_adopt_oracle(theta, grad, lr=1e-3, betas=(0.9, 0.9999), eps=1e-6):
    """Without clipping, as in the paper's first version."""
    return adopt_path(theta, grad, lr, betas, eps, clip=False)


NADAM = (nadam.nadam, ("m", "v"))
ADEMAMIX = (ademamix.ademamix, ("m", "m_slow", "v"), ademamix_oracle)
ADAN = (adan.adan, ("m", "d", "n", "previous"), adan_oracle)

ROWS = [
    Row(NAdam, {}, {}, *NADAM, nadam_oracle, torch=("NAdam", {}), bench="NAdam"),
    Row(
        *(NAdam, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "momentum_decay": 0.1}, *NADAM, nadam_oracle),
        torch=("NAdam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "momentum_decay": 0.1}),
    ),
    Row(
        *(NAdam, {}, {"lr": 0.01, "momentum_decay": math.inf}, *NADAM, nadam_oracle),
        optax=("nadam", {"learning_rate": 0.01}),
    ),
    Row(
        *(NAdamW, {}, {"lr": 0.01, "weight_decay": 0.1}, *NADAM, nadamw_oracle),
        torch=("NAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
        bench="NAdamW",
    ),
    Row(
        *(NAdamW, {}, {"lr": 0.01, "weight_decay": 0.1, "momentum_decay": math.inf}, *NADAM, nadamw_oracle),
        optax=("nadamw", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ),
    Row(
        *(Yogi, {}, {}, yogi.yogi, ("m", "v"), yogi_oracle),
        optax=("yogi", {"learning_rate": 0.01}),
        bench="Yogi",
    ),
    Row(
        *(Yogi, {}, {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-4}, yogi.yogi, ("m", "v"), yogi_oracle),
        optax=("yogi", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.9, "eps": 1e-4}),
    ),
    Row(
        *(AdEMAMix, {}, {}, *ADEMAMIX),
        optax=("contrib.ademamix", {"learning_rate": 0.001}),
        bench="AdEMAMix",
    ),
    Row(
        *(AdEMAMix, {}, {"lr": 0.01, "betas": (0.8, 0.99, 0.95), "alpha": 2.0, "eps": 1e-4, "weight_decay": 0.1}, *ADEMAMIX),
        optax=(
            "contrib.ademamix",
            {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "b3": 0.95, "alpha": 2.0, "eps": 1e-4, "weight_decay": 0.1},
        ),
    ),
    Row(AdEMAMix, {}, {"lr": 0.01, "warmup_steps": 60}, *ADEMAMIX),
    Row(Adan, {}, {}, *ADAN, optax=("adan", {"learning_rate": 0.001, "eps_root": 0.0, "weight_decay": 0.0}), bench="Adan"),
    Row(
        *(Adan, {}, {"lr": 0.01, "betas": (0.9, 0.8, 0.95), "eps": 1e-4, "eps_root": 1e-6, "weight_decay": 0.1}, *ADAN),
        optax=(
            "adan",
            {"learning_rate": 0.01, "b1": 0.9, "b2": 0.8, "b3": 0.95, "eps": 1e-4, "eps_root": 1e-6, "weight_decay": 0.1},
        ),
    ),
    Row(
        *(ADOPT, {}, {}, adopt.adopt, ("m", "v"), adopt_oracle),
        optax=("contrib.adopt", {"learning_rate": 0.001}),
        bench="ADOPT",
    ),
    Row(
        *(ADOPT, {"clip": False}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-3}),
        *(adopt.adopt, ("m", "v"), unclipped_adopt_oracle),
        optax=("contrib.adopt", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-3, "use_clipping": False}),
    ),
]
