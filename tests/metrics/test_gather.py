"""The modes that heed the order of the pass: the last value, and all of them."""

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data, learner
from hypothesis import given, strategies as st

from eqxtrain.metrics import Gather, Last, Metric, Weighted


def test_last_is_the_last_real_row_in_the_order_of_the_pass() -> None:
    rows = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    real = jnp.array([True, True, False])
    assert jnp.array_equal(Last().update(rows).compute(), rows[2])
    assert jnp.array_equal(Last().update(rows, mask=real).compute(), rows[1])
    both = Last().update(rows).update(-rows, mask=real)
    assert jnp.array_equal(both.compute(), -rows[1])


def test_a_batch_of_padding_leaves_last_as_it_was() -> None:
    seen = Last().update(jnp.array([1.0, 2.0]))
    padding = jnp.zeros(2, bool)
    assert seen.update(jnp.array([8.0, 9.0]), mask=padding).compute() == 2
    assert seen.merge(Last().update(jnp.array([8.0, 9.0]), mask=padding)).compute() == 2


def test_last_takes_values_of_any_shape_and_dtype() -> None:
    assert jnp.array_equal(Last.of(jnp.eye(2)).merge(Last.of(-jnp.eye(2))).compute(), -jnp.eye(2))
    assert Last.of(jnp.int32(7)).compute() == 7
    assert jnp.isnan(Last.of(jnp.int32(7)).reset().compute())


def test_last_updates_with_masked_integers() -> None:
    last = Last().update(jnp.array([4, 5, 6]), mask=jnp.array([True, True, False]))
    assert last.compute() == 5


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 8), st.just(2)), elements=st.floats(width=32)),
    st.lists(st.integers(0, 8), max_size=4),
    st.integers(0, 10**6),
)
def test_gather_keeps_every_row_in_order_however_it_is_split(
    rows: np.ndarray, cuts: list[int], grouping: int
) -> None:
    parts = [Gather.of(part) for part in np.split(rows, sorted(min(c, len(rows)) for c in cuts))]
    parts.insert(grouping % (len(parts) + 1), parts[0].reset())
    while len(parts) > 1:
        index = grouping % (len(parts) - 1)
        parts[index : index + 2] = [parts[index].merge(parts[index + 1])]
    gathered = parts[0].compute()
    assert isinstance(gathered, np.ndarray) and gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, rows)


def test_gather_joins_each_leaf_of_a_tree() -> None:
    first = Gather.of({"a": jnp.arange(2), "b": (jnp.zeros((2, 3)),)})
    second = Gather.of({"a": jnp.arange(2, 5), "b": (jnp.ones((3, 3)),)})
    joined = first.merge(second).compute()
    assert joined["a"].tolist() == [0, 1, 2, 3, 4]
    assert joined["b"][0].sum(1).tolist() == [0, 0, 3, 3, 3]


def test_the_gather_of_nothing_is_empty() -> None:
    assert Gather().compute().shape == (0,)
    assert Gather.of(jnp.ones(3)).reset().compute().shape == (0,)


def test_gather_refuses_a_scalar() -> None:
    with pytest.raises(ValueError, match=r"batch axis.*one number per example"):
        Gather.of({"a": jnp.ones(3), "b": jnp.float32(1)})


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.int32, jnp.bool_])
def test_both_take_any_dtype(dtype: Any) -> None:
    rows = jnp.array([0, 1, 1]).astype(dtype)
    assert Last().update(rows[:1]).update(rows[1:]).compute() == 1
    gathered = Gather().update(rows[:1]).update(rows[1:]).compute()
    assert gathered.dtype == dtype and gathered.tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("empty", "at"), [(Last(), "fresh"), (Last.of(jnp.ones(2)).reset(), "reset")], ids=str
)
def test_the_last_of_nothing_is_nan(empty: Last, at: str) -> None:
    assert jnp.isnan(empty.compute()).all()
    assert jnp.isnan(Last().update(jnp.ones((0, 2))).compute()).all()


@pytest.mark.parametrize("mode", [Last, Gather])
def test_rows_without_any_weight_are_padding(mode: Callable[[], Metric]) -> None:
    values = jnp.float32([[1, 2], [3, 4], [5, 6]])
    expected = [[1, 2], [3, 4]] if mode is Gather else [3, 4]
    for weight in ([0.25, 1e-3, 0], [[0.1, 0], [0, 0.2], [0, 0]]):
        seen = Weighted(mode()).update(y_pred=values, sample_weight=jnp.float32(weight), mask=None)
        assert np.asarray(seen.compute()).tolist() == expected


def test_a_mask_of_other_rows_is_refused() -> None:
    for mask in (np.ones(2, bool), np.ones((2, 3), bool)):
        with pytest.raises(ValueError, match=r"`mask` has shape \(2,.*for 3 examples"):
            Gather.of(jnp.ones(3), mask=mask)
        with pytest.raises(ValueError, match=r"`mask` has shape \(2,.*for 3 examples"):
            Last().update(jnp.ones(3), mask=mask)


def test_gather_leaves_out_padding_of_every_leaf(rng: np.random.Generator) -> None:
    values = rng.normal(size=(12, 2)).astype(np.float32)
    counts, ids = np.arange(12) + 0.5, np.arange(12)[::-1].copy()
    keep = rng.uniform(size=12) < 0.6
    gathered = Gather()
    for rows in np.split(np.arange(12), [5]):
        tree = {"a": values[rows], "b": (ids[rows],)}
        made = Gather.of(tree, counts=counts[rows], ids=ids[rows], mask=keep[rows])
        gathered = gathered.merge(made)
    result = gathered.compute()
    assert result.keys() == {"values", "counts", "ids"}
    np.testing.assert_array_equal(result["values"]["a"], values[keep])
    np.testing.assert_array_equal(result["values"]["b"][0], ids[keep])
    np.testing.assert_array_equal(result["counts"], counts[keep])
    np.testing.assert_array_equal(result["ids"], ids[keep])


@pytest.mark.parametrize("beside", ["counts", "ids"])
def test_gather_holds_beside_the_values_only_what_is_given(beside: str) -> None:
    made: Any = {"counts": jnp.arange(3)} if beside == "counts" else {"ids": jnp.arange(3)}
    assert Gather.of(jnp.ones(3), **made).compute().keys() == {"values", beside}


def test_gather_refuses_counts_of_other_rows() -> None:
    with pytest.raises(
        ValueError, match=r"was given 2, 3 rows: every array needs one row per example"
    ):
        Gather.of(jnp.ones(3), counts=jnp.ones(2))


@pytest.mark.parametrize("masked_first", [False, True])
def test_gather_joins_batches_with_and_without_a_mask(masked_first: bool) -> None:
    padded = Gather.of(jnp.array([4.0, jnp.nan]), mask=jnp.array([True, False]))
    full = Gather.of(jnp.array([1.0, 2.0]))
    joined = padded.merge(full) if masked_first else full.merge(padded)
    assert joined.compute().tolist() == ([4, 1, 2] if masked_first else [1, 2, 4])


def test_of_padding_alone_nothing_is_gathered() -> None:
    made = Gather.of({"a": jnp.ones((3, 2))}, mask=jnp.zeros(3, bool))
    assert made.compute()["a"].shape == (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [4, 21])
def test_a_pass_has_its_last_value_and_all_of_them_as_predict_has(batch_size: int) -> None:
    x, y = data(21)
    made = learner(metrics=[Last(), Gather(), Weighted(Gather())]).init()
    weight = (np.arange(21) % 3).astype(np.float32)
    result = made.evaluate(x, y, sample_weight=weight, batch_size=batch_size)
    y_pred = made.predict(x)
    np.testing.assert_allclose(result["last"], y_pred[-1], rtol=1e-5)
    np.testing.assert_allclose(result["gather"], y_pred, rtol=1e-5)
    np.testing.assert_allclose(result["weighted_gather"], y_pred[weight > 0], rtol=1e-5)
