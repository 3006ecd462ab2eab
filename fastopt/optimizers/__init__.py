"""The optimizers, one file for each family: its rules, and the classes that use them."""

from fastopt.optimizers.adagrad import AdaGrad
from fastopt.optimizers.adam import Adam, AdamW
from fastopt.optimizers.rmsprop import RMSProp
from fastopt.optimizers.sgd import SGD

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "RMSProp"]
