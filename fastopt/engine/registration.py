"""Functions that compiled code may call: known to Numba in every process they come to, and never stale in its caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core.compiler import Compiler
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.typed_passes import NativeLowering
from numba.extending import register_jitable

from fastopt.engine.digest import Sources
from fastopt.engine.jitable import WITHOUT_WRAPPER

Function = Callable[..., Any]


@register_pass(mutates_CFG=False, analysis_only=True)
class NoteSources(AnalysisPass):  # type: ignore[misc]
    """Note among a function's constants what it is made of.

    The key of Numba's cache has the caller's own file. So a function of users', compiled with ``cache=True``, would go on with
    the rule that it was compiled with after that has changed. But with a compiled function Numba pickles the constants of all
    that it calls, and these can tell when they are loaded.
    """

    _name = "fastopt_note_sources"

    def __init__(self) -> None:
        pass

    def run_pass(self, state: Any) -> bool:
        """Add the constant, which no code refers to."""
        state["cr"].env.consts.append(Sources(state.func_id.func.__module__))
        return False


class NotingCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, with this pass."""

    def define_pipelines(self) -> list[Any]:
        """The usual one, and what is noted after code was made."""
        (pipeline,) = super().define_pipelines()
        pipeline.add_pass_after(NoteSources, NativeLowering)
        pipeline.finalize()
        return [pipeline]


class Registration:
    """Lies among the attributes of a function. Where that is unpickled by value, it is registered anew."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def __reduce__(self) -> Any:
        return registration, (self._function,)


def registration(function: Function) -> Registration:
    """Let compiled code call a function."""
    register_jitable(pipeline_class=NotingCompiler, **WITHOUT_WRAPPER)(function)
    return Registration(function)


def registered(function: Function) -> Function:
    """The same function, which compiled code may call here and wherever it is sent by cloudpickle."""
    function.__fastopt_registration__ = registration(function)  # type: ignore[attr-defined]
    return function
