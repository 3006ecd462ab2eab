"""What users hold: parameters in any structure, state in the same structure, and learning rates of every kind."""

from collections import OrderedDict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest

import fastopt
from fastopt.arrays.layout import PAGE
from fastopt.arrays.tree import leaves, map_leaves, picker
from tests.refusal import refused
from tests.table import assert_same_bits, every_dtype, every_rule, form

Layer = namedtuple("Layer", ["W", "b"])


def weights():
    return np.linspace(-1.0, 1.0, 12).reshape(3, 4)


def bias():
    return np.linspace(-1.0, 1.0, 5, dtype=np.float32)


STRUCTURES = {
    "array": weights,
    "list": lambda: [weights(), bias()],
    "tuple": lambda: (weights(), bias(), np.array(0.5)),
    "namedtuple": lambda: Layer(weights(), bias()),
    "dict": lambda: {"W": weights(), "b": bias()},
    "ordered dict": lambda: OrderedDict(b=bias(), W=np.asfortranarray(weights())),
    "mapping": lambda: MappingProxyType({"W": weights(), 3: bias()}),
    "nested": lambda: {"layers": [Layer(weights(), {"b": bias()}), Layer(weights().T.copy(), ())], "scale": np.array(0.5)},
}
every_structure = pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)


def arrays(tree):
    return [leaf for _, leaf in leaves(tree, "")]


@pytest.mark.parametrize(
    ("tree", "other", "expected"),
    [
        ([0, 1], (2, 3), (2, 3)),
        ({"a": 0, "b": 1}, {"b": 3, "a": 2}, (2, 3)),
        ({"a": 0}, {"a": 2}, [2]),
        ([[0], []], ([2], ()), [2]),
        ({"a": {}, "b": [0, {"c": 1}]}, {"b": (2, {"c": 3}), "a": {}}, [2, 3]),
        ([[0], []], [[2], [3]], None),
        ([0, 1], [2], None),
        ({"a": {"b": 0}}, {"a": [2]}, None),
        (Layer(0, 1), Layer(2, 3), None),
    ],
)
def test_plain_trees_are_picked_apart(tree, other, expected):
    assert picker(tree)(other) == expected


def gradients(tree):
    return map_leaves(lambda array: np.cos(3.0 * array).astype(array.dtype, order="K"), tree)


def address(array):
    return array.__array_interface__["data"][0]


def test_leaves_are_named_in_the_order_of_the_structure():
    tree = {"b": [1, (2, {"x": 3})], "a": Layer(4, []), 0: None}
    assert list(leaves(tree, "p")) == [
        *[("p['b'][0]", 1), ("p['b'][1][0]", 2), ("p['b'][1][1]['x']", 3), ("p['a'][0]", 4), ("p[0]", None)]
    ]
    assert map_leaves(str, tree) == {"b": ["1", ("2", {"x": "3"})], "a": Layer("4", []), 0: "None"}


@every_structure
def test_step_updates_the_arrays_in_place(make):
    params = make()
    held = arrays(params)
    before = [(address(array), array.copy()) for array in held]
    alone = [array.copy("K") for array in held]
    opt, singles = fastopt.Adam(params), [fastopt.Adam(array) for array in alone]
    for _ in range(3):
        grads = gradients(params)
        for single, g in zip(singles, arrays(grads), strict=True):
            single.step(g)
        opt.step(grads)
    for array, same, (place, start), expected in zip(arrays(params), held, before, alone, strict=True):
        assert array is same
        assert address(array) == place
        assert not np.array_equal(array, start)
        assert_same_bits(array, expected)


@every_structure
def test_params_and_state_have_the_structure_of_the_parameters(make):
    params = make()
    opt = fastopt.Adam(params)
    assert list(opt.state) == ["m", "v"]
    for tree in (opt.params, opt.state["m"], opt.state["v"]):
        assert [name for name, _ in leaves(tree, "")] == [name for name, _ in leaves(params, "")]
    assert all(one is other for one, other in zip(arrays(opt.params), arrays(params), strict=True))
    for state, array in zip(arrays(opt.state["m"]), arrays(params), strict=True):
        assert (state.shape, state.dtype, state.strides) == (array.shape, array.dtype, array.strides)
        assert not state.any()
    if isinstance(params, (list, tuple)):
        assert type(opt.state["m"]) is type(params)


def test_later_changes_of_the_container_change_nothing():
    W, b = np.zeros(2), np.zeros(2)
    params = {"W": W, "b": b}
    opt = fastopt.SGD(params, lr=1.0, momentum=0.9)
    params["W"] = params.pop("W")  # now behind "b"
    params["c"] = np.zeros(3)
    opt.step({"W": np.array([1.0, 1.0]), "b": np.array([2.0, 2.0])})
    np.testing.assert_equal(opt.params, {"W": np.full(2, -1.0), "b": np.full(2, -2.0)})
    np.testing.assert_equal(dict(opt.state), {"p": {"W": np.ones(2), "b": np.full(2, 2.0)}})
    assert opt.params["W"] is W
    assert opt.params["b"] is b


@every_rule
@every_dtype
def test_state_lies_in_flat_buffers_where_theta_does_in_its_cache_lines(row, dtype):
    params = {"a": np.ones((3, 5), dtype), "b": [np.ones(0, dtype), np.ones(1, dtype)], "c": np.ones(17, dtype, order="F")}
    opt = row.make(params)
    assert list(opt.state) == list(row.states)
    for tree in opt.state.values():
        parts = [(part, address(theta) % 64) for part, theta in zip(arrays(tree), arrays(params), strict=True) if part.size]
        assert all(address(part) % 64 == offset for part, offset in parts)
        assert len({id(part.base) for part, _ in parts}) == 1
        assert parts[0][0].base.nbytes >= sum(-(-(offset + part.nbytes) // 64) * 64 for part, offset in parts) + PAGE
    together = [part for tree in opt.state.values() for part in arrays(tree)] + arrays(params)
    assert not any(np.shares_memory(one, other) for i, one in enumerate(together) for other in together[:i])


def test_state_is_live():
    w = np.zeros((2, 3), order="F")
    opt = fastopt.SGD(w, lr=1.0, momentum=0.5)
    held = opt.state["p"]
    assert np.shares_memory(held, opt.state["p"])
    opt.step(np.ones((2, 3)))
    np.testing.assert_array_equal(held, np.ones((2, 3)))
    held[0, 2] = 10.0  # the next step goes on from it
    opt.step(np.zeros((2, 3)))
    np.testing.assert_array_equal(w, [[-1.5, -1.5, -6.0], [-1.5, -1.5, -1.5]])
    assert opt.state["p"][0, 2] == 5.0


def test_gradients_are_taken_by_key_and_left_as_they_were():
    params = {"W": weights(), "b": bias()}
    opt = fastopt.SGD(params, lr=1.0)
    grads = MappingProxyType({"b": np.ones(5), "W": np.full((3, 4), 2.0)})
    opt.step(grads)
    np.testing.assert_equal(params, {"W": weights() - 2.0, "b": bias() - np.float32(1)})
    np.testing.assert_equal(dict(grads), {"b": np.ones(5), "W": np.full((3, 4), 2.0)})


def test_one_gradient_for_two_parameters():
    params, g = [np.zeros(3), np.ones(3)], np.ones(3)
    fastopt.SGD(params, lr=1.0).step([g, g])
    np.testing.assert_equal(params, [np.full(3, -1.0), np.zeros(3)])


def test_many_small_arrays():
    params = {i: np.full(1 + i % 7, float(i)) for i in range(700)}
    opt = fastopt.SGD(params, lr=1.0, momentum=0.5)
    for _ in range(2):
        opt.step({i: np.full(1 + i % 7, 2.0 * i) for i in range(700)})
    np.testing.assert_equal(params, {i: np.full(1 + i % 7, -4.0 * i) for i in range(700)})


def test_two_optimizers_are_independent():
    one, other = np.zeros(3), np.zeros(3)
    first, second = fastopt.Adam(one, lr=0.1), fastopt.Adam(other, lr=0.1)
    first.step(np.ones(3))
    second.lr = 0.2
    assert (first.step_count, second.step_count, first.lr) == (1, 0, 0.1)
    assert not second.state["m"].any()
    assert not other.any()
    third = fastopt.Adam(one)  # of the same parameters
    assert not third.state["v"].any()


def test_repr_is_one_short_line():
    w = np.ones((30, 30))
    for lr in (0.1, np.full((30, 30), 1 / 3), lambda step: 0.1):
        opt = fastopt.Adam([w], lr=lr if not isinstance(lr, np.ndarray) else [lr])
        for text in (repr(opt), repr(opt.param_groups[0])):
            assert len(text) < 250
            assert "\n" not in text
            assert "1 array" in text
            assert "900 elements" in text
    assert repr(opt).startswith("Adam(")
    assert "step_count=0" in repr(opt)


def test_read_only_properties():
    opt = fastopt.SGD(np.ones(3))
    for name in ("params", "param_groups", "step_count", "state"):
        with pytest.raises(AttributeError):
            setattr(opt, name, getattr(opt, name))


@every_structure
def test_rates_for_every_element(make):
    params = make()
    before = map_leaves(np.copy, params)
    rates = map_leaves(lambda array: np.arange(array.size, dtype=np.float64).reshape(array.shape), params)
    opt = fastopt.SGD(params, lr=rates)
    assert [name for name, _ in leaves(opt.lr, "")] == [name for name, _ in leaves(params, "")]
    opt.step(map_leaves(np.ones_like, params))
    for array, start, rate in zip(arrays(params), arrays(before), arrays(rates), strict=True):
        np.testing.assert_array_equal(array, start - rate.astype(array.dtype))


@pytest.mark.wide(by=lambda row, dtype: (form(row), row.optimizer.takes_rates, dtype))
@every_rule
@every_dtype
def test_rates_that_are_all_equal_do_as_one_number(row, dtype):
    one, other = (weights().astype(dtype) for _ in range(2))
    if not row.optimizer.takes_rates:
        with pytest.raises(TypeError, match="lr must be a number or a schedule"):
            row.make(other, lr=np.full((3, 4), 0.01))
        return
    number, rates = row.make(one), row.make(other, lr=np.full((3, 4), row.numbers.get("lr", 0.01)))
    number.lr = row.numbers.get("lr", 0.01)
    for _ in range(3):
        number.step(gradients(one))
        rates.step(gradients(other))
    assert_same_bits(other, one)


def test_rates_are_copied_and_read_only():
    w, given = np.zeros(3), np.ones(3)
    opt = fastopt.SGD(w, lr=given)
    given[...] = 5.0
    opt.step(np.ones(3))
    np.testing.assert_array_equal(w, -np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        opt.lr[0] = 2.0
    np.testing.assert_array_equal(opt.lr, np.ones(3))


def test_rate_of_each_kind_at_any_time():
    w = np.zeros(2)
    opt = fastopt.SGD(w, lr=1.0)
    steps = []
    for lr, change in [
        (0.5, 0.5),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0])),
        (np.array([3.0, 1.0], np.float32), np.array([3.0, 1.0])),
        (lambda step: steps.append(step) or 0.25 * step, 0.75),
        (0.0, 0.0),
        (np.float32(0.5), 0.5),
        (lambda step: np.float64(step), 6.0),
        (np.array([0.0, 1.0]), np.array([0.0, 1.0])),
    ]:
        before = w.copy()
        opt.lr = lr
        opt.step(np.ones(2))
        np.testing.assert_array_equal(w, before - change)
    assert steps == [3]


def test_schedule_is_called_once_a_step_with_the_number_of_steps_taken():
    calls = []
    schedule = lambda step: calls.append(step) or 1.0 / (1 + step)  # noqa: E731
    w = np.zeros(3)
    opt = fastopt.SGD({"w": w}, lr=schedule)
    assert calls == []
    with refused(ValueError, "grads", opt=opt):
        opt.step({})
    assert calls == [0]  # for the step that was not taken, and for the next one again
    for _ in range(4):
        opt.step({"w": np.ones(3)})
    assert calls == [0, 0, 1, 2, 3]
    assert opt.lr is schedule
    np.testing.assert_array_equal(w, np.full(3, 0.0 - 1 - 1 / 2 - 1 / 3 - 1 / 4))


def in_dict(last):
    return {"W": np.ones((2, 3)), "b": [np.ones(3), last]}


@pytest.mark.parametrize(
    ("rates", "error", "words"),
    [
        (np.ones(3), TypeError, ("lr ", "mapping", "ndarray")),
        ({"W": np.ones((2, 3))}, ValueError, ("lr lacks the key 'b'",)),
        ({}, ValueError, ("lr lacks the key 'W'",)),
        (in_dict(np.ones(4)), ValueError, ("lr['b'][1] ", "(3,)", "got (4,)")),
        (in_dict(np.ones((3, 1))), ValueError, ("lr['b'][1] ", "(3,)", "got (3, 1)")),
        (in_dict(np.ones(3, int)), TypeError, ("lr['b'][1] ", "float32 or float64", "got int64")),
        (in_dict(np.ones(3, complex)), TypeError, ("lr['b'][1] ", "float32 or float64", "got complex128")),
        (in_dict(0.1), TypeError, ("lr['b'][1] ", "NumPy array", "float")),
        (in_dict([0.1, 0.1, 0.1]), TypeError, ("lr['b'][1] ", "NumPy array", "list")),
        (in_dict(np.array([0.1, -0.1, 0.1])), ValueError, ("lr['b'][1] ", "finite", "at least 0")),
        (in_dict(np.array([0.1, np.nan, 0.1])), ValueError, ("lr['b'][1] ", "finite")),
        (in_dict(np.array([0.1, np.inf, 0.1])), ValueError, ("lr['b'][1] ", "finite")),
    ],
)
def test_rates_are_refused(rates, error, words):
    params = in_dict(np.ones(3))
    with refused(error, *words):
        fastopt.Adam(params, lr=rates)
    opt = fastopt.Adam(params, lr=in_dict(np.full(3, 0.1)))
    opt.step(in_dict(np.ones(3)))
    with refused(error, *words, opt=opt):
        opt.lr = rates


def test_rates_too_large_for_the_parameter_are_refused():
    with refused(ValueError, "lr ", "finite"):
        fastopt.SGD(np.ones(2, np.float32), lr=np.full(2, 1e300))


@pytest.mark.parametrize(
    "rate",
    [-1e-9, np.nan, np.inf, "0.1", None, 1j, True, np.array("0.1"), np.ones(3), 10**400],
    ids=lambda rate: f"{rate!r:.16}",
)
def test_rate_from_a_schedule_is_refused(rate):
    opt = fastopt.Adam([np.ones(3), np.ones(3)], lr=lambda step: [0.1, rate][step])
    opt.step([np.ones(3), np.ones(3)])
    with refused((TypeError, ValueError), "lr(1) must be ", opt=opt):
        opt.step([np.ones(3), np.ones(3)])


def test_schedule_that_raises_changes_nothing():
    opt = fastopt.SGD([{"params": np.ones(3)}, {"params": np.ones(3), "lr": lambda step: [0.1][step]}], momentum=0.9)
    opt.step([np.ones(3), np.ones(3)])
    with refused(IndexError, opt=opt):
        opt.step([np.ones(3), np.ones(3)])
