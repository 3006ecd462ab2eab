"""The update rules of all optimizers, as functions of the numbers of one element.

``rule(theta, g, lr, *states, *coefficients)`` gives the new theta, or a tuple of it and the new states. They run inside of
``@numba.njit`` code, where they are inlined, and on whole NumPy arrays. In compiled code all arguments must have one dtype.
The coefficients of step ``t`` are those that `Optimizer.coefficients` gives; `embed` puts them into a table.
"""

from fastopt.optimizers.adabelief import adabelief
from fastopt.optimizers.adadelta import adadelta
from fastopt.optimizers.adagrad import adagrad, adagrad_rates
from fastopt.optimizers.adam import adam, amsgrad
from fastopt.optimizers.adamax import adamax
from fastopt.optimizers.adan import adan
from fastopt.optimizers.ademamix import ademamix
from fastopt.optimizers.adopt import adopt
from fastopt.optimizers.asgd import asgd
from fastopt.optimizers.dog import descent_from_start
from fastopt.optimizers.ftrl import ftrl
from fastopt.optimizers.lamb import lamb
from fastopt.optimizers.lars import lars, lars_nesterov
from fastopt.optimizers.lion import lion
from fastopt.optimizers.madgrad import madgrad
from fastopt.optimizers.nadam import nadam
from fastopt.optimizers.noisysgd import noisy_descent
from fastopt.optimizers.novograd import novograd
from fastopt.optimizers.optimisticadam import optimistic_adam
from fastopt.optimizers.prodigy import prodigy
from fastopt.optimizers.radam import radam
from fastopt.optimizers.rmsprop import centered_rmsprop, centered_rmsprop_momentum, rmsprop, rmsprop_momentum, rmsprop_rates
from fastopt.optimizers.rprop import rprop
from fastopt.optimizers.schedulefree import schedule_free_adamw, schedule_free_sgd
from fastopt.optimizers.sgd import gradient_descent, momentum, nesterov
from fastopt.optimizers.signum import signsgd, signum
from fastopt.optimizers.sophia import sophia
from fastopt.optimizers.yogi import yogi

__all__ = [
    "adabelief",
    "adadelta",
    "adagrad",
    "adagrad_rates",
    "adam",
    "adamax",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "asgd",
    "centered_rmsprop",
    "centered_rmsprop_momentum",
    "descent_from_start",
    "ftrl",
    "gradient_descent",
    "lamb",
    "lars",
    "lars_nesterov",
    "lion",
    "madgrad",
    "momentum",
    "nadam",
    "nesterov",
    "noisy_descent",
    "novograd",
    "optimistic_adam",
    "prodigy",
    "radam",
    "rmsprop",
    "rmsprop_momentum",
    "rmsprop_rates",
    "rprop",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "signsgd",
    "signum",
    "sophia",
    "yogi",
]
