"""The C library as files: what programs in C and Fortran do with it, and the command that writes it."""

import ctypes
import os
import shutil
import subprocess
import sys

import numba
import numpy as np
import pytest

import fastopt.capi
from fastopt.__main__ import main
from fastopt.capi import COMMON, FUNCTIONS, dtypes_of
from fastopt.capi import library as clibrary
from tests import fresh
from tests.table import assert_same_bits

USED = ["adam", "adamw", "sgd"]  # by the programs below


@pytest.fixture(params=[USED, pytest.param([*FUNCTIONS], marks=pytest.mark.thorough)], ids=["some", "all"])
def library(request, tmp_path):
    folder = tmp_path / "library"
    asked = ["--optimizer", *USED] if request.param == USED else []
    command = [sys.executable, "-m", "fastopt", "c-api", "--out", folder, *asked]
    written = subprocess.run(command, env=fresh.environment(), check=True, capture_output=True, text=True)
    assert written.stdout.split() == [str(folder / name) for name in ("fastopt.h", "fastopt.f90", "libfastopt.so")]
    # The functions, while they are compiled.
    assert len(written.stderr.split()) == 2 + sum(len(dtypes_of(name)) for name in request.param)
    return folder


C_PROGRAM = """
#include <math.h>
#include <stdio.h>
#include "fastopt.h"

int main(void) {
  double theta[5], g[5], m[5] = {0}, v[5] = {0}, norm;
  float w[5], h[5];
  uint16_t low[5] = {0}, one[5] = {0x3f80, 0x3f80, 0x3f80, 0x3f80, 0x3f80}, p[5] = {0}, q[5] = {0};
  for (int i = 0; i < 5; ++i) theta[i] = 0.25 * i - 0.5, w[i] = (float)theta[i];
  for (int64_t t = 1; t <= 20; ++t) {
    for (int i = 0; i < 5; ++i) g[i] = theta[i] * theta[i] - 0.1 * t, h[i] = w[i] - 1.0f;
    if (fastopt_adam_f64(5, theta, g, m, v, t, 0.05, 0.9, 0.999, 1e-8, 0.0, 1.0, -INFINITY, INFINITY)) return 1;
    if (fastopt_norm_f32(5, h, &norm) != FASTOPT_OK) return 1;
    if (fastopt_sgd_f32(5, w, h, t, 0.1, norm > 1.0 ? 1.0 / norm : 1.0, -INFINITY, INFINITY) != FASTOPT_OK) return 1;
    if (fastopt_adamw_bf16(5, low, one, p, q, t, 1e-3, 0.9, 0.999, 1e-8, 1e-2, 0.0, 1.0, -INFINITY, INFINITY, 7)) return 1;
  }
  if (fastopt_sgd_f32(5, w, NULL, 1, 0.1, 1.0, -INFINITY, INFINITY) != FASTOPT_NULL) return 1;
  for (int i = 0; i < 5; ++i) printf("%a %a %x\\n", theta[i], w[i], low[i]);
  return 0;
}
"""

FORTRAN_PROGRAM = """
program steps
  use, intrinsic :: iso_c_binding
  use fastopt
  implicit none
  real(c_double) :: theta(5), g(5), m(5), v(5), norm
  real(c_float) :: w(5), h(5)
  integer(c_int64_t) :: t
  integer :: i
  m = 0
  v = 0
  theta = [(0.25d0 * (i - 1) - 0.5d0, i = 1, 5)]
  w = real(theta, c_float)
  do t = 1, 20
    g = theta * theta - 0.1d0 * t
    h = w - 1.0
    if (fastopt_adam_f64(5_c_int64_t, theta, g, m, v, t, 0.05d0, 0.9d0, 0.999d0, 1d-8, 0d0, &
      1d0, -huge(1d0), huge(1d0)) /= fastopt_ok) stop 1
    if (fastopt_norm_f32(5_c_int64_t, h, norm) /= fastopt_ok) stop 1
    if (fastopt_sgd_f32(5_c_int64_t, w, h, t, 0.1d0, 1 / max(1d0, norm), -1d9, 1d9) /= fastopt_ok) stop 1
  end do
  if (fastopt_sgd_f32(-1_c_int64_t, w, h, t, 0.1d0, 1d0, -1d9, 1d9) /= fastopt_bad_size) stop 1
  do i = 1, 5
    print '(z16.16, 1x, z8.8)', transfer(theta(i), 1_c_int64_t), transfer(w(i), 1_c_int32_t)
  end do
end program
"""


def in_python():
    theta = 0.25 * np.arange(5) - 0.5
    w = theta.astype(np.float32)
    adam, sgd = fastopt.Adam(theta, lr=0.05), fastopt.SGD(w, lr=0.1, clip_norm=1.0)
    for t in range(1, 21):
        adam.step(theta * theta - 0.1 * t)
        sgd.step(w - np.float32(1.0))
    return theta, w


def require(compiler):
    """Leave a test out where there is no such compiler; in CI they are all installed."""
    if not shutil.which(compiler):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{compiler} must be installed for this test")


def output(command, folder):
    require(command[0])
    subprocess.run([*command, "-o", "program", "-L.", "-lfastopt", "-Wl,-rpath,."], cwd=folder, check=True)
    return subprocess.run(["./program"], cwd=folder, check=True, capture_output=True, text=True).stdout.split()


def check_c(library):
    (library / "program.c").write_text(C_PROGRAM)
    words = output(["cc", "-std=c99", "-Wall", "-Werror", "-ffp-contract=off", "program.c"], library)
    theta, w = in_python()
    assert_same_bits(np.array([float.fromhex(word) for word in words[::3]]), theta)
    assert_same_bits(np.array([float.fromhex(word) for word in words[1::3]], np.float32), w)
    low = np.zeros(5, np.uint16)
    opt = fastopt.AdamW(low, state_dtype="bfloat16", rounding="stochastic", seed=7)
    for _ in range(20):
        opt.step(np.ones(5, np.float32))
    np.testing.assert_array_equal([int(word, 16) for word in words[2::3]], low)


def check_fortran(library):
    (library / "program.f90").write_text(FORTRAN_PROGRAM)
    words = output(["gfortran", "-Wall", "-ffp-contract=off", "fastopt.f90", "program.f90"], library)
    theta, w = in_python()
    assert_same_bits(np.array([int(word, 16) for word in words[::2]], np.uint64).view(np.float64), theta)
    assert_same_bits(np.array([int(word, 16) for word in words[1::2]], np.uint32).view(np.float32), w)


def check_alone(library):
    loaded = ctypes.CDLL(str(library / "libfastopt.so"))
    theta, g = np.zeros(3, np.float32), np.ones(3, np.float32)
    arguments = [
        ctypes.c_int64(3),
        *(ctypes.c_void_p(a.ctypes.data) for a in (theta, g)),
        ctypes.c_int64(1),
        *map(ctypes.c_double, (0.5, *COMMON.values())),
    ]
    assert loaded.fastopt_sgd_f32(*arguments) == 0
    np.testing.assert_array_equal(theta, -0.5)
    needed = subprocess.run(["ldd", library / "libfastopt.so"], check=True, capture_output=True, text=True).stdout
    assert "python" not in needed


def test_c_and_fortran_programs_take_the_same_steps_without_python(library):
    check_c(library)
    check_fortran(library)
    check_alone(library)


def test_a_library_can_be_made_for_another_processor(tmp_path, capsys):
    assert main(["c-api", "--out", str(tmp_path), "--cpu", "native", "--optimizer", "sgd"]) == 0
    assert "fastopt_sgd_f32" in capsys.readouterr().err
    loaded = ctypes.CDLL(str(tmp_path / "libfastopt.so"))
    w, g = np.zeros(3), np.ones(3)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (w, g)]
    numbers = map(ctypes.c_double, (0.5, *COMMON.values()))
    assert loaded.fastopt_sgd_f64(ctypes.c_int64(3), *pointers, ctypes.c_int64(1), *numbers) == 0
    assert w.tolist() == [-0.5] * 3
    with pytest.raises(SystemExit):
        main(["c-api", "--out", str(tmp_path), "--cpu", "nosuch"])
    assert "cpu must be a processor that the C compiler knows, got 'nosuch'" in capsys.readouterr().err


def test_a_library_of_what_is_not_there_is_refused_before_anything_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["c-api", "--out", str(tmp_path / "new"), "--optimizer", "sgd", "nosuch"])
    assert "name must be one of adabelief" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_without_a_compiler_the_command_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="a C compiler must be installed"):
        clibrary.write(tmp_path)
    with pytest.raises(SystemExit):
        main(["c-api", "--out", str(tmp_path / "new")])
    assert "a C compiler must be installed" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["c-api", "--out", str(tmp_path / "file")])
    assert "File exists" in capsys.readouterr().err


def test_without_numba_s_compiler_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(SystemExit):
        main(["c-api", "--out", str(tmp_path / "new")])
    assert "NUMBA_DISABLE_JIT switches its compiler off" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_compilers_take_the_declarations_of_all_functions(tmp_path, monkeypatch):
    linked = []
    monkeypatch.setattr(clibrary, "_link", lambda path, wanted, *options: linked.extend(wanted))
    clibrary.write(tmp_path)
    assert linked == [(name, dtype) for name in FUNCTIONS for dtype in dtypes_of(name)]
    (tmp_path / "program.c").write_text('#include "fastopt.h"\n')
    for compiler, name in (("cc", "program.c"), ("c++", "program.c"), ("gfortran", "fastopt.f90")):
        require(compiler)
        subprocess.run([compiler, "-Wall", "-Werror", "-fsyntax-only", name], cwd=tmp_path, check=True)
