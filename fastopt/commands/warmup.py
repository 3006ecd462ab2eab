"""Kernels compiled ahead of time, to the cache on disk, so that no later process waits for the compiler."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastopt import optimizers
from fastopt.arrays.layout import FLOATS, one_of
from fastopt.engine.launch import ALONE_FIRST_BELOW_BYTES
from fastopt.engine.rows import touching
from fastopt.engine.steps import step_function
from fastopt.optimizer import Optimizer

# What most people begin with.
USUAL = ("SGD", "SGD,momentum=0.9", "AdaGrad", "RMSProp", "Adam", "AdamW")

# Of this size steps may need the serial kernel and the parallel one.
SIZE = ALONE_FIRST_BELOW_BYTES // 128


def parsed(spec: str) -> tuple[type[Optimizer], dict[str, Any]]:
    """The class and the arguments of an optimizer as one types it: ``Adam`` or ``SGD,momentum=0.9,nesterov=True``.

    Raises
    ------
    ValueError
        If there is no such optimizer, or the rest is not of the form ``key=value`` with values as Python writes them.
    """
    name, _, given = spec.partition(",")
    if name not in optimizers.__all__:
        raise ValueError(f"there is no optimizer {name!r}; there are {', '.join(optimizers.__all__)}")
    try:
        call = ast.parse(f"{name}({given})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        arguments = {each.arg or "": ast.literal_eval(each.value) for each in call.keywords}
        if "" in arguments:  # of two asterisks
            raise ValueError
    except (SyntaxError, ValueError):
        raise ValueError(f"{given!r} must be key=value, with values as Python writes them") from None
    return getattr(optimizers, name), arguments


def compile_ahead(specs: Sequence[str], dtypes: Sequence[str], rows: bool = False) -> Iterator[tuple[str, float]]:
    """Compile what steps of some optimizers need, or load it from the cache.

    Parameters
    ----------
    specs : sequence of str
        Optimizers, as `parsed` takes them.
    dtypes : sequence of str
        Of parameters and gradients.
    rows : bool, default False
        Whether also what steps of touched rows need.

    Yields
    ------
    str, float
        What was compiled, and how many seconds that took.

    Raises
    ------
    TypeError, ValueError
        If an optimizer, an argument or a dtype is not allowed; before anything is compiled.
    """
    ready = [
        (f"{spec} {dtype}", cls(np.zeros(SIZE, one_of("dtype", dtype, FLOATS)), **arguments))
        for spec, (cls, arguments) in [(spec, parsed(spec)) for spec in specs]
        for dtype in dtypes
    ]
    for name, optimizer in ready:
        begin = time.perf_counter()
        optimizer.warmup()
        step_function(parallel=True)  # even if there is but one thread here
        yield name, time.perf_counter() - begin
    if rows:
        begin = time.perf_counter()
        touching()
        yield "touched rows", time.perf_counter() - begin


def warmup(*optimizers: Optimizer, gradient_dtype: Any = None, rows: bool = False) -> None:
    """Compile what the next step of some optimizers will run, or load it from the cache, so that no step waits for it.

    Parameters
    ----------
    *optimizers : Optimizer
        With the parameters they will step: their sizes and dtypes decide which kernels are needed.
    gradient_dtype : float32 or float64, optional
        By default each parameter's own.
    rows : bool, default False
        Whether the steps will be some of touched rows, too.

    Raises
    ------
    TypeError
        If `gradient_dtype` is another one.
    """
    for optimizer in optimizers:
        optimizer.warmup(gradient_dtype)
    if rows:
        touching()
