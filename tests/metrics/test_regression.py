"""Squared and absolute errors, next to scikit-learn's."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error

from eqxtrain.metrics import MeanAbsoluteError, MeanSquaredError, Metric

both = pytest.mark.parametrize(
    ("metric", "oracle"),
    [(MeanSquaredError(), mean_squared_error), (MeanAbsoluteError(), mean_absolute_error)],
    ids=["squared", "absolute"],
)


@both
@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 3)])
def test_errors_agree_with_scikit_learn(
    metric: Metric, oracle: Callable[..., Any], shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    y_pred, y_true = rng.normal(size=(2, *shape)).astype(np.float32)
    result = metric.update(y_pred, y_true).compute()
    np.testing.assert_allclose(result, oracle(y_true, y_pred), rtol=1e-5)


@both
def test_padding_is_left_out(
    metric: Metric, oracle: Callable[..., Any], rng: np.random.Generator
) -> None:
    y_pred, y_true = rng.normal(size=(2, 6, 2)).astype(np.float32)
    mask = np.arange(6) < 4
    y_pred[4:] = np.nan
    result = metric.update(y_pred, y_true, mask=mask).compute()
    np.testing.assert_allclose(result, oracle(y_true[:4], y_pred[:4]), rtol=1e-5)


@both
def test_dtypes_may_differ_and_unsigned_integers_do_not_wrap(
    metric: Metric, oracle: Callable[..., Any]
) -> None:
    small, large = jnp.array([1, 2], jnp.uint8), jnp.array([3, 5], jnp.uint8)
    expected = oracle([3, 5], [1, 2])
    assert metric.update(small, large).compute() == expected
    assert metric.update(small.astype(jnp.bfloat16), large).compute() == expected


@both
def test_shapes_that_would_broadcast_are_refused(
    metric: Metric, oracle: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=r"element by element.*\(4, 1\).*`y_true` \(4,\).*None"):
        metric.update(jnp.zeros((4, 1)), jnp.zeros(4))
