"""Functions as metrics, and the modes that they are folded by."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data, learner

from eqxtrain.metrics import (
    Gather,
    Last,
    Max,
    Mean,
    Metric,
    Min,
    Modes,
    Std,
    Sum,
    Weighted,
    from_function,
)
from eqxtrain.metrics._collection import measure_metrics, named_metrics
from eqxtrain.metrics._logs import compute

Y_PRED, Y_TRUE = jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 4.0, 3.0])
BATCH = {"x": jnp.zeros((3, 2)), "y_pred": Y_PRED, "y_true": Y_TRUE, "mask": None}
PADDED = BATCH | {"mask": jnp.array([True, True, False])}


def m(y_pred: Any, y_true: Any) -> Any:
    return jnp.abs(y_pred - y_true)


def computed(container: Any, available: dict[str, Any] = BATCH) -> dict[str, float]:
    logs = measure_metrics(named_metrics(container), available)
    return {name: float(metric.compute()) for name, metric in logs.items()}


def test_a_plain_function_is_averaged_over_examples_and_trailing_axes() -> None:
    assert computed(m) == pytest.approx({"m": 5 / 3})
    assert computed({"w": lambda p, t: jnp.stack([p, t], 1)})["w"] == pytest.approx(17 / 6)


def test_a_function_is_called_by_name_when_it_asks_for_one_of_ours() -> None:
    def scaled(loss: Any, y_pred: Any, factor: float = 2.0) -> Any:
        return factor * loss * y_pred

    assert computed(scaled, BATCH | {"loss": jnp.float32(2)}) == {"scaled": 12.0}


def test_a_function_sees_no_padding_in_its_mean() -> None:
    assert computed(m, PADDED) == {"m": 1.0}


def test_a_scalar_counts_as_the_mean_of_its_batch() -> None:
    [(_, mean)] = named_metrics(lambda y_pred: jnp.mean(y_pred))
    small = mean.update(y_pred=Y_PRED)
    assert small.update(y_pred=jnp.ones(9)).compute() == (3 * 3 + 9 * 1) / 12


def test_a_scalar_of_a_padded_batch_is_refused_unless_it_asks_for_the_mask() -> None:
    def blind(y_pred: Any, y_true: Any) -> Any:
        return jnp.mean(y_pred)

    def sees(y_pred: Any, mask: Any) -> Any:
        return jnp.mean(y_pred, where=mask)

    with pytest.raises(ValueError, match=r"`blind` returned a scalar.*padding.*`mask`"):
        computed(blind, PADDED)
    assert computed(sees, PADDED) == {"sees": 1.5}


@pytest.mark.parametrize("asked", ["model", "grads", "updates", "loss"])
def test_a_scalar_of_no_example_is_taken_as_it_is_when_rows_are_padding(asked: str) -> None:
    # As for losses: what asks for neither `y_pred` nor `y_true` has no padding to leave out.
    functions = {
        "model": lambda model: jnp.sum(model),
        "grads": lambda grads: jnp.sum(grads),
        "updates": lambda updates: jnp.sum(updates),
        "loss": lambda loss: jnp.sum(loss),
    }
    assert computed({"norm": functions[asked]}, PADDED | {asked: jnp.ones(5)}) == {"norm": 5.0}


def test_an_array_that_is_not_one_value_an_example_is_refused() -> None:
    def short(y_pred: Any) -> Any:
        return y_pred[:2]

    with pytest.raises(ValueError, match=r"`short` returned .* \(2,\) for a batch of 3 examples"):
        computed(short)


def test_a_function_without_labels_to_compare_with_is_told_so() -> None:
    def compared(p: Any, t: Any) -> Any:
        return p

    with pytest.raises(TypeError, match=r"`compared\(y_pred, y_true\)`.*no labels.*pass `y`"):
        computed(compared, {"y_pred": Y_PRED})


def test_a_function_that_asks_for_what_nobody_has_is_told_what_there_is() -> None:
    with pytest.raises(
        TypeError, match=r"`teacher`, which is not one of them.*Available: .*y_pred"
    ):
        computed(lambda y_pred, teacher: y_pred)


def test_a_function_may_give_a_dict_of_values(rng: np.random.Generator) -> None:
    y_pred, y_true = rng.normal(size=(2, 9)).astype(np.float32)
    fn = lambda p, t: {"bias": p - t, "largest": jnp.max(p)}
    [(name, metric)] = named_metrics({"error": fn})
    logs = [
        measure_metrics([(name, metric)], {"y_pred": y_pred[rows], "y_true": y_true[rows]})
        for rows in (slice(0, 4), slice(4, 9))
    ]
    whole = compute({"error": logs[0]["error"].merge(logs[1]["error"])})
    assert float(whole["error/bias"]) == pytest.approx(np.mean(y_pred - y_true), rel=1e-5)
    largest = (4 * y_pred[:4].max() + 5 * y_pred[4:].max()) / 9
    assert float(whole["error/largest"]) == pytest.approx(largest, rel=1e-5)


# Each mode with NumPy's word for it, of values and their weights.
MODES: dict[str, tuple[Metric, Any]] = {
    "mean": (Mean(), lambda v, w: np.average(v, weights=w)),
    "sum": (Sum(), lambda v, w: np.sum(v * w)),
    "min": (Min(), lambda v, w: v[w > 0].min()),
    "max": (Max(), lambda v, w: v[w > 0].max()),
    "std": (Std(), lambda v, w: np.sqrt(np.cov(v, aweights=w, ddof=0))),
    "last": (Last(), lambda v, w: v[w > 0][-1]),
    "gather": (Gather(), lambda v, w: v[w > 0]),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["padded", "weighted"])
@pytest.mark.parametrize(("mode", "numpy"), MODES.values(), ids=MODES)
def test_values_are_folded_by_any_mode_as_in_numpy(
    mode: Metric, numpy: Any, weighted: bool, rng: np.random.Generator
) -> None:
    p, t = rng.normal(size=(2, 12)).astype(np.float32)
    weight = (rng.uniform(0.01, 0.05, 12) * (np.arange(12) < 10)).astype(np.float32)
    weight = weight if weighted else (weight > 0).astype(np.float32)
    p[weight == 0] = np.nan
    metric: Metric = Weighted(from_function(m, mode))
    for rows in (slice(0, 5), slice(5, 12)):
        batch = {"y_pred": p[rows], "y_true": t[rows], "mask": weight[rows] > 0}
        seen = metric.reset().update(**batch, sample_weight=weight[rows] if weighted else None)
        metric = metric.merge(seen)
    expected = numpy(np.nan_to_num(np.abs(p - t)).astype(float), weight.astype(float))
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-5)


def test_weights_of_tokens_weigh_the_values_of_each(rng: np.random.Generator) -> None:
    p, t, w = rng.uniform(0, 0.05, size=(3, 6, 4)).astype(np.float32)
    seen = Weighted(m).update(y_pred=p, y_true=t, sample_weight=w, mask=None)
    expected = np.average(np.abs(p - t).astype(float), weights=w)
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5)


def test_a_scalar_of_a_weighted_batch_is_refused_or_stands_for_its_weight() -> None:
    weighted = {"sample_weight": jnp.array([0.1, 0.2, 0.1])} | BATCH
    with pytest.raises(ValueError, match=r"`peak` returned a scalar.*weighted.*ask for `mask`"):
        Weighted(from_function(lambda p, t: jnp.max(p), name="peak")).update(**weighted)
    seen = Weighted(lambda y_pred, mask: jnp.max(y_pred)).update(**weighted)
    heavier = weighted | {"y_pred": 2 * Y_PRED, "sample_weight": jnp.array([0.2, 0.4, 0.2])}
    np.testing.assert_allclose(seen.update(**heavier).compute(), (6 + 2 * 12) / 3, rtol=1e-6)


def test_several_modes_go_by_suffixes_and_a_name_by_itself() -> None:
    both = from_function(m, Mean(), Max(), name="error").update(**BATCH)
    expected = {"error_mean": 5 / 3, "error_max": 3.0}
    assert compute({"error": both}) == pytest.approx(expected)
    assert both.compute() == pytest.approx({"mean": 5 / 3, "max": 3.0})
    same = from_function(m, Modes(Mean(), Max()), name="error").update(**BATCH)
    assert compute({"error": same}) == pytest.approx(expected)
    assert [from_function(f).name for f in (m, lambda p, t: p)] == ["m", "metric"]


def test_each_value_of_a_dict_is_folded_by_each_mode(rng: np.random.Generator) -> None:
    y_pred, y_true = rng.normal(size=(2, 9)).astype(np.float32)
    fn = lambda y_pred, y_true: {"bias": y_pred - y_true, "size": y_pred}
    metric = from_function(fn, Mean(), Std(), name="e")
    whole = metric.update(y_pred=y_pred[:4], y_true=y_true[:4])
    whole = whole.merge(metric.update(y_pred=y_pred[4:], y_true=y_true[4:]))
    assert compute({"e": whole}) == pytest.approx(
        {
            "e/bias_mean": np.mean(y_pred - y_true),
            "e/bias_std": np.std(y_pred - y_true),
            "e/size_mean": np.mean(y_pred),
            "e/size_std": np.std(y_pred),
        },
        rel=1e-4,
    )


def test_dicts_of_dicts_are_computed_as_they_are_logged() -> None:
    metric = from_function(lambda y_pred: {"a": {"b": y_pred}}, name="f").update(**BATCH)
    assert metric.results("f") == {"f/a/b": 3}
    assert metric.compute() == {"a": {"b": 3}}


@pytest.mark.parametrize("fresh_first", [True, False])
def test_a_fresh_metric_adds_nothing_to_one_that_saw_a_dict(fresh_first: bool) -> None:
    fresh = from_function(lambda y_pred: {"a": y_pred}, name="f")
    seen = fresh.update(**BATCH)
    both = fresh.merge(seen) if fresh_first else seen.merge(fresh)
    assert both.compute() == {"a": 3}


def test_a_function_that_saw_nothing_is_nan() -> None:
    one = from_function(m)
    dicts = from_function(lambda y_pred: {"a": y_pred}, name="f").update(**BATCH).reset()
    assert jnp.isnan(one.compute()) and jnp.isnan(dicts.compute()["a"])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32])
def test_a_function_may_give_any_dtype(dtype: Any) -> None:
    result = from_function(lambda y_pred: y_pred).update(y_pred=Y_PRED.astype(dtype)).compute()
    assert result.dtype == jnp.float32 and result == 3


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [5])
def test_functions_in_a_compiled_pass_agree_with_numpy(batch_size: int) -> None:
    x, y = data(21)
    spread = lambda y_pred: jnp.max(y_pred, 1) - jnp.min(y_pred, 1)
    metrics = [
        from_function(spread, Mean(), Std(), Max(), name="spread"),
        from_function(lambda y_pred: {"a": {"b": y_pred}}, name="deep"),
        Weighted(from_function(spread, Sum(), name="spread")),
    ]
    made = learner(metrics=metrics).init()
    weight = np.linspace(0.001, 0.04, 21).astype(np.float32)
    result = made.evaluate(x, y, sample_weight=weight, batch_size=batch_size)
    y_pred = made.predict(x).astype(float)
    oracle = np.ptp(y_pred, axis=1)
    assert {name: value for name, value in result.items() if name != "loss"} == pytest.approx(
        {
            "spread_mean": oracle.mean(),
            "spread_std": oracle.std(),
            "spread_max": oracle.max(),
            "deep/a/b": y_pred.mean(),
            "weighted_spread": oracle @ weight,
        },
        rel=1e-4,
    )


def test_a_function_is_measured_in_a_jitted_function() -> None:
    metric = from_function(m, Mean(), Max())
    seen = eqx.filter_jit(lambda metric, batch: metric.update(**batch))(metric, PADDED)
    assert seen.compute() == {"mean": 1, "max": 2}
