"""The optimizers that were there first; their oracles are in ``tests/oracles.py``.

The benchmark takes some of them without eps: libraries differ in its place, and only so do all of them compute the same.
"""

from fastopt import SGD, AdaBelief, AdaDelta, AdaGrad, Adam, AdaMax, AdamW, Lion, RAdam, RMSProp, Signum
from fastopt.optimizers import adabelief, adadelta, adagrad, adam, adamax, lion, radam, rmsprop, sgd, signum
from tests import oracles
from tests.row import Row

# Optax's AdaGrad has eps inside of the root and starts at 0.1: only without both is it the published algorithm.
OPTAX_ADAGRAD = {"learning_rate": 0.01, "initial_accumulator_value": 0.0, "eps": 0.0}
# Optax's RMSProp has eps inside of the root unless it is asked not to.
OPTAX_RMSPROP = {"learning_rate": 0.003, "decay": 0.9, "eps": 1e-6, "eps_in_sqrt": False}
RATES = {"accumulate": "rates"}

ROWS = [
    Row(SGD, {}, {}, sgd.gradient_descent, (), oracles.gradient_descent, torch=("SGD", {})),
    Row(
        *(SGD, {}, {"lr": 0.02}, sgd.gradient_descent, (), oracles.gradient_descent),
        torch=("SGD", {"lr": 0.02}),
        optax=("sgd", {"learning_rate": 0.02}),
        bench="SGD",
    ),
    Row(
        *(SGD, {}, {"lr": 0.02, "momentum": 0.9}, sgd.momentum, ("p",), oracles.momentum),
        torch=("SGD", {"lr": 0.02, "momentum": 0.9}),
        optax=("sgd", {"learning_rate": 0.02, "momentum": 0.9}),
        bench="SGD momentum",
    ),
    Row(
        *(SGD, {}, {"lr": 0.02, "momentum": 0.8, "dampening": 0.3}, sgd.momentum, ("p",), oracles.dampened_momentum),
        torch=("SGD", {"lr": 0.02, "momentum": 0.8, "dampening": 0.3}),
    ),
    Row(
        *(SGD, {"nesterov": True}, {"lr": 0.02, "momentum": 0.9}, sgd.nesterov, ("p",), oracles.nesterov_momentum),
        torch=("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
        optax=("sgd", {"learning_rate": 0.02, "momentum": 0.9, "nesterov": True}),
    ),
    Row(AdaGrad, {}, {}, adagrad.adagrad, ("r",), oracles.adagrad, torch=("Adagrad", {})),
    Row(
        *(AdaGrad, {}, {"lr": 0.01, "eps": 0.0}, adagrad.adagrad, ("r",), oracles.adagrad),
        torch=("Adagrad", {"lr": 0.01, "eps": 0.0}),
        optax=("adagrad", OPTAX_ADAGRAD),
        bench="AdaGrad",
    ),
    # These rates only grow, by up to lr / eps a step: with more than this no path on a curved function stays finite.
    Row(
        *(AdaGrad, RATES, {"lr": 2e-5, "eps": 1e-3}, adagrad.adagrad_rates, ("alpha",), oracles.adagrad_rates),
        bench="AdaGrad rates",
    ),
    Row(RMSProp, {}, {}, rmsprop.rmsprop, ("v",), oracles.rmsprop, torch=("RMSprop", {})),
    Row(
        *(RMSProp, {}, {"lr": 0.003, "rho": 0.9, "eps": 1e-6}, rmsprop.rmsprop, ("v",), oracles.rmsprop),
        torch=("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-6}),
        optax=("rmsprop", OPTAX_RMSPROP),
    ),
    Row(
        *(RMSProp, {}, {"lr": 0.003, "rho": 0.9, "eps": 0.0}, rmsprop.rmsprop, ("v",), oracles.rmsprop),
        torch=("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 0.0}),
        optax=("rmsprop", {"learning_rate": 0.003, "decay": 0.9, "eps": 0.0}),
        bench="RMSProp",
    ),
    Row(
        *(RMSProp, RATES, {"lr": 0.003, "rho": 0.9, "eps": 1e-5}, rmsprop.rmsprop_rates, ("alpha",), oracles.rmsprop_rates),
        bench="RMSProp rates",
    ),
    Row(
        *(Adam, {}, {}, adam.adam, ("m", "v"), oracles.adam),
        torch=("Adam", {}),
        optax=("adam", {"learning_rate": 0.001}),
    ),
    Row(
        *(Adam, {}, {"eps": 0.0}, adam.adam, ("m", "v"), oracles.adam),
        torch=("Adam", {"eps": 0.0}),
        optax=("adam", {"learning_rate": 0.001, "eps": 0.0}),
        bench="Adam",
    ),
    Row(
        *(Adam, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4}, adam.adam, ("m", "v"), oracles.adam),
        torch=("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4}),
        optax=("adam", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-4}),
    ),
    # Optax's amsgrad takes the largest of the corrected v.
    Row(
        *(Adam, {"amsgrad": True}, {"lr": 0.01, "betas": (0.8, 0.9)}, adam.amsgrad, ("m", "v", "v_max"), oracles.amsgrad),
        torch=("Adam", {"lr": 0.01, "betas": (0.8, 0.9), "amsgrad": True}),
    ),
    Row(
        *(AdamW, {}, {}, adam.adam, ("m", "v"), oracles.adamw),
        torch=("AdamW", {}),
        optax=("adamw", {"learning_rate": 0.001, "weight_decay": 0.01}),
    ),
    Row(
        *(AdamW, {}, {"eps": 0.0}, adam.adam, ("m", "v"), oracles.adamw),
        torch=("AdamW", {"eps": 0.0}),
        optax=("adamw", {"learning_rate": 0.001, "weight_decay": 0.01, "eps": 0.0}),
        bench="AdamW",
    ),
    Row(
        *(AdamW, {}, {"lr": 0.01, "weight_decay": 0.1}, adam.adam, ("m", "v"), oracles.adamw),
        torch=("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
        optax=("adamw", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ),
    Row(
        *(AdaMax, {}, {}, adamax.adamax, ("m", "u"), oracles.adamax),
        torch=("Adamax", {}),
        optax=("adamax", {"learning_rate": 0.002}),
        bench="AdaMax",
    ),
    Row(
        *(AdaMax, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4}, adamax.adamax, ("m", "u"), oracles.adamax),
        torch=("Adamax", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4}),
        optax=("adamax", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-4}),
    ),
    Row(
        *(AdaDelta, {}, {}, adadelta.adadelta, ("v", "delta"), oracles.adadelta),
        torch=("Adadelta", {}),
        optax=("adadelta", {"learning_rate": 1.0}),
        bench="AdaDelta",
    ),
    Row(
        *(AdaDelta, {}, {"lr": 0.5, "rho": 0.95, "eps": 1e-4}, adadelta.adadelta, ("v", "delta"), oracles.adadelta),
        torch=("Adadelta", {"lr": 0.5, "rho": 0.95, "eps": 1e-4}),
        optax=("adadelta", {"learning_rate": 0.5, "rho": 0.95, "eps": 1e-4}),
    ),
    # Optax's RAdam adds eps to the corrected root: only with eps = 0 is it the same.
    Row(RAdam, {}, {}, radam.radam, ("m", "v"), oracles.radam, torch=("RAdam", {})),
    Row(
        *(RAdam, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 0.0}, radam.radam, ("m", "v"), oracles.radam),
        torch=("RAdam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 0.0}),
        optax=("radam", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 0.0}),
        bench="RAdam",
    ),
    Row(
        *(RAdam, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4}, radam.radam, ("m", "v"), oracles.radam),
        torch=("RAdam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4}),
    ),
    Row(
        *(AdaBelief, {}, {}, adabelief.adabelief, ("m", "s"), oracles.adabelief),
        optax=("adabelief", {"learning_rate": 0.001}),
        bench="AdaBelief",
    ),
    Row(
        *(AdaBelief, {}, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "eps_root": 1e-6}),
        *(adabelief.adabelief, ("m", "s"), oracles.adabelief),
        optax=("adabelief", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-4, "eps_root": 1e-6}),
    ),
    # With the default learning rate, 100 steps go no further than 0.01.
    Row(
        *(Lion, {}, {"lr": 3e-3, "weight_decay": 0.1}, lion.lion, ("m",), oracles.lion),
        optax=("lion", {"learning_rate": 3e-3, "weight_decay": 0.1}),
    ),
    Row(
        *(Lion, {}, {"lr": 1e-3, "betas": (0.8, 0.95)}, lion.lion, ("m",), oracles.lion),
        optax=("lion", {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.95, "weight_decay": 0.0}),
        bench="Lion",
    ),
    Row(
        *(Signum, {"momentum": 0.0}, {}, signum.signsgd, (), oracles.signsgd),
        optax=("sign_sgd", {"learning_rate": 0.001}),
        bench="signSGD",
    ),
    Row(Signum, {}, {"lr": 3e-3, "momentum": 0.8, "weight_decay": 0.1}, signum.signum, ("m",), oracles.signum),
    Row(Signum, {}, {}, signum.signum, ("m",), oracles.signum, optax=("signum", {"learning_rate": 0.001}), bench="Signum"),
]
