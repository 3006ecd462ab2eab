"""What compiled code calls, registered in Numba's two ways, and without the wrapper for C that Numba would compile for each.

Nobody calls it from C: it is inlined where it is called. These wrappers took an eighth to a quarter of a kernel's compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba.extending import overload, register_jitable

Function = TypeVar("Function", bound=Callable[..., Any])

WITHOUT_WRAPPER = {"no_cfunc_wrapper": True}


def jitable(function: Function) -> Function:
    """Let compiled code call a function, which stays as it is."""
    return register_jitable(**WITHOUT_WRAPPER)(function)  # type: ignore[no-any-return]


def implementation_of(function: Callable[..., Any]) -> Callable[[Function], Function]:
    """Register what compiled code calls in place of a function, by what gives it from the arguments' types.

    The annotations of implementations need not match.
    """
    return overload(function, jit_options=WITHOUT_WRAPPER, strict=False)  # type: ignore[no-any-return]
