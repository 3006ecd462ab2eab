"""The two accumulations: one gradient of zero, and what becomes of the rate of its element.

``python examples/gallery/accumulations.py accumulations.png`` draws the picture.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import fastopt

LR, EPS, STEPS, ZERO_AT = 0.01, 1e-6, 600, 300


def rates(cls, accumulate, steps=STEPS):
    """How far a step goes over its gradient, for gradients that are standard normal, and zero once."""
    gradients = np.random.default_rng(0).standard_normal((steps, 1))
    gradients[min(ZERO_AT, steps - 1)] = 0.0
    optimizer = cls(np.zeros(1), lr=LR, eps=EPS, accumulate=accumulate)
    for g in gradients:
        optimizer.step(g)
        (memory,) = optimizer.state.values()
        yield memory[0] if accumulate == "rates" else LR / (EPS + np.sqrt(memory[0]))


def draw(out, steps=STEPS):
    """Write the picture to a file."""
    figure, both = plt.subplots(1, 2, figsize=(7.2, 3), dpi=100, layout="constrained", sharey=True)
    for axes, cls in zip(both, (fastopt.AdaGrad, lambda *a, **b: fastopt.RMSProp(*a, rho=0.9, **b)), strict=True):
        for accumulate in ("squares", "rates"):
            axes.semilogy(list(rates(cls, accumulate, steps)), label=f'accumulate="{accumulate}"')
        axes.axvline(ZERO_AT, color="0.5", linestyle=":", label="a gradient of 0")
        axes.set(title="AdaGrad" if cls is fastopt.AdaGrad else "RMSProp", xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("rate of the element")
    both[0].legend(loc="center right", fontsize=8, frameon=False)
    figure.savefig(out)
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
