"""A table with gaps: images of which half of the pixels are hidden, completed by steps that touch some rows only.

``python examples/gallery/rows.py rows.gif`` draws the animation.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from sklearn.datasets import load_digits

import fastopt

EPOCHS, SHOWN = 40, 10


def completions(table, known, epochs=EPOCHS, width=16, l2=0.02):
    """Guesses of all numbers, as products of vectors for rows and columns."""
    rng = np.random.default_rng(0)
    mean = np.sum(table * known, axis=0) / np.maximum(known.sum(axis=0), 1)
    of_rows, of_columns = (0.1 * rng.standard_normal((n, width)) for n in table.shape)
    optimizer = fastopt.AdaGrad([of_rows, of_columns], lr=0.1)
    rows, columns = np.nonzero(known)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(rows)), len(rows) // 2048):
            i, j = rows[batch], columns[batch]
            u, v = of_rows[i], of_columns[j]
            error = (np.sum(u * v, axis=1) + mean[j] - table[i, j])[:, None]
            optimizer.step_rows([i, j], [error * v + l2 * u, error * u + l2 * v])
        yield of_rows @ of_columns.T + mean


def draw(out, epochs=EPOCHS):
    """Write the animation to a file."""
    table = load_digits().data / 16
    known = np.random.default_rng(1).random(table.shape) < 0.5
    guesses = list(completions(table, known, epochs))
    figure, all_axes = plt.subplots(3, SHOWN, figsize=(7.2, 2.3), dpi=80)
    figure.subplots_adjust(0.03, 0.02, 0.99, 0.98, wspace=0.1, hspace=0.1)
    colours = plt.get_cmap("gray_r").with_extremes(bad="#F0E0C0")
    pictures = []
    lines = {"image": table, "known": np.where(known, table, np.nan), "completed": guesses[0]}
    for line, (title, images) in zip(all_axes, lines.items(), strict=True):
        for axes, image in zip(line, images, strict=False):
            pictures.append(axes.imshow(image.reshape(8, 8), cmap=colours, vmin=0, vmax=1))
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(title)

    def show(epoch):
        for picture, image in zip(pictures[-SHOWN:], guesses[epoch], strict=False):
            picture.set_data(image.reshape(8, 8))

    FuncAnimation(figure, show, epochs).save(out, PillowWriter(fps=6))
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
