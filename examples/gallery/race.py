"""Four optimizers race down two test functions.

``python examples/gallery/race.py race.gif`` draws the animation.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

import fastopt

FRAMES, STEPS = 50, 12  # steps of each optimizer between two frames


def rosenbrock(x, y):
    """A curved valley: the value and the gradient."""
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2, [2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)]


def saddle(x, y):
    """A saddle at (0, 0) and minima at (0, -1) and (0, 1)."""
    return x * x + (y * y - 1) ** 2, [2 * x, 4 * y * (y * y - 1)]


PROBLEMS = {
    "Rosenbrock's valley": (
        rosenbrock,
        (-1.2, 1.0),
        (-1.6, 1.6, -0.5, 1.6),
        {"SGD": 1e-3, "momentum": 3e-4, "RMSProp": 2e-2, "Adam": 5e-2},
    ),
    "A saddle": (saddle, (1.2, 1e-3), (-1.6, 1.6, -0.5, 1.6), {"SGD": 2e-2, "momentum": 1e-2, "RMSProp": 1e-2, "Adam": 3e-2}),
}
MAKE = {
    "SGD": fastopt.SGD,
    "momentum": lambda theta, lr: fastopt.SGD(theta, lr=lr, momentum=0.9),
    "RMSProp": lambda theta, lr: fastopt.RMSProp(theta, lr=lr, rho=0.9),
    "Adam": fastopt.Adam,
}


def path(fun, start, name, lr, steps):
    """The points of one optimizer."""
    theta = np.array(start)
    optimizer, points = MAKE[name](theta, lr=lr), [theta.copy()]
    for _ in range(steps):
        optimizer.step(np.array(fun(*theta)[1]))
        points.append(theta.copy())
    return np.array(points)


def draw(out, frames=FRAMES):
    """Write the animation to a file."""
    figure, both = plt.subplots(1, 2, figsize=(7.2, 3.2), dpi=80, layout="constrained")
    lines = []
    for axes, (title, (fun, start, window, rates)) in zip(both, PROBLEMS.items(), strict=True):
        x, y = np.meshgrid(np.linspace(*window[:2], 150), np.linspace(*window[2:], 150))
        axes.contour(x, y, np.log10(fun(x, y)[0] + 1e-2), 10, colors="0.75", linewidths=0.7, linestyles="solid")
        axes.set(title=title, xticks=[], yticks=[], xlim=window[:2], ylim=window[2:])
        for i, (name, lr) in enumerate(rates.items()):
            points = path(fun, start, name, lr, frames * STEPS)
            (line,) = axes.plot([], [], "-o", color=f"C{i}", label=name, markevery=[-1], linewidth=1.5)
            lines.append((line, points))
    both[0].legend(loc="lower right", fontsize=8)

    def show(frame):
        for line, points in lines:
            line.set_data(*points[: 1 + frame * STEPS].T)

    FuncAnimation(figure, show, frames).save(out, PillowWriter(fps=12))
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
