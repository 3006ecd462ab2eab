"""What must hold for all shapes, orders, dtypes, structures and hyper-parameters: Hypothesis picks them."""

import inspect
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from tests.selection import drawn
from tests.table import ELEMENTWISE, FLOATS, TABLE, assert_same_bits, form, singles, with_rates

STEPS = 3
EITHER = st.sampled_from(FLOATS)


@dataclass(frozen=True)
class Leaf:
    """An array to be made: parameter or gradient."""

    shape: tuple
    dtype: type
    gradient_dtype: type
    order: str
    gradient_order: str

    def parameter(self, rng):
        return np.asarray(rng.normal(size=self.shape), self.dtype, order=self.order)

    def gradient(self, rng):
        g = np.asarray(rng.normal(size=self.shape), self.gradient_dtype, order=self.gradient_order)
        g.flags.writeable = bool(rng.integers(2))
        return g


def each(function, tree):
    """The same structure, with ``function(leaf)`` for each leaf."""
    if isinstance(tree, dict):
        return {key: each(function, item) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(each(function, item) for item in tree)
    return function(tree)


def in_order(tree):
    """The leaves as a list."""
    found = []
    each(found.append, tree)
    return found


def leaves(dtypes=EITHER):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6) | st.integers(60, 70).map(lambda n: (n,))
    orders = st.sampled_from("CF")
    return st.builds(Leaf, shapes, dtypes, EITHER, orders, orders)


def trees(leaf):
    def containers(inner):
        lists = st.lists(inner, min_size=1, max_size=3)
        return lists | lists.map(tuple) | st.dictionaries(st.sampled_from("Wbc"), inner, min_size=1, max_size=3)

    return st.recursive(leaf, containers, max_leaves=6)


# Any float that is allowed, by the name of the hyper-parameter.
NUMBERS = {
    "alpha": singles(0.0, 10.0),
    "etas": st.tuples(st.floats(0.01, 0.99), st.floats(1.01, 2.0)),
    "lr": st.floats(1e-6, 1.0),
    "betas": st.tuples(singles(0.0, 0.999), singles(0.0, 0.9999)),
    "dampening": singles(-0.5, 1.0),
    "d0": st.floats(1e-6, 1.0),
    "eps": st.floats(1e-12, 1e-2),
    "eps_root": st.floats(1e-16, 1e-4),
    "momentum": st.floats(0.01, 0.999),
    "rho": singles(0.0, 0.999),
    "threshold": st.floats(4.0, 10.0),
    "step_sizes": st.tuples(singles(0.0, 1e-3), singles(1e-3, 100.0)),
    "weight_decay": singles(0.0, 0.1),
}


def numbers(row):
    """The arguments that the row's oracle takes, all drawn."""
    _, _, *arguments = inspect.signature(row.oracle).parameters.values()
    drawn = {a.name: NUMBERS.get(a.name, singles(0.0, 0.9)) for a in arguments if not isinstance(a.default, bool)}
    if "betas" in drawn:
        count = len(row.make(np.zeros(1)).param_groups[0]["betas"])
        least = 0.01 if row.optimizer is fastopt.ScheduleFreeAdamW else 0.0
        drawn["betas"] = st.tuples(*[singles(least, 0.999)] * count)
    return st.fixed_dictionaries(drawn)


def configured(rows):
    return st.sampled_from(drawn(rows, form)).flatmap(lambda row: st.tuples(st.just(row), numbers(row)))


configurations = configured(TABLE)
seeds = st.integers(0, 2**32 - 1)


def as_vector(array):
    """A copy of the elements, in C order: nothing is left of shape, memory order and structure that could be mistaken."""
    return np.array(array, order="C").reshape(-1)


def assert_same_trees(actual, expected, what=""):
    for one, other in zip(in_order(actual), in_order(expected), strict=True):
        assert_same_bits(one, other, what)


@given(trees(leaves()), configured(ELEMENTWISE), seeds)
def test_a_structure_steps_like_its_arrays_as_vectors(tree, configuration, seed):
    row, numbers = configuration
    rng = np.random.default_rng(seed)
    params = each(lambda leaf: leaf.parameter(rng), tree)
    vectors = [as_vector(leaf) for leaf in in_order(params)]
    whole, singles = row.make(params, **numbers), [row.make(vector, **numbers) for vector in vectors]
    for _ in range(STEPS):
        grads = each(lambda leaf: leaf.gradient(rng), tree)
        whole.step(grads)
        for single, g in zip(singles, in_order(grads), strict=True):
            single.step(as_vector(g))
    assert_same_trees(each(as_vector, params), vectors)
    for name in row.states:
        assert_same_trees(each(as_vector, whole.state[name]), [single.state[name] for single in singles], name)


@given(EITHER.flatmap(lambda dtype: trees(leaves(st.just(dtype)))), configured(ELEMENTWISE), seeds)
def test_a_flat_buffer_steps_like_the_arrays_in_it(tree, configuration, seed):
    row, numbers = configuration
    rng = np.random.default_rng(seed)
    params = each(lambda leaf: leaf.parameter(rng), tree)
    flat = fastopt.flatten(params)
    whole, flattened = row.make(params, **numbers), row.make(flat, **numbers)
    flat_grads = flat.like(in_order(tree)[0].gradient_dtype)
    for _ in range(STEPS):
        grads = each(lambda leaf: leaf.gradient(rng), tree)
        for view, g in zip(in_order(flat_grads.tree), in_order(grads), strict=True):
            view[...] = g
        whole.step(each(np.copy, flat_grads.tree))
        flattened.step(flat_grads)
    assert_same_trees(flat.tree, params)
    for name in row.states:
        assert_same_trees(flattened.state[name].tree, whole.state[name], name)


@given(st.data(), st.sampled_from(drawn(ELEMENTWISE, form)), st.lists(trees(leaves()), min_size=1, max_size=3), seeds)
def test_groups_step_like_separate_optimizers(data, row, structures, seed):
    rng = np.random.default_rng(seed)
    params = [each(lambda leaf: leaf.parameter(rng), tree) for tree in structures]
    copies = each(lambda leaf: leaf.copy("K"), params)
    own_numbers = [data.draw(numbers(row)) for _ in structures]
    grouped = row.make([{"params": own, **values} for own, values in zip(params, own_numbers, strict=True)])
    separate = [row.make(copy, **values) for copy, values in zip(copies, own_numbers, strict=True)]
    for _ in range(STEPS):
        grads = [each(lambda leaf: leaf.gradient(rng), tree) for tree in structures]
        grouped.step(grads)
        for optimizer, g in zip(separate, grads, strict=True):
            optimizer.step(g)
    assert_same_trees(params, copies)
    for name in row.states:
        assert_same_trees(grouped.state[name], [optimizer.state[name] for optimizer in separate], name)


@given(trees(leaves()), configurations, seeds)
def test_a_step_changes_values_only(tree, configuration, seed):
    row, numbers = configuration
    rng = np.random.default_rng(seed)
    params = each(lambda leaf: leaf.parameter(rng), tree)
    optimizer = row.make(params, **numbers)
    arrays = in_order(params)
    before = [(array.shape, array.strides, array.dtype, array.__array_interface__["data"]) for array in arrays]
    grads = each(lambda leaf: leaf.gradient(rng), tree)
    kept = each(lambda g: g.copy("K"), grads)
    optimizer.step(grads)
    assert optimizer.step_count == 1
    assert all(now is array for now, array in zip(in_order(optimizer.params), arrays, strict=True))
    assert [(array.shape, array.strides, array.dtype, array.__array_interface__["data"]) for array in arrays] == before
    assert_same_trees(grads, kept, "the gradient is only read")
    for name in row.states:
        for array, state in zip(arrays, in_order(optimizer.state[name]), strict=True):
            assert (state.shape, state.dtype) == (array.shape, array.dtype)
            assert state.flags.c_contiguous == array.flags.c_contiguous
            assert state.flags.f_contiguous == array.flags.f_contiguous


@given(trees(leaves()), configurations, seeds, st.integers(0, STEPS))
def test_a_loaded_state_dict_goes_on_with_the_same_bits(tree, configuration, seed, saved_after):
    row, numbers = configuration
    rng = np.random.default_rng(seed)
    params = each(lambda leaf: leaf.parameter(rng), tree)
    optimizer = row.make(params, **numbers)
    grads = [each(lambda leaf: leaf.gradient(rng), tree) for _ in range(2 * STEPS)]
    for g in grads[:saved_after]:
        optimizer.step(g)
    copies = each(lambda leaf: leaf.copy("K"), params)
    resumed = row.make(copies)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.step_count == saved_after
    for g in grads[saved_after:]:
        optimizer.step(g)
        resumed.step(g)
    assert_same_trees(copies, params)
    for name in row.states:
        assert_same_trees(resumed.state[name], optimizer.state[name], name)


@given(leaves(), leaves(), configured([row for row in with_rates if row in ELEMENTWISE]), seeds)
def test_an_array_of_rates_steps_like_its_vector(leaf, other, configuration, seed):
    row, numbers = configuration
    rng = np.random.default_rng(seed)
    theta = leaf.parameter(rng)
    rates = np.asarray(rng.random(leaf.shape), other.dtype, order=other.order)
    vector = as_vector(theta)
    shaped = row.make(theta, **numbers | {"lr": rates})
    flat = row.make(vector, **numbers | {"lr": as_vector(rates)})
    for _ in range(STEPS):
        g = leaf.gradient(rng)
        shaped.step(g)
        flat.step(as_vector(g))
    assert_same_bits(as_vector(theta), vector)


@given(leaves(), configured(with_rates), seeds)
def test_equal_rates_step_like_one_rate(leaf, configuration, seed):
    row, numbers = configuration
    rng = np.random.default_rng(seed)
    theta = leaf.parameter(rng)
    copy = theta.copy("K")
    single = row.make(theta, **numbers)
    array = row.make(copy, **numbers | {"lr": np.full(leaf.shape, numbers["lr"])})
    for _ in range(STEPS):
        g = leaf.gradient(rng)
        single.step(g)
        array.step(g)
    assert_same_bits(copy, theta)
    for name in row.states:
        assert_same_bits(array.state[name], single.state[name], name)
