"""The pictures of these pages, drawn with fastopt while the pages are built."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import fastopt

Vector = NDArray[np.float64]
Make = Callable[[Vector], fastopt.Optimizer]
Problem = tuple[str, Callable[[Any, Any], Any], Callable[[Any, Any], Vector], tuple[float, float], tuple[float, float], Any]

STEPS = 2000
# Okabe and Ito's colours, which colour-blind readers can tell apart; each colour comes with a line style of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73")
STYLES = ("-", "--", ":")
STYLE = {"figure.dpi": 150, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


def rosenbrock(x: Any, y: Any) -> Any:
    """A curved valley; the minimum lies at (1, 1)."""
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def rosenbrock_gradient(x: Any, y: Any) -> Vector:
    return np.array([2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)])


def beale(x: Any, y: Any) -> Any:
    """Flat near its minimum at (3, 0.5), steep at the edges."""
    return sum((c - x + x * y**k) ** 2 for k, c in enumerate((1.5, 2.25, 2.625), 1))


def beale_gradient(x: Any, y: Any) -> Vector:
    residuals = [(k, c - x + x * y**k) for k, c in enumerate((1.5, 2.25, 2.625), 1)]
    return np.array([sum(2 * r * (y**k - 1) for k, r in residuals), sum(2 * r * k * x * y ** (k - 1) for k, r in residuals)])


# Title, function, gradient, start, minimum, and the window (left, right, bottom, top).
ROSENBROCK: Problem = ("Rosenbrock", rosenbrock, rosenbrock_gradient, (-1.2, 1.0), (1.0, 1.0), (-1.7, 1.7, -0.6, 1.9))
BEALE: Problem = ("Beale", beale, beale_gradient, (1.0, 1.5), (3.0, 0.5), (0.2, 4.2, -0.5, 1.8))


def walk(problem: Problem, make: Make) -> Vector:
    """The points of an optimizer's path, up to the first one outside of the window."""
    _, _, gradient, start, _, (left, right, bottom, top) = problem
    theta = np.array(start)
    optimizer = make(theta)
    points = [theta.copy()]
    while len(points) <= STEPS and left < theta[0] < right and bottom < theta[1] < top:
        optimizer.step(gradient(*theta))
        points.append(theta.copy())
    return np.array(points)


def draw_paths(axes: Axes, problem: Problem, runs: dict[str, Make]) -> None:
    title, function, _, start, minimum, (left, right, bottom, top) = problem
    x, y = np.meshgrid(np.linspace(left, right, 300), np.linspace(bottom, top, 300))
    axes.contour(x, y, np.log10(function(x, y) + 1e-3), levels=14, colors="0.8", linewidths=0.6, linestyles="solid")
    for (label, make), colour, style in zip(runs.items(), COLOURS, STYLES, strict=False):
        points = walk(problem, make)
        end = f"f = {function(*points[-1]):.0e}" if len(points) > STEPS else f"leaves after {len(points) - 1} steps"
        axes.plot(*points.T, style, color=colour, linewidth=1.5, label=f"{label}: {end}")
        axes.plot(*points[-1], "o" if len(points) > STEPS else "x", color=colour, markersize=5, clip_on=True)
    axes.plot(*start, "o", color="black", markersize=5)
    axes.annotate("start", start, xytext=(-7, 0), textcoords="offset points", ha="right", va="center")
    axes.plot(*minimum, "*", color="black", markersize=11, zorder=3)
    axes.set(title=title, xlim=(left, right), ylim=(bottom, top), xlabel=r"$\theta_1$", ylabel=r"$\theta_2$")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), handlelength=2.5)


def paths(on_rosenbrock: dict[str, Make], on_beale: dict[str, Make]) -> Figure:
    """Two panels: the paths over both test functions, which ask for different rates."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots(1, 2)
    draw_paths(axes[0], ROSENBROCK, on_rosenbrock)
    draw_paths(axes[1], BEALE, on_beale)
    return figure


def label(arguments: dict[str, Any]) -> str:
    """What an optimizer is made with, in words: ``lr 0.1, nesterov``."""
    words = (
        value if isinstance(value, str) else key if value is True else f"{key} {value:g}" for key, value in arguments.items()
    )
    return ", ".join(words).replace("_", " ")


def runs(optimizer: Callable[..., fastopt.Optimizer], *choices: dict[str, Any]) -> dict[str, Make]:
    """An optimizer with some arguments, and with others."""
    return {label(arguments): functools.partial(optimizer, **arguments) for arguments in choices}


HEAVY = {"lr": 5e-4, "momentum": 0.9}
SQUARES, RATES = {"accumulate": "squares"}, {"accumulate": "rates"}
RMSPROP = [SQUARES | {"lr": 5e-3, "rho": 0.9}, RATES | {"lr": 2e-3, "rho": 0.9, "eps": 1e-6}]
RADAM_RISES = "lr 0.001 for 5 steps, then 0.1"

# By the page: what is drawn over Rosenbrock's function and over Beale's, which may ask for other rates.
PATHS: dict[str, tuple[dict[str, Make], ...]] = {
    "adabelief": (runs(fastopt.AdaBelief, {"lr": 0.1}, {"lr": 0.01}) | {"Adam, lr 0.01": lambda p: fastopt.Adam(p, lr=0.01)},),
    "adadelta": (runs(fastopt.AdaDelta, {"eps": 1e-6}, {"eps": 1e-8}),),
    "adagrad": (runs(fastopt.AdaGrad, SQUARES | {"lr": 0.3}, *(RATES | {"lr": lr, "eps": 1e-6} for lr in (1e-6, 1e-5))),),
    "adam": (runs(fastopt.Adam, {"lr": 0.1}, {"lr": 0.01}),),
    "adamax": (runs(fastopt.AdaMax, {"lr": 0.1}, {"lr": 0.01}),),
    "adamw": (runs(fastopt.AdamW, *({"lr": 0.1, "weight_decay": decay} for decay in (0.0, 0.01, 0.1))),),
    "adan": (runs(fastopt.Adan, {"lr": 0.03}, {"lr": 0.003}),),
    "ademamix": (runs(fastopt.AdEMAMix, {"lr": 0.1}, {"lr": 0.01}),),
    "adopt": (runs(fastopt.ADOPT, {"lr": 0.3}, {"lr": 0.1}),),
    "asgd": (runs(fastopt.ASGD, {"lr": 3e-3}, {"lr": 1e-3}),),
    "dog": (runs(fastopt.DoG, {"lr": 1.0}, {"lr": 3.0}),),
    "dowg": (runs(fastopt.DoWG, {"lr": 1.0}, {"lr": 0.3}),),
    "ftrl": (runs(fastopt.FTRL, {"lr": 0.3}, {"lr": 0.1}),),
    "lamb": (runs(fastopt.LAMB, *({"lr": lr, "weight_decay": 0.0} for lr in (0.03, 0.003))),),
    "lars": (runs(fastopt.LARS, {"lr": 0.3}, {"lr": 0.1}),),
    "lion": (runs(fastopt.Lion, {"lr": 0.015}, {"lr": 0.003}),),
    "madgrad": (runs(fastopt.MADGRAD, {"lr": 0.03}, {"lr": 0.003}),),
    "nadam": (runs(fastopt.NAdam, {"lr": 0.03}) | {"Adam, lr 0.03": lambda p: fastopt.Adam(p, lr=0.03)},),
    "nadamw": (runs(fastopt.NAdamW, *({"lr": 0.03, "weight_decay": decay} for decay in (0.0, 0.01, 0.1))),),
    "noisysgd": (runs(fastopt.NoisySGD, {"lr": 1e-3, "eta": 0.01}, {"lr": 1e-3, "eta": 1e4}),),
    "novograd": (runs(fastopt.NovoGrad, {"lr": 0.01}, {"lr": 3e-4}),),
    "optimisticadam": (runs(fastopt.OptimisticAdam, {"lr": 0.03}) | {"Adam, lr 0.03": lambda p: fastopt.Adam(p, lr=0.03)},),
    "prodigy": (runs(fastopt.Prodigy, {"lr": 1.0}, {"lr": 0.1}),),
    "radam": (
        runs(fastopt.RAdam, {"lr": 1e-3}) | {RADAM_RISES: lambda p: fastopt.RAdam(p, lr=lambda t: 1e-3 if t < 5 else 0.1)},
    ),
    "rmsprop": tuple(
        runs(fastopt.RMSProp, RMSPROP[0], RATES | {"lr": 2e-3, "rho": 0.9, "eps": eps}, RMSPROP[1]) for eps in (1.0, 0.01)
    ),
    "rprop": (runs(fastopt.Rprop, {"lr": 0.01}, {"lr": 3e-4}),),
    "schedulefreeadamw": (runs(fastopt.ScheduleFreeAdamW, {"lr": 0.3}, {"lr": 0.1}),),
    "schedulefreesgd": (runs(fastopt.ScheduleFreeSGD, {"lr": 3e-3}, {"lr": 1e-3}),),
    "sgd": tuple(runs(fastopt.SGD, {"lr": lr}, HEAVY, HEAVY | {"nesterov": True}) for lr in (2e-3, 1e-2)),
    "signum": (runs(fastopt.Signum, {"lr": 0.015}, {"lr": 3e-3}, {"lr": 3e-3, "momentum": 0}),),
    "yogi": (runs(fastopt.Yogi, {"lr": 0.1}, {"lr": 0.01}),),
}


def loss_on_quadratic() -> Figure:
    """Loss on half of the sum of h theta^2, with curvatures h from 0.1 to 10 and noise on the gradient."""
    curvature = np.geomspace(0.1, 10, 20)
    noise = 0.3 * np.random.default_rng(0).standard_normal((1000, 20))
    runs: dict[str, list[tuple[str, Callable[[Vector], fastopt.Optimizer]]]] = {
        "AdaGrad": [
            ("squares, lr 0.1", lambda p: fastopt.AdaGrad(p, lr=0.1)),
            ("rates, lr 1e-4, eps 0.01", lambda p: fastopt.AdaGrad(p, lr=1e-4, eps=1e-2, accumulate="rates")),
            ("rates, lr 1e-4, eps 1e-6", lambda p: fastopt.AdaGrad(p, lr=1e-4, eps=1e-6, accumulate="rates")),
        ],
        "RMSProp": [
            ("squares, lr 0.003", lambda p: fastopt.RMSProp(p, lr=3e-3, rho=0.9)),
            ("rates, lr 0.003, eps 0.02", lambda p: fastopt.RMSProp(p, lr=3e-3, rho=0.9, eps=2e-2, accumulate="rates")),
            ("rates, lr 0.003, eps 1e-6", lambda p: fastopt.RMSProp(p, lr=3e-3, rho=0.9, eps=1e-6, accumulate="rates")),
        ],
    }
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, 2, sharey=True), runs.items(), strict=True):
        for (label, make), colour, style in zip(lines, COLOURS, STYLES, strict=True):
            theta = np.ones(20)
            optimizer = make(theta)
            losses = []
            for disturbance in noise:
                losses.append(0.5 * (curvature * theta**2).sum())
                if losses[-1] > 1e6:
                    break
                optimizer.step(curvature * theta + disturbance)
            axes.semilogy(losses, style, color=colour, linewidth=1.3, label=label)
        axes.set(title=title, xlabel="step", xlim=(0, 1000), ylim=(1e-3, 1e4))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), handlelength=2.5)
    figure.axes[0].set_ylabel("loss")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {name: functools.partial(paths, each[0], each[-1]) for name, each in PATHS.items()}
FIGURES["loss_on_quadratic"] = loss_on_quadratic


def draw_all(folder: Path) -> None:
    """Write every picture to ``folder/<name>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in FIGURES.items():
            draw().savefig(folder / f"{name}.png")
