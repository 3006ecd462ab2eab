"""Run a script in a fresh Python process, with its own kernel cache if asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastopt.engine import cache
from fastopt.engine.steps import step_dispatcher

ROOT = Path(__file__).parents[1]

# What every script starts with: optimizers to step, and a look at the kernels that they used.
PRELUDE = """
import json, os, sys, threading, warnings
import numpy as np
import fastopt
from fastopt.engine import compile as engine_compile, runtime
from fastopt.engine.launch import Launcher
from fastopt.engine.steps import step_dispatcher

def run(dtype="float32", size=1000, steps=3, cls=fastopt.Adam, gradient_dtype=None):
    w = np.linspace(-1.0, 1.0, size).astype(dtype)
    g = np.linspace(2.0, -1.0, size).astype(gradient_dtype or dtype)
    opt = cls(w, lr=0.01)
    for _ in range(steps):
        opt.step(g)
    return opt, w

def bits(w):
    return w.tobytes().hex() if w.size <= 1000 else __import__("hashlib").sha256(w.tobytes()).hexdigest()

def used(opt):
    plan = opt._stepping.settled(opt)
    return [engine_compile.compiled_span(v) for work in plan.works for v in plan.variants(work.update)]

def is_parallel(opt):
    return isinstance(opt._stepping.settled(opt).launch.run, Launcher)

def report(**values):
    print(json.dumps(values))
"""


def environment(**changes: str | None) -> dict[str, str]:
    env = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error")
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def with_engine(folder: Path) -> str:
    """Give a cache folder the functions that all steps call, which take seconds to compile: all else is compiled anew there."""
    own = folder / cache.folder().name
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    for is_parallel in (False, True):
        name = step_dispatcher(is_parallel).py_func.__name__
        for path in cache.folder().glob(f"steps.{name}-*"):  # not those of other libraries' versions, which share the folder
            shutil.copy(path, own)
    return str(folder)


def start(script: str, cwd: Path, **env: str | None) -> subprocess.Popen[str]:
    code = [sys.executable, "-c", PRELUDE + script]
    return subprocess.Popen(code, cwd=cwd, env=environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        out, err = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, f"exit status {process.returncode}\n{err}"
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def run(script: str, cwd: Path, **env: str | None) -> dict[str, Any]:
    """The JSON object that the script reports; a failure, a warning or a hang fails the test."""
    return finish(start(script, cwd, **env))
