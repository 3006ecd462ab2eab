"""The C interface as files: a header, an interface for Fortran, and a shared library that needs no Python."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba.core.codegen import get_host_cpu_features

from fastopt.arrays.layout import FLOATS
from fastopt.capi import (
    COMMON,
    FUNCTIONS,
    STATUS,
    SUFFIXES,
    Function,
    dtypes_of,
    exported,
    exported_norm,
    function,
    norm_name,
    require_compiler,
)

# Of 16 bits C and Fortran have the bits.
C_TYPES: Mapping[str, str] = {"f32": "float", "f64": "double", "bf16": "uint16_t", "f16": "uint16_t"}
FORTRAN_KINDS: Mapping[str, str] = {"f32": "c_float", "f64": "c_double", "bf16": "c_int16_t", "f16": "c_int16_t"}


def write(
    folder: Path,
    cpu: str | None = None,
    tell: Callable[[str], None] = lambda name: None,
    optimizers: Iterable[str] | None = None,
) -> list[Path]:
    """Write ``fastopt.h``, ``fastopt.f90`` and ``libfastopt.so``.

    A C compiler (``cc``) must be installed, which links the library.

    Parameters
    ----------
    folder : Path
        Made if it isn't there.
    cpu : str, optional
        The processor for which the library is made, as the C compiler calls it: ``"x86-64-v3"``, say. By default the one on
        which it is made.
    tell : callable, optional
        Called with the name of each function before it is compiled.
    optimizers : iterable of str, optional
        Names of `fastopt.capi.FUNCTIONS`; by default all of them.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    RuntimeError
        If there is no C compiler, or it fails, or doesn't know the processor, or Numba's compiler is switched off.
    ValueError
        If there is no such optimizer.
    OSError
        If the folder can't be written to.
    """
    names = dict.fromkeys(FUNCTIONS if optimizers is None else optimizers)
    wanted = [(name, dtype) for name in names for dtype in dtypes_of(name)]
    made = [function(name, dtype) for name, dtype in wanted]
    require_compiler()
    compiler = _c_compiler(cpu)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "fastopt.h", folder / "fastopt.f90", folder / "libfastopt.so"]
    _link(paths[2], wanted, cpu, compiler, tell)  # first, as it is what can fail
    paths[0].write_text(header(made))
    paths[1].write_text(fortran(made))
    return paths


def header(functions: Iterable[Function]) -> str:
    """The declarations for C and C++."""
    status = "\n".join(f"  {name} = {code}, /* {meaning} */" for name, (code, meaning) in STATUS.items())
    return f"""/* Optimizer steps on buffers of the caller's own. Made by fastopt.

   Each function takes one step: it updates `theta` and the states in place, and only reads the gradient `g`. All arrays have
   `elements` elements and don't overlap. Before the first step the states hold what is said here, else 0. `t` counts the
   steps: the first one is 1. `scale` multiplies the gradient, and theta ends between `lower` and `upper`; 1, -INFINITY and
   INFINITY change nothing. The result is one of the numbers below; if it is not FASTOPT_OK, nothing was changed.

   Arrays of bfloat16 (bf16) and float16 (f16) come as their bits. What is written to them is rounded stochastically: up as
   often as it is close to the number above, by a hash of `seed`, `t` and the element.

   The functions run in the calling thread and keep nothing between calls: several threads may step different parts of the
   same arrays. */

#ifndef FASTOPT_H
#define FASTOPT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

enum {{
{status}
}};

/* The norm of a gradient, in double precision. Of several arrays, or ranks of MPI, the norm is the root of the sum of squares:
   with limit / norm, where that is less than 1, as the scale, steps clip by it. */
{"".join(_norm_declaration(dtype) for dtype in FLOATS)}
{"".join(_declaration(made) for made in functions)}
#ifdef __cplusplus
}}
#endif

#endif
"""


def _norm_declaration(dtype: np.dtype[Any]) -> str:
    return f"int {norm_name(dtype)}(int64_t elements, const {C_TYPES[SUFFIXES[dtype]]} *g, double *norm);\n"


def _declaration(made: Function) -> str:
    element = C_TYPES[SUFFIXES[made.dtype]]
    arrays = ", ".join(f"{'const ' if name == 'g' else ''}{element} *{name}" for name in made.arrays)
    numbers = ", ".join(f"double {name}" for name in ("lr", *made.numbers))
    notes = [f"{name} = {value!r}" for name, value in made.numbers.items() if name not in COMMON]
    notes += [f"{name} starts as {value!r}" for name, value in made.states.items() if value]
    note = f"/* Usual: {', '.join(notes)}. */\n" if notes else ""
    names: dict[str, list[str]] = {}
    for condition in made.conditions:
        names.setdefault(condition.words, []).extend(condition.names)
    ranges = [f"{', '.join(of)}: {words}" for words, of in names.items()]
    note += f"/* Allowed: {'; '.join(ranges)}. */\n"
    seed = ", int64_t seed" if made.is_narrow else ""
    return f"{note}int {made.name}(int64_t elements, {arrays}, int64_t t, {numbers}{seed});\n\n"


def fortran(functions: Iterable[Function]) -> str:
    """The module ``fastopt`` with interfaces for Fortran 2003 and later."""
    status = "\n".join(f"  integer(c_int), parameter :: {name.lower()} = {code} ! {m}" for name, (code, m) in STATUS.items())
    return f"""! Optimizer steps on buffers of the caller's own; see fastopt.h. Made by fastopt.
module fastopt
  use, intrinsic :: iso_c_binding
  implicit none

{status}

  interface
{"".join(_norm_interface(dtype) for dtype in FLOATS)}{"".join(_interface(made) for made in functions)}  end interface
end module fastopt
"""


def _interface(made: Function) -> str:
    seed = ["seed"] if made.is_narrow else []
    names = [*made.arrays, "t", "lr", *made.numbers, *seed]
    kind, number = FORTRAN_KINDS[SUFFIXES[made.dtype]], "integer" if made.is_narrow else "real"
    arrays = "".join(
        f"      {number}({kind}), intent({'in' if name == 'g' else 'inout'}) :: {name}(*)\n" for name in made.arrays
    )
    numbers = "".join(f"      real(c_double), value :: {name}\n" for name in ("lr", *made.numbers))
    listed = ", &\n        ".join(names)
    return f"""    integer(c_int) function {made.name}(elements, &
        {listed}) bind(c)
      import :: c_int, c_int64_t, {", ".join(sorted({kind, "c_double"}))}
      integer(c_int64_t), value :: {", ".join(["elements", "t", *seed])}
{arrays}{numbers}    end function
"""


def _norm_interface(dtype: np.dtype[Any]) -> str:
    kind = FORTRAN_KINDS[SUFFIXES[dtype]]
    return f"""    integer(c_int) function {norm_name(dtype)}(elements, g, norm) bind(c)
      import :: c_int, c_int64_t, {", ".join(sorted({kind, "c_double"}))}
      integer(c_int64_t), value :: elements
      real({kind}), intent(in) :: g(*)
      real(c_double), intent(out) :: norm
    end function
"""


def _c_compiler(cpu: str | None) -> str:
    """The path of the C compiler; raise RuntimeError if there is none, or it doesn't know the processor."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("a C compiler must be installed, as the command cc, to link the library")
    if cpu is not None:
        _require_known(cpu, compiler)
    return compiler


def _link(
    library: Path, wanted: Iterable[tuple[str, np.dtype[Any]]], cpu: str | None, compiler: str, tell: Callable[[str], None]
) -> None:
    sources = {norm_name(dtype): functools.partial(exported_norm, dtype) for dtype in FLOATS}
    sources |= {function(name, dtype).name: functools.partial(exported, name, dtype) for name, dtype in wanted}
    with tempfile.TemporaryDirectory() as temporary:
        objects = []
        for name, source in sources.items():
            tell(name)
            objects.append(Path(temporary) / f"{name}.o")
            objects[-1].write_bytes(_object_code(name, source(), cpu))
        command = [compiler, "-shared", "-o", str(library), *map(str, objects), "-Wl,--no-undefined", "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the C compiler could not link the library: {done.stderr}")


def _require_known(cpu: str, compiler: str) -> None:
    """Raise RuntimeError unless there is such a processor: LLVM, which has the same names, only warns of others."""
    option = "-march" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu"
    asked = subprocess.run([compiler, f"{option}={cpu}", "-E", "-x", "c", os.devnull], capture_output=True, text=True)
    if asked.returncode:
        raise RuntimeError(f"cpu must be a processor that the C compiler knows, got {cpu!r}: {asked.stderr.strip()}")


def _object_code(name: str, source: str, cpu: str | None) -> bytes:
    """Machine code that can lie anywhere, with the one function that is called from outside."""
    module = llvm.parse_assembly(source)
    for each in (*module.functions, *module.global_variables):
        if not each.is_declaration and each.name != name:
            each.linkage = "internal"
    target = llvm.Target.from_default_triple()
    is_own = cpu in (None, "native")  # which is the C compiler's name for it
    name_of_cpu, features = (llvm.get_host_cpu_name(), get_host_cpu_features()) if is_own else (cpu, "")
    machine = target.create_target_machine(cpu=name_of_cpu, features=features, opt=3, reloc="pic", codemodel="default")
    if hasattr(llvm, "create_module_pass_manager"):  # until llvmlite 0.44
        passes = llvm.create_module_pass_manager()
        passes.add_global_dce_pass()
        passes.add_strip_dead_prototypes_pass()
        passes.run(module)
    else:
        passes = llvm.create_new_module_pass_manager()
        passes.add_global_dead_code_eliminate_pass()
        passes.add_strip_dead_prototype_pass()
        passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return bytes(machine.emit_object(module))
