"""The seven modes, one by one. That no split changes them is in `test_base.py`."""

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from eqxtrain.metrics import Gather, Last, Max, Mean, Metric, Min, Std, Sum

# Each mode with NumPy's word for it.
MODES: dict[str, tuple[Callable[..., Metric], Callable[..., Any]]] = {
    "mean": (Mean.of, np.mean),
    "sum": (Sum.of, np.sum),
    "min": (Min.of, np.min),
    "max": (Max.of, np.max),
    "std": (Std.of, np.std),
}
every_mode = pytest.mark.parametrize(("of", "numpy"), MODES.values(), ids=MODES)


@every_mode
def test_of_a_batch_agrees_with_numpy(
    of: Callable[..., Metric], numpy: Callable[..., Any], rng: np.random.Generator
) -> None:
    values = rng.normal(size=9).astype(np.float32)
    np.testing.assert_allclose(of(values).compute(), numpy(values.astype(float)), rtol=1e-6)


@every_mode
def test_padding_is_ignored_even_where_it_is_nan(
    of: Callable[..., Metric], numpy: Callable[..., Any], rng: np.random.Generator
) -> None:
    values = rng.normal(size=9).astype(np.float32)
    mask = np.arange(9) < 6
    padded = np.where(mask, values, np.float32(np.nan))
    result = of(padded, mask=mask).compute()
    np.testing.assert_allclose(result, numpy(values[:6].astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    ("of", "expected"), [(Mean.of, 2.5), (Sum.of, 10), (Min.of, 1), (Max.of, 4)]
)
def test_a_mask_leaves_out_whole_rows(of: Callable[..., Metric], expected: float) -> None:
    rows = jnp.array([[1.0, 2.0], [3.0, 4.0], [jnp.nan, 9.0]])
    assert of(rows, mask=jnp.array([True, True, False])).compute() == expected


@every_mode
def test_a_mask_that_is_not_one_bool_a_row_is_refused(
    of: Callable[..., Metric], numpy: Callable[..., Any]
) -> None:
    for mask in (jnp.array([True]), jnp.array([[True], [True], [True]]), jnp.array(True)):
        with pytest.raises(ValueError, match="mask"):
            of(jnp.ones((3, 2)), mask=mask)


@every_mode
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.float16, jnp.bfloat16, jnp.bool_])
def test_any_dtype_is_measured_in_float32(
    of: Callable[..., Metric], numpy: Callable[..., Any], dtype: Any
) -> None:
    values = jnp.array([1, 0, 1, 1]).astype(dtype)
    result = of(values).compute()
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, numpy([1.0, 0.0, 1.0, 1.0]), rtol=1e-6)


@every_mode
def test_a_scalar_stands_for_itself(of: Callable[..., Metric], numpy: Callable[..., Any]) -> None:
    np.testing.assert_allclose(of(jnp.float32(3.5)).compute(), numpy([3.5]))
    np.testing.assert_allclose(of(2.0).compute(), numpy([2.0]))


@every_mode
def test_a_nan_that_is_seen_is_reported_and_stays(
    of: Callable[..., Metric], numpy: Callable[..., Any]
) -> None:
    seen, finite = of(jnp.array([1.0, jnp.nan])), of(jnp.array([1.0, 2.0]))
    for metric in (seen, seen.merge(finite), finite.merge(seen), seen.merge(seen.reset())):
        assert jnp.isnan(metric.compute())


@pytest.mark.parametrize(
    ("of", "expected"), [(Mean.of, np.inf), (Sum.of, np.inf), (Min.of, 1), (Max.of, np.inf)]
)
def test_an_infinite_value_gives_an_infinite_total_and_no_nan(
    of: Callable[..., Metric], expected: float
) -> None:
    seen, finite = of(jnp.array([3.0, jnp.inf])), of(jnp.array([1.0, 2.0]))
    for metric in (seen.merge(finite), finite.merge(seen), seen.merge(seen).merge(finite)):
        assert metric.compute() == expected


def test_a_pass_of_infinities_has_an_infinite_extreme_and_not_nan() -> None:
    assert Max.of(jnp.array([-jnp.inf])).merge(Max()).compute() == -jnp.inf
    assert Min.of(jnp.array([jnp.inf])).merge(Min()).compute() == jnp.inf


def test_an_empty_batch_is_nothing_seen() -> None:
    for of, _ in MODES.values():
        empty = of(jnp.zeros(0))
        np.testing.assert_equal(float(empty.compute()), 0.0 if isinstance(empty, Sum) else np.nan)


def test_a_hundred_million_equal_contributions_keep_their_mean() -> None:
    steps, weight = 10**6, 101

    @jax.jit
    def folded() -> jax.Array:
        one = Mean.of(0.1, weight)
        return jax.lax.fori_loop(0, steps, lambda _, m: m.merge(one), Mean().reset()).compute()

    @jax.jit
    def plain() -> jax.Array:
        one = jnp.array([0.1 * weight, weight], jnp.float32)
        total = jax.lax.fori_loop(0, steps, lambda _, sums: sums + one, jnp.zeros(2))
        return total[0] / total[1]

    assert abs(float(folded()) - 0.1) < 1e-6
    assert abs(float(plain()) - 0.1) > 1e-3  # a float32 sum alone would not do


def test_mean_of_a_scalar_stands_for_its_weight() -> None:
    mean = Mean.of(1.0, 3).merge(Mean.of(jnp.float32(5.0), jnp.int32(1)))
    assert mean.compute() == 2.0


def test_mean_of_a_scalar_without_weight_counts_for_nothing_even_if_it_is_nan() -> None:
    assert Mean.of(2.0).merge(Mean.of(jnp.nan, 0)).compute() == 2.0


def test_mean_of_a_batch_takes_one_weight_an_example(rng: np.random.Generator) -> None:
    values, weight = rng.uniform(size=(2, 7)).astype(np.float32)
    mask = np.arange(7) != 2
    result = Mean.of(values, weight, mask=mask).compute()
    oracle = np.average(values[mask].astype(float), weights=weight[mask].astype(float))
    np.testing.assert_allclose(result, oracle, rtol=1e-6)


def test_mean_averages_trailing_axes_within_their_example(rng: np.random.Generator) -> None:
    values = rng.normal(size=(4, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(Mean.of(values).compute(), values.mean(), rtol=1e-5)


def test_mean_of_refuses_what_it_cannot_weigh() -> None:
    with pytest.raises(ValueError, match="scalar can't use a `mask`"):
        Mean.of(1.0, mask=jnp.array([True]))
    with pytest.raises(ValueError, match=r"shape \(2,\) as weight of a scalar"):
        Mean.of(1.0, jnp.ones(2))
    with pytest.raises(ValueError, match=r"3 examples and weights of shape \(2,\)"):
        Mean.of(jnp.ones(3), jnp.ones(2))


def test_std_keeps_its_digits_where_the_mean_is_large(rng: np.random.Generator) -> None:
    values = (rng.normal(size=400) + 1e4).astype(np.float32)
    folded = Std()
    for batch in np.split(values, 8):
        folded = folded.merge(Std.of(batch))
    np.testing.assert_allclose(folded.compute(), values.astype(float).std(), rtol=1e-3)


def test_std_of_one_value_or_of_equal_ones_is_0() -> None:
    assert Std.of(jnp.array([3.0])).compute() == 0
    assert Std.of(jnp.full(4, 0.1)).merge(Std.of(jnp.full(4, 0.1))).compute() == 0


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
    with pytest.raises(ValueError, match=r"batch axis.*one number an example"):
        Gather.of({"a": jnp.ones(3), "b": jnp.float32(1)})


@pytest.mark.parametrize("mode", [Mean, Sum, Min, Max, Std, Last])
def test_a_bare_mode_measures_y_pred_under_the_mask(mode: Callable[[], Metric]) -> None:
    metric = mode().update(y_pred=jnp.array([2.0, jnp.nan]), mask=jnp.array([True, False]))
    assert metric.compute() == (0 if mode is Std else 2)
