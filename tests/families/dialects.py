"""Other libraries' conventions, where they need a rule or a number of their own."""

from itertools import count

import numpy as np

from fastopt import SGD, AdaGrad, Adam, AdaMax, RAdam, RMSProp
from fastopt.optimizers import adagrad, adam, adamax, radam, rmsprop, sgd
from tests import keras_formulas as keras
from tests.row import Row


def falling_adagrad(theta, grad, lr=1e-2, eps=1e-10, lr_decay=0.0, initial_accumulator_value=0.0):
    """PyTorch's documentation of Adagrad."""
    gamma, eta, state_sum = lr, lr_decay, np.full_like(theta, initial_accumulator_value)
    for t in count(1):
        g = grad(theta)
        gamma_tilde = gamma / (1 + (t - 1) * eta)
        state_sum = state_sum + g**2
        theta = theta - gamma_tilde * g / (np.sqrt(state_sum) + eps)
        yield theta


def torch_rmsprop(theta, grad, lr=1e-2, rho=0.99, eps=1e-8, momentum=0.0, centered=False):
    """PyTorch's documentation of RMSprop."""
    gamma, alpha, mu = lr, rho, momentum
    v, b, g_ave = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    while True:
        g = grad(theta)
        v = alpha * v + (1 - alpha) * g**2
        v_tilde = v
        if centered:
            g_ave = g_ave * alpha + (1 - alpha) * g
            v_tilde = v - g_ave**2
        if mu > 0:
            b = mu * b + g / (np.sqrt(v_tilde) + eps)
            theta = theta - gamma * b
        else:
            theta = theta - gamma * g / (np.sqrt(v_tilde) + eps)
        yield theta


def centered_rmsprop(theta, grad, lr=1e-2, rho=0.99, eps=1e-8):
    return torch_rmsprop(theta, grad, lr, rho, eps, centered=True)


def centered_rmsprop_momentum(theta, grad, lr=1e-2, rho=0.99, eps=1e-8, momentum=0.9):
    return torch_rmsprop(theta, grad, lr, rho, eps, momentum, centered=True)


def keras_rmsprop(theta, grad, lr, rho, momentum, eps):
    return keras.rmsprop(theta, grad, lr, rho, momentum, eps)


def keras_centered_rmsprop(theta, grad, lr, rho, momentum, eps):
    return keras.rmsprop(theta, grad, lr, rho, momentum, eps, centered=True)


def keras_adagrad(theta, grad, lr, eps, initial_accumulator_value):
    return keras.adagrad(theta, grad, lr, initial_accumulator_value, eps)


def keras_sgd(theta, grad, lr, momentum):
    return keras.sgd(theta, grad, lr, momentum)


def keras_nesterov(theta, grad, lr, momentum):
    return keras.sgd(theta, grad, lr, momentum, nesterov=True)


def keras_adam(theta, grad, lr, eps):
    return keras.adam(theta, grad, lr, epsilon=eps)


def keras_amsgrad(theta, grad, lr, betas, eps):
    return keras.adam(theta, grad, lr, *betas, epsilon=eps, amsgrad=True)


def keras_adamax(theta, grad, lr, eps):
    return keras.adamax(theta, grad, lr, epsilon=eps)


def adam_with_eps_root(theta, grad, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, eps_root=0.0):
    """optax's documentation of adam."""
    (b1, b2), m, v = betas, np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat + eps_root) + eps)
        yield theta


def optax_amsgrad(theta, grad, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, eps_root=0.0):
    """optax's documentation of amsgrad: the largest corrected average."""
    (b1, b2), m, v, v_max = betas, np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        v_max = np.maximum(v_max, v_hat)
        theta = theta - lr * m_hat / (np.sqrt(v_max + eps_root) + eps)
        yield theta


def published_amsgrad(theta, grad, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Reddi et al. (2018), algorithm 2, with the small constant of section 3."""
    alpha, (beta_1, beta_2) = lr, betas
    m, v, v_hat = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    while True:
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        v_hat = np.where(v > v_hat, v, v_hat)
        theta = theta - alpha * m / (np.sqrt(v_hat) + eps)
        yield theta


def corrected_radam(theta, grad, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, threshold=5.0):
    """optax's documentation of radam: eps is added to the corrected root."""
    (b1, b2), m, v = betas, np.zeros_like(theta), np.zeros_like(theta)
    ro_inf = 2 / (1 - b2) - 1
    for t in count(1):
        g = grad(theta)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        ro = ro_inf - 2 * t * b2**t / (1 - b2**t)
        if ro > threshold:
            r = np.sqrt((ro - 4) * (ro - 2) * ro_inf / ((ro_inf - 4) * (ro_inf - 2) * ro))
            theta = theta - lr * r * m_hat / (np.sqrt(v_hat) + eps)
        else:
            theta = theta - lr * m_hat
        yield theta


INSIDE = {"eps_inside_sqrt": True}
STEPS = {"accumulate_lr": True}
AMSGRAD = (adam.amsgrad, ("m", "v", "v_max"))
SLOW = {"lr": 0.003, "rho": 0.9, "eps": 1e-4}

ROWS = [
    Row(SGD, STEPS, {"lr": 0.02, "momentum": 0.9}, sgd.momentum, ("p",), keras_sgd),
    Row(SGD, STEPS | {"nesterov": True}, {"lr": 0.02, "momentum": 0.9}, sgd.nesterov, ("p",), keras_nesterov),
    Row(
        *(AdaGrad, {}, {"lr": 0.05, "lr_decay": 0.1, "initial_accumulator_value": 0.5}, adagrad.adagrad, ("r",)),
        falling_adagrad,
        torch=("Adagrad", {"lr": 0.05, "lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ),
    Row(
        *(AdaGrad, INSIDE, {"lr": 0.05, "eps": 1e-3, "initial_accumulator_value": 0.1}, adagrad.adagrad, ("r",)),
        keras_adagrad,
        optax=("adagrad", {"learning_rate": 0.05, "eps": 1e-3}),
    ),
    Row(
        *(RMSProp, {}, SLOW | {"momentum": 0.8}, rmsprop.rmsprop_momentum, ("v", "b"), torch_rmsprop),
        torch=("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-4, "momentum": 0.8}),
        bench="RMSProp momentum",
    ),
    Row(
        *(RMSProp, {"centered": True}, SLOW, rmsprop.centered_rmsprop, ("v", "m"), centered_rmsprop),
        torch=("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-4, "centered": True}),
        optax=("rmsprop", {"learning_rate": 0.003, "eps": 1e-4, "centered": True, "eps_in_sqrt": False}),
        bench="RMSProp centered",
    ),
    Row(
        *(RMSProp, {"centered": True}, SLOW | {"momentum": 0.8}, rmsprop.centered_rmsprop_momentum, ("v", "m", "b")),
        centered_rmsprop_momentum,
        torch=("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-4, "momentum": 0.8, "centered": True}),
    ),
    Row(
        *(RMSProp, INSIDE | STEPS, SLOW | {"momentum": 0.8}, rmsprop.rmsprop_momentum, ("v", "b"), keras_rmsprop),
        optax=("rmsprop", {"learning_rate": 0.003, "eps": 1e-4, "momentum": 0.8}),
    ),
    Row(
        *(RMSProp, INSIDE | STEPS | {"centered": True}, SLOW | {"momentum": 0.8}),
        *(rmsprop.centered_rmsprop_momentum, ("v", "m", "b"), keras_centered_rmsprop),
        optax=("rmsprop", {"learning_rate": 0.003, "eps": 1e-4, "momentum": 0.8, "centered": True}),
    ),
    Row(Adam, {"eps_hat": True}, {"lr": 0.01, "eps": 1e-3}, adam.adam, ("m", "v"), keras_adam),
    Row(Adam, {"eps_hat": True, "amsgrad": True}, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3}, *AMSGRAD, keras_amsgrad),
    Row(
        *(Adam, {}, {"lr": 0.01, "eps": 1e-4, "eps_root": 1e-5}, adam.adam, ("m", "v"), adam_with_eps_root),
        optax=("adam", {"learning_rate": 0.01, "eps": 1e-4, "eps_root": 1e-5}),
    ),
    Row(
        *(Adam, {"amsgrad": True, "amsgrad_of": "v_hat"}, {"lr": 0.01, "betas": (0.8, 0.9), "eps_root": 1e-5}, *AMSGRAD),
        optax_amsgrad,
        optax=("amsgrad", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.9, "eps_root": 1e-5}),
    ),
    Row(
        *(Adam, {"amsgrad": True, "bias_correction": False}, {"lr": 0.01, "betas": (0.8, 0.9)}, *AMSGRAD, published_amsgrad),
        optax=(
            "amsgrad",
            {"learning_rate": 0.01, "b1": 0.8, "b2": 0.9, "bias_correction_mu": False, "bias_correction_nu": False},
        ),
    ),
    Row(AdaMax, {"eps_in_denominator": True}, {"lr": 0.01, "eps": 1e-3}, adamax.adamax, ("m", "u"), keras_adamax),
    Row(
        *(RAdam, {"eps_hat": False}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-3}, radam.radam, ("m", "v")),
        corrected_radam,
        optax=("radam", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-3}),
    ),
    Row(
        *(RAdam, {"eps_hat": False}, {"lr": 0.01, "betas": (0.8, 0.99), "threshold": 7.0}, radam.radam, ("m", "v")),
        corrected_radam,
        optax=("radam", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "threshold": 7.0}),
    ),
]
