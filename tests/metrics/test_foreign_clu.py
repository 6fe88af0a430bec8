"""Metrics of clu as they are, next to scikit-learn's and NumPy's in float64."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from helpers import data, learner, library

from eqxtrain.metrics import Metric, Weighted, from_clu


@pytest.fixture
def clu() -> Iterator[Any]:
    """clu's metrics, and JAX as most people run it: they promote dtypes and ranks."""
    metrics = library("clu.metrics")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield metrics


def over_batches(metric: Metric, p: Any, t: Any, mask: Any = None, w: Any = None) -> Metric:
    metric = metric if w is None else Weighted(metric)
    total = metric
    for rows in np.split(np.arange(len(p)), [19]):
        parts = (None if a is None else jnp.asarray(a[rows]) for a in (p, t, mask, w))
        batch = dict(zip(("y_pred", "y_true", "mask", "sample_weight"), parts, strict=True))
        total = total.merge(metric.reset().update(**batch))
    return total


def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(32, 3)).astype(np.float32), rng.integers(0, 3, 32).astype(np.int32)


def numbers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    p, t = rng.normal(size=(2, 32)).astype(np.float32)
    return p, t


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_the_accuracy_of_clu_agrees_with_scikit_learn(
    masked: bool, clu: Any, rng: np.random.Generator
) -> None:
    (p, t), mask = scores(rng), np.arange(32) < (20 if masked else 32)
    result = over_batches(from_clu(clu.Accuracy), p, t, mask if masked else None).compute()
    np.testing.assert_allclose(result, sk.accuracy_score(t[mask], p[mask].argmax(1)), rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["Average", "Std"])
def test_average_and_std_of_clu_agree_with_numpy(
    kind: str, masked: bool, clu: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = jnp.clip  # clu's Std uses a name that JAX has dropped
    monkeypatch.setattr(jnp, "clip", lambda x, a_min: clip(x, a_min))
    (p, t), mask = numbers(rng), np.arange(32) < (20 if masked else 32)
    p = np.where(mask, p, np.float32(np.nan))
    result = over_batches(from_clu(getattr(clu, kind)), p, t, mask if masked else None).compute()
    oracle = {"Average": np.mean, "Std": np.std}[kind](p[mask].astype(float))
    np.testing.assert_allclose(result, oracle, rtol=1e-5)


def test_fractional_weights_of_clus_masks_are_right_or_refused(
    clu: Any, rng: np.random.Generator
) -> None:
    (p, t), w = numbers(rng), rng.uniform(0, 0.02, 32).astype(np.float32)
    try:
        result = over_batches(from_clu(clu.Average), p, t, w=w).compute()
    except TypeError as error:
        assert "weight" in str(error)
    else:
        np.testing.assert_allclose(result, np.average(p.astype(float), weights=w), rtol=1e-5)


@pytest.mark.parametrize("accuracy", [False, True])
def test_a_collection_of_clu_gives_each_of_its_parts(
    accuracy: bool, clu: Any, rng: np.random.Generator
) -> None:
    p, t = scores(rng)
    kinds = {"size": clu.Average, "error": clu.Average.from_fun(lambda y_true, **_: y_true + 0.5)}
    kinds |= {"accuracy": clu.Accuracy} if accuracy else {}
    total = over_batches(from_clu(clu.Collection.create(**kinds), name="all"), p, t)
    expected = {"all/size": p.mean(dtype=float), "all/error": t.mean() + 0.5}
    expected |= {"all/accuracy": sk.accuracy_score(t, p.argmax(1))} if accuracy else {}
    assert total.results("all") == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [4, 21])
def test_in_a_learner_a_collection_agrees_with_numpy(clu: Any, batch_size: int) -> None:
    x, y = data(21)
    top = clu.Average.from_fun(lambda y_pred, **_: jnp.max(y_pred, 1))
    metrics = [from_clu(clu.Collection.create(size=clu.Average, top=top), name="all")]
    made = learner(metrics=metrics).init()
    result, y_pred = made.evaluate(x, y, batch_size=batch_size), made.predict(x)
    assert result["all/size"] == pytest.approx(y_pred.mean(dtype=float), rel=1e-4)
    assert result["all/top"] == pytest.approx(y_pred.max(1).mean(dtype=float), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [4, 21])
def test_in_a_learner_the_accuracy_agrees_with_scikit_learn(clu: Any, batch_size: int) -> None:
    x, y = data(21)
    made = learner(metrics={"a": from_clu(clu.Accuracy)}).init()
    result = made.evaluate(x, y, batch_size=batch_size)
    expected = sk.accuracy_score(y, made.predict(x).argmax(1))
    assert result["a"] == pytest.approx(expected, rel=1e-5)
