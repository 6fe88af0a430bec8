"""How much of the labels' variation is explained, next to scikit-learn's, SciPy's and NumPy's."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from helpers import library

from eqxtrain.metrics import (
    ExplainedVariance,
    Metric,
    PearsonCorrCoef,
    R2Score,
    SpearmanCorrCoef,
    Weighted,
)

SIZES, ROWS = (19, 13), 19  # the last batch is padded to 19 rows
MULTIOUTPUT = ("uniform_average", "variance_weighted", "raw_values")
Kind = Callable[..., Metric]
stats: Any = scipy.stats


def pearson(t: Any, p: Any, sample_weight: Any = None, multioutput: str = "raw_values") -> Any:
    """SciPy's, and NumPy's covariances where there are weights."""
    scores, variances = [], []
    for a, b in zip(t.reshape(len(t), -1).T, p.reshape(len(p), -1).T, strict=True):
        cov = np.cov(a, b, aweights=sample_weight, ddof=0)
        score = cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])
        if sample_weight is None:
            np.testing.assert_allclose(score, stats.pearsonr(a, b).statistic)
        scores.append(score)
        variances.append(cov[0, 0])
    if multioutput == "raw_values":
        return scores if t.ndim > 1 else scores[0]
    return np.average(scores, weights=variances if multioutput == "variance_weighted" else None)


KINDS: dict[str, tuple[Kind, Callable[..., Any]]] = {
    "r2": (R2Score, sk.r2_score),
    "explained": (ExplainedVariance, sk.explained_variance_score),
    "pearson": (PearsonCorrCoef, pearson),
}
each = pytest.mark.parametrize(("kind", "oracle"), KINDS.values(), ids=KINDS)


def contribution(metric: Metric, y_pred: Any, y_true: Any, weight: Any, mask: Any) -> Metric:
    return Weighted(metric).update(y_pred=y_pred, y_true=y_true, sample_weight=weight, mask=mask)


compiled = eqx.filter_jit(contribution)
merged = eqx.filter_jit(lambda a, b: a.merge(b))


def padded(values: np.ndarray) -> np.ndarray:
    rows = np.full((ROWS - len(values), *values.shape[1:]), np.nan, values.dtype)
    return np.concatenate([values, rows])


def over_batches(metric: Metric, p: np.ndarray, t: np.ndarray, w: np.ndarray | None = None) -> Any:
    """Batches of two sizes, the last one with rows of nan under the mask."""
    total: Metric = Weighted(metric)
    for rows in np.split(np.arange(len(p)), np.cumsum(SIZES)[:-1]):
        parts: list[Any] = [None if a is None else a[rows] for a in (p, t, w)]
        mask = np.arange(len(rows)) >= 0
        if len(rows) == SIZES[-1]:
            parts = [None if a is None else padded(a) for a in parts]
            mask = np.arange(ROWS) < SIZES[-1]
        total = total.merge(contribution(metric, parts[0], parts[1], parts[2], mask))
    return total.compute()


def values(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Biased predictions and labels, whose outputs have variances of their own."""
    t = rng.normal(size=shape) * (np.arange(1.0, shape[-1] + 1) if len(shape) > 1 else 1.0)
    p = 0.3 + 0.8 * t + 0.6 * rng.normal(size=shape)
    return p.astype(np.float32), t.astype(np.float32)


def fractions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights with a few zeros whose sum is below 1."""
    weight = rng.uniform(size=shape) * (rng.uniform(size=shape) > 0.2)
    return (0.4 * weight / weight.sum()).astype(np.float32)


def wide(*arrays: Any) -> list[np.ndarray]:
    return [np.asarray(a).astype(np.float64) for a in arrays]


@each
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("multioutput", MULTIOUTPUT)
@pytest.mark.parametrize("shape", [(32,), (32, 3)], ids=str)
def test_merged_batches_agree_with_the_oracle_on_all_of_them(
    kind: Kind,
    oracle: Callable[..., Any],
    weighted: bool,
    multioutput: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> None:
    (p, t), w = values(rng, *shape), fractions(rng, 32) if weighted else None
    result = over_batches(kind(multioutput=multioutput), p, t, w)
    weight = None if w is None else w.astype(np.float64)
    expected = oracle(*wide(t, p), sample_weight=weight, multioutput=multioutput)
    if len(shape) == 1:  # what has no outputs has a number
        assert result.shape == ()
        expected = np.squeeze(expected)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@each
@pytest.mark.parametrize("noise", [0.5, 0.1])
def test_a_large_offset_in_many_compiled_batches_costs_few_digits(
    kind: Kind, oracle: Callable[..., Any], noise: float, rng: np.random.Generator
) -> None:
    t = 1e4 + rng.normal(size=500)
    p, t = (t + noise * rng.normal(size=500)).astype(np.float32), t.astype(np.float32)
    batches = zip(np.split(p, 50), np.split(t, 50), strict=True)
    total: Metric = Weighted(kind())
    for a, b in batches:
        total = merged(total, compiled(kind(), a, b, None, None))
    np.testing.assert_allclose(total.compute(), oracle(*wide(t, p)), rtol=1e-3)


@each
def test_one_large_batch_far_from_0_keeps_its_digits(
    kind: Kind, oracle: Callable[..., Any], rng: np.random.Generator
) -> None:
    t = 1e4 + rng.normal(size=50_000)
    p, t = (t + rng.normal(size=50_000)).astype(np.float32), t.astype(np.float32)
    w = rng.uniform(0, 1e-5, 50_000).astype(np.float32)
    expected = oracle(*wide(t, p), sample_weight=w.astype(np.float64))
    result = contribution(kind(), p, t, w, None).compute()
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


@each
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_every_dtype_is_measured_in_float32(
    kind: Kind, oracle: Callable[..., Any], dtype: Any, rng: np.random.Generator
) -> None:
    p, t = (jnp.asarray(100 + 20 * a).astype(dtype) for a in values(rng, 16))
    result = kind().update(p, t).compute()
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, oracle(*wide(t, p)), rtol=1e-4)


# scikit-learn: 1 where the predictions are right, else 0; SciPy: nan, with a warning.
@pytest.mark.parametrize("constant", [0.0, 3.0, 0.1, 1e4 / 3])
@pytest.mark.parametrize("name", KINDS)
def test_labels_that_are_constant_are_as_in_scikit_learn_and_scipy(
    name: str, constant: float, rng: np.random.Generator
) -> None:
    kind, oracle = KINDS[name]
    t = np.full(32, constant, np.float32)
    p = rng.normal(size=32).astype(np.float32)
    expected = np.nan if name == "pearson" else oracle(*wide(t, p))
    np.testing.assert_equal(float(over_batches(kind(), p, t)), expected)
    expected = np.nan if name == "pearson" else 1.0
    np.testing.assert_equal(float(over_batches(kind(), t, t)), expected)


def test_predictions_that_are_constant_have_no_correlation(rng: np.random.Generator) -> None:
    t, p = rng.normal(size=32).astype(np.float32), np.full(32, 0.1, np.float32)
    for metric in (PearsonCorrCoef(), SpearmanCorrCoef()):  # SciPy's word for it: nan
        assert np.isnan(over_batches(metric, p, t))


# For `R2Score` a single example is constant labels; scikit-learn refuses less than two.
@pytest.mark.parametrize("name", KINDS)
def test_of_one_example_it_is_as_in_scikit_learn_and_undefined_for_scipy(name: str) -> None:
    (kind, oracle), (p, t) = KINDS[name], (jnp.float32([2.5]), jnp.float32([1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twice = (jnp.repeat(a, 2 if name == "r2" else 1) for a in (t, p))
        expected = np.nan if name == "pearson" else float(oracle(*wide(*twice)))
    np.testing.assert_equal(float(kind().update(p, t).compute()), expected)


@each
@pytest.mark.parametrize("multioutput", MULTIOUTPUT)
def test_nothing_seen_is_nan_and_changes_nothing(
    kind: Kind, oracle: Callable[..., Any], multioutput: str, rng: np.random.Generator
) -> None:
    metric, (p, t) = kind(multioutput=multioutput), values(rng, 8, 2)
    seen = metric.update(p, t)
    padding = metric.update(p * np.nan, t * np.nan, mask=np.zeros(8, bool))
    for empty in (metric, seen.reset(), padding):
        assert np.isnan(empty.compute()).all()
        for both in (seen.merge(empty), empty.merge(seen)):
            np.testing.assert_array_equal(both.compute(), seen.compute())


@each
def test_an_unknown_multioutput_is_refused(
    kind: Kind, oracle: Callable[..., Any], unchecked: None
) -> None:
    with pytest.raises(ValueError, match=r"multioutput='mean'.*'uniform_average', 'variance"):
        kind(multioutput="mean")


# The sentence says that a weight may be "one for each of its values", which is what was given.
@each
def test_weights_of_each_output_are_refused_with_a_true_sentence(
    kind: Kind, oracle: Callable[..., Any], rng: np.random.Generator
) -> None:
    p, t = values(rng, 8, 2)
    with pytest.raises(ValueError, match=r"mask|weight") as refused:
        contribution(kind(), p, t, np.ones((8, 2), np.float32), None)
    assert "one for each of its values" not in str(refused.value)


def spearman(t: np.ndarray, p: np.ndarray) -> float:
    columns = zip(t.reshape(len(t), -1).T, p.reshape(len(p), -1).T, strict=True)
    return float(np.mean([stats.spearmanr(a, b).statistic for a, b in columns]))


@pytest.mark.parametrize("decimals", [0, 6], ids=["ties", "no ties"])
@pytest.mark.parametrize("shape", [(32,), (32, 1), (32, 3)], ids=str)
def test_ranks_are_correlated_as_by_scipy(
    decimals: int, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    p, t = (1e3 + np.round(a, decimals) for a in values(rng, *shape))
    result = over_batches(SpearmanCorrCoef(), p, t)
    np.testing.assert_allclose(result, spearman(*wide(t, p)), rtol=1e-6)


def test_a_nan_that_is_seen_has_no_rank_as_in_scipy(rng: np.random.Generator) -> None:
    p, t = values(rng, 8)
    p[3] = np.nan
    assert np.isnan(SpearmanCorrCoef().update(p, t).compute())


def test_ranks_of_one_example_or_of_none_are_nan() -> None:
    assert np.isnan(SpearmanCorrCoef().compute())
    assert np.isnan(SpearmanCorrCoef().update(jnp.ones(1), jnp.ones(1)).compute())


@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_ranks_of_padding_alone_are_nan(shape: tuple[int, ...]) -> None:
    seen = SpearmanCorrCoef().update(jnp.ones(shape), jnp.ones(shape), mask=np.zeros(4, bool))
    assert np.isnan(seen.compute())


def test_ranks_of_batches_with_and_without_padding_are_merged(rng: np.random.Generator) -> None:
    p, t = values(rng, 12)
    whole = SpearmanCorrCoef().update(p[:8], t[:8])
    rest = SpearmanCorrCoef().update(padded(p[8:]), padded(t[8:]), mask=np.arange(ROWS) < 4)
    np.testing.assert_allclose(whole.merge(rest).compute(), spearman(*wide(t, p)), rtol=1e-6)


def test_ranks_have_no_weights() -> None:
    with pytest.raises(TypeError, match=r"`SpearmanCorrCoef` can't be weighted.*`Weighted`"):
        contribution(SpearmanCorrCoef(), jnp.ones(4), jnp.ones(4), np.ones(4, np.float32), None)


def test_torchmetrics_agrees(rng: np.random.Generator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch, tm = (pytest.importorskip(name) for name in ("torch", "torchmetrics"))
        p, t = values(rng, 32, 3)
        pairs: list[tuple[Metric, Any]] = [(SpearmanCorrCoef(), tm.SpearmanCorrCoef(num_outputs=3))]
        for how in MULTIOUTPUT:
            pairs.append((R2Score(multioutput=how), tm.R2Score(multioutput=how)))
            pairs.append((ExplainedVariance(multioutput=how), tm.ExplainedVariance(how)))
        pairs.append((PearsonCorrCoef(multioutput="raw_values"), tm.PearsonCorrCoef(num_outputs=3)))
        for ours, theirs in pairs:
            theirs.update(torch.tensor(p), torch.tensor(t))
            expected = theirs.compute().numpy()
            expected = expected.mean() if isinstance(ours, SpearmanCorrCoef) else expected
            np.testing.assert_allclose(over_batches(ours, p, t), expected, rtol=1e-4)


def test_keras_agrees_with_weights(rng: np.random.Generator) -> None:
    keras = library("keras")
    (p, t), w = values(rng, 32, 3), fractions(rng, 32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras.metrics.R2Score()
        theirs.update_state(t, p, sample_weight=w)
        expected = float(theirs.result())
    np.testing.assert_allclose(over_batches(R2Score(), p, t, w), expected, rtol=1e-4)
