"""The optimizers, one file for each family: its rules, and the classes that use them."""

from fastopt.optimizers.adabelief import AdaBelief
from fastopt.optimizers.adadelta import AdaDelta
from fastopt.optimizers.adagrad import AdaGrad
from fastopt.optimizers.adam import Adam, AdamW
from fastopt.optimizers.adamax import AdaMax
from fastopt.optimizers.lion import Lion
from fastopt.optimizers.radam import RAdam
from fastopt.optimizers.rmsprop import RMSProp
from fastopt.optimizers.sgd import SGD
from fastopt.optimizers.signum import Signum

__all__ = ["SGD", "AdaBelief", "AdaDelta", "AdaGrad", "AdaMax", "Adam", "AdamW", "Lion", "RAdam", "RMSProp", "Signum"]
