"""Handwritten digits: 1797 images of 8 x 8 pixels that come with scikit-learn, learned by a small network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import fastopt
from fastopt.commands.demo import network

SIZES = (64, 512, 256, 10)
BATCH = 64


class Digits:
    """The problem for `training.train`.

    Parameters
    ----------
    seed : int
        Decides on the split, the first weights and the order of the minibatches.
    """

    name = "digits"
    epochs = 20

    def __init__(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        self.seed = seed
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(labels))
        images, labels = (images[order] / 16).astype(np.float32), labels[order]
        cut = len(labels) * 4 // 5
        self.images, self.test_images = images[:cut], images[cut:]
        self.labels, self.test_labels = labels[:cut], labels[cut:]

    def start(self) -> fastopt.Flat:
        """The network's first weights, in one buffer."""
        return fastopt.flatten(network.initialize(SIZES, np.random.default_rng(self.seed)))

    def rates(self, lr: float) -> fastopt.Flat:
        """`lr` over the root of the number of inputs that the layer sums up."""
        rates = self.start()
        for layer, inputs in zip(rates.tree, SIZES, strict=False):
            for rate in layer.values():
                rate[...] = lr / np.sqrt(inputs)
        return rates

    def losses(self, params: fastopt.Flat, grads: fastopt.Flat, epoch: int) -> Iterator[float]:
        """The loss of each minibatch, drawn anew in every epoch; the last one, if it is not full, is left out."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.labels))
        for begin in range(0, len(order) - BATCH + 1, BATCH):
            batch = order[begin : begin + BATCH]
            yield network.loss_and_gradient(params.tree, self.images[batch], self.labels[batch], grads.tree)

    def score(self, params: fastopt.Flat) -> float:
        """The part of the test images that are recognized."""
        return network.accuracy(params.tree, self.test_images, self.test_labels)
