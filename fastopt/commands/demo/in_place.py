"""What a careful NumPy user writes: every operation with ``out=``, one preallocated temporary, as few passes as NumPy allows.

The comparison that the demo and the benchmarks time. Factors that are alike for all elements are joined into one wherever that
saves a pass; the state is what the papers call it. One array each; nothing is checked, and no step allocates.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SGD:
    """Gradient descent: 2 passes, or 4 with momentum. The rate may be an array."""

    def __init__(self, theta: NDArray[Any], lr: Any = 1e-3, momentum: float = 0.0) -> None:
        self.theta, self.lr, self.momentum = theta, lr, momentum
        self.p = np.zeros_like(theta) if momentum else None
        self.temporary = np.empty_like(theta)

    def step(self, g: NDArray[Any]) -> None:
        """Update theta in place."""
        theta, p, temporary = self.theta, self.p, self.temporary
        if p is not None:
            np.multiply(p, self.momentum, out=p)
            np.add(p, g, out=p)
            g = p
        np.multiply(g, self.lr, out=temporary)
        np.subtract(theta, temporary, out=theta)


class AdaGrad:
    """AdaGrad: 7 passes with the sum of the squared gradients, 6 with that of the rates."""

    def __init__(self, theta: NDArray[Any], lr: float = 1e-2, eps: float = 1e-10, accumulate: str = "squares") -> None:
        self.theta, self.lr, self.eps, self.accumulate = theta, lr, eps, accumulate
        self.sum = np.zeros_like(theta)
        self.temporary = np.empty_like(theta)

    def step(self, g: NDArray[Any]) -> None:
        """Update theta in place."""
        temporary = self.temporary
        if self.accumulate == "squares":
            r = self.sum
            np.multiply(g, g, out=temporary)
            np.add(r, temporary, out=r)
            np.sqrt(r, out=temporary)
            np.add(temporary, self.eps, out=temporary)
            np.divide(g, temporary, out=temporary)
            np.multiply(temporary, self.lr, out=temporary)
        else:
            alpha = self.sum
            np.abs(g, out=temporary)
            np.add(temporary, self.eps, out=temporary)
            np.divide(self.lr, temporary, out=temporary)
            np.add(alpha, temporary, out=alpha)
            np.multiply(alpha, g, out=temporary)
        np.subtract(self.theta, temporary, out=self.theta)


class RMSProp:
    """RMSProp: 9 passes with the average of the squared gradients, 7 with that of the rates."""

    def __init__(
        self,
        theta: NDArray[Any],
        lr: float = 1e-2,
        rho: float = 0.99,
        eps: float = 1e-8,
        accumulate: str = "squares",
    ) -> None:
        self.theta, self.lr, self.rho, self.eps, self.accumulate = theta, lr, rho, eps, accumulate
        self.average = np.zeros_like(theta)
        self.temporary = np.empty_like(theta)

    def step(self, g: NDArray[Any]) -> None:
        """Update theta in place."""
        temporary = self.temporary
        if self.accumulate == "squares":
            v = self.average
            np.multiply(g, g, out=temporary)
            np.multiply(temporary, 1 - self.rho, out=temporary)
            np.multiply(v, self.rho, out=v)
            np.add(v, temporary, out=v)
            np.sqrt(v, out=temporary)
            np.add(temporary, self.eps, out=temporary)
            np.divide(g, temporary, out=temporary)
            np.multiply(temporary, self.lr, out=temporary)
        else:
            alpha = self.average
            np.abs(g, out=temporary)
            np.add(temporary, self.eps, out=temporary)
            np.divide((1 - self.rho) * self.lr, temporary, out=temporary)
            np.multiply(alpha, self.rho, out=alpha)
            np.add(alpha, temporary, out=alpha)
            np.multiply(alpha, g, out=temporary)
        np.subtract(self.theta, temporary, out=self.theta)


class Adam:
    """Adam in the efficient order of Kingma and Ba's section 2, with eps scaled so that it is their Algorithm 1: 12 passes."""

    def __init__(
        self, theta: NDArray[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.theta, self.lr, self.betas, self.eps = theta, lr, betas, eps
        self.m, self.v = np.zeros_like(theta), np.zeros_like(theta)
        self.temporary = np.empty_like(theta)
        self.t = 0

    def step(self, g: NDArray[Any]) -> None:
        """Update theta in place."""
        theta, m, v, temporary = self.theta, self.m, self.v, self.temporary
        beta1, beta2 = self.betas
        self.t += 1
        root = math.sqrt(1 - beta2**self.t)
        np.multiply(m, beta1, out=m)
        np.multiply(g, 1 - beta1, out=temporary)
        np.add(m, temporary, out=m)
        np.multiply(g, g, out=temporary)
        np.multiply(temporary, 1 - beta2, out=temporary)
        np.multiply(v, beta2, out=v)
        np.add(v, temporary, out=v)
        np.sqrt(v, out=temporary)
        np.add(temporary, self.eps * root, out=temporary)
        np.divide(m, temporary, out=temporary)
        np.multiply(temporary, self.lr * root / (1 - beta1**self.t), out=temporary)
        np.subtract(theta, temporary, out=theta)
