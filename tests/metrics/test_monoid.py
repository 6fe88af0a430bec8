"""Merging and resetting through parts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqxtrain as et
from eqxtrain.metrics import Metric


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


def test_what_is_of_another_kind_or_option_is_not_merged() -> None:
    micro, macro = et.metrics.F1(average="micro"), et.metrics.F1(average="macro")
    for other in (macro, et.metrics.Recall(average="micro"), 3):
        with pytest.raises(TypeError, match="`F1` can't be merged with"):
            micro.merge(other)


def test_a_metric_with_a_constructor_of_its_own_has_its_parts_replaced() -> None:
    class Scaled(Metric):
        mean: et.metrics.Mean
        factor: int

        def __init__(self, factor: int) -> None:
            self.mean, self.factor = et.metrics.Mean(), factor

        def update(self, y_pred: Any) -> Any:
            return self.replace(mean=self.mean.update(self.factor * y_pred))

        def compute(self) -> jax.Array:
            return self.mean.compute()

    assert Scaled(3).update(jnp.ones(2)).compute() == 3
    with pytest.raises(TypeError, match="`Scaled` has no field `total`: its fields are "):
        Scaled(3).replace(total=1)


@pytest.mark.parametrize("metric", [et.metrics.Std(), et.metrics.F1(num_classes=3)])
def test_accumulators_of_known_shape_are_a_carry_from_the_start(metric: Any) -> None:
    p, t = jnp.ones((4, 2, 3)), jnp.zeros((4, 2), jnp.int32)
    given = (p[0],) if isinstance(metric, et.metrics.Std) else (p[0], t[0])
    take = lambda seen: seen.update(*given)
    seen, _ = jax.lax.scan(lambda seen, _: (take(seen), None), metric.reset(), p)
    np.testing.assert_allclose(seen.compute(), take(metric).compute(), atol=1e-6)
