"""Optimizers that look at more than one element: LARS, LAMB, NovoGrad, DoG, DoWG, Prodigy; and Sophia."""

from itertools import count

import numpy as np

from fastopt import LAMB, LARS, DoG, DoWG, NovoGrad, Prodigy, Sophia
from fastopt.optimizers import dog, lamb, lars, novograd, prodigy, sophia
from tests.row import Row

norm = np.linalg.norm


def trust(weights, step):
    """The ratio of the norms where both are more than 0, else 1: optax's documentation of scale_by_trust_ratio."""
    return norm(weights) / norm(step) if norm(weights) > 0 and norm(step) > 0 else 1.0


def lars_path(theta, grad, lr, momentum, trust_coefficient, eps, nesterov):
    """You et al. (2017), algorithm 1, with optax's trust ratio."""
    v = np.zeros_like(theta)
    while True:
        g = grad(theta)
        has_norms = norm(theta) > 0 and norm(g) > 0
        local = trust_coefficient * norm(theta) / (norm(g) + eps) if has_norms else 1.0
        update = local * lr * g
        v = momentum * v + update
        theta = theta - (update + momentum * v if nesterov else v)
        yield theta


def lars_oracle(theta, grad, lr=0.1, momentum=0.9, trust_coefficient=1e-3, eps=0.0):
    """With plain momentum."""
    return lars_path(theta, grad, lr, momentum, trust_coefficient, eps, nesterov=False)


def lars_nesterov_oracle(theta, grad, lr=0.1, momentum=0.9, trust_coefficient=1e-3, eps=0.0):
    """The same with Nesterov's momentum, as optax's trace has it."""
    return lars_path(theta, grad, lr, momentum, trust_coefficient, eps, nesterov=True)


def lamb_oracle(theta, grad, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
    """You et al. (2020), algorithm 2, with the identity for phi."""
    beta_1, beta_2 = betas
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        r = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + eps)
        update = r + weight_decay * theta
        theta = theta - lr * trust(theta, update) * update
        yield theta


def novograd_oracle(theta, grad, lr=1e-3, betas=(0.9, 0.25), eps=1e-6, weight_decay=0.0):
    """Ginsburg et al. (2019), algorithm 1, without its decaying rate."""
    beta_1, beta_2 = betas
    g = grad(theta)
    v = norm(g) ** 2
    m = g / (np.sqrt(v) + eps) + weight_decay * theta
    while True:
        theta = theta - lr * m
        yield theta
        g = grad(theta)
        v = beta_2 * v + (1 - beta_2) * norm(g) ** 2
        m = beta_1 * m + (g / (np.sqrt(v) + eps) + weight_decay * theta)


def dog_path(theta, grad, lr, first_distance, eps, relative):
    """Ivgi et al. (2023), equation 1, with their r_epsilon."""
    x_0 = theta
    r_bar, total = first_distance * (1 + norm(x_0) if relative else 1.0), 0.0
    while True:
        g = grad(theta)
        r_bar = max(r_bar, norm(theta - x_0))
        total += norm(g) ** 2
        theta = theta - lr * r_bar / np.sqrt(total + eps) * g
        yield theta


def dog_oracle(theta, grad, lr=1.0, first_distance=1e-6, eps=1e-8):
    """From a first distance that is relative to the norm of the start."""
    return dog_path(theta, grad, lr, first_distance, eps, relative=True)


def absolute_dog_oracle(theta, grad, lr=1.0, first_distance=1e-6, eps=1e-8):
    """The same from a first distance that is given as it is."""
    return dog_path(theta, grad, lr, first_distance, eps, relative=False)


def dowg_oracle(theta, grad, lr=1.0, first_distance=1e-2, eps=1e-4):
    """Khaled et al. (2023), algorithm 1, with optax's epsilon."""
    x_0, r2, v = theta, first_distance**2, 0.0
    while True:
        g = grad(theta)
        r2 = max(r2, norm(theta - x_0) ** 2)
        v = v + r2 * norm(g) ** 2
        theta = theta - lr * r2 / (np.sqrt(v) + eps) * g
        yield theta


def prodigy_oracle(theta, grad, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, d0=1e-6, d_coef=1.0):
    """Mishchenko and Defazio (2024), algorithm 4, with Adam's corrections in the rate, as optax documents it."""
    beta_1, beta_2 = betas
    beta_3 = np.sqrt(beta_2)
    x_0, d, r = theta, d0, 0.0
    m, v, s = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        gamma = d * lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        m = beta_1 * m + (1 - beta_1) * d * g
        v = beta_2 * v + (1 - beta_2) * d**2 * g**2
        r = beta_3 * r + d / d0 * gamma * np.dot(g, x_0 - theta)
        s = beta_3 * s + d / d0 * gamma * g
        d = max(d, d_coef * r / np.abs(s).sum())
        theta = theta - gamma * (m / (np.sqrt(v) + d * eps) + weight_decay * theta)
        yield theta


def sophia_oracle(theta, grad, lr=1e-3, betas=(0.965, 0.99), eps=1e-8, weight_decay=1e-4, clip=1.0):
    """Liu et al. (2024), algorithm 3, without any estimate of the Hessian: h stays 0."""
    beta_1, _ = betas
    m = np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        theta = theta - lr * weight_decay * theta
        theta = theta - lr * np.clip(m / (1 - beta_1**t) / eps, -clip, clip)
        yield theta


LARS_ROW = (lars.lars, ("p",), lars_oracle)
PRODIGY = (prodigy.prodigy, ("m", "v", "s", "start"), prodigy_oracle)

ROWS = [
    Row(LARS, {}, {}, *LARS_ROW, optax=("lars", {"learning_rate": 0.1}), bench="LARS"),
    Row(
        *(LARS, {}, {"lr": 0.5, "momentum": 0.8, "trust_coefficient": 0.01, "eps": 0.1}, *LARS_ROW),
        optax=("lars", {"learning_rate": 0.5, "momentum": 0.8, "trust_coefficient": 0.01, "eps": 0.1}),
    ),
    Row(
        *(LARS, {"nesterov": True}, {"lr": 0.5}, lars.lars_nesterov, ("p",), lars_nesterov_oracle),
        optax=("lars", {"learning_rate": 0.5, "nesterov": True}),
    ),
    Row(
        *(LAMB, {}, {}, lamb.lamb, ("m", "v"), lamb_oracle),
        optax=("lamb", {"learning_rate": 0.001}),
        bench="LAMB",
    ),
    Row(
        *(LAMB, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.1}, lamb.lamb, ("m", "v"), lamb_oracle),
        optax=("lamb", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 0.1}),
    ),
    Row(
        *(NovoGrad, {}, {}, novograd.novograd, ("m",), novograd_oracle),
        optax=("novograd", {"learning_rate": 0.001}),
        bench="NovoGrad",
    ),
    Row(
        *(NovoGrad, {}, {"lr": 0.01, "betas": (0.8, 0.5), "eps": 1e-3, "weight_decay": 0.1}),
        *(novograd.novograd, ("m",), novograd_oracle),
        optax=("novograd", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.5, "eps": 1e-3, "weight_decay": 0.1}),
    ),
    Row(
        *(DoG, {}, {"first_distance": 1e-3}, dog.descent_from_start, ("start",), dog_oracle),
        optax=("contrib.dog", {"init_step": ("heuristic", 1e-3)}),
        bench="DoG",
    ),
    Row(
        *(DoG, {"relative": False}, {"lr": 0.5, "first_distance": 0.01, "eps": 1e-4}),
        *(dog.descent_from_start, ("start",), absolute_dog_oracle),
        optax=("contrib.dog", {"learning_rate": 0.5, "init_step": ("distance", 0.01), "eps": 1e-4}),
    ),
    # With larger rates their steps on Rosenbrock's function throw the path about, and rounding errors grow with it.
    Row(
        *(DoWG, {}, {"lr": 0.1, "first_distance": 0.1}, dog.descent_from_start, ("start",), dowg_oracle),
        optax=("contrib.dowg", {"learning_rate": 0.1, "init_estim_sq_dist": 0.1**2}),
        bench="DoWG",
    ),
    Row(
        *(Prodigy, {}, {"lr": 0.2, "d0": 1e-3}, *PRODIGY),
        optax=("contrib.prodigy", {"learning_rate": 0.2, "estim_lr0": 1e-3}),
        bench="Prodigy",
    ),
    Row(
        *(Prodigy, {}, {"lr": 0.5, "betas": (0.8, 0.99), "weight_decay": 0.1, "d0": 1e-3, "d_coef": 0.5}, *PRODIGY),
        optax=(
            "contrib.prodigy",
            {"learning_rate": 0.5, "betas": (0.8, 0.99), "weight_decay": 0.1, "estim_lr0": 1e-3, "estim_lr_coef": 0.5},
        ),
    ),
    Row(Sophia, {}, {"lr": 3e-3}, sophia.sophia, ("m", "h"), sophia_oracle, bench="Sophia"),
]
