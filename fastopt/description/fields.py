"""Hyper-parameters as fields of a class: what each is, is stated once, and the constructor and its documentation follow."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fastopt.description.hyperparameters import (
    ELSEWHERE,
    Check,
    OneOf,
    Range,
    boolean,
    decay,
    decays,
    finite,
    hint,
    nonnegative,
)

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[T], T]:
        """Do nothing: the one in `typing`, there since Python 3.11, is for type checkers alone."""
        return lambda cls: cls


# The default of a field without one.
REQUIRED: Any = inspect.Parameter.empty

PARAMETERS = "Parameters\n----------\n"
RAISES = "Raises\n------\n"
WIDTH = 120


class Field:
    """What `hyper` makes in the body of a class. On an optimizer it reads and sets the value of all groups."""

    def __init__(
        self, default: Any, check: Check | None = None, doc: str = "", kind: str = "", *, is_whole: bool = False
    ) -> None:
        self.name = ""
        self.annotation: Any = inspect.Parameter.empty
        self.default, self.check, self.doc, self.kind, self.is_whole = default, check, doc, kind, is_whole

    def completed(self, name: str, annotation: Any, before: Field) -> Field:
        """The field under its name; what it leaves open it has from another one."""
        check = self.check or before.check or (boolean if isinstance(self.default, bool) else finite)
        doc = " ".join(self.doc.split()) or before.doc
        field = Field(self.default, check, doc, self.kind or before.kind, is_whole=self.is_whole)
        field.name, field.__doc__ = name, doc
        field.annotation = before.annotation if annotation is None else _argument_type(annotation)
        return field

    @property
    def words(self) -> str:
        """The type of its values in words, as numpydoc has them."""
        if isinstance(self.check, OneOf):
            return "{" + ", ".join(map(_written, self.check.choices)) + "}"
        if isinstance(self.default, tuple):
            return "pair of float" if len(self.default) == 2 else "tuple of float"
        return self.kind or ("bool" if self.check is boolean else "float")

    def parameter(self, kind: Any) -> inspect.Parameter:
        """What a signature shows of it."""
        return inspect.Parameter(self.name, kind, default=self.default, annotation=self.annotation)

    def __get__(self, optimizer: Fields | None, owner: type | None = None) -> Any:
        if optimizer is None:
            return self
        own = optimizer.fields.get(self.name)
        if own is not None and own.is_whole:  # an argument of that name in the place of this hyper-parameter
            raise AttributeError(f"{type(optimizer).__name__} has no hyper-parameter {self.name!r}")
        return optimizer._read(self.name)

    def __set__(self, optimizer: Fields, value: Any) -> None:
        optimizer._assign(self.name, value)


def hyper(default: Any = REQUIRED, check: Check | None = None, doc: str = "", *, kind: str = "") -> Any:
    r"""Declare a hyper-parameter in the body of a class of optimizers, with an annotation as in a dataclass.

    Hyper-parameters are arguments of the constructor after the parameters, in the order in which classes declare them, bases
    first. Each group has a value of its own, and the attribute of an optimizer reads and sets that of all groups. A class that
    declares an inherited one again changes what it says. ``beta: float = 0.9`` is short for ``beta: float = hyper(0.9)``;
    without annotation a value fixes an inherited one for good.

    Parameters
    ----------
    default : object, optional
        The value for all groups that don't set it; without one the argument must be given.
    check : callable, optional
        ``check(name, value)`` gives the value in its plain form, or raises TypeError or ValueError. By default that of the same
        hyper-parameter in a base class, or of one that many optimizers have (``betas``, ``eps``, ``momentum``, ``rho``); else
        any finite number is allowed, and with a bool as the default only bools.
    doc : str, optional
        Becomes its entry in the section "Parameters" of the class's docstring. By default as for `check`.
    kind : str, optional
        What the docstring calls the type of its values, where the default doesn't tell.

    Returns
    -------
    object
        For the class, which replaces it.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> from fastopt.rules import momentum
    >>> class HeavyBall(fastopt.Optimizer):
    ...     rule, state_names = momentum, ("p",)
    ...     lr: float = fastopt.hyper(0.5)
    ...     beta: float = fastopt.hyper(0.75, doc=r"How much of :math:`p` a step keeps.")
    ...     def coefficients(self, hyper, t):
    ...         return hyper["beta"], 1.0, 0.0, 1.0
    >>> opt = HeavyBall(w := np.zeros(2), beta=0.25)
    >>> opt.beta
    0.25
    >>> opt.step(np.array([1.0, -2.0]))
    >>> w
    array([-0.5,  1. ])
    """
    return Field(default, check, doc, kind)


def argument(default: Any = REQUIRED, check: Check | None = None, doc: str = "", *, kind: str = "") -> Any:
    """Declare an argument of the constructor that is no hyper-parameter of groups: see `hyper`."""
    return Field(default, check, doc, kind, is_whole=True)


# What hyper-parameters of these names are, unless a class says otherwise.
COMMON: Mapping[str, Field] = {
    "betas": hyper(check=decays(2), doc=r"Decay rates :math:`\beta_1, \beta_2` of the two averages, in [0, 1)."),
    "eps": hyper(check=nonnegative, doc=r":math:`\epsilon`, outside of the root, added to the corrected root."),
    "eps_root": hyper(check=nonnegative, doc=r":math:`\epsilon_r`, inside of the root."),
    "initial_accumulator_value": hyper(check=nonnegative, doc="Where the sum of the squares starts."),
    "lr_decay": hyper(check=nonnegative, doc="How fast the learning rate falls."),
    "momentum": hyper(check=nonnegative, doc=r":math:`\beta`, at least 0."),
    "rho": hyper(check=decay, doc=r"Decay rate :math:`\rho` of the average, in [0, 1)."),
}


@dataclass_transform(eq_default=False)
class Fields:
    """Base of classes that declare `hyper` parameters: it collects them, and takes them as arguments.

    To type checkers a class is a dataclass of them. What is declared directly below this class, all have in common: it is
    taken by keyword, and shown as ``**options`` by classes with fields of their own. A value without annotation in the place of
    an inherited field fixes that.
    """

    common: ClassVar[Mapping[str, Field]] = {}
    """What all classes have, but for what this one declares itself."""

    fields: ClassVar[Mapping[str, Field]] = {}
    """What this class and its bases declare, in order."""

    fixed: ClassVar[Mapping[str, Any]] = {}
    """The values of fields that can't be given."""

    checks: ClassVar[Mapping[str, Check]] = {}
    """The check of each field."""

    __signature__: ClassVar[inspect.Signature | None]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        inherited = {name: field for base in reversed(cls.__mro__) for name, field in vars(base).get("fields", {}).items()}
        own = _collected(cls, {**cls.common, **inherited})
        if Fields in cls.__bases__:
            cls.common = own
        else:
            cls.fields = {**inherited, **own}
            cls.common = {name: field for name, field in cls.common.items() if name not in cls.fields}
        cls.checks = {name: field.check or finite for name, field in {**cls.fields, **cls.common}.items()}
        cls.__signature__ = None
        if cls.__init__ is Fields.__init__:
            cls.__signature__ = _signature(cls)
            cls.__doc__ = cls.__doc__ and _documented(cls)

    def __init__(self, params: Any, *values: Any, **named: Any) -> None:
        hyper, whole = map(dict, _defaults(type(self)))
        if values or named:
            for name, value in _given(type(self), values, named).items():
                (whole if name in whole else hyper)[name] = value
        elif missing := [name for name, value in hyper.items() if value is REQUIRED]:
            raise TypeError(f"{type(self).__name__} is missing a required argument: {missing[0]!r}")
        self._construct(params, hyper, whole)

    def __setattr__(self, name: str, value: Any) -> None:
        # What other libraries call a hyper-parameter would change nothing here, and nobody would notice.
        meant = ELSEWHERE.get(name)
        if meant is not None and (meant in self.fields or meant in self.common) and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r} (here it is {meant!r})")
        super().__setattr__(name, value)

    def _construct(self, params: Any, hyper: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
        """Take the hyper-parameters for all groups, and what belongs to no group."""
        raise NotImplementedError

    def _read(self, name: str) -> Any:
        """The value of a hyper-parameter that all groups have."""
        raise NotImplementedError

    def _assign(self, name: str, value: Any) -> None:
        """Set a hyper-parameter in all groups, or in none."""
        raise NotImplementedError

    @classmethod
    def _described(cls, name: str) -> tuple[str, str]:
        """What a docstring says of an argument: the type of its values in words, and what it is."""
        field = {**cls.fields, **cls.common}[name]
        return field.words, field.doc


_DEFAULTS: dict[type[Fields], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}


def _defaults(cls: type[Fields]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The values of hyper-parameters, and of what belongs to no group, where none is given, the former checked."""
    if (known := _DEFAULTS.get(cls)) is not None:
        return known
    hyper: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    for name, field in {**cls.fields, **cls.common}.items():
        value = cls.fixed.get(name, field.default)
        if field.is_whole:  # a check may make something that each optimizer has of its own
            whole[name] = value
        else:
            is_plain = value is not REQUIRED and value is not None and not callable(value)
            hyper[name] = cls.checks[name](name, value) if is_plain else value
    return _DEFAULTS.setdefault(cls, (hyper, whole))


def known_values(cls: type[Fields]) -> Mapping[str, Any]:
    """Values of hyper-parameters that need no check: the defaults."""
    return _defaults(cls)[0]


@functools.cache
def known_values_within(cls: Any, within: Range) -> Mapping[str, Any]:
    """Those of them that are numbers in the dtypes of some parameters, too; the others need a check if they are taken."""
    known: dict[str, Any] = {}
    for name, value in known_values(cls).items():
        with contextlib.suppress(ValueError):
            known[name] = within.kept(name, value)
    return known


def _collected(cls: type[Fields], inherited: Mapping[str, Field]) -> dict[str, Field]:
    """The fields that a class declares itself, as they are with what it inherits, which become its attributes."""
    annotations = {name: given for name, given in inspect.get_annotations(cls).items() if "ClassVar" not in str(given)}
    declared, fixed = {}, {}
    for name, value in list(vars(cls).items()):
        if isinstance(value, Field) or (name in annotations and not name.startswith("_")):
            declared[name] = value if isinstance(value, Field) else Field(value)
        elif name in inherited and not hasattr(value, "__get__"):
            fixed[name] = value
    for name in (*declared, *fixed):
        delattr(cls, name)
    own = {}
    for name, field in declared.items():
        own[name] = field.completed(name, annotations.get(name), inherited.get(name) or COMMON.get(name) or Field(REQUIRED))
        # A method of that name stays: AdaGrad has both, `accumulate` in its groups and as a method.
        if not field.is_whole and isinstance(getattr(cls, name, field), Field):
            setattr(cls, name, own[name])
    cls.fixed = {name: value for name, value in {**cls.fixed, **fixed}.items() if name not in own}
    return own


def _given(cls: type[Fields], values: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the constructor by name.

    Raises
    ------
    TypeError
        If there is one that the class doesn't take, one is missing, or one is given twice.
    """
    by_position = [name for name in cls.fields if name not in cls.fixed]
    every = {**cls.fields, **cls.common}
    if len(values) > len(by_position):
        raise TypeError(f"{cls.__name__} takes {len(by_position)} arguments by position after params, got {len(values)}")
    given = dict(zip(by_position, values, strict=False))
    if twice := [name for name in named if name in given]:
        raise TypeError(f"{cls.__name__} got the argument {twice[0]!r} twice")
    if unknown := [name for name in named if name not in every]:
        what = f"{unknown[0]!r}{hint(unknown[0], every)}"
        raise TypeError(f"{cls.__name__} has no argument {what}; it takes {', '.join(every)}")
    if own := [name for name, value in named.items() if name in cls.fixed and value != cls.fixed[name]]:
        raise TypeError(f"{cls.__name__} sets {own[0]} itself")
    given.update(named)
    if missing := [name for name, field in every.items() if field.default is REQUIRED and name not in given]:
        raise TypeError(f"{cls.__name__} is missing a required argument: {missing[0]!r}")
    return given


def _signature(cls: type[Fields]) -> inspect.Signature:
    """What the constructor of a class takes, with the common options where it has no fields of its own."""
    kinds = inspect.Parameter
    parameters = [kinds("params", kinds.POSITIONAL_OR_KEYWORD, annotation="Any")]
    parameters += [field.parameter(kinds.POSITIONAL_OR_KEYWORD) for name, field in cls.fields.items() if name not in cls.fixed]
    if cls.fields:
        parameters.append(kinds("options", kinds.VAR_KEYWORD, annotation="Any"))
    else:
        parameters += [field.parameter(kinds.KEYWORD_ONLY) for field in cls.common.values()]
    return inspect.Signature(parameters, return_annotation="None")


def _documented(cls: type[Fields]) -> str:
    """The docstring of a class with a section "Parameters" where numpydoc has it, unless there is one."""
    text = inspect.cleandoc(cls.__doc__ or "")
    if PARAMETERS in text:
        return text
    section = PARAMETERS + "".join(_entry(cls, parameter) for parameter in inspect.signature(cls).parameters.values())
    if RAISES not in text:
        section += f"\n{RAISES}TypeError, ValueError\n    If an argument is not allowed.\n"
    following = re.search(r"^\w[\w ]*\n---+$", text, re.MULTILINE)
    place = following.start() if following else len(text)
    return f"{text[:place].rstrip()}\n\n{section}\n{text[place:]}".rstrip() + "\n"


def _entry(cls: type[Fields], parameter: inspect.Parameter) -> str:
    """What the section "Parameters" says of one of them."""
    kind, doc = cls._described(parameter.name)
    heading = f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else f"{parameter.name} : {kind}"
    default = "" if parameter.default is REQUIRED else f", default {_written(parameter.default)}"
    text = textwrap.fill(doc, WIDTH, break_long_words=False, break_on_hyphens=False)
    return f"{heading}{default}\n{textwrap.indent(text, '    ')}\n"


def _written(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))})"
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value).removesuffix(".0").replace("e-0", "e-")


def _argument_type(annotation: Any) -> Any:
    """The annotation of an argument, for that of a field, which may be `InitVar`."""
    if isinstance(annotation, InitVar):
        return annotation.type
    return annotation.removeprefix("InitVar[").removesuffix("]") if str(annotation).startswith("InitVar[") else annotation
