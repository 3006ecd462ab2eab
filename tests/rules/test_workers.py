"""Rules of one's own in other processes, which can't import them: sent by cloudpickle, alone and with what uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests import fresh

# What somebody's script has: it is ``__main__``, which no other process can import.
SCRIPT = """
import sys
import numba, numpy as np, fastopt

@fastopt.rule
def product(a, b):
    return a * b

@fastopt.rule(state="m", hyper="lr beta=0.5")
def signum(theta, g, lr, m, beta, one_minus_beta):
    m = product(beta, m) + one_minus_beta * g
    return theta - lr * np.sign(m), m

@fastopt.rule
def heavy_ball(theta, g, lr, p, beta):
    p = beta * p + g
    return theta - lr * p, p

class HeavyBall(fastopt.Optimizer):
    rule, state_names = heavy_ball, ("p",)
    lr: float = fastopt.hyper(1e-3)
    momentum: float = fastopt.hyper(0.5)

    def coefficients(self, hyper, t):
        return (hyper["momentum"],)

def enclosed(factor):
    @fastopt.rule(hyper="lr")
    def descend(theta, g, lr):
        return theta - factor * lr * g
    return descend

@numba.njit
def summed(x, g):
    for i in range(x.size):
        x[i] = heavy_ball(x[i], g[i], 0.5, 0.0, 0.0)[0]
    return x.sum()

adam = fastopt.embed(fastopt.Adam, lr=0.1, weight_decay=0.1)
rule, values, step = adam.rule, adam.values, adam.step

@numba.njit
def fit(theta, m, v, table):
    for row in table:
        numbers = values(row)
        for i in range(theta.size):
            theta[i], m[i], v[i] = rule(theta[i], theta[i], numbers[0], m[i], v[i], *numbers[1:])
        step(theta, theta.copy(), (m, v), row, 0, theta.size)
    return theta.sum()

def work(optimizers):
    found = []
    for optimizer in optimizers:
        params = optimizer.params
        optimizer.step(np.array([1.0, -2.0, 0.5]))
        found.append([params.tolist(), optimizer.step_count])
    theta = np.ones(3)
    return [found, summed(np.ones(3), np.ones(3)), fit(theta, *adam.states(theta), adam.table(3))]

def made():
    optimizers = [cls(np.ones(3), lr=0.1) for cls in (signum, HeavyBall, enclosed(np.float64(2)))]
    for optimizer in optimizers:
        optimizer.step(np.ones(3))
    return optimizers
"""

SEND = """
import cloudpickle
from joblib import Parallel, delayed
with open("blob", "wb") as file:
    cloudpickle.dump((work, made()), file)
(result,) = Parallel(n_jobs=2)([delayed(work)(made())])
print(json.dumps([result, work(made())]))
"""

# Not a fresh.run, whose prelude would import what a worker must find by itself.
RECEIVE = """
import json, pickle
results = []
for _ in range(2):
    with open("blob", "rb") as file:
        work, optimizers = pickle.load(file)
    results.append(work(optimizers))
from fastopt.engine import compile
print(json.dumps([results, len(compile._spans)]))
"""


def run(folder: Path, *script: str) -> list:
    (folder / "script.py").write_text("import json\n" + "".join(script))
    env = {**fresh.environment(), "PYTHONWARNINGS": "default"}  # other libraries' warnings are theirs
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=env, check=False, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_workers_of_joblib_and_a_fresh_process_go_on_with_rules_they_can_not_import(tmp_path: Path) -> None:
    result, expected = run(tmp_path, SCRIPT, SEND)
    assert [steps for _, steps in expected[0]] == [2, 2, 2]
    assert result == expected
    results, spans = run(tmp_path, RECEIVE)
    assert results == [expected, expected]
    assert spans == 3  # what is sent again is not compiled again
