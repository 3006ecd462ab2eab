"""An inverse problem: an image is recovered from its blur, within bounds, by a gradient that the blur itself carries back.

``python examples/gallery/deblur.py deblur.gif`` draws the animation.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

import fastopt

SIZE, FRAMES, STEPS = 48, 40, 8


def blurred(u, times=8):
    """An image after some steps of diffusion; the blur is its own adjoint."""
    for _ in range(times):
        padded = np.pad(u, 1)
        u = 0.5 * u + 0.125 * (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:])
    return u


def image(size=SIZE):
    """Some discs and a bar."""
    y, x = np.mgrid[:size, :size] / size
    discs = [(0.3, 0.3, 0.15, 1.0), (0.65, 0.7, 0.2, 0.6), (0.6, 0.3, 0.05, 0.8)]
    return np.minimum(sum(h * ((y - a) ** 2 + (x - b) ** 2 < r * r) for a, b, r, h in discs) + (abs(x - y - 0.35) < 0.03), 1.0)


def estimates(data, steps):
    """The image as it is known after each step."""
    u = np.zeros_like(data)
    optimizer = fastopt.Adam(u, lr=0.05, bounds=(0.0, 1.0), project_gradient=True)
    for _ in range(steps):
        optimizer.step(blurred(blurred(u) - data))
        yield u.copy()


def draw(out, frames=FRAMES):
    """Write the animation to a file."""
    truth = image()
    data = blurred(truth) + 0.005 * np.random.default_rng(0).standard_normal(truth.shape)
    found = list(estimates(data, frames * STEPS))[STEPS - 1 :: STEPS]
    figure, all_axes = plt.subplots(1, 3, figsize=(7.2, 2.7), dpi=80, layout="constrained")
    for axes, title, picture in zip(all_axes, ("measured", "recovered", "true"), (data, found[0], truth), strict=True):
        shown = axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
        if title == "recovered":
            moving = shown

    def show(frame):
        moving.set_data(found[frame])
        all_axes[1].set_title(f"after {(frame + 1) * STEPS} steps")

    FuncAnimation(figure, show, frames).save(out, PillowWriter(fps=8))
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
