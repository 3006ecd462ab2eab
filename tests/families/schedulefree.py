"""The schedule-free optimizers."""

from itertools import count

import numpy as np

from fastopt import ScheduleFreeAdamW, ScheduleFreeSGD
from fastopt.optimizers import schedulefree
from tests.row import Row


def schedule_free(theta, grad, lr, beta, r, p, direction):
    """Defazio et al. (2024), equations 3 to 5, with the weights of algorithm 1, line 8: x, y and z, all three of them kept."""
    x, y, z, total, largest = theta.copy(), theta.copy(), theta.copy(), 0.0, 0.0
    for t in count(1):
        z = z - lr * direction(grad(y), y, t)
        largest = max(largest, lr)
        weight = t**r * largest**p
        total = total + weight
        c = weight / total
        x = (1 - c) * x + c * z
        y = (1 - beta) * z + beta * x
        yield y


def schedule_free_sgd_oracle(theta, grad, lr=1.0, momentum=0.9, r=0.0, weight_lr_power=2.0):
    return schedule_free(theta, grad, lr, momentum, r, weight_lr_power, lambda g, y, t: g)


def schedule_free_adamw_oracle(
    theta, grad, lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, r=0.0, weight_lr_power=2.0
):
    """Algorithm 1, lines 5 to 7."""
    v = np.zeros_like(theta)

    def direction(g, y, t):
        nonlocal v
        v = betas[1] * v + (1 - betas[1]) * g**2
        return g / (np.sqrt(v / (1 - betas[1] ** t)) + eps) + weight_decay * y

    return schedule_free(theta, grad, lr, betas[0], r, weight_lr_power, direction)


FREE_SGD = (schedulefree.schedule_free_sgd, ("z",), schedule_free_sgd_oracle)
FREE_ADAMW = (schedulefree.schedule_free_adamw, ("z", "v"), schedule_free_adamw_oracle)

ROWS = [
    Row(
        *(ScheduleFreeSGD, {}, {"lr": 0.02}, *FREE_SGD),
        optax=("contrib.schedule_free_sgd", {"learning_rate": 0.02}),
        bench="ScheduleFreeSGD",
    ),
    Row(
        *(ScheduleFreeSGD, {}, {"lr": 0.01, "momentum": 0.5, "weight_lr_power": 1.0}, *FREE_SGD),
        optax=("contrib.schedule_free_sgd", {"learning_rate": 0.01, "b1": 0.5, "weight_lr_power": 1.0}),
    ),
    Row(ScheduleFreeSGD, {}, {"lr": 0.01, "r": 1.5}, *FREE_SGD),
    Row(
        *(ScheduleFreeAdamW, {}, {}, *FREE_ADAMW),
        optax=("contrib.schedule_free_adamw", {"learning_rate": 2.5e-3}),
        bench="ScheduleFreeAdamW",
    ),
    Row(
        *(ScheduleFreeAdamW, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.1}, *FREE_ADAMW),
        optax=(
            "contrib.schedule_free_adamw",
            {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 0.1},
        ),
    ),
    Row(ScheduleFreeAdamW, {}, {"r": 0.5, "weight_lr_power": 0.0}, *FREE_ADAMW),
]
