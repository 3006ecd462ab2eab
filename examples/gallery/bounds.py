"""A pull that turns around: at a bound, momentum holds Adam long after the gradient has changed its sign.

``python examples/gallery/bounds.py bounds.gif`` draws the animation.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

import fastopt

FRAMES, STEPS = 60, 3
WAYS = {"averages push on": False, "project_gradient=True": True}


def run(projects, steps):
    """A point in a box that follows a target, which leaves the box for a while: where both are after each step."""
    theta = np.array([0.5, 0.2])
    optimizer = fastopt.Adam(theta, lr=0.02, bounds=(0.0, 1.0), project_gradient=projects)
    points = []
    for angle in np.linspace(0, 2 * np.pi, steps):
        target = np.array([0.5 + 1.5 * np.sin(angle), 0.2 + 0.3 * angle / np.pi])
        optimizer.step(theta - target)
        points.append(np.concatenate([theta, target]))
    return np.array(points)


def draw(out, frames=FRAMES):
    """Write the animation to a file."""
    figure, both = plt.subplots(1, 2, figsize=(7.2, 2.8), dpi=80, layout="constrained", sharey=True)
    lines = []
    for axes, (title, projects) in zip(both, WAYS.items(), strict=True):
        axes.add_patch(plt.Rectangle((0, 0), 1, 1, fill=False, linewidth=1.5))
        axes.set(title=title, xticks=[], yticks=[], xlim=(-1.05, 2.05), ylim=(-0.1, 1.1))
        (trail,) = axes.plot([], [], "-o", color="C0", markevery=[-1], label="Adam in the box")
        (aim,) = axes.plot([], [], "x", color="C1", label="target")
        lines.append((trail, aim, run(projects, frames * STEPS)))
    figure.legend(*both[1].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)

    def show(frame):
        for trail, aim, points in lines:
            seen = points[: 1 + frame * STEPS]
            trail.set_data(*seen[:, :2].T)
            aim.set_data(*seen[-1:, 2:].T)

    FuncAnimation(figure, show, frames).save(out, PillowWriter(fps=12))
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
