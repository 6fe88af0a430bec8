"""Metrics of metrax as they are, next to scikit-learn's and NumPy's in float64."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics as sk
from helpers import data, learner, library

from eqxtrain.metrics import Metric, On, Weighted, from_clu
from eqxtrain.metrics._collection import measure_metrics, named_metrics


@pytest.fixture
def lax_settings() -> Iterator[None]:
    """As most people run JAX: both libraries promote dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


lax = pytest.mark.usefixtures("lax_settings")
SIZES = (19, 13)


def over_batches(metric: Metric, p: Any, t: Any, mask: Any = None, w: Any = None) -> Metric:
    metric = metric if w is None else Weighted(metric)
    total = metric
    for rows in np.split(np.arange(len(p)), np.cumsum(SIZES)[:-1]):
        parts = (None if a is None else jnp.asarray(a[rows]) for a in (p, t, mask, w))
        batch = dict(zip(("y_pred", "y_true", "mask", "sample_weight"), parts, strict=True))
        total = total.merge(eqx.filter_jit(lambda batch: metric.reset().update(**batch))(batch))
    return total


def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(32, 3)).astype(np.float32), rng.integers(0, 3, 32).astype(np.int32)


def chances(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities between the thresholds of metrax's curves, so that these are exact."""
    chance = (rng.integers(0, 199, 32) + 0.5) / 199
    return chance.astype(np.float32), (rng.uniform(size=32) < chance).astype(np.int32)


def numbers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    p, t = rng.normal(size=(2, 32)).astype(np.float32)
    return p, t


def fractions(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 0.02, 32).astype(np.float32)  # their sum is below 1


def perplexity(t: Any, p: Any, sample_weight: Any = None) -> float:
    chance = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    return float(np.exp(sk.log_loss(t, chance, sample_weight=sample_weight, labels=[0, 1, 2])))


# The metric of metrax, its data, and scikit-learn's of labels, predictions and weights.
METRAX: dict[str, tuple[str, dict[str, Any], Any, Callable[..., Any]]] = {
    "accuracy": ("Accuracy", {}, lambda rng: rng.integers(0, 3, (2, 32)), sk.accuracy_score),
    "mse": ("MSE", {}, numbers, sk.mean_squared_error),
    "mae": ("MAE", {}, numbers, sk.mean_absolute_error),
    "aucroc": ("AUCROC", {}, chances, sk.roc_auc_score),
    "perplexity": ("Perplexity", {"from_logits": True}, scores, perplexity),
    "precision": ("Precision", {}, chances, lambda t, p: sk.precision_score(t, p > 0.5)),
    "precision at 0.3": (
        "Precision",
        {"threshold": 0.3},
        chances,
        lambda t, p: sk.precision_score(t, p > 0.3),
    ),
}
weighing = [name for name in METRAX if "precision" not in name and name != "perplexity"]


def metrax(kind: str, **options: Any) -> Metric:
    return from_clu(getattr(library("metrax"), kind), **options)


def foreign(name: str) -> Metric:
    kind, options, _, _ = METRAX[name]
    return metrax(kind, **options)


def wide(*arrays: Any) -> list[np.ndarray]:
    return [np.asarray(a).astype(float if np.asarray(a).dtype.kind == "f" else int) for a in arrays]


@lax
@pytest.mark.parametrize("name", METRAX)
def test_metrics_of_metrax_agree_with_scikit_learn(name: str, rng: np.random.Generator) -> None:
    _, _, make, oracle = METRAX[name]
    p, t = make(rng)
    result = over_batches(foreign(name), p, t).compute()
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, oracle(*wide(t, p)), rtol=1e-5)


@lax
@pytest.mark.parametrize("name", weighing)
@pytest.mark.parametrize("how", ["mask", "weights", "both"])
def test_masks_and_fractional_weights_are_metraxs_weights(
    name: str, how: str, rng: np.random.Generator
) -> None:
    _, _, make, oracle = METRAX[name]
    (p, t), mask, w = make(rng), np.arange(32) < 27, fractions(rng)
    given = {"mask": None if how == "weights" else mask, "w": None if how == "mask" else w}
    weight = np.where(given["mask"] is None or mask, 1.0 if how == "mask" else w, 0.0)
    result = over_batches(foreign(name), p, t, **given).compute()
    np.testing.assert_allclose(result, oracle(*wide(t, p), sample_weight=weight), rtol=1e-5)


@lax
def test_padding_of_nan_is_left_out_of_metraxs(rng: np.random.Generator) -> None:
    (p, t), mask = numbers(rng), np.arange(32) < 27
    y_pred = jnp.asarray(np.where(mask, p, np.float32(np.nan)))
    seen = foreign("mse").update(y_pred=y_pred, y_true=jnp.asarray(t), mask=jnp.asarray(mask))
    expected = sk.mean_squared_error(*wide(t[mask], p[mask]))
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5)


@lax
@pytest.mark.parametrize("shape", [(4, 4), (4, 3)])
def test_a_mask_of_rows_is_one_of_rows_for_several_outputs(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    p, t = rng.normal(size=(2, *shape)).astype(np.float32)
    mask = np.arange(4) < 3
    batch = {"y_pred": jnp.asarray(p), "y_true": jnp.asarray(t), "mask": jnp.asarray(mask)}
    expected = sk.mean_squared_error(*wide(t[mask], p[mask]))
    np.testing.assert_allclose(foreign("mse").update(**batch).compute(), expected, rtol=1e-5)


@lax
@pytest.mark.parametrize("weighted_first", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_batches_with_and_without_weights_are_merged_without_truncation(
    weighted_first: bool, reset: bool, rng: np.random.Generator
) -> None:
    (p, t), w = numbers(rng), fractions(rng)
    total, weights = foreign("mse"), [np.ones(32), w]
    for weighted in (weighted_first, not weighted_first):
        weight = jnp.asarray(w) if weighted else None
        total = total.update(y_pred=jnp.asarray(p), y_true=jnp.asarray(t), mask=weight)
        if reset:  # what was seen is forgotten, and its dtypes must not matter
            last, total = total, total.reset()
            expected = np.average((p - t).astype(float) ** 2, weights=weights[weighted])
            np.testing.assert_allclose(last.compute(), expected, rtol=1e-5)
    if not reset:
        both = np.tile((p - t).astype(float) ** 2, 2)
        expected = np.average(both, weights=np.concatenate(weights))
        np.testing.assert_allclose(total.compute(), expected, rtol=1e-5)


@lax
@pytest.mark.parametrize("masked", [False, True])
def test_weights_may_be_handed_to_metrax_by_name(masked: bool, rng: np.random.Generator) -> None:
    (p, t), w = numbers(rng), fractions(rng)
    mask = np.arange(32) < 20 if masked else None
    metric = metrax("MSE", sample_weights="sample_weight")
    batch = {"y_pred": jnp.asarray(p), "y_true": jnp.asarray(t), "sample_weight": jnp.asarray(w)}
    result = metric.update(**batch, mask=None if mask is None else jnp.asarray(mask)).compute()
    kept = slice(0, 20 if masked else 32)
    expected = np.average((p - t)[kept].astype(float) ** 2, weights=w[kept])
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@lax
def test_what_takes_no_mask_is_refused_where_there_is_one() -> None:
    for metric in (foreign("precision"), Weighted(foreign("precision"))):
        batch = {"y_pred": jnp.ones(3), "y_true": jnp.ones(3, int), "sample_weight": None}
        with pytest.raises(
            TypeError, match=r"`precision` can't leave out padding.*not take `mask`"
        ):
            metric.update(**batch, mask=jnp.array([True, True, False]))


@lax
def test_what_is_asked_for_and_not_there_is_named() -> None:
    with pytest.raises(TypeError, match=r"`mse` asks for `labels`.*`from_clu\(mse, labels=\"y_p"):
        metrax("MSE").update(y_pred=jnp.ones(3), mask=None)


@lax
def test_an_argument_that_it_does_not_take_is_refused() -> None:
    with pytest.raises(TypeError, match="threshhold"):
        metric = metrax("Precision", threshhold=0.3)
        metric.update(y_pred=jnp.ones(3), y_true=jnp.ones(3, int), mask=None)


@lax
def test_another_part_of_the_batch_may_be_the_prediction(rng: np.random.Generator) -> None:
    p, t = numbers(rng)
    metric = metrax("MSE", predictions="x", name="copy")
    batch = {"x": jnp.asarray(p), "y_pred": jnp.zeros(32), "y_true": jnp.asarray(t), "mask": None}
    expected = sk.mean_squared_error(*wide(t, p))
    np.testing.assert_allclose(metric.update(**batch).compute(), expected, rtol=1e-5)
    assert [name for name, _ in named_metrics([metric, metrax("MSE")])] == ["copy", "mse"]


@lax
def test_on_an_output_whose_labels_are_none_nothing_is_measured(rng: np.random.Generator) -> None:
    metrics = {"a": On(foreign("mse"), "a"), "b": On(foreign("mse"), "b")}
    p, t = numbers(rng)
    y_pred, y_true = {"a": jnp.asarray(p), "b": jnp.asarray(p)}, {"a": jnp.asarray(t), "b": None}
    logs = measure_metrics(
        named_metrics(metrics), {"y_pred": y_pred, "y_true": y_true, "mask": None}
    )
    assert logs.keys() == {"a"}


@lax
def test_of_nothing_seen_it_is_nan_and_changes_nothing(rng: np.random.Generator) -> None:
    p, t = numbers(rng)
    fresh = foreign("mse")
    seen = fresh.update(y_pred=jnp.asarray(p), y_true=jnp.asarray(t), mask=None)
    for empty in (fresh, seen.reset()):
        assert jnp.isnan(empty.compute())
        for both in (seen.merge(empty), empty.merge(seen)):
            assert both.compute() == seen.compute()


@pytest.mark.parametrize("name", ["mse", "aucroc", "accuracy"])
def test_strict_settings_of_jax_do_not_reach_into_it(name: str, rng: np.random.Generator) -> None:
    _, _, make, oracle = METRAX[name]
    (p, t), w = make(rng), fractions(rng)
    result = over_batches(foreign(name), p, t, w=w).compute()
    np.testing.assert_allclose(
        result, oracle(*wide(t, p), sample_weight=w.astype(float)), rtol=1e-5
    )


class Chance(eqx.Module):
    """A binary classifier that gives probabilities."""

    linear: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(self.linear(x))


def squared(p: Any, t: Any) -> Any:
    return jnp.square(p - t.astype(jnp.float32))


@pytest.mark.slow
@lax
@pytest.mark.parametrize("batch_size", [4, 21])
def test_in_a_learner_they_agree_with_scikit_learn(batch_size: int) -> None:
    x, y = data(21)
    binary = (y > 0).astype(np.int32)
    weight = np.linspace(0.001, 0.03, 21).astype(np.float32)
    metrics = {
        "auc": metrax("AUCROC"),
        "rest": [metrax("Precision", threshold=0.4), Weighted(metrax("MSE"))],
    }
    model = Chance(eqx.nn.Linear(4, "scalar", key=jax.random.key(0)))
    made = learner(model, optax.sgd(0.0), metrics=metrics, loss=squared)
    data_ = {"x": x, "y": binary, "sample_weight": weight, "batch_size": batch_size}
    fitted, history = made.fit(**data_, epochs=2, verbose=0)
    p = fitted.predict(x).astype(float)
    expected = {
        "auc": pytest.approx(sk.roc_auc_score(binary, p), abs=0.02),  # of 200 thresholds
        "rest/precision": pytest.approx(sk.precision_score(binary, p > 0.4)),
        "rest/weighted_mse": pytest.approx(
            sk.mean_squared_error(binary, p, sample_weight=weight), rel=1e-4
        ),
    }
    result = fitted.evaluate(**data_)
    assert {name: result[name] for name in expected} == expected
    assert {name: history[name][-1] for name in expected} == expected


@pytest.mark.slow
@lax
@pytest.mark.parametrize("batch_size", [8])
def test_perplexity_in_a_learner_agrees_with_scikit_learn(batch_size: int) -> None:
    x, y = data(21)
    made = learner(metrics={"p": metrax("Perplexity", from_logits=True)}).init()
    result = made.evaluate(x, y, batch_size=batch_size)
    assert result["p"] == pytest.approx(perplexity(y, made.predict(x).astype(float)), rel=1e-4)
    assert result["p"] == pytest.approx(np.exp(result["loss"]), rel=1e-4)
