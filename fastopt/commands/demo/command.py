"""The command ``demo``: train, print the table, draw the picture."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import fastopt
from fastopt.commands.demo.systems import SYSTEMS
from fastopt.commands.demo.training import Problem, Run, train

EXTRAS = ("matplotlib", "sklearn", "threadpoolctl", "tqdm")


def run(problem: str, names: Sequence[str] | None, epochs: int | None, seed: int, path: Path, state: str | None = None) -> None:
    """Run the demo.

    Parameters
    ----------
    problem : {"digits", "inversion"}
        What to learn.
    names : sequence of str, optional
        Keys in `SYSTEMS`.
    epochs : int, optional
        How often to go through the data.
    seed : int
        For everything random.
    path : Path
        Where to draw.
    state : str, optional
        The format of the states.

    Raises
    ------
    SystemExit
        If a package is missing.
    """
    require_extras()
    from threadpoolctl import threadpool_limits

    from fastopt.commands.demo import picture
    from fastopt.commands.demo.digits import Digits
    from fastopt.commands.demo.inversion import Inversion

    if problem == "digits":
        digits = Digits(seed)
        # Matrices this small gain nothing from more threads of BLAS, which would keep waiting in a loop on the step's CPUs.
        with threadpool_limits(1, user_api="blas"):
            runs = train_all(digits, names or list(SYSTEMS), epochs or digits.epochs, state)
        print(table(runs, "test accuracy", "{:.1%}"))
        picture.draw_digits(runs, path)
    else:
        inversion = Inversion(seed)
        runs = train_all(inversion, names or ["adam"], epochs or inversion.epochs, state)
        print(table(runs, "field error", "{:.3f}"))
        picture.draw_inversion(inversion, runs, path)
    print(f"\nThe picture is {path}")


def require_extras() -> None:
    """Leave with a message, and the exit code 1, if a package is missing that only the demo needs."""
    for module in EXTRAS:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise SystemExit(f'The demo needs {error.name}: pip install "fastopt[demo]"') from None


def train_all(problem: Problem, names: Sequence[str], epochs: int, state: str | None = None) -> list[Run]:
    """Learn a problem with each of some optimizers, under one progress bar."""
    from tqdm import tqdm

    runs = []
    names = list(dict.fromkeys(names))
    with tqdm(total=len(names) * epochs, unit="epoch", leave=False) as bar:
        for name in names:
            bar.set_description(SYSTEMS[name].title)

            def report(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                bar.update()

            runs.append(train(problem, name, epochs, report, state))
    return runs


def table(runs: Sequence[Run], score: str, score_format: str) -> str:
    """What came of the runs, side by side."""
    width = max(len(run.system.title) for run in runs)
    lines = [
        conditions(runs),
        "Step: median time in the optimizer, for the same gradients; fastopt and in-place NumPy take turns.",
        "",
        f"{'optimizer':{width}}  final loss  {score:>13}  fastopt step  NumPy step  NumPy / fastopt",
    ]
    for run in runs:
        lines.append(
            f"{run.system.title:{width}}  {run.losses[-1]:10.4g}  {score_format.format(run.score):>13}"
            f"  {run.fused * 1e6:9,.1f} us  {run.plain * 1e6:7,.0f} us  {run.speedup:14.1f}x"
        )
    return "\n".join(lines)


def conditions(runs: Sequence[Run]) -> str:
    """How many parameters, steps and threads."""
    buffer, threads = runs[0].params.buffer, fastopt.get_num_threads()
    return f"{buffer.size:,} {buffer.dtype} parameters, {runs[0].steps:,} steps with each optimizer, up to {threads} threads"
