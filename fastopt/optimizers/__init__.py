"""The optimizers, one file for each family: its rules, and the classes that use them."""

from fastopt.optimizers.adabelief import AdaBelief
from fastopt.optimizers.adagrad import AdaGrad
from fastopt.optimizers.adam import Adam, AdamW
from fastopt.optimizers.lion import Lion
from fastopt.optimizers.rmsprop import RMSProp
from fastopt.optimizers.sgd import SGD
from fastopt.optimizers.signum import Signum

__all__ = ["SGD", "AdaBelief", "AdaGrad", "Adam", "AdamW", "Lion", "RMSProp", "Signum"]
