"""A multilayer perceptron in plain NumPy: rectified layers, softmax cross entropy, the backward pass by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Layers = list[dict[str, NDArray[Any]]]


def initialize(sizes: Sequence[int], rng: np.random.Generator) -> Layers:
    """Weights ``W`` and biases ``b`` of float32 for each layer, scaled for rectified units (He et al., 2015)."""
    return [
        {
            "W": (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32),
            "b": np.zeros(outputs, np.float32),
        }
        for inputs, outputs in itertools.pairwise(sizes)
    ]


def activations(layers: Layers, x: NDArray[Any]) -> list[NDArray[Any]]:
    """The input, the output of each hidden layer, and the logits."""
    outputs = [x]
    for layer in layers[:-1]:
        outputs.append(np.maximum(outputs[-1] @ layer["W"] + layer["b"], 0))
    outputs.append(outputs[-1] @ layers[-1]["W"] + layers[-1]["b"])
    return outputs


def loss_and_gradient(layers: Layers, x: NDArray[Any], labels: NDArray[Any], grads: Layers) -> float:
    """Mean cross entropy of the labels; its gradient is written to `grads`."""
    *inputs, logits = activations(layers, x)
    rows = np.arange(len(labels))
    logits -= logits.max(axis=1, keepdims=True)
    delta = np.exp(logits)
    total = delta.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - logits[rows, labels]))
    delta /= total
    delta[rows, labels] -= 1
    delta /= len(labels)
    for i in reversed(range(len(layers))):
        np.matmul(inputs[i].T, delta, out=grads[i]["W"])
        np.sum(delta, axis=0, out=grads[i]["b"])
        if i > 0:
            delta = (delta @ layers[i]["W"].T) * (inputs[i] > 0)
    return loss


def accuracy(layers: Layers, x: NDArray[Any], labels: NDArray[Any]) -> float:
    """The part of the labels that are predicted."""
    return float(np.mean(activations(layers, x)[-1].argmax(axis=1) == labels))
