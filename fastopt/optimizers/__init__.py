"""The optimizers, one file for each family: its rules, and the classes that use them."""

from fastopt.optimizers.adabelief import AdaBelief
from fastopt.optimizers.adadelta import AdaDelta
from fastopt.optimizers.adagrad import AdaGrad
from fastopt.optimizers.adam import Adam, AdamW
from fastopt.optimizers.adamax import AdaMax
from fastopt.optimizers.adan import Adan
from fastopt.optimizers.ademamix import AdEMAMix
from fastopt.optimizers.adopt import ADOPT
from fastopt.optimizers.asgd import ASGD
from fastopt.optimizers.dog import DoG, DoWG
from fastopt.optimizers.ftrl import FTRL
from fastopt.optimizers.lamb import LAMB
from fastopt.optimizers.lars import LARS
from fastopt.optimizers.lion import Lion
from fastopt.optimizers.madgrad import MADGRAD
from fastopt.optimizers.nadam import NAdam, NAdamW
from fastopt.optimizers.noisysgd import NoisySGD
from fastopt.optimizers.novograd import NovoGrad
from fastopt.optimizers.optimisticadam import OptimisticAdam
from fastopt.optimizers.prodigy import Prodigy
from fastopt.optimizers.radam import RAdam
from fastopt.optimizers.rmsprop import RMSProp
from fastopt.optimizers.rprop import Rprop
from fastopt.optimizers.schedulefree import ScheduleFreeAdamW, ScheduleFreeSGD
from fastopt.optimizers.sgd import SGD
from fastopt.optimizers.signum import Signum
from fastopt.optimizers.sophia import Sophia
from fastopt.optimizers.yogi import Yogi

__all__ = [
    "ADOPT",
    "ASGD",
    "FTRL",
    "LAMB",
    "LARS",
    "MADGRAD",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "Adan",
    "DoG",
    "DoWG",
    "Lion",
    "NAdam",
    "NAdamW",
    "NoisySGD",
    "NovoGrad",
    "OptimisticAdam",
    "Prodigy",
    "RAdam",
    "RMSProp",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Signum",
    "Sophia",
    "Yogi",
]
