"""The law of all measuring: no split of the data changes a metric."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings, strategies as st

import eqxtrain as et
from eqxtrain._request import call
from eqxtrain.metrics import Metric
from eqxtrain.metrics._collection import FunctionMetric

ROWS, BATCHES = 12, 4


class Bias(Metric):
    """A metric as users write them, that merges and resets through its parts."""

    error: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)
    worst: et.metrics.Max = eqx.field(default_factory=et.metrics.Max)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> "Bias":
        error = et.metrics.Mean.of(y_pred - y_true, mask=mask)
        worst = et.metrics.Max.of(y_pred - y_true, mask=mask)
        return Bias(self.error.merge(error), self.worst.merge(worst))

    def compute(self) -> jax.Array:
        return self.error.compute() + self.worst.compute()


def by_name(y_pred: Any, loss: Any) -> Any:
    return jnp.abs(y_pred) + loss


# Each metric with its oracle, NumPy or scikit-learn in float64.
Oracle = Callable[[np.ndarray, np.ndarray], Any]
CASES: dict[str, tuple[Metric, Oracle]] = {
    "mean": (et.metrics.Mean(), lambda p, t: np.mean(p)),
    "sum": (et.metrics.Sum(), lambda p, t: np.sum(p)),
    "min": (et.metrics.Min(), lambda p, t: np.min(p)),
    "max": (et.metrics.Max(), lambda p, t: np.max(p)),
    "std": (et.metrics.Std(), lambda p, t: np.std(p)),
    "last": (et.metrics.Last(), lambda p, t: p[-1]),
    "accuracy": (
        et.metrics.Accuracy(threshold=1.0),
        lambda p, t: sklearn.metrics.accuracy_score(t > 0.5, p > 1.0),
    ),
    "mean_squared_error": (
        et.metrics.MeanSquaredError(),
        lambda p, t: sklearn.metrics.mean_squared_error(t, p),
    ),
    "mean_absolute_error": (
        et.metrics.MeanAbsoluteError(),
        lambda p, t: sklearn.metrics.mean_absolute_error(t, p),
    ),
    "function": (FunctionMetric(lambda p, t: p * t), lambda p, t: np.mean(p * t)),
    "function_by_name": (FunctionMetric(by_name), lambda p, t: np.mean(np.abs(p) + 3)),
    "through_its_parts": (Bias(), lambda p, t: np.mean(p - t) + np.max(p - t)),
}
EMPTY = {"sum": 0.0}

every_metric = pytest.mark.parametrize("name", CASES)
values = hnp.arrays(np.float32, ROWS, elements=st.floats(-8, 8, width=32, allow_subnormal=False))
masks = hnp.arrays(bool, ROWS)


@eqx.filter_jit
def contribution(metric: Metric, y_pred: Any, y_true: Any, mask: Any) -> Metric:
    available = {"y_pred": y_pred, "y_true": y_true, "mask": mask, "loss": jnp.float32(3)}
    return call(metric.reset().update, available, who="test")


@eqx.filter_jit
def merged(a: Metric, b: Metric) -> Metric:
    return a.merge(b)


def measured(name: str, y_pred: np.ndarray, y_true: np.ndarray, mask: np.ndarray) -> Metric:
    """One batch. What the mask leaves out is nan, which must not get through."""
    padding = np.float32(np.nan)
    y_pred, y_true = np.where(mask, y_pred, padding), np.where(mask, y_true, padding)
    return contribution(CASES[name][0], y_pred, y_true, mask)


def expected(name: str, y_pred: np.ndarray, y_true: np.ndarray, mask: np.ndarray) -> float:
    if not mask.any():
        return EMPTY.get(name, np.nan)
    return float(CASES[name][1](y_pred[mask].astype(float), y_true[mask].astype(float)))


def bits(metric: Metric) -> list[bytes]:
    return [
        np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(eqx.filter(metric, eqx.is_array))
    ]


@every_metric
@given(
    y_pred=values,
    y_true=values,
    mask=masks,
    batch_of=hnp.arrays(np.int64, ROWS, elements=st.integers(0, BATCHES - 1)),
    order=st.permutations(range(BATCHES)),
    nothing_at=st.integers(0, BATCHES),
    grouping=st.lists(st.integers(0, BATCHES - 1), min_size=BATCHES, max_size=BATCHES),
)
def test_every_split_order_and_grouping_gives_what_one_batch_gives(
    name: str,
    y_pred: np.ndarray,
    y_true: np.ndarray,
    mask: np.ndarray,
    batch_of: np.ndarray,
    order: list[int],
    nothing_at: int,
    grouping: list[int],
) -> None:
    if name == "last":  # the only one here that heeds the order
        batch_of, order = np.sort(batch_of), sorted(order)
    parts = [measured(name, y_pred, y_true, mask & (batch_of == batch)) for batch in order]
    parts.insert(nothing_at, parts[0].reset())
    for where in grouping:
        index = where % (len(parts) - 1)
        parts[index : index + 2] = [merged(parts[index], parts[index + 1])]
    [folded] = parts
    oracle = expected(name, y_pred, y_true, mask)
    whole = measured(name, y_pred, y_true, mask).compute()
    np.testing.assert_allclose(whole, oracle, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(folded.compute(), oracle, rtol=1e-5, atol=2e-5)


@every_metric
@settings(max_examples=8)
@given(y_pred=values, y_true=values, mask=masks)
def test_reset_is_the_identity_bit_for_bit(
    name: str, y_pred: np.ndarray, y_true: np.ndarray, mask: np.ndarray
) -> None:
    seen = measured(name, y_pred, y_true, mask)
    assert bits(merged(seen, seen.reset())) == bits(seen)
    assert bits(merged(seen.reset(), seen)) == bits(seen)


@every_metric
def test_dtype_and_structure_stay_what_they_are_from_the_first_step(name: str) -> None:
    ones = np.ones(ROWS, np.float32)
    new = contribution(CASES[name][0], ones, ones, ones > 0)
    kinds: Callable[[Metric], Any] = lambda metric: jax.tree.map(
        lambda leaf: jax.typeof(leaf) if eqx.is_array(leaf) else leaf, metric
    )
    for other in (new.reset(), merged(new, new), merged(new.reset(), new), new.merge(new)):
        assert eqx.tree_equal(kinds(other), kinds(new))
    for leaf in jax.tree.leaves(eqx.filter(new, eqx.is_array)):
        assert leaf.dtype in (jnp.float32, jnp.bool_) and not leaf.weak_type


@every_metric
def test_a_metric_that_saw_nothing_says_nan_and_the_sum_0(name: str) -> None:
    metric, _ = CASES[name]
    ones = np.ones(ROWS, np.float32)
    for empty in (metric, metric.reset(), measured(name, ones, ones, ones < 0)):
        np.testing.assert_equal(float(empty.compute()), EMPTY.get(name, np.nan))


@pytest.mark.parametrize("sizes", [(12,), (1, 11), (5, 4, 3)])
@pytest.mark.parametrize("name", ["mean", "std", "accuracy", "function"])
def test_batches_of_other_sizes_without_a_mask_give_the_same(
    name: str, sizes: tuple[int, ...], rng: np.random.Generator
) -> None:
    y_pred, y_true = rng.normal(size=(2, ROWS)).astype(np.float32)
    metric, oracle = CASES[name]
    for batch in np.split(np.arange(ROWS), np.cumsum(sizes)[:-1]):
        available = {"y_pred": jnp.asarray(y_pred[batch]), "y_true": jnp.asarray(y_true[batch])}
        metric = metric.merge(call(metric.reset().update, available, who="test"))
    np.testing.assert_allclose(metric.compute(), oracle(y_pred, y_true), rtol=1e-5)


def test_an_update_of_what_has_seen_something_adds_to_it() -> None:
    first, second = jnp.array([1.0, 2.0]), jnp.array([6.0])
    twice = Bias().update(first, first - 1).update(second, second - 4)
    np.testing.assert_allclose(twice.compute(), 2 + 4)


def test_a_metric_goes_through_metrics_inside_of_its_parts() -> None:
    class Outer(Metric):
        inner: Bias = eqx.field(default_factory=Bias)
        factor: float = 2.0

        def update(self, y_pred: Any, y_true: Any) -> "Outer":
            return Outer(self.inner.update(y_pred, y_true), self.factor)

        def compute(self) -> jax.Array:
            return self.factor * self.inner.compute()

    one = Outer(factor=3.0).update(jnp.array([1.0]), jnp.array([0.0]))
    two = Outer(factor=3.0).update(jnp.array([3.0]), jnp.array([0.0]))
    np.testing.assert_allclose(one.merge(two).compute(), 3 * (2 + 3))
    assert jnp.isnan(one.reset().compute()) and one.reset().factor == 3.0


def test_a_metric_without_accumulators_is_told_to_hold_some() -> None:
    class Bare(Metric):
        count: jax.Array

    bare = Bare(jnp.zeros(()))
    with pytest.raises(NotImplementedError, match=r"`Bare` has no accumulators.*`merge`"):
        bare.merge(bare)
    with pytest.raises(NotImplementedError, match=r"`Bare` has no accumulators.*`reset`"):
        bare.reset()


def test_what_a_metric_lacks_is_named() -> None:
    class Unfinished(Metric):
        mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

    with pytest.raises(NotImplementedError, match="`Unfinished` is a metric without an `update`"):
        Unfinished().update(y_pred=jnp.zeros(3))
    with pytest.raises(NotImplementedError, match="`Unfinished` is a metric without a `compute`"):
        Unfinished().compute()
