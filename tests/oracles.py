"""Each algorithm in plain NumPy, line by line as its source has it: what the optimizers are measured against.

The names are the sources' own, so each function first renames its arguments. They were written from the sources, not from
fastopt's rules, and must stay that way. Every oracle is an endless generator of the parameters after each step; `grad(theta)`
is the gradient at `theta`. "Document" is the article "Adaptive Learning Rates: AdaGrad, RMSProp, Adam", whose learning rate
is epsilon, and whose small constant is delta. Defaults are the document's where it recommends a value, else PyTorch's.
"""

from itertools import count

import numpy as np


def gradient_descent(theta, grad, lr=1e-3):
    """Document, overview: one learning rate for all parameters, or (by broadcasting) a vector of them."""
    alpha = lr
    while True:
        theta = theta - alpha * grad(theta)
        yield theta


def rate_vector(theta, grad, lr):
    """Document, overview: the vector of rates, written out as the bracket of products that it is there."""
    alpha = lr
    while True:
        dL = grad(theta)
        step = np.array([alpha[k] * dL[k] for k in range(len(theta))])
        theta = theta - step
        yield theta


def momentum(theta, grad, lr=1e-3, momentum=0.9):
    """Document, comparison of the three methods, "Momentum"."""
    alpha, beta_1 = lr, momentum
    p = np.zeros_like(theta)
    while True:
        p = beta_1 * p + grad(theta)
        theta = theta - alpha * p
        yield theta


def dampened_momentum(theta, grad, lr=1e-3, momentum=0.9, dampening=0.0):
    """PyTorch's documentation of SGD, with mu != 0 and nesterov = False."""
    gamma, mu, tau = lr, momentum, dampening
    b = None
    for t in count(1):
        g = grad(theta)
        b = mu * b + (1 - tau) * g if t > 1 else g
        g = b
        theta = theta - gamma * g
        yield theta


def nesterov_momentum(theta, grad, lr=1e-3, momentum=0.9):
    """PyTorch's documentation of SGD, with mu != 0, tau = 0 and nesterov = True."""
    gamma, mu = lr, momentum
    b = None
    for t in count(1):
        g = grad(theta)
        b = mu * b + g if t > 1 else g
        g = g + mu * b
        theta = theta - gamma * g
        yield theta


def adagrad(theta, grad, lr=1e-2, eps=1e-10):
    """Goodfellow et al., "Deep Learning", algorithm 8.4; the diagonal form of Duchi et al. (2011)."""
    epsilon, delta = lr, eps
    r = np.zeros_like(theta)
    while True:
        g = grad(theta)
        r = r + g * g
        delta_theta = -epsilon / (delta + np.sqrt(r)) * g
        theta = theta + delta_theta
        yield theta


def adagrad_rates(theta, grad, lr=1e-2, eps=1e-10):
    """Document, "Algorithm: AdaGrad"."""
    epsilon, delta = lr, eps
    alpha = np.zeros_like(theta)  # 2.
    while True:  # 3.
        dL = grad(theta)
        r = dL * dL  # 4.
        alpha = alpha + epsilon / (delta + np.sqrt(r))  # 5.
        theta = theta - alpha * dL  # 6.
        yield theta


def rmsprop(theta, grad, lr=1e-2, rho=0.99, eps=1e-8):
    """Goodfellow et al., "Deep Learning", algorithm 8.5, but with delta outside of the root, as Hinton's followers have it."""
    epsilon, delta = lr, eps
    r = np.zeros_like(theta)
    while True:
        g = grad(theta)
        r = rho * r + (1 - rho) * g * g
        delta_theta = -epsilon / (delta + np.sqrt(r)) * g
        theta = theta + delta_theta
        yield theta


def rmsprop_rates(theta, grad, lr=1e-2, rho=0.99, eps=1e-8):
    """Document, "Algorithm: RMSProp"."""
    epsilon, delta = lr, eps
    alpha = np.zeros_like(theta)  # 2.
    while True:  # 3.
        dL = grad(theta)
        r = dL * dL  # 4.
        alpha = rho * alpha + (1 - rho) * epsilon / (delta + np.sqrt(r))  # 5.
        theta = theta - alpha * dL  # 6.
        yield theta


def adam(theta, grad, lr=0.001, betas=(0.9, 0.999), eps=1e-8):
    """Document, "Algorithm: Adam"; Kingma and Ba (2015), algorithm 1."""
    epsilon, (beta_1, beta_2), delta = lr, betas, eps
    r = np.zeros_like(theta)  # 2. says alpha, which line 9 sets anew each time; line 7 needs r
    p = np.zeros_like(theta)  # 3.
    for i in count(1):  # 4.
        dL = grad(theta)
        p = beta_1 * p + (1 - beta_1) * dL  # 5.
        p_hat = p / (1 - beta_1**i)  # 6.
        r = beta_2 * r + (1 - beta_2) * dL * dL  # 7.
        r_hat = r / (1 - beta_2**i)  # 8.
        alpha_hat = epsilon / (delta + np.sqrt(r_hat))  # 9.
        theta = theta - alpha_hat * p_hat  # 10.
        yield theta


def amsgrad(theta, grad, lr=0.001, betas=(0.9, 0.999), eps=1e-8):
    """PyTorch's documented algorithm "Adam" with amsgrad: the largest v, corrected like v."""
    m, v, v_max = (np.zeros_like(theta) for _ in range(3))
    for t in count(1):
        g = grad(theta)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        v_max = np.maximum(v_max, v)
        theta = theta - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v_max / (1 - betas[1] ** t)) + eps)
        yield theta


def adamw(theta, grad, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    """Loshchilov and Hutter (2019), algorithm 2, lines 5 to 12; the decay is times lr, as in PyTorch."""
    m = v = np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat = m / (1 - betas[0] ** t)
        v_hat = v / (1 - betas[1] ** t)
        theta = theta - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * theta)
        yield theta


def adamax(theta, grad, lr=0.002, betas=(0.9, 0.999), eps=1e-8):
    """Kingma and Ba (2015), algorithm 2; epsilon, which it doesn't have, is where PyTorch's documentation of Adamax has it."""
    alpha, (beta_1, beta_2), epsilon = lr, betas, eps
    m, u = np.zeros_like(theta), np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        u = np.where(beta_2 * u > np.abs(g) + epsilon, beta_2 * u, np.abs(g) + epsilon)
        theta = theta - (alpha / (1 - beta_1**t)) * m / u
        yield theta


def adadelta(theta, grad, lr=1.0, rho=0.9, eps=1e-6):
    """Zeiler (2012), algorithm 1, whose update is then multiplied by PyTorch's gamma."""
    gamma, epsilon = lr, eps

    def rms(mean_square):
        return np.sqrt(mean_square + epsilon)

    E_g2, E_dx2 = np.zeros_like(theta), np.zeros_like(theta)  # 1.
    while True:  # 2.
        g = grad(theta)  # 3.
        E_g2 = rho * E_g2 + (1 - rho) * g**2  # 4.
        dx = -rms(E_dx2) / rms(E_g2) * g  # 5.
        E_dx2 = rho * E_dx2 + (1 - rho) * dx**2  # 6.
        theta = theta + gamma * dx  # 7.
        yield theta


def radam(theta, grad, lr=0.001, betas=(0.9, 0.999), eps=1e-8):
    """PyTorch's documentation of RAdam; Liu et al. (2020), algorithm 2, has 4 in the place of 5 and no epsilon."""
    gamma, (beta_1, beta_2), epsilon = lr, betas, eps
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    rho_inf = 2 / (1 - beta_2) - 1
    for t in count(1):
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat = m / (1 - beta_1**t)
        rho = rho_inf - 2 * t * beta_2**t / (1 - beta_2**t)
        if rho > 5:
            adaptive = np.sqrt(1 - beta_2**t) / (np.sqrt(v) + epsilon)
            r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            theta = theta - gamma * m_hat * r * adaptive
        else:
            theta = theta - gamma * m_hat
        yield theta


def adabelief(theta, grad, lr=1e-3, betas=(0.9, 0.999), eps=1e-16, eps_root=1e-16):
    """Zhuang et al. (2020), algorithm 2, unprojected; its epsilon stands in two places, and each has a number of its own."""
    alpha, (beta_1, beta_2) = lr, betas
    m = np.zeros_like(theta)
    s = np.zeros_like(theta)
    for t in count(1):
        g = grad(theta)
        m = beta_1 * m + (1 - beta_1) * g
        s = beta_2 * s + (1 - beta_2) * (g - m) ** 2 + eps_root
        m_hat = m / (1 - beta_1**t)
        s_hat = s / (1 - beta_2**t)
        theta = theta - alpha * m_hat / (np.sqrt(s_hat) + eps)
        yield theta


def lion(theta, grad, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    """Chen et al. (2023), algorithm 2."""
    eta, (beta_1, beta_2), lamda = lr, betas, weight_decay
    m = np.zeros_like(theta)
    while True:
        g = grad(theta)
        c = beta_1 * m + (1 - beta_1) * g
        theta = theta - eta * (np.sign(c) + lamda * theta)
        m = beta_2 * m + (1 - beta_2) * g
        yield theta


def signsgd(theta, grad, lr=1e-3):
    """Bernstein et al. (2018), algorithm 1."""
    delta = lr
    while True:
        theta = theta - delta * np.sign(grad(theta))
        yield theta


def signum(theta, grad, lr=1e-3, momentum=0.9, weight_decay=0.0):
    """Bernstein et al. (2018), algorithm 2, with the weight decay of Bernstein et al. (2019), algorithm 1 for one worker."""
    eta, beta, lamda = lr, momentum, weight_decay
    v = np.zeros_like(theta)
    while True:
        g = grad(theta)
        v = (1 - beta) * g + beta * v
        theta = theta - eta * (np.sign(v) + lamda * theta)
        yield theta
