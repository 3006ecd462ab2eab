"""What makes one optimizer differ from another: hyper-parameters, a rule, and the numbers that the rule takes in each step."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, ClassVar

from numpy.typing import NDArray

from fastopt.description.options import Options
from fastopt.engine.compile import Rule

# The rule for some hyper-parameters, and the names of its states.
Choice = tuple[Rule, tuple[str, ...]]


class Description(Options):
    """What a subclass of `Optimizer` declares: hyper-parameters by `hyper`, a rule, `coefficients`, and what else it needs."""

    rule: ClassVar[Rule | None] = None
    """The rule, made by `rule`; where hyper-parameters choose among several, see `choose`."""

    state_names: ClassVar[tuple[str, ...]] = ()
    """Names of the states, in the order in which the rule takes them."""

    nonnegative_states: ClassVar[tuple[str, ...]] = ()
    """Names of states that have no sign, such as averages of squares: in 8 bits they range further, and don't become zero."""

    copies_of_theta: ClassVar[tuple[str, ...]] = ()
    """Names of states that follow theta or from which it is computed at each step, besides those that begin with it."""

    own_options: ClassVar[frozenset[str]] = frozenset()
    """Options that the optimizer's own rule carries out."""

    scalars: ClassVar[Mapping[str, float]] = {}
    """Names and first values of running scalars, which what `decide` gives moves on."""

    per_tensor: ClassVar[bool] = False
    """Whether sums, running scalars and coefficients belong to each tensor, instead of to all parameters together."""

    decides: ClassVar[bool] = False
    """Whether the coefficients are those of `decide`: so it is, unless a class overrides `coefficients`."""

    decides_measure: ClassVar[bool] = True
    """Whether the measure's coefficients are those of `decide_measure`, which may be none."""

    may_become_steady: ClassVar[bool] = False
    """Whether `is_steady` says so of some coefficients."""

    takes_modulus: ClassVar[bool] = True
    """Whether ``complex_mode="modulus"`` is possible."""

    elements: ClassVar[tuple[str, ...]] = ()
    """Names of arrays with a number for each element that rules take among their coefficients, by name; only read."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if isinstance(rule := vars(cls).get("rule"), FunctionType):
            cls.rule = staticmethod(rule)  # it is a function of numbers, no method
        # Bases may be mixins, so it is asked which of all the classes has a method. What is known of the coefficients of one
        # further up need not hold for others.
        computing = _place_of(cls, "coefficients", "decide")
        if _place_of(cls, "is_steady") > computing:
            cls.is_steady = Description.is_steady  # type: ignore[method-assign]
        owner = cls.__mro__[computing]
        cls.decides = owner is not Description and "decide" in vars(owner)
        cls.may_become_steady = cls.is_steady is not Description.is_steady
        cls.decides_measure = cls.measure_coefficients is Description.measure_coefficients

    def begin(self, **arguments: Any) -> None:
        """Take the arguments of the constructor that are no hyper-parameters, when all else is there.

        Parameters
        ----------
        **arguments
            The values that the checks of the class's own `argument` fields gave.
        """

    def choose(self, hyper: Mapping[str, Any]) -> Choice:
        """Choose the rule. By default it is always the same, `rule` with the states `state_names`.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group.

        Returns
        -------
        rule : callable
            Made by `rule`.
        state_names : tuple of str
            Names of the states, in the order in which the rule takes them.

        Raises
        ------
        ValueError
            If hyper-parameters contradict each other.
        """
        if self.rule is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a rule nor a method choose")
        return self.rule, self.state_names

    def states_of_rows(self, hyper: Mapping[str, Any]) -> tuple[str, ...]:
        """Give the states that have one number for each row of a table: the last ones of those that the rule takes.

        The rule then takes one more number right after the states, a mean over the row, and returns last what it is the mean
        of. What it returns as a state of the row must follow from the row's numbers alone.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group, which can't change this later on.

        Returns
        -------
        tuple of str
            By default none.
        """
        return ()

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[Any, ...]:
        """Compute what the rule takes after its states, in double precision.

        It must depend on its arguments alone, and change nothing: `warmup` calls it, too. A class has either this or `decide`,
        from which by default it follows.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group, a schedule replaced by its number; and the running scalars as the step before left
            them.
        t : int
            The step of the group; the first is 1.

        Returns
        -------
        tuple of float
            One for each of the rule's last arguments.
        """
        return self.decided(hyper, t)[len(self.scalars) :]

    def is_steady(self, hyper: Mapping[str, Any], t: int) -> bool:
        """Whether `coefficients` gives the same from step `t` on, so that it need not be called again until `hyper` changes.

        A class that overrides `coefficients` and not this one has the default.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group.
        t : int
            The step of the group; the first is 1.

        Returns
        -------
        bool
            By default False.
        """
        return False

    def lasts(self, hyper: Mapping[str, Any], t: int) -> bool:
        """Whether there is nothing more to compute in Python from step `t` on, until `hyper` changes.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group.
        t : int
            The step of the group; the first is 1.

        Returns
        -------
        bool
        """
        return self.decides_measure and (self.decides or self.is_steady(hyper, t))

    def initial(self, name: str, hyper: Mapping[str, Any], theta: NDArray[Any]) -> Any:
        """Give what a state holds before the first step.

        Parameters
        ----------
        name : str
            The state.
        hyper : mapping
            The hyper-parameters of a group.
        theta : ndarray, shape (size,)
            The parameter; only read.

        Returns
        -------
        float or ndarray
            By default 0.
        """
        return 0.0

    def decide(self, hyper: Mapping[str, Any]) -> Rule | None:
        """Choose what computes the coefficients in compiled code, in each step anew.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group.

        Returns
        -------
        callable or None
            Made by `fastopt.decision`: ``function(t, *scalars, *sums, *decision_numbers)`` gives the new running `scalars`, and
            then all coefficients of the rule, from what the `measure` has summed up.
        """
        return None

    def decide_measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        """Choose what computes the last arguments of the `measure`, as `decide` chooses for the rule.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group.

        Returns
        -------
        callable or None
            ``function(t, *scalars, *decision_numbers)``, which gives these and moves no scalar. By default there are none.
        """
        return None

    def decision_numbers(self, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        """Give what the function of `decide` takes of the hyper-parameters.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group, a schedule replaced by its number.

        Returns
        -------
        tuple of float
        """
        return ()

    def decided(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        """Compute in Python what `decide` is about, where no sums are needed.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group, and the running scalars as the step before left them.
        t : int
            The step of the group; the first is 1.

        Returns
        -------
        tuple of float
            The new running scalars, and the coefficients.
        """
        function = self.decide(hyper)
        if function is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a method coefficients nor a method decide")
        scalars = [hyper[name] for name in self.scalars]
        result: tuple[float, ...] = function(float(t), *scalars, *self.decision_numbers(hyper))
        return result

    def measure(self, hyper: Mapping[str, Any]) -> Rule | None:
        """Choose what is summed up over the elements before the step, in a pass of its own.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group.

        Returns
        -------
        callable or None
            Made by `rule`: ``measure(theta, g, lr, *states, *measure_coefficients)`` gives pairs of numbers, whose products
            are summed up in double precision.
        """
        return None

    def measure_coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[float, ...]:
        """Compute what the measure takes after the states, as `coefficients` does for the rule.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group, and the running scalars as the step before left them.
        t : int
            The step of the group; the first is 1.

        Returns
        -------
        tuple of float
            One for each of the measure's last arguments. By default what `decide_measure` is about.
        """
        function = self.decide_measure(hyper)
        if function is None:
            return ()
        scalars = [hyper[name] for name in self.scalars]
        return tuple(function(float(t), *scalars, *self.decision_numbers(hyper)))


def _place_of(cls: type, *names: str) -> int:
    """Where the class that has one of these methods of its own stands among all that this one is made of."""
    return next(i for i, each in enumerate(cls.__mro__) if not vars(each).keys().isdisjoint(names))
