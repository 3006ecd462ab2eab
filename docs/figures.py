"""The pictures of these pages, drawn with fastopt while the pages are built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import fastopt
from fastopt.engine.formats import decoded

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


def sgd() -> Figure:
    return paths(
        {
            "lr 0.002": lambda p: fastopt.SGD(p, lr=2e-3),
            "lr 0.0005, momentum 0.9": lambda p: fastopt.SGD(p, lr=5e-4, momentum=0.9),
            "lr 0.0005, momentum 0.9, nesterov": lambda p: fastopt.SGD(p, lr=5e-4, momentum=0.9, nesterov=True),
        },
        {
            "lr 0.01": lambda p: fastopt.SGD(p, lr=1e-2),
            "lr 0.0005, momentum 0.9": lambda p: fastopt.SGD(p, lr=5e-4, momentum=0.9),
            "lr 0.0005, momentum 0.9, nesterov": lambda p: fastopt.SGD(p, lr=5e-4, momentum=0.9, nesterov=True),
        },
    )


def adagrad() -> Figure:
    runs: dict[str, Make] = {
        "squares, lr 0.3": lambda p: fastopt.AdaGrad(p, lr=0.3),
        "rates, lr 1e-6, eps 1e-6": lambda p: fastopt.AdaGrad(p, lr=1e-6, eps=1e-6, accumulate="rates"),
        "rates, lr 1e-5, eps 1e-6": lambda p: fastopt.AdaGrad(p, lr=1e-5, eps=1e-6, accumulate="rates"),
    }
    return paths(runs, runs)


def rmsprop() -> Figure:
    def runs(eps: float) -> dict[str, Make]:
        return {
            "squares, lr 0.005": lambda p: fastopt.RMSProp(p, lr=5e-3, rho=0.9),
            f"rates, lr 0.002, eps {eps:g}": lambda p: fastopt.RMSProp(p, lr=2e-3, rho=0.9, eps=eps, accumulate="rates"),
            "rates, lr 0.002, eps 1e-6": lambda p: fastopt.RMSProp(p, lr=2e-3, rho=0.9, eps=1e-6, accumulate="rates"),
        }

    return paths(runs(eps=1.0), runs(eps=0.01))


def adam() -> Figure:
    runs: dict[str, Make] = {
        "lr 0.1": lambda p: fastopt.Adam(p, lr=0.1),
        "lr 0.01": lambda p: fastopt.Adam(p, lr=0.01),
    }
    return paths(runs, runs)


def adamw() -> Figure:
    runs: dict[str, Make] = {
        "lr 0.1, weight decay 0": lambda p: fastopt.AdamW(p, lr=0.1, weight_decay=0.0),
        "lr 0.1, weight decay 0.01": lambda p: fastopt.AdamW(p, lr=0.1),
        "lr 0.1, weight decay 0.1": lambda p: fastopt.AdamW(p, lr=0.1, weight_decay=0.1),
    }
    return paths(runs, runs)


def adabelief() -> Figure:
    runs: dict[str, Make] = {
        "AdaBelief, lr 0.1": lambda p: fastopt.AdaBelief(p, lr=0.1),
        "AdaBelief, lr 0.01": lambda p: fastopt.AdaBelief(p, lr=0.01),
        "Adam, lr 0.01": lambda p: fastopt.Adam(p, lr=0.01),
    }
    return paths(runs, runs)


def adamax() -> Figure:
    runs: dict[str, Make] = {
        "lr 0.1": lambda p: fastopt.AdaMax(p, lr=0.1),
        "lr 0.01": lambda p: fastopt.AdaMax(p, lr=0.01),
    }
    return paths(runs, runs)


def lion() -> Figure:
    runs: dict[str, Make] = {
        "lr 0.015": lambda p: fastopt.Lion(p, lr=0.015),
        "lr 0.003": lambda p: fastopt.Lion(p, lr=0.003),
    }
    return paths(runs, runs)


def adadelta() -> Figure:
    runs: dict[str, Make] = {
        "eps 1e-6": lambda p: fastopt.AdaDelta(p),
        "eps 1e-8": lambda p: fastopt.AdaDelta(p, eps=1e-8),
    }
    return paths(runs, runs)


def radam() -> Figure:
    runs: dict[str, Make] = {
        "lr 0.001": lambda p: fastopt.RAdam(p, lr=0.001),
        "lr 0.001 for 5 steps, then 0.1": lambda p: fastopt.RAdam(p, lr=lambda done: 0.001 if done < 5 else 0.1),
    }
    return paths(runs, runs)


def signum() -> Figure:
    runs: dict[str, Make] = {
        "lr 0.015": lambda p: fastopt.Signum(p, lr=0.015),
        "lr 0.003": lambda p: fastopt.Signum(p, lr=0.003),
        "lr 0.003, momentum 0": lambda p: fastopt.Signum(p, lr=0.003, momentum=0),
    }
    return paths(runs, runs)


def rates_over_time() -> Figure:
    """The rate of one element whose gradient is standard normal, and exactly zero once."""
    lr, eps, steps, zero_at = 0.01, 1e-6, 1000, 500
    gradients = np.random.default_rng(0).standard_normal((steps, 1))
    gradients[zero_at] = 0
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, cls in zip(figure.subplots(1, 2, sharey=True), (fastopt.AdaGrad, fastopt.RMSProp), strict=True):
        for form, colour, style in zip(("squares", "rates"), COLOURS, STYLES, strict=False):
            optimizer = cls(np.zeros(1), lr=lr, eps=eps, accumulate=form, **({"rho": 0.9} if cls is fastopt.RMSProp else {}))
            rates = []
            for g in gradients:
                optimizer.step(g)
                (accumulated,) = optimizer.state.values()
                rates.append(accumulated[0] if form == "rates" else lr / (eps + np.sqrt(accumulated[0])))
            axes.semilogy(np.arange(1, steps + 1), rates, style, color=colour, linewidth=1.3, label=f'accumulate="{form}"')
        axes.annotate("g = 0", (zero_at, 30), xytext=(zero_at - 60, 30), ha="right", arrowprops={"arrowstyle": "->"})
        axes.set(title=cls.__name__, xlabel="step", ylim=(1e-4, 1e5))
    figure.axes[0].set_ylabel(r"rate $\alpha_i$ of the element")
    figure.axes[1].legend(loc="upper left")
    return figure


def second_moment_in_16_bits() -> Figure:
    """Adam's second moment in bfloat16, and its exact value: of a gradient that is 1, and of one that fades."""
    steps, low = 4000, {"state_dtype": {"v": "bfloat16"}}
    forms: dict[str, dict[str, Any]] = {"exact": {}, "nearest": low, "stochastic": low | {"rounding": "stochastic"}}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    later = {"a gradient of 1": 1.0, "a gradient of 1 that becomes 0.1": 0.1}
    for axes, (title, last) in zip(figure.subplots(1, 2), later.items(), strict=True):
        for (form, options), colour, style in zip(forms.items(), COLOURS, STYLES, strict=True):
            optimizer = fastopt.Adam(np.zeros(1, np.float32), lr=0.0, **options)
            moments = []
            for t in range(steps):
                optimizer.step(np.full(1, 1.0 if t < 1500 else last, np.float32))
                moments.append(float(decoded(optimizer.state["v"])[0]))
            axes.plot(np.arange(1, steps + 1), moments, style, color=colour, linewidth=1.3, label=form)
        axes.set(title=title, xlabel="step", ylim=(0.0, 1.05))
    figure.axes[0].set_ylabel("second moment $v$ of one element")
    figure.axes[0].legend(loc="center right")
    return figure


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


def completed(table: Vector, known: NDArray[np.bool_], width: int = 16, l2: float = 0.02, epochs: int = 40) -> Vector:
    """A table of which only some numbers are known, completed by products of vectors for its rows and its columns."""
    rng = np.random.default_rng(0)
    mean = np.sum(table * known, axis=0) / np.maximum(known.sum(axis=0), 1)
    of_rows, of_columns = (0.1 * rng.standard_normal((size, width)) for size in table.shape)
    optimizer = fastopt.AdaGrad([of_rows, of_columns], lr=0.1)
    rows, columns = np.nonzero(known)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(rows)), len(rows) // 2048):
            i, j = rows[batch], columns[batch]
            u, v = of_rows[i], of_columns[j]
            error = np.sum(u * v, axis=1) + mean[j] - table[i, j]
            optimizer.step_rows([i, j], [error[:, None] * v + l2 * u, error[:, None] * u + l2 * v])
    return np.asarray(of_rows @ of_columns.T + mean)


def completed_digits() -> Figure:
    """Images of digits, half of whose pixels are hidden; what is known of them; and what they were completed to."""
    from sklearn.datasets import load_digits

    table = load_digits().data / 16
    known = np.random.default_rng(1).random(table.shape) < 0.5
    guess = completed(table, known)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    lines = {"image": table, "known": np.where(known, table, np.nan), "completed": guess}
    for all_axes, (title, images) in zip(figure.subplots(3, 10), lines.items(), strict=True):
        for axes, image in zip(all_axes, images, strict=False):
            axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1).get_cmap().set_bad("#F0E0C0")
            axes.set(xticks=[], yticks=[])
        all_axes[0].set_ylabel(title)
    return figure


FIGURES = (
    sgd,
    adagrad,
    rmsprop,
    adam,
    adamw,
    adamax,
    adadelta,
    radam,
    adabelief,
    lion,
    signum,
    rates_over_time,
    loss_on_quadratic,
    completed_digits,
    second_moment_in_16_bits,
)


def draw_all(folder: Path) -> None:
    """Write every picture to ``folder/<name>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for draw in FIGURES:
            draw().savefig(folder / f"{draw.__name__}.png")
