"""The way of a minimization, and its picture."""

import pickle

import numpy as np
from matplotlib import pyplot

import fastopt
from tests.minimization.test_minimize import both, bowl, slope
from tests.refusal import refused


def test_it_has_every_point():
    seen = []
    fun = lambda x: seen.append(x.copy()) or both(x)  # noqa: E731
    options = {"lr": fastopt.schedules.Exponential(0.1, 0.5), "maxiter": 10, "history": 4}
    result = fastopt.minimize(fun, np.zeros(3), jac=True, options=options)
    history = result.history
    np.testing.assert_array_equal(history.values, [bowl(x) for x in seen])
    np.testing.assert_allclose(history.norms, [np.linalg.norm(slope(x)) for x in seen])
    np.testing.assert_array_equal(history.points, seen[::4])
    np.testing.assert_allclose(history.rates[1:], 0.1 * 0.5 ** np.arange(10))
    assert len(history.times) == 11
    assert np.all(np.diff(history.times) >= 0)
    assert fastopt.minimize(both, np.zeros(3), jac=True, options={**options, "history": True}).history.points == []


def test_it_goes_on_and_is_saved():
    options = {"lr": 0.1, "history": True, "gtol": None}
    whole = fastopt.minimize(both, np.zeros(3), jac=True, options={**options, "maxiter": 20})
    first = fastopt.minimize(both, np.zeros(3), jac=True, options={**options, "maxiter": 8})
    second = fastopt.minimize(both, first.x, jac=True, options={**options, "maxiter": 12, "state": first.state})
    assert second.history.values == whole.history.values
    loaded = pickle.loads(pickle.dumps(second))
    assert loaded.history.values == whole.history.values


def test_one_picture_shows_it():
    result = fastopt.minimize(bowl, np.zeros(3), jac=slope, options={"lr": 0.1, "maxiter": 20, "history": True})
    axes = result.plot()
    for ax, numbers in zip(axes, (result.history.values, result.history.norms, result.history.rates), strict=True):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), numbers)
    assert result.plot(axes) is axes
    pyplot.close(axes[0].figure)
    assert "plot" not in result
    assert not hasattr(fastopt.minimize(bowl, np.zeros(3), jac=slope, options={"maxiter": 2}), "plot")
    with refused(TypeError, "history must be an integer"):
        fastopt.Solver([0.0], history="all")
