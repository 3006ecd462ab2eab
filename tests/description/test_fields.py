"""Hyper-parameters are stated once, in the body of a class; constructor, checks, attributes and documentation follow."""

import inspect
import os
import pickle
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

import fastopt
from fastopt.description.fields import Field, argument
from fastopt.description.hyperparameters import OneOf, nonnegative
from fastopt.optimizers.sgd import gradient_descent
from tests.fresh import ROOT
from tests.refusal import refused

OPTIMIZERS = [getattr(fastopt, name) for name in fastopt.optimizers.__all__]
every_optimizer = pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda cls: cls.__name__)


class Descent(fastopt.Optimizer):
    """Descent.

    Some text.

    Notes
    -----
    No more.
    """

    rule = gradient_descent
    lr: float = fastopt.hyper(0.5)
    slope: float = fastopt.hyper(1.0, nonnegative, "How steep\n    it is.")
    form: str = fastopt.hyper("a", OneOf("a", "b"), "Which one.")
    eps: float = 1e-8

    def coefficients(self, hyper, t):
        return ()


class Steep(Descent):
    form = "b"
    slope: float = fastopt.hyper(3.0)
    more: bool = fastopt.hyper(False)


def two_groups(cls, **arguments):
    return cls([{"params": np.ones(3)}, {"params": np.ones(4)}], **arguments)


@every_optimizer
def test_every_hyperparameter_is_an_attribute(cls):
    opt = two_groups(cls)
    names = [name for name, field in cls.fields.items() if not field.is_whole and name != "accumulate"]
    assert {"lr", "weight_decay"} <= set(names)
    for name in [*names, "maximize", "mask", "ema_decay"]:
        value = getattr(opt, name)
        assert value == opt.param_groups[0][name] == inspect.signature(cls).parameters.get(name, cls.common.get(name)).default
        setattr(opt, name, value)
        assert getattr(opt, name) == value
        assert isinstance(getattr(cls, name), Field)
        assert name not in vars(opt)


def test_attributes_are_set_in_all_groups_or_in_none():
    opt = two_groups(fastopt.Adam)
    opt.betas = [0.5, np.float32(0.25)]
    assert [group["betas"] for group in opt.param_groups] == [(0.5, 0.25), (0.5, 0.25)]
    with refused(ValueError, "eps must be", "-1", opt=opt):
        opt.eps = -1.0
    with refused(ValueError, "'v_max'", opt=opt):
        opt.amsgrad = True
    with refused(ValueError, "mask", "(4,)", "got (3,)", opt=opt):
        opt.mask = np.ones(3, bool)
    opt.param_groups[1]["eps"] = 1e-4
    with refused(ValueError, "different values of eps", "param_groups[i]['eps']", opt=opt):
        opt.eps  # noqa: B018
    opt.eps = 1e-6
    assert opt.eps == 1e-6


def test_a_contradiction_is_refused_on_assignment():
    opt = two_groups(fastopt.SGD, momentum=0.9, nesterov=True)
    with refused(ValueError, "nesterov needs momentum > 0", opt=opt):
        opt.momentum = 0.0


def test_attributes_change_the_next_step():
    w = np.zeros(1)
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(np.ones(1))
    opt.weight_decay = 0.5
    opt.maximize = True
    opt.step(np.ones(1))
    assert w == -1 + 1 + 0.5  # weights decay all the same


def test_a_method_of_the_name_stays():
    opt = fastopt.AdaGrad(w := np.zeros(2), lr=1.0, accumulate="rates", eps=1.0)
    opt.accumulate(np.ones(2))
    opt.step()
    assert opt.param_groups[0]["accumulate"] == "rates"
    assert np.array_equal(w, [-0.5, -0.5])


def test_fields_are_inherited_in_order():
    assert list(inspect.signature(Descent).parameters) == ["params", "lr", "slope", "form", "eps", "options"]
    assert list(inspect.signature(Steep).parameters) == ["params", "lr", "slope", "eps", "more", "options"]
    opt = Steep(np.zeros(2), 0.25, 4.0, 1e-4, True, maximize=True)
    assert (opt.lr, opt.slope, opt.eps, opt.more, opt.form, opt.maximize) == (0.25, 4.0, 1e-4, True, "b", True)
    assert Steep(np.zeros(2)).slope == 3.0
    for name in ("slope", "eps"):  # checks are inherited, or those that many have
        with pytest.raises(ValueError, match=f"{name} must be a finite number of at least 0, got -1"):
            Steep(np.zeros(2), **{name: -1})
    with pytest.raises(TypeError, match="more must be True or False"):
        Steep(np.zeros(2), more=1.0)
    assert pickle.loads(pickle.dumps(opt)).slope == 4.0


def test_what_is_fixed_can_not_be_given():
    with pytest.raises(TypeError, match="Steep sets form itself"):
        Steep(np.zeros(2), form="a")
    with pytest.raises(TypeError, match="AdamW sets decoupled_weight_decay itself"):
        fastopt.AdamW(np.zeros(2), decoupled_weight_decay=False)
    assert fastopt.AdamW(np.zeros(2), decoupled_weight_decay=True).decoupled_weight_decay is True
    opt = fastopt.Lion(np.zeros(2))
    opt.decoupled_weight_decay = False  # a group may have it otherwise
    assert opt.decoupled_weight_decay is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lrr": 0.1}, r"^Adam has no argument 'lrr' \(did you mean 'lr'\?\); it takes lr, betas, eps, .*, by_name$"),
        ({"learning_rate": 0.1}, r"no argument 'learning_rate' \(here it is 'lr'\); it takes lr, "),
        ({"epsilon": 0.1}, r"no argument 'epsilon' \(here it is 'eps'\)"),
        ({"weight_deacy": 0.1}, r"no argument 'weight_deacy' \(did you mean 'weight_decay'\?\)"),
        ({"zzz": 0.1}, r"no argument 'zzz'; it takes lr, betas, .*, by_name$"),
    ],
)
def test_unknown_arguments_are_refused_with_the_name_that_was_meant(arguments, message):
    w = np.ones(2)
    with pytest.raises(TypeError, match=message):
        fastopt.Adam(w, **arguments)
    assert np.array_equal(w, [1, 1])


@pytest.mark.parametrize(
    ("name", "meant"), [("learning_rate", "lr"), ("epsilon", "eps"), ("beta1", "betas"), ("wd", "weight_decay")]
)
def test_what_others_call_a_hyper_parameter_is_no_attribute(name, meant):
    opt = fastopt.Adam(np.ones(2))
    with pytest.raises(AttributeError, match=rf"Adam has no attribute '{name}' \(here it is '{meant}'\)"):
        setattr(opt, name, 0.5)
    assert name not in vars(opt)
    plain = fastopt.SGD(np.ones(2))
    plain.beta1 = 3.0  # means nothing there
    plain.notes = "of the caller"

    class Named(fastopt.SGD):
        eta = None

    own = Named(np.ones(2))
    own.eta = 5.0  # a class may have it itself
    assert (own.eta, own.lr) == (5.0, 1e-3)


def test_arguments_that_are_too_many_or_given_twice_are_refused():
    with pytest.raises(TypeError, match="Lion takes 3 arguments by position after params, got 4"):
        fastopt.Lion(np.zeros(2), 0.1, (0.9, 0.9), 0.0, 1.0)
    with pytest.raises(TypeError, match="Lion got the argument 'lr' twice"):
        fastopt.Lion(np.zeros(2), 0.1, lr=0.1)
    with pytest.raises(TypeError, match="params"):
        fastopt.Lion(lr=0.1)


def test_an_argument_that_is_no_hyperparameter():
    opt = fastopt.NoisySGD(np.zeros(3), seed=5)
    assert "seed" not in opt.param_groups[0]
    assert not hasattr(opt, "seed")
    copied = np.zeros(2)
    for bad in (-1, "one"):
        with pytest.raises((TypeError, ValueError), match="seed must"):
            fastopt.NoisySGD(np.ones(2), seed=bad, copy_to=copied)
    assert np.array_equal(copied, [0, 0])

    class Named(Descent):
        name: str = argument("none", lambda name, value: value.upper(), kind="str")

        def begin(self, **arguments):
            self.known = (arguments, self.param_groups[0]["lr"])

    assert Named(np.zeros(2), name="own").known == ({"name": "OWN"}, 0.5)


def test_a_constructor_of_ones_own_has_its_own_signature():
    class Own(Descent):
        """Own."""

        given: ClassVar[int] = 3

        def __init__(self, params, scale=2.0):
            super().__init__(params, lr=scale)

    assert list(inspect.signature(Own).parameters) == ["params", "scale"]
    assert Own.__doc__ == "Own."
    assert Own(np.zeros(2), scale=4.0).lr == 4.0
    assert (Own.given, "given" in Own.fields) == (3, False)


def test_a_class_without_a_rule_is_refused():
    class Empty(fastopt.Optimizer):
        pass

    with pytest.raises(NotImplementedError, match="Empty has neither a rule nor a method choose"):
        Empty(np.zeros(2))


def test_the_rule_is_no_method():
    assert Descent(np.zeros(2)).rule(3.0, 2.0, 0.5) == Descent.rule(3.0, 2.0, 0.5) == 2.0


DOCUMENTED = """\
Descent.

Some text.

Parameters
----------
params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
    float32, float64, float16 or bfloat16; updated in place.
lr : float, array or callable, default 0.5
    Learning rate :math:`\\alpha`: a number; an array in the parameter's shape, nested as the parameters are, with a rate for
    every element; or a schedule, called with the number of steps taken so far.
slope : float, default 1
    How steep it is.
form : {"a", "b"}, default "a"
    Which one.
eps : float, default 1e-8
    :math:`\\epsilon`, outside of the root, added to the corrected root.
**options
    What every optimizer takes besides, see `Optimizer`.

Raises
------
TypeError, ValueError
    If an argument is not allowed.

Notes
-----
No more.
"""


def test_parameters_are_documented_where_numpydoc_has_them():
    assert Descent.__doc__ == DOCUMENTED
    assert Steep.__doc__ is None

    class Long(Descent):
        """Descent.

        Parameters
        ----------
        mine
            As I say.
        """

    assert inspect.getdoc(Long).count("Parameters") == 1


@every_optimizer
def test_docstrings_have_one_section_of_each_kind(cls):
    lines = cls.__doc__.splitlines()
    sections = [lines[i - 1] for i, line in enumerate(lines) if line and set(line) == {"-"}]
    assert sections == ["Parameters", "Raises", "Notes", "References", "Examples"]
    for field in cls.fields.values():
        assert field.doc.endswith(".") or field.name == "lr", field.name


USER = """\
import numpy as np
import fastopt

w = np.zeros(3)
opt = fastopt.Adam(w, lr=0.1, clip_norm=1.0)
fastopt.Adam(w, 0.1, (0.9, 0.99), 1e-8, 0.1, True, nonfinite="skip", by_name=None)
fastopt.AdamW([{"params": w}], 0.1, (0.9, 0.99), 1e-8, 0.1, maximize=True)
fastopt.FTRL(w, lr=0.1, l1=0.5, l2=1.0, cautious=True)
fastopt.AdaGrad(w, accumulate="rates").accumulate(w)
beta1, beta2 = opt.betas
opt.eps = beta1 + opt.eps
opt.clip_norm = None
opt.lr = lambda step: 0.1


class Own(fastopt.Optimizer):
    lr: float = fastopt.hyper(0.1)
    slope: float = fastopt.hyper(1.0)


Own(w, 0.1, slope=2.0, frozen=True)
"""

REFUSED = {
    "fastopt.Adam(w, lrr=0.1)": 'Unexpected keyword argument "lrr" for "Adam"',
    "fastopt.Adam(w, betas=0.9)": 'Argument "betas" to "Adam" has incompatible type "float"',
    "fastopt.Adam()": 'Missing positional argument "params" in call to "Adam"',
    "fastopt.Adam(w, clip_norm='1')": 'Argument "clip_norm" to "Adam" has incompatible type "str"',
    "opt.amsgrad = 'yes'": "Incompatible types in assignment",
    "Own(w, steepness=2.0)": 'Unexpected keyword argument "steepness" for "Own"',
}


def test_type_checkers_know_the_arguments(tmp_path):
    program = tmp_path / "user.py"
    program.write_text(USER + "\n".join(REFUSED) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(program)]
    environment = {**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(REFUSED), done.stdout + done.stderr
    for i, (line, message) in enumerate(REFUSED.items(), start=USER.count("\n") + 1):
        assert any(error.startswith(f"user.py:{i}: error: {message}") for error in errors), (line, errors)
