"""What Keras 3 documents and computes in each optimizer's ``update_step``, in plain NumPy: generators as in ``oracles.py``.

The names and the defaults are Keras'.
"""

from itertools import count

import numpy as np


def sgd(theta, grad, learning_rate=0.01, momentum=0.0, nesterov=False, weight_decay=0.0):
    m = np.zeros_like(theta)
    while True:
        g = grad(theta)
        theta = theta - theta * weight_decay * learning_rate
        if momentum == 0:
            theta = theta - learning_rate * g
        else:
            m = m * momentum - g * learning_rate
            theta = theta + (m * momentum - g * learning_rate if nesterov else m)
        yield theta


def adagrad(theta, grad, learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7):
    accumulator = np.full_like(theta, initial_accumulator_value)
    while True:
        g = grad(theta)
        accumulator = accumulator + np.square(g)
        theta = theta - learning_rate * g / np.sqrt(accumulator + epsilon)
        yield theta


def rmsprop(theta, grad, learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    velocity, average_grad, moment = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    while True:
        g = grad(theta)
        velocity = rho * velocity + (1 - rho) * np.square(g)
        denominator = velocity + epsilon
        if centered:
            average_grad = rho * average_grad + (1 - rho) * g
            denominator = velocity - np.square(average_grad) + epsilon
        increment = learning_rate * g / np.sqrt(denominator)
        if momentum > 0:
            moment = momentum * moment + increment
            theta = theta - moment
        else:
            theta = theta - increment
        yield theta


def adam(theta, grad, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False, weight_decay=0.0):
    m, v, v_max = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        theta = theta - theta * weight_decay * learning_rate
        alpha = learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        m = m + (g - m) * (1 - beta_1)
        v = v + (np.square(g) - v) * (1 - beta_2)
        v_max = np.maximum(v_max, v)
        theta = theta - m * alpha / (np.sqrt(v_max if amsgrad else v) + epsilon)
        yield theta


def adamax(theta, grad, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m, u = np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = m + (g - m) * (1 - beta_1)
        u = np.maximum(beta_2 * u, np.abs(g))
        theta = theta - learning_rate * m / ((1 - beta_1**t) * (u + epsilon))
        yield theta


def nadam(theta, grad, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m, v, u_product = np.zeros_like(theta), np.zeros_like(theta), 1.0
    for t in count(1):
        g = grad(theta)
        u_t = beta_1 * (1 - 0.5 * 0.96**t)
        u_t_1 = beta_1 * (1 - 0.5 * 0.96 ** (t + 1))
        u_product = u_product * u_t
        m = m + (g - m) * (1 - beta_1)
        v = v + (np.square(g) - v) * (1 - beta_2)
        m_hat = u_t_1 * m / (1 - u_product * u_t_1) + (1 - u_t) * g / (1 - u_product)
        v_hat = v / (1 - beta_2**t)
        theta = theta - m_hat * learning_rate / (np.sqrt(v_hat) + epsilon)
        yield theta


def adadelta(theta, grad, learning_rate=0.001, rho=0.95, epsilon=1e-7):
    accumulated_grad, accumulated_delta = np.zeros_like(theta), np.zeros_like(theta)
    while True:
        g = grad(theta)
        accumulated_grad = rho * accumulated_grad + (1 - rho) * g * g
        delta = -np.sqrt(accumulated_delta + epsilon) * g / np.sqrt(accumulated_grad + epsilon)
        accumulated_delta = rho * accumulated_delta + (1 - rho) * delta * delta
        theta = theta + learning_rate * delta
        yield theta


def lion(theta, grad, learning_rate=0.001, beta_1=0.9, beta_2=0.99):
    m = np.zeros_like(theta)
    while True:
        g = grad(theta)
        theta = theta - learning_rate * np.sign(m * beta_1 + g * (1 - beta_1))
        m = m * beta_2 + g * (1 - beta_2)
        yield theta


def lamb(theta, grad, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = m + (g - m) * (1 - beta_1)
        v = v + (np.square(g) - v) * (1 - beta_2)
        ratio = (m / (1 - beta_1**t)) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        weights_norm, ratio_norm = np.sqrt(np.sum(theta**2)), np.sqrt(np.sum(ratio**2))
        trust_ratio = weights_norm / ratio_norm if weights_norm > 0 and ratio_norm > 0 else 1.0
        theta = theta - learning_rate * ratio * trust_ratio
        yield theta


def ftrl(theta, grad, learning_rate=0.001, initial_accumulator_value=0.1, l1=0.0, l2=0.0, beta=0.0):
    accumulator, linear = np.full_like(theta, initial_accumulator_value), np.zeros_like(theta)
    while True:
        g = grad(theta)
        new_accumulator = accumulator + np.square(g)
        linear = linear + g - (np.sqrt(new_accumulator) - np.sqrt(accumulator)) / learning_rate * theta
        quadratic = np.sqrt(new_accumulator) / learning_rate + 2 * (l2 + beta / (2 * learning_rate))
        theta = (np.clip(linear, -l1, l1) - linear) / quadratic
        accumulator = new_accumulator
        yield theta
