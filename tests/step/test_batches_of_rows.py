"""What steps of rows take: sparse batches and gradients, several tables, some of the parameters; and what they refuse."""

import numpy as np
import pytest
import scipy.sparse

import fastopt
from tests.step.test_rows import ROWS, WIDTH, batches, table


def csr(rng, shape):
    return scipy.sparse.random_array(shape, density=0.2, format="csr", rng=rng, dtype=np.float64)


@pytest.mark.parametrize("form", ["matrix", "coo", "triple"])
def test_a_batch_in_csr_form_stands_for_its_product(form):
    rng = np.random.default_rng(9)
    x, grads = csr(rng, (12, ROWS)), table(rng, np.float64, (12, WIDTH))
    x.data -= 0.5
    given = {"matrix": x, "coo": x.tocoo(), "triple": (x.indptr, x.indices, x.data)}[form]
    touched = np.unique(x.indices)
    w = table(rng, np.float64)
    before, gathered = w.copy(), w[touched]
    fastopt.Adam(w).step_rows(given, grads)
    fastopt.Adam(gathered).step((x.T @ grads)[touched])
    np.testing.assert_allclose(w[touched], gathered, rtol=1e-9)
    before[touched] = w[touched]
    assert np.array_equal(w, before)


def test_a_sparse_gradient_touches_the_rows_in_which_something_is_stored():
    rng = np.random.default_rng(10)
    g = csr(rng, (ROWS, WIDTH))
    touched = np.flatnonzero(np.diff(g.indptr))
    assert 0 < len(touched) < ROWS
    w = table(rng, np.float64)
    other = w.copy()
    fastopt.Adam(w, weight_decay=0.1).step_rows(None, g)
    fastopt.Adam(other, weight_decay=0.1).step_rows(touched, g.toarray()[touched])
    assert np.array_equal(w, other)


def test_tables_and_dense_parameters_in_one_step():
    rng = np.random.default_rng(11)
    params = {"users": table(rng), "items": table(rng, shape=(7, 3)), "bias": table(rng, shape=(4,)), "other": table(rng)}
    alone = {name: fastopt.NAdam(array.copy(), lr=0.1) for name, array in params.items()}
    optimizer = fastopt.NAdam(params, lr=0.1)
    before = params["other"].copy()
    for rows, grads in batches(rng):
        items, g = rng.integers(0, 7, 9).astype(np.int32), table(rng, shape=(9, 3))
        bias = table(rng, shape=(4,))
        optimizer.step_rows(
            {"users": rows, "items": items, "bias": None, "other": None},
            {"users": grads, "items": g, "bias": bias, "other": None},
        )
        alone["users"].step_rows(rows, grads)
        alone["items"].step_rows(items, g)
        alone["bias"].step(bias)
    for name in ("users", "items", "bias"):
        assert np.array_equal(params[name], alone[name].params)
    assert np.array_equal(params["other"], before)


def test_param_chooses_and_groups_count_their_own_steps():
    rng = np.random.default_rng(12)
    first, second, third = table(rng), table(rng), table(rng)
    optimizer = fastopt.Adam([{"params": [first, second]}, {"params": third}, {"params": table(rng), "frozen": True}])
    rows, grads = np.array([5, 3, 5]), table(rng, shape=(3, WIDTH))
    kept = second.copy(), third.copy()
    optimizer.step_rows(rows, grads, param=first)
    optimizer.step_rows([rows, rows], [grads, grads], param=[third, first])
    assert [group.step_count for group in optimizer.param_groups] == [2, 1, 0]
    assert optimizer.step_count == 2
    assert np.array_equal(second, kept[0])
    alone = fastopt.Adam(kept[1])
    alone.step_rows(rows, grads)
    assert np.array_equal(third, kept[1])
    optimizer.step_rows(rows, grads, param=optimizer.params[2])  # frozen
    assert optimizer.step_count == 3
    with pytest.raises(ValueError, match="param must be one of the arrays"):
        optimizer.step_rows(rows, grads, param=first.copy())
    with pytest.raises(ValueError, match="the same array twice"):
        optimizer.step_rows([rows, rows], [grads, grads], param=[first, first])


GOOD, G = np.array([1, 2]), np.ones((2, 3))


WRONG = {
    "negative": ((np.array([1, -1]), G), ValueError, "rows must be from 0 to 3, as params has rows, got -1 at index 1"),
    "too large": ((np.array([4, 1]), G), ValueError, "rows must be from 0 to 3, as params has rows, got 4 at index 0"),
    "huge": ((np.array([1, 2**62]), G), ValueError, "got 4611686018427387904 at index 1"),
    "unsigned": ((np.array([1, 2], np.uint32), G), TypeError, "rows must be of int32 or int64, got uint32"),
    "bool": ((np.array([True, False]), G), TypeError, "rows must be of int32 or int64, got bool"),
    "list": (([1, 2], G), TypeError, r"rows must be a NumPy array, a sparse matrix or \(indptr, indices, data\), got list"),
    "matrix": ((np.ones((2, 1), int), G), ValueError, "rows must be a vector"),
    "length": ((GOOD, np.ones((3, 3))), ValueError, r"grads must have the shape \(2, 3\)"),
    "width": ((GOOD, np.ones((2, 4))), ValueError, r"grads must have the shape \(2, 3\)"),
    "dtype": ((GOOD, np.ones((2, 3), int)), TypeError, "grads must be of float32 or float64"),
    "nothing": ((None, None), TypeError, "grads is missing"),
    "rises": (((np.array([0, 3, 2]), GOOD, np.ones(2)), G), ValueError, r"rows\[0\] must rise from 0 to 2"),
    "data": (((np.array([0, 1, 2]), GOOD, np.ones(3)), G), ValueError, r"rows\[2\] must have the shape \(2,\)"),
    "columns": ((scipy.sparse.csr_array(np.ones((2, 5))), G), ValueError, "rows must have 4 columns"),
    "sparse vector": ((scipy.sparse.coo_array(np.ones(4)), G), ValueError, "rows must have 4 columns"),
    "counts": ((scipy.sparse.csr_array(np.ones((2, 4), int)), G), TypeError, r"rows\.data must be of float32 or float64"),
    "in the batch": (((np.array([0, 1, 2]), np.array([0, 9]), np.ones(2)), G), ValueError, r"rows.* got 9 at index 1"),
    "sparse shape": (
        (None, scipy.sparse.csr_array(np.ones((4, 2)))),
        ValueError,
        r"grads is sparse .* \(4, 2\), params \(4, 3\)",
    ),
    "scale": ((GOOD, G), ValueError, "scale must be finite"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_and_nothing_changes(arguments, error, message):
    w = np.ones((4, 3))
    optimizer = fastopt.Adam(w)
    with pytest.raises(error, match=message):
        optimizer.step_rows(*arguments, scale=np.nan if "scale" in message else 1.0)
    assert np.array_equal(w, np.ones((4, 3)))
    assert optimizer.step_count == 0
    assert not optimizer.state["m"].any()


def test_a_wrong_row_of_one_table_leaves_all_as_they_were():
    tables = [np.ones((4, 2)), np.ones((5, 2))]
    optimizer = fastopt.SGD(tables)
    with pytest.raises(ValueError, match=r"rows\[1\] must be from 0 to 4, as params\[1\] has rows, got 5 at index 0"):
        optimizer.step_rows([np.array([0]), np.array([5])], [np.ones((1, 2))] * 2)
    assert all(np.array_equal(each, np.ones_like(each)) for each in tables)


def test_tables_that_have_no_rows_side_by_side_are_refused():
    rows, grads = np.array([0]), np.ones((1, 2))
    with pytest.raises(ValueError, match="params must have rows that lie side by side"):
        fastopt.SGD(np.ones((3, 2), order="F")).step_rows(rows, grads)
    with pytest.raises(TypeError, match="params is a Flat"):
        fastopt.SGD(fastopt.flatten([np.ones((3, 2))])).step_rows(rows, grads)


def test_options_that_need_more_than_touched_rows_are_refused():
    rows, grads = np.array([0]), np.ones((1, 2))
    for options, message in (
        ({"cautious": True}, "cautious=True looks at all"),
        ({"zero_grad": True}, "zero_grad=True is not"),
    ):
        with pytest.raises(ValueError, match=message):
            fastopt.Adam(np.ones((3, 2)), **options).step_rows(rows, grads)
    optimizer = fastopt.Adam(w := np.ones((3, 2)), ema_decay=0.5)
    with optimizer.swap_ema(), pytest.raises(RuntimeError, match="swapped"):
        optimizer.step_rows(rows, grads)
    optimizer.accumulate(np.ones((3, 2)))
    with pytest.raises(ValueError, match="gradients were accumulated"):
        optimizer.step_rows(rows, grads)
    optimizer.discard()
    with pytest.raises(ValueError, match="overlaps"):
        optimizer.step_rows(rows, w[1:2])
