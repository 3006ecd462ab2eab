"""One loss, many rates: where gradient descent ends, and where Adam does, after a fixed number of noisy steps.

``python examples/gallery/rates.py rates.png`` draws the picture.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import fastopt

CURVATURES = np.geomspace(0.1, 10, 20)
RATES = np.geomspace(1e-4, 3, 25)
STEPS = 300
MAKE = {
    "SGD": fastopt.SGD,
    "SGD, momentum 0.9": lambda theta, lr: fastopt.SGD(theta, lr=lr, momentum=0.9),
    "Adam": fastopt.Adam,
    "Adam, cosine": lambda theta, lr: fastopt.Adam(theta, lr=fastopt.schedules.Cosine(lr, steps=STEPS)),
}


def final_loss(make, lr, steps=STEPS):
    """The loss after some steps on a quadratic, with noise on the gradient; at most 1e3."""
    rng, theta = np.random.default_rng(0), np.ones(CURVATURES.size)
    optimizer = make(theta, lr=lr)
    for _ in range(steps):
        optimizer.step(CURVATURES * theta + 0.3 * rng.standard_normal(theta.size))
        if not np.abs(theta).max() < 1e3:
            return 1e3
    return min(0.5 * CURVATURES @ theta**2, 1e3)


def draw(out, steps=STEPS):
    """Write the picture to a file."""
    figure, axes = plt.subplots(figsize=(6, 3.4), dpi=100, layout="constrained")
    for name, make in MAKE.items():
        axes.loglog(RATES, [final_loss(make, lr, steps) for lr in RATES], "o-", markersize=3, label=name)
    axes.axvline(2 / CURVATURES[-1], color="0.5", linestyle=":", label="2 / largest curvature")
    axes.set(xlabel="lr", ylabel=f"loss after {steps} steps", ylim=(1e-2, 2e3))
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
