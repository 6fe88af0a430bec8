"""Metrics around metrics: with sample weights, and on one of several outputs."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from helpers import CROSS_ENTROPY, data, learner, linear

import eqxtrain as et
from eqxtrain.metrics import (
    Accuracy,
    Mean,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    On,
    R2Score,
    Weighted,
    from_function,
)
from eqxtrain.metrics._collection import measure_metrics, named_metrics

Heads = namedtuple("Heads", ["first", "second"])


def absolute(p: Any, t: Any) -> Any:
    return jnp.abs(p - t)


class Blind(Metric):
    """A metric that takes no mask, and so no weights."""

    mean: Mean = eqx.field(default_factory=Mean)

    def update(self, y_pred: Any, y_true: Any = 0.0) -> "Blind":
        return Blind(self.mean.merge(Mean.of(jnp.abs(y_pred - y_true))))

    def compute(self) -> Any:
        return self.mean.compute()


def two(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions and labels of two outputs, and fractional weights for each."""
    p, t = rng.normal(size=(2, 2, 12)).astype(np.float32)
    return p, t, rng.uniform(0, 0.05, (2, 12)).astype(np.float32)


def oracle(p: np.ndarray, t: np.ndarray, w: np.ndarray | None = None) -> float:
    """scikit-learn's mean absolute error, in float64."""
    weight = None if w is None else w.astype(np.float64)
    return sk.mean_absolute_error(t.astype(float), p.astype(float), sample_weight=weight)


# How two outputs are put together, and the key of the second.
STRUCTURES: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "dict": (lambda a, b: {"a": a, "b": b}, "b"),
    "tuple": (lambda a, b: (a, b), 1),
    "list": (lambda a, b: [a, b], -1),
    "named tuple by name": (Heads, "second"),
    "named tuple by index": (Heads, 1),
    "nested": (lambda a, b: {"x": (a, Heads(a, {"deep": b}))}, ("x", 1, "second", "deep")),
}
every_structure = pytest.mark.parametrize(("put", "on"), STRUCTURES.values(), ids=STRUCTURES)
every_inner = pytest.mark.parametrize(
    "inner",
    [MeanAbsoluteError(), absolute, from_function(absolute)],
    ids=["metric", "function", "from_function"],
)


@every_structure
@every_inner
def test_on_measures_its_part_of_predictions_and_labels(
    put: Callable[[Any, Any], Any], on: Any, inner: Any, rng: np.random.Generator
) -> None:
    p, t, _ = two(rng)
    metric = On(inner, on)
    for rows in (slice(0, 5), slice(5, 12)):
        y_pred, y_true = put(*p[:, rows]), put(*t[:, rows])
        metric = metric.merge(metric.reset().update(y_pred=y_pred, y_true=y_true, mask=None))
    np.testing.assert_allclose(metric.compute(), oracle(p[1], t[1]), rtol=1e-5)


@every_structure
def test_labels_and_weights_without_parts_are_for_all_outputs(
    put: Callable[[Any, Any], Any], on: Any, rng: np.random.Generator
) -> None:
    p, t, w = two(rng)
    batch = {"y_pred": put(*p), "y_true": t[0], "sample_weight": w[0], "mask": None}
    for metric in (Weighted(On(MeanAbsoluteError(), on)), On(Weighted(MeanAbsoluteError()), on)):
        result = metric.update(**batch).compute()
        np.testing.assert_allclose(result, oracle(p[1], t[0], w[0]), rtol=1e-5)


@pytest.mark.parametrize("outer", ["on", "weighted"])
@every_structure
def test_weights_with_parts_weigh_their_outputs_in_either_order(
    put: Callable[[Any, Any], Any], on: Any, outer: str, rng: np.random.Generator
) -> None:
    (p, t, w), inner = two(rng), MeanAbsoluteError()
    metric = On(Weighted(inner), on) if outer == "on" else Weighted(On(inner, on))
    mask = np.arange(12) < 9
    batch = {"y_pred": put(*p), "y_true": put(*t), "sample_weight": put(*w), "mask": mask}
    result = metric.update(**batch).compute()
    np.testing.assert_allclose(result, oracle(p[1, :9], t[1, :9], w[1, :9]), rtol=1e-5)


@every_inner
@pytest.mark.parametrize(
    "wrap",
    [lambda m: On(m, "a"), lambda m: Weighted(On(m, "a")), lambda m: On(Weighted(m), "a")],
    ids=["on", "weighted on", "on weighted"],
)
def test_where_labels_are_none_nothing_is_measured(inner: Any, wrap: Callable[[Any], Any]) -> None:
    batch = {"y_pred": {"a": jnp.ones(3)}, "y_true": {"a": None}, "mask": None}
    logs = measure_metrics(named_metrics({"x": wrap(inner)}), batch | {"sample_weight": None})
    assert logs == {}


def test_what_needs_no_labels_is_measured_where_they_are_none() -> None:
    batch = {"y_pred": (jnp.ones(3), jnp.full(3, 7.0)), "y_true": (None, None), "mask": None}
    metrics = {"mode": On(Mean(), 1), "function": On(lambda y_pred: y_pred, 1)}
    logs = measure_metrics(named_metrics(metrics), batch)
    assert {name: float(metric.compute()) for name, metric in logs.items()} == {
        "mode": 7,
        "function": 7,
    }


@pytest.mark.parametrize(
    ("on", "y_pred", "said"),
    [
        ("c", {"a": jnp.ones(3)}, r"`mean_absolute_error` is on 'c', which `y_pred` lacks.*'a'"),
        (2, (jnp.ones(3), jnp.ones(3)), r"is on 2, which `y_pred` lacks"),
        ("third", Heads(jnp.ones(3), jnp.ones(3)), r"is on 'third', which `y_pred` lacks"),
        (0, jnp.ones(3), r"is on 0, which `y_pred` lacks"),
        (("a", "b"), {"a": jnp.ones(3)}, r"is on 'b', which `y_pred` lacks"),
    ],
)
def test_a_part_that_is_not_there_is_named(on: Any, y_pred: Any, said: str) -> None:
    with pytest.raises(KeyError, match=said):
        On(MeanAbsoluteError(), on).update(y_pred=y_pred, y_true=jnp.ones(3), mask=None)


def test_labels_with_parts_that_lack_the_one_asked_for_are_named() -> None:
    with pytest.raises(KeyError, match=r"is on 'a', which `y_true` lacks; it has \['b'\]"):
        On(MeanAbsoluteError(), "a").update(y_pred={"a": jnp.ones(3)}, y_true={"b": jnp.ones(3)})


def test_without_weights_a_weighted_metric_is_the_metric_inside(rng: np.random.Generator) -> None:
    p, t, _ = two(rng)
    for batch in ({"mask": None}, {"mask": np.arange(12) < 5, "sample_weight": None}):
        metric = Weighted(MeanAbsoluteError()).update(y_pred=p[0], y_true=t[0], **batch)
        n = 12 if batch["mask"] is None else 5
        np.testing.assert_allclose(metric.compute(), oracle(p[0, :n], t[0, :n]), rtol=1e-5)


def test_weights_of_padding_do_not_count_even_if_they_are_nan(rng: np.random.Generator) -> None:
    p, t, w = two(rng)
    expected = oracle(p[0, :9], t[0, :9], w[0, :9])
    for a in (p, t, w):
        a[:, 9:] = np.nan
    batch = {"y_pred": p[0], "y_true": t[0], "mask": np.arange(12) < 9}
    metric = Weighted(MeanAbsoluteError()).update(**batch, sample_weight=w[0])
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.float16, np.uint8])
def test_weights_have_any_dtype(dtype: Any, rng: np.random.Generator) -> None:
    p, t, _ = two(rng)
    w = (np.arange(12) % 3).astype(dtype)
    metric = Weighted(MeanAbsoluteError()).update(y_pred=p[0], y_true=t[0], sample_weight=w)
    np.testing.assert_allclose(metric.compute(), oracle(p[0], t[0], w), rtol=1e-5)


@pytest.mark.slow
def test_weights_of_tokens_weigh_the_accuracy_of_each(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(8, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (8, 4)).astype(np.int32)
    w, mask = rng.uniform(0, 0.03, (8, 4)).astype(np.float32), np.arange(8) < 6
    metric = Weighted(Accuracy()).update(y_pred=scores, y_true=labels, sample_weight=w, mask=mask)
    right = (labels[:6].ravel(), scores[:6].argmax(-1).ravel())
    expected = sk.accuracy_score(*right, sample_weight=w[:6].ravel().astype(float))
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(11,), (12, 3), (12, 1, 1, 2), ()])
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    batch = {"y_pred": jnp.ones(12), "y_true": jnp.zeros(12), "mask": None}
    with pytest.raises(ValueError, match=r"shape .*per example"):
        Weighted(MeanAbsoluteError()).update(**batch, sample_weight=jnp.ones(shape))


@pytest.mark.parametrize(
    "inner", [Blind(), On(Blind(), "k"), from_function(absolute, Blind())], ids=["", "on", "mode"]
)
def test_what_takes_no_mask_can_not_be_weighted(inner: Metric) -> None:
    ones = jnp.ones(3)
    batch = {"y_pred": {"k": ones} if isinstance(inner, On) else ones, "y_true": ones, "mask": None}
    with pytest.raises(TypeError, match=r"`Blind` can't be weighted.*not take `mask`"):
        Weighted(inner).update(**batch, sample_weight=jnp.array([1.0, 0.0, 0.0]))


@pytest.mark.slow
def test_wrapped_metrics_that_saw_nothing_are_nan() -> None:
    seen = Weighted(R2Score()).update(y_pred=jnp.ones(3), y_true=jnp.arange(3.0))
    for metric in (Weighted(R2Score()), On(Accuracy(), "a"), seen.reset()):
        assert jnp.isnan(metric.compute())


@pytest.mark.parametrize("wrong", [Accuracy, 3, "accuracy"])
@pytest.mark.parametrize("wrap", [Weighted, lambda metric: On(metric, "a")])
def test_what_is_no_metric_is_refused_with_a_sentence(
    wrap: Callable[[Any], Any], wrong: Any
) -> None:
    with pytest.raises(TypeError, match=r"`Accuracy` is a class.*|neither a metric nor a function"):
        wrap(wrong)


def test_names_in_lists_say_what_is_wrapped_and_overwrite_nothing() -> None:
    metrics = [
        Accuracy(),
        Weighted(Accuracy()),
        Weighted(absolute),
        On(Accuracy(), "a"),
        On(Weighted(Accuracy()), "a"),
        Weighted(On(Accuracy(), "b")),
        Weighted(lambda p, t: p),
        On(from_function(absolute, name="size"), "b"),
    ]
    assert [name for name, _ in named_metrics(metrics)] == [
        "accuracy",
        "weighted_accuracy",
        "weighted_absolute",
        "accuracy_1",
        "weighted_accuracy_1",
        "weighted_accuracy_2",
        "weighted_metric",
        "size",
    ]


class TwoHeads(eqx.Module):
    """Scores, and their sum."""

    linear: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        scores = self.linear(x)
        return {"scores": scores, "total": jnp.sum(scores)}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [5])
def test_wrapped_metrics_in_a_fit_agree_with_scikit_learn(batch_size: int) -> None:
    x, y = data(21)
    value = (x[:, 0] > 0).astype(np.float32)
    weight = np.linspace(0.001, 0.03, 21).astype(np.float32)
    metrics = [
        On(Accuracy(), "scores"),
        Weighted(On(Accuracy(), "scores")),
        On(Weighted(MeanSquaredError()), "total"),
        On(MeanSquaredError(), "total"),
    ]
    made = learner(TwoHeads(linear()), metrics=metrics, loss=et.Loss(CROSS_ENTROPY, on="scores"))
    labels = {"scores": y, "total": value}
    fitted, history = made.fit(x, labels, sample_weight=weight, batch_size=batch_size, verbose=0)
    assert set(history) >= {"accuracy", "weighted_accuracy"}
    result = fitted.evaluate(x, labels, sample_weight=weight, batch_size=batch_size)
    y_pred = fitted.predict(x)
    classes = y_pred["scores"].argmax(1)
    for name in ("loss", "softmax_cross_entropy_with_integer_labels"):
        del result[name]
    assert result == pytest.approx(
        {
            "accuracy": sk.accuracy_score(y, classes),
            "weighted_accuracy": sk.accuracy_score(y, classes, sample_weight=weight),
            "mean_squared_error": sk.mean_squared_error(value, y_pred["total"]),
            "weighted_mean_squared_error": sk.mean_squared_error(
                value, y_pred["total"], sample_weight=weight
            ),
        },
        rel=1e-4,
    )


@pytest.mark.slow
def test_an_output_without_labels_is_left_out_of_a_pass() -> None:
    x, y = data(21)
    metrics = [On(Accuracy(), "scores"), On(MeanSquaredError(), "total"), On(Mean(), "total")]
    made = learner(TwoHeads(linear()), metrics=metrics, loss=et.Loss(CROSS_ENTROPY, on="scores"))
    result = made.evaluate(x, {"scores": y, "total": None}, batch_size=8)
    assert {"loss", "accuracy", "mean"} < result.keys() and "mean_squared_error" not in result
