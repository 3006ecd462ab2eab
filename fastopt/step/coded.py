"""Passes over arrays of which some are codes: what runs their spans, and what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastopt.arrays.codes import Codes
from fastopt.arrays.parameters import Parameter
from fastopt.engine.blocks import InBlocks
from fastopt.engine.compile import compiled_span
from fastopt.engine.noise import salt_of
from fastopt.engine.tables import address
from fastopt.step.passes import Pass


def runner(of_pass: Pass, p: Parameter, compiled: Any) -> Any:
    """What runs the span of a parameter: itself, or, if some arrays are codes, the function that decodes them for it."""
    return compiled_span(InBlocks()) if any(isinstance(a, Codes) for a in of_pass.operands(p)) else compiled


def head(of_pass: Pass, p: Parameter, compiled: Any, tensor: int, begin: int, words: Sequence[int]) -> list[int]:
    """What that function takes before the words of the span, for the tensor of a parameter that begins at some element."""
    stochastic = [*of_pass.stochastic.of(p)]
    if of_pass.zeroes:
        stochastic.insert(of_pass.zeroed(p), False)
    of_codes = []
    for place, array in enumerate(of_pass.operands(p)):
        if isinstance(array, Codes):
            numbers = array.size // max(1, p.length)
            codes = address(array) + begin * numbers
            scales = address(array.scales) + array.scales.itemsize * array.pieces[tensor][1].start
            salt = int(salt_of(len(stochastic) - place)) if any(stochastic[place : place + 1]) else 0
            of_codes.append((place, codes, scales, numbers, array.dtype == np.int8, salt, (p.first + begin) * numbers))
    if not of_codes:
        return []
    counted = (address(of_pass.stochastic.steps), of_pass.stochastic.seed)
    return [compiled.address, len(words), len(of_codes), of_pass.products == 0, *counted, *sum(of_codes, ())]
