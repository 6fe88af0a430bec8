"""The configured metrics: containers, names, and functions among them."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from eqxtrain.metrics import Accuracy, Gather, Last, Mean, MeanSquaredError, Metric
from eqxtrain.metrics._collection import asks_for, check, collect, measure
from eqxtrain.metrics._logs import compute

Y_PRED, Y_TRUE = jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 4.0, 3.0])
BATCH = {"x": jnp.zeros((3, 2)), "y_pred": Y_PRED, "y_true": Y_TRUE, "mask": None}
PADDED = BATCH | {"mask": jnp.array([True, True, False])}


def m(y_pred: Any, y_true: Any) -> Any:
    return jnp.abs(y_pred - y_true)


def names(container: Any) -> list[str]:
    return [name for name, _ in collect(container)]


def computed(container: Any, available: dict[str, Any] = BATCH) -> dict[str, float]:
    logs = measure(collect(container), available)
    return {name: float(metric.compute()) for name, metric in logs.items()}


def test_containers_nest_as_in_the_design() -> None:
    assert names({"a": {"b": [m, m], "c": m}}) == ["a/b/m", "a/b/m_1", "a/c"]


def test_members_go_by_their_own_name_and_nameless_ones_by_position() -> None:
    container = [Accuracy(), MeanSquaredError(), m, lambda p, t: p, Accuracy()]
    assert names(container) == ["accuracy", "mean_squared_error", "m", "3", "accuracy_1"]
    assert names(Accuracy()) == ["accuracy"]
    assert names(lambda p, t: p) == ["metric"]
    assert names([functools.partial(m, y_true=Y_TRUE)]) == ["m"]
    assert names({"a": Accuracy(), "b": None}) == ["a"]
    assert names(None) == []


def test_equal_names_never_overwrite_each_other_nor_what_was_taken() -> None:
    container = {"a": {"b": m}, "a/b": lambda p, t: 0 * p, "loss": m}
    assert computed(container) == pytest.approx({"a/b": 5 / 3, "a/b_1": 0, "loss": 5 / 3})
    logs = measure(collect(container), BATCH, taken={"loss", "a/b"})
    assert len(logs) == 3 and not {"loss", "a/b"} & logs.keys()


def test_a_plain_function_is_averaged_over_examples_and_trailing_axes() -> None:
    assert computed(m) == pytest.approx({"m": 5 / 3})
    assert computed({"w": lambda p, t: jnp.stack([p, t], 1)})["w"] == pytest.approx(17 / 6)


def test_a_function_is_called_by_name_when_it_asks_for_one_of_ours() -> None:
    def scaled(loss: Any, y_pred: Any, factor: float = 2.0) -> Any:
        return factor * loss * y_pred

    assert computed(scaled, BATCH | {"loss": jnp.float32(2)}) == {"scaled": 12.0}


def test_the_keys_of_a_mapping_batch_are_names_too() -> None:
    result = computed({"k": lambda image: image}, BATCH | {"image": Y_TRUE})
    assert result["k"] == pytest.approx(8 / 3)


def test_a_function_sees_no_padding_in_its_mean() -> None:
    assert computed(m, PADDED) == {"m": 1.0}


def test_a_scalar_counts_as_the_mean_of_its_batch() -> None:
    [(_, mean)] = collect(lambda y_pred: jnp.mean(y_pred))
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
    with pytest.raises(TypeError, match=r"`teacher`, which is none of them.*Available: .*y_pred"):
        computed(lambda y_pred, teacher: y_pred)


def test_an_error_names_a_metric_as_it_is_logged() -> None:
    with pytest.raises(ValueError, match="`short` returned"):
        computed({"short": lambda y_pred: y_pred[:2]})
    with pytest.raises(TypeError, match="`compared` is called"):
        computed({"compared": lambda p, t: p}, {"y_pred": Y_PRED})


def test_bare_modes_measure_y_pred() -> None:
    logs = measure(collect([Mean(), Last(), Gather()]), BATCH)
    assert logs["mean"].compute() == 3 and logs["last"].compute() == 6
    assert logs["gather"].compute().tolist() == Y_PRED.tolist()


def test_each_measurement_is_of_its_batch_alone() -> None:
    used = Mean().update(y_pred=jnp.array([100.0]))
    assert computed({"mean": used}) == {"mean": 3.0}


@pytest.mark.parametrize("wrong", [3, "accuracy", np.ones(2)])
def test_what_is_no_metric_is_refused_by_its_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"`a/b` is .*no metric and no function"):
        check({"a": {"b": wrong}})


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`a` is the class `Accuracy`.*`Accuracy\(\)`"):
        check({"a": Accuracy})


def test_metrics_and_functions_of_any_nesting_pass_the_check() -> None:
    check({"a": [Accuracy(), m], "b": None, "c": (lambda p, t: p,)})


def test_metrics_that_need_gradients_are_told_apart() -> None:
    class Norm(Metric):
        mean: Mean

        def update(self, grads: Any) -> "Norm":
            return Norm(self.mean.merge(Mean.of(grads)))

    metrics = dict(collect({"a": m, "b": Norm(Mean()), "c": lambda updates: updates}))
    assert [asks_for(metric, {"grads", "updates"}) for metric in metrics.values()] == [
        False,
        True,
        True,
    ]


def test_a_function_may_give_a_dict_of_values(rng: np.random.Generator) -> None:
    y_pred, y_true = rng.normal(size=(2, 9)).astype(np.float32)
    fn = lambda p, t: {"bias": p - t, "largest": jnp.max(p)}
    [(name, metric)] = collect({"error": fn})
    logs = [
        measure([(name, metric)], {"y_pred": y_pred[rows], "y_true": y_true[rows]})
        for rows in (slice(0, 4), slice(4, 9))
    ]
    whole = compute({"error": logs[0]["error"].merge(logs[1]["error"])})
    assert float(whole["error/bias"]) == pytest.approx(np.mean(y_pred - y_true), rel=1e-5)
    largest = (4 * y_pred[:4].max() + 5 * y_pred[4:].max()) / 9
    assert float(whole["error/largest"]) == pytest.approx(largest, rel=1e-5)
