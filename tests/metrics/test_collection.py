"""The configured metrics: containers, names, and functions among them."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from eqxtrain.metrics import Accuracy, Gather, Last, Mean, MeanSquaredError, Metric
from eqxtrain.metrics._collection import asks_for, check_metrics, measure_metrics, named_metrics

Y_PRED, Y_TRUE = jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 4.0, 3.0])
BATCH = {"x": jnp.zeros((3, 2)), "y_pred": Y_PRED, "y_true": Y_TRUE, "mask": None}
PADDED = BATCH | {"mask": jnp.array([True, True, False])}


def m(y_pred: Any, y_true: Any) -> Any:
    return jnp.abs(y_pred - y_true)


def names(container: Any) -> list[str]:
    return [name for name, _ in named_metrics(container)]


def computed(container: Any, available: dict[str, Any] = BATCH) -> dict[str, float]:
    logs = measure_metrics(named_metrics(container), available)
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
    logs = measure_metrics(named_metrics(container), BATCH, taken={"loss", "a/b"})
    assert len(logs) == 3 and not {"loss", "a/b"} & logs.keys()


def test_the_keys_of_a_mapping_batch_are_names_too() -> None:
    result = computed({"k": lambda image: image}, BATCH | {"image": Y_TRUE})
    assert result["k"] == pytest.approx(8 / 3)


def test_an_error_names_a_metric_as_it_is_logged() -> None:
    with pytest.raises(ValueError, match="`short` returned"):
        computed({"short": lambda y_pred: y_pred[:2]})
    with pytest.raises(TypeError, match="`compared` is called"):
        computed({"compared": lambda p, t: p}, {"y_pred": Y_PRED})


def test_bare_modes_measure_y_pred() -> None:
    logs = measure_metrics(named_metrics([Mean(), Last(), Gather()]), BATCH)
    assert logs["mean"].compute() == 3 and logs["last"].compute() == 6
    assert logs["gather"].compute().tolist() == Y_PRED.tolist()


def test_each_measurement_is_of_its_batch_alone() -> None:
    used = Mean().update(y_pred=jnp.array([100.0]))
    assert computed({"mean": used}) == {"mean": 3.0}


@pytest.mark.parametrize("wrong", [3, "accuracy", np.ones(2)])
def test_what_is_no_metric_is_refused_by_its_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"`a/b` is .*neither a metric nor a function"):
        check_metrics({"a": {"b": wrong}})


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`a` is the class `Accuracy`.*`Accuracy\(\)`"):
        check_metrics({"a": Accuracy})


def test_metrics_and_functions_of_any_nesting_pass_the_check() -> None:
    check_metrics({"a": [Accuracy(), m], "b": None, "c": (lambda p, t: p,)})


def test_metrics_that_need_gradients_are_told_apart() -> None:
    class Norm(Metric):
        mean: Mean

        def update(self, grads: Any) -> "Norm":
            return Norm(self.mean.merge(Mean.of(grads)))

    metrics = dict(named_metrics({"a": m, "b": Norm(Mean()), "c": lambda updates: updates}))
    assert [asks_for(metric, {"grads", "updates"}) for metric in metrics.values()] == [
        False,
        True,
        True,
    ]
