"""What makes one optimizer differ from another: hyper-parameters, a rule, and the numbers that the rule takes in each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    own_options: ClassVar[frozenset[str]] = frozenset()
    """Options that the optimizer's own rule carries out."""

    scalars: ClassVar[Mapping[str, float]] = {}
    """Names and first values of running scalars, which `advance` moves on."""

    per_tensor: ClassVar[bool] = False
    """Whether running scalars and sums belong to each tensor, instead of to all parameters together."""

    takes_modulus: ClassVar[bool] = True
    """Whether ``complex_mode="modulus"`` is possible."""

    elements: ClassVar[tuple[str, ...]] = ()
    """Names of arrays with a number for each element that rules take among their coefficients, by name; only read."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if isinstance(rule := vars(cls).get("rule"), FunctionType):
            cls.rule = staticmethod(rule)  # it is a function of numbers, no method
        # What is known of the coefficients of the class above need not hold for others.
        if "coefficients" in vars(cls) and "is_steady" not in vars(cls):
            cls.is_steady = Description.is_steady  # type: ignore[method-assign]

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

    def coefficients(self, hyper: Mapping[str, Any], t: int) -> tuple[Any, ...]:
        """Compute what the rule takes after its states, in double precision.

        It must depend on its arguments alone, and change nothing: `warmup` calls it, too.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group, a schedule replaced by its number; and the running scalars of this step, with
            `per_tensor` arrays of shape (tensors,).
        t : int
            The step of the group; the first is 1.

        Returns
        -------
        tuple of float
            One for each of the rule's last arguments; with `per_tensor` some may be arrays of shape (tensors,).
        """
        raise NotImplementedError

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

    def advance(self, hyper: Mapping[str, Any], t: int, sums: Sequence[Any]) -> Mapping[str, Any]:
        """Compute the running `scalars` of a step. They are kept if the step succeeds.

        Parameters
        ----------
        hyper : mapping
            The hyper-parameters of a group as in `coefficients`, and the running scalars as the step before left them.
        t : int
            The step of the group; the first is 1.
        sums : sequence of float
            What `measure` summed up, over all parameters; with `per_tensor` arrays of shape (tensors,).

        Returns
        -------
        mapping
            The new scalars by name.
        """
        return {}

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
            One for each of the measure's last arguments.
        """
        return ()
