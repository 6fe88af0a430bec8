"""Means of errors, next to scikit-learn's and SciPy's in float64, Keras's and torchmetrics'."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics as sk
from helpers import library
from sklearn.metrics.pairwise import paired_cosine_distances

from eqxtrain.metrics import (
    CosineSimilarity,
    HuberLoss,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogError,
    Metric,
    PinballLoss,
    RootMeanSquaredError,
    Weighted,
)

Oracle = Callable[[Any, Any, Any], Any]
SIZES, ROWS = (19, 13), 19  # the last batch is padded to 19 rows


def huber(delta: float) -> Oracle:
    def mean(t: Any, p: Any, w: Any) -> Any:
        error = scipy.special.huber(delta, p - t)
        return np.average(error.reshape(len(t), -1).mean(1), weights=w)

    return mean


# Each with its formula in scikit-learn or SciPy: of labels, predictions and weights or None.
ELEMENTWISE: dict[str, tuple[Metric, Oracle]] = {
    "squared": (MeanSquaredError(), lambda t, p, w: sk.mean_squared_error(t, p, sample_weight=w)),
    "root": (
        RootMeanSquaredError(),
        lambda t, p, w: np.sqrt(sk.mean_squared_error(t, p, sample_weight=w)),
    ),
    "absolute": (
        MeanAbsoluteError(),
        lambda t, p, w: sk.mean_absolute_error(t, p, sample_weight=w),
    ),
    "percentage": (
        MeanAbsolutePercentageError(),
        lambda t, p, w: sk.mean_absolute_percentage_error(t, p, sample_weight=w),
    ),
    "log": (
        MeanSquaredLogError(),
        lambda t, p, w: sk.mean_squared_log_error(t, p, sample_weight=w),
    ),
    "huber": (HuberLoss(), huber(1.0)),
    "huber, 0.3": (HuberLoss(delta=0.3), huber(0.3)),
    "pinball": (PinballLoss(), lambda t, p, w: sk.mean_pinball_loss(t, p, sample_weight=w)),
    "pinball, 0.9": (
        PinballLoss(alpha=0.9),
        lambda t, p, w: sk.mean_pinball_loss(t, p, sample_weight=w, alpha=0.9),
    ),
}
COSINE = (
    CosineSimilarity(),
    lambda t, p, w: np.average(1 - paired_cosine_distances(t, p), weights=w),
)
ALL: dict[str, tuple[Metric, Oracle]] = ELEMENTWISE | {"cosine": COSINE}
each = pytest.mark.parametrize(("metric", "oracle"), ELEMENTWISE.values(), ids=ELEMENTWISE)
each_and_cosine = pytest.mark.parametrize(("metric", "oracle"), ALL.values(), ids=ALL)


def contribution(metric: Metric, y_pred: Any, y_true: Any, weight: Any, mask: Any) -> Metric:
    return Weighted(metric).update(y_pred=y_pred, y_true=y_true, sample_weight=weight, mask=mask)


@eqx.filter_jit
def merged(a: Metric, b: Metric) -> Metric:
    return a.merge(b)


def padded(values: np.ndarray) -> np.ndarray:
    rows = np.full((ROWS - len(values), *values.shape[1:]), np.nan, values.dtype)
    return np.concatenate([values, rows])


def over_batches(metric: Metric, p: np.ndarray, t: np.ndarray, w: np.ndarray | None = None) -> Any:
    """Batches of two sizes, the last one with rows of nan under the mask."""
    total: Metric = Weighted(metric)
    for rows in np.split(np.arange(len(p)), np.cumsum(SIZES)[:-1]):
        parts: list[Any] = [None if a is None else a[rows] for a in (p, t, w)]
        mask = None
        if len(rows) == SIZES[-1]:
            parts: list[Any] = [None if a is None else padded(a) for a in parts]
            mask = np.arange(ROWS) < SIZES[-1]
        total = merged(total, contribution(metric, parts[0], parts[1], parts[2], mask))
    return total.compute()


def values(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels, positive as the logarithm and the percentage need them."""
    t, noise = rng.gamma(3.0, size=shape), rng.normal(size=shape)
    return np.maximum(t + noise, 0.01).astype(np.float32), t.astype(np.float32)


def fractions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights with a few zeros whose sum is below 1."""
    weight = rng.uniform(size=shape) * (rng.uniform(size=shape) > 0.2)
    return (0.4 * weight / weight.sum()).astype(np.float32)


def wide(*arrays: Any) -> list[Any]:
    return [None if a is None else np.asarray(a).astype(np.float64) for a in arrays]


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in ELEMENTWISE for shape in ((32,), (32, 3))] + [("cosine", (32, 3))],
)
def test_merged_batches_agree_with_scikit_learn_on_all_of_them(
    name: str, shape: tuple[int, ...], weighted: bool, rng: np.random.Generator
) -> None:
    metric, oracle = ALL[name]
    p, t = values(rng, *shape)
    w = fractions(rng, 32) if weighted else None
    expected = oracle(*wide(t, p, w))
    np.testing.assert_allclose(over_batches(metric, p, t, w), expected, rtol=1e-5)


def test_compiled_they_are_the_same(rng: np.random.Generator) -> None:
    (p, t), w = values(rng, 16, 3), fractions(rng, 16)
    mask = np.arange(16) < 12
    metrics = {name: metric for name, (metric, _) in ALL.items()}
    compiled = eqx.filter_jit(
        lambda p, t, w: {
            name: contribution(m, p, t, w, mask).compute() for name, m in metrics.items()
        }
    )(p, t, w)
    for name, (_, oracle) in ALL.items():
        expected = oracle(*wide(t[:12], p[:12], w[:12]))
        np.testing.assert_allclose(compiled[name], expected, rtol=1e-5, err_msg=name)


@each
def test_weights_of_rank_2_weigh_each_token(
    metric: Metric, oracle: Oracle, rng: np.random.Generator
) -> None:
    (p, t), w = values(rng, 32, 3), fractions(rng, 32, 3)
    expected = oracle(*wide(t.ravel(), p.ravel(), w.ravel()))
    np.testing.assert_allclose(over_batches(metric, p, t, w), expected, rtol=1e-5)


def test_the_cosine_of_each_token_is_weighed_as_by_scikit_learn(rng: np.random.Generator) -> None:
    (p, t), w = rng.normal(size=(2, 32, 3, 4)).astype(np.float32), fractions(rng, 32, 3)
    expected = COSINE[1](*wide(t.reshape(-1, 4), p.reshape(-1, 4), w.ravel()))
    result = over_batches(CosineSimilarity(), p, t, w)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-7)


@each
def test_a_column_of_weights_is_one_an_example(
    metric: Metric, oracle: Oracle, rng: np.random.Generator
) -> None:
    (p, t), w = values(rng, 16, 2), fractions(rng, 16)
    result = contribution(metric, p, t, w[:, None], None).compute()
    np.testing.assert_allclose(result, oracle(*wide(t, p, w)), rtol=1e-5)


@each_and_cosine
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_every_dtype_is_measured_in_float32(
    metric: Metric, oracle: Oracle, dtype: Any, rng: np.random.Generator
) -> None:
    p, t = (jnp.asarray(1 + 20 * a).astype(dtype) for a in values(rng, 16, 3))
    result = contribution(metric, p, t, None, None).compute()
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, oracle(*wide(t, p, None)), rtol=2e-5)


@each
def test_a_large_offset_costs_no_digits(
    metric: Metric, oracle: Oracle, rng: np.random.Generator
) -> None:
    t = 1e4 + rng.normal(size=32)
    p, t = (t + rng.normal(size=32)).astype(np.float32), t.astype(np.float32)
    # in logarithms, the values themselves have four digits in float32
    rtol = 2e-2 if isinstance(metric, MeanSquaredLogError) else 1e-4
    np.testing.assert_allclose(over_batches(metric, p, t), oracle(*wide(t, p, None)), rtol=rtol)


@each_and_cosine
def test_one_example_is_itself_and_none_is_nan(metric: Metric, oracle: Oracle) -> None:
    p, t = jnp.float32([[2.5, 1.0]]), jnp.float32([[1.0, 4.0]])
    one = contribution(metric, p, t, None, None)
    np.testing.assert_allclose(one.compute(), oracle(*wide(t, p, None)), rtol=1e-6)
    nothing = contribution(metric, p, t, jnp.float32([0]), None)
    for empty in (metric, one.reset(), nothing):
        assert np.isnan(empty.compute())
    np.testing.assert_equal(np.asarray(one.merge(nothing).compute()), one.compute())


def test_a_label_of_0_is_divided_by_the_eps_of_float32() -> None:
    result = MeanAbsolutePercentageError().update(jnp.array([1e-7]), jnp.array([0.0])).compute()
    np.testing.assert_allclose(result, 1e-7 / np.finfo(np.float32).eps, rtol=1e-6)


def test_a_logarithm_below_its_domain_is_nan() -> None:
    assert jnp.isnan(MeanSquaredLogError().update(jnp.array([-1.5]), jnp.array([0.0])).compute())


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_the_cosine_has_no_scale_and_that_of_zeros_is_0(
    scale: float, rng: np.random.Generator
) -> None:
    p, t = (scale * rng.normal(size=(2, 16, 3))).astype(np.float32)
    p[3], t[5] = 0, 0
    expected = np.delete(1 - paired_cosine_distances(*wide(t, p)), [3, 5]).sum() / 16
    result = CosineSimilarity().update(p, t).compute()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_the_cosine_of_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`CosineSimilarity` compares vectors.*\(4,\)"):
        CosineSimilarity().update(jnp.ones(4), jnp.ones(4))


@each
def test_shapes_that_would_broadcast_are_refused(metric: Metric, oracle: Oracle) -> None:
    with pytest.raises(
        ValueError, match=r"element by element.*\(4, 1\).*`y_true` has shape \(4,\).*None"
    ):
        metric.update(jnp.zeros((4, 1)), jnp.zeros(4))


@pytest.mark.slow
def test_torchmetrics_agrees(rng: np.random.Generator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch, tm = (pytest.importorskip(name) for name in ("torch", "torchmetrics"))
    p, t = values(rng, 32, 3)
    pairs = [
        (MeanSquaredError(), tm.MeanSquaredError()),
        (RootMeanSquaredError(), tm.MeanSquaredError(squared=False)),
        (MeanAbsoluteError(), tm.MeanAbsoluteError()),
        (MeanAbsolutePercentageError(), tm.MeanAbsolutePercentageError()),
        (MeanSquaredLogError(), tm.MeanSquaredLogError()),
        (CosineSimilarity(), tm.CosineSimilarity(reduction="mean")),
    ]
    for ours, theirs in pairs:
        theirs.update(torch.tensor(p), torch.tensor(t))
        expected = theirs.compute().item()
        np.testing.assert_allclose(over_batches(ours, p, t), expected, rtol=1e-5)


@pytest.mark.slow
def test_keras_agrees_with_weights(rng: np.random.Generator) -> None:
    keras = library("keras")
    (p, t), w = values(rng, 32, 3), fractions(rng, 32)
    pairs = [
        (MeanSquaredError(), keras.metrics.MeanSquaredError(), 1),
        (RootMeanSquaredError(), keras.metrics.RootMeanSquaredError(), 1),
        (MeanAbsoluteError(), keras.metrics.MeanAbsoluteError(), 1),
        (MeanAbsolutePercentageError(), keras.metrics.MeanAbsolutePercentageError(), 100),
        (MeanSquaredLogError(), keras.metrics.MeanSquaredLogarithmicError(), 1),
        (CosineSimilarity(), keras.metrics.CosineSimilarity(axis=-1), 1),
        (HuberLoss(delta=0.3), keras.metrics.MeanMetricWrapper(keras.losses.huber, delta=0.3), 1),
    ]
    for ours, theirs, unit in pairs:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            for rows in np.split(np.arange(32), 2):
                theirs.update_state(t[rows], p[rows], sample_weight=w[rows])
            expected = float(theirs.result()) / unit
        np.testing.assert_allclose(over_batches(ours, p, t, w), expected, rtol=1e-5)
