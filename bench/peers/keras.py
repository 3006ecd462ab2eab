"""Keras 3 on PyTorch."""

from __future__ import annotations

import functools
import os

from bench.cases import Counterpart, Problem
from bench.contender import Contender, Running

# Its ScheduleFreeAdamW is not there: on PyTorch it takes the new momentum for the old one.
COUNTERPARTS: dict[str, Counterpart] = {
    "SGD": ("SGD", {}),
    "SGD momentum": ("SGD", {"momentum": 0.9}),
    "AdaGrad": ("Adagrad", {"initial_accumulator_value": 0.0, "epsilon": 0.0}),
    "RMSProp": ("RMSprop", {"rho": 0.9, "epsilon": 0.0}),
    "Adam": ("Adam", {"epsilon": 0.0}),
    "AdamW": ("AdamW", {"epsilon": 0.0, "weight_decay": 0.01}),
    "AdaDelta": ("Adadelta", {"rho": 0.9, "epsilon": 1e-6}),
    "Lion": ("Lion", {"beta_1": 0.8, "beta_2": 0.95}),
    "FTRL": ("Ftrl", {"initial_accumulator_value": 0.0, "beta": 1.0}),
    "LAMB": ("Lamb", {"epsilon": 1e-6}),
}


def start(problem: Problem) -> Running:
    """As it updates a model's variables."""
    os.environ["KERAS_BACKEND"] = "torch"  # read when it is imported
    import keras

    case, theta, g, lr = problem
    keras.config.set_floatx(theta.dtype.name)  # of the rate
    name, hyper = COUNTERPARTS[case.name]
    variable, gradient = keras.Variable(theta), keras.ops.convert_to_tensor(g)
    optimizer = getattr(keras.optimizers, name)(lr, **hyper)
    optimizer.build([variable])
    return Running(functools.partial(optimizer.apply, [gradient], [variable]), lambda: variable.value.detach().numpy())


CONTENDER = Contender(
    "Keras",
    start,
    requires=("keras", "torch"),
    has=lambda case: case.name in COUNTERPARTS,
    tolerance=64,  # bias corrections, such as 1 - 0.999, are differences in single precision
)
