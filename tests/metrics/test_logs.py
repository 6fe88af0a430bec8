"""Logs as a monoid: begun, contributed to, merged and computed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxtrain.metrics import Accuracy, Gather, Last, Max, Mean, Metric, Min, Std, Sum, _logs


class PerClass(Metric):
    """A metric with one value a class."""

    mean: Mean = eqx.field(default_factory=Mean)

    def update(self, y_pred: Any) -> "PerClass":
        return PerClass(self.mean.merge(Mean.of(y_pred)))

    def compute(self) -> dict[str, Any]:
        return {"cat": self.mean.compute(), "dog": -self.mean.compute()}


class Exact(Metric):
    """A metric with an emission inside."""

    scores: Gather = eqx.field(default_factory=Gather)
    mean: Mean = eqx.field(default_factory=Mean)

    def update(self, y_pred: Any) -> "Exact":
        return Exact(self.scores.update(y_pred), self.mean.update(y_pred))

    def compute(self) -> Any:
        return np.max(self.scores.compute())


class Scaled(Metric):
    """A metric whose configuration is an array."""

    scale: jax.Array
    mean: Mean = eqx.field(default_factory=Mean)

    def update(self, y_pred: Any) -> "Scaled":
        return Scaled(self.scale, self.mean.update(y_pred))

    def compute(self) -> Any:
        return self.scale * self.mean.compute()


def logs() -> dict[str, Any]:
    values = jnp.array([1.0, 2.0])
    modes = (Mean, Sum, Min, Max, Std, Last)
    found: dict[str, Any] = {mode.__name__: mode().update(values) for mode in modes}
    accuracy = Accuracy().update(values, jnp.array([1, 0]))
    return found | {"accuracy": accuracy, "bare": jnp.float32(3)}


@pytest.mark.slow
def test_logs_that_can_be_folded_pass_as_they_are() -> None:
    good = logs()
    assert _logs.check_logs(good, who="test_step") is good


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ([1.0], r"`test_step` returned logs that are a `list`"),
        (None, r"`test_step` returned logs that are a `NoneType`"),
        ({3: jnp.float32(1)}, r"under the key 3, which is not a string"),
        ({"a": 1.0}, r"`a` as a `float` \(1.0\).*`jnp.asarray"),
        ({"a": np.float32(1)}, r"`a` as a `float32`"),
        ({"a": True}, r"`a` as a `bool`"),
        ({"a": jnp.ones(3)}, r"`a` with shape \(3,\).*`a.mean\(\)`.*Mean.of\(a\)"),
    ],
)
def test_logs_that_cannot_be_folded_are_refused(bad: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        _logs.check_logs(bad, who="test_step")


def test_a_bare_scalar_stands_for_its_mean_over_the_batch() -> None:
    few = _logs.contributions({"a": jnp.float32(1)}, 2)
    many = _logs.contributions({"a": jnp.bfloat16(4)}, jnp.int32(4))
    assert _logs.compute(_logs.merge(few, many)) == {"a": 3.0}


def test_a_metric_contributes_as_it_is() -> None:
    mean = Mean.of(1.0, 5)
    assert _logs.contributions({"a": mean}, 2)["a"] is mean


@pytest.mark.slow
@pytest.mark.parametrize("from_shapes", [False, True])
def test_merging_into_fresh_accumulators_gives_the_contribution(from_shapes: bool) -> None:
    new = _logs.contributions(logs(), 2)
    begun = _logs.empty_accumulators(eqx.filter_eval_shape(logs) if from_shapes else logs())
    assert eqx.tree_equal(_logs.compute(_logs.merge(begun, new)), _logs.compute(new))
    kinds = lambda tree: jax.tree.map(jax.typeof, eqx.filter(tree, eqx.is_array))
    assert eqx.tree_equal(kinds(begun), kinds(_logs.merge(begun, new)))


def test_fresh_accumulators_have_no_weak_types() -> None:
    begun = _logs.empty_accumulators({"a": Last.of(1.0), "b": jnp.asarray(1.0), "c": 1.0})
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(begun))


@pytest.mark.parametrize("from_shapes", [False, True])
def test_arrays_that_configure_a_metric_outlive_a_fresh_start(from_shapes: bool) -> None:
    made = lambda: {"a": Scaled(jnp.float32(2)).update(jnp.array([1.0, 3.0]))}
    begun = _logs.empty_accumulators(eqx.filter_eval_shape(made) if from_shapes else made())
    assert _logs.compute(_logs.merge(begun, made())) == {"a": 4.0}


def test_logs_with_other_names_from_step_to_step_are_refused() -> None:
    before = _logs.empty_accumulators({"a": 0, "b": 0})
    after = _logs.empty_accumulators({"b": 0, "c": 0})
    with pytest.raises(ValueError, match=r"`a` is gone.*`c` is new.*log nan at steps"):
        _logs.merge(before, after)


def test_emissions_are_taken_out_and_put_back() -> None:
    values = jnp.array([1.0, 5.0])
    metrics = {"g": Gather.of({"k": values}), "e": Exact().update(values), "m": Mean.of(values)}
    emptied, emitted = _logs.extract_gathers(metrics)
    assert len(emitted) == 2 and not any(
        node.values is not None
        for node in jax.tree.leaves(emptied, is_leaf=_logs.is_gather)
        if _logs.is_gather(node)
    )
    back = _logs.restore_gathers(emptied, emitted)
    assert eqx.tree_equal(back, metrics)
    assert _logs.compute(back)["e"] == 5


def test_emissions_are_found_inside_of_metrics() -> None:
    assert _logs.has_gather(Gather()) and _logs.has_gather(Exact())
    assert not _logs.has_gather(Mean()) and not _logs.has_gather(PerClass())


def test_a_dict_of_values_is_logged_per_key_but_a_gathered_one_stays_whole() -> None:
    metrics = {"f1": PerClass().update(jnp.array([2.0])), "g": Gather.of({"k": jnp.ones(2)})}
    values = _logs.compute(metrics)
    assert list(values) == ["f1/cat", "f1/dog", "g"]
    assert values["f1/dog"] == -2 and list(values["g"]) == ["k"]


@pytest.mark.parametrize("order", [("f1", "f1/cat"), ("f1/cat", "f1")])
def test_names_made_from_a_dict_overwrite_no_others(order: tuple[str, str]) -> None:
    metrics = {"f1": PerClass().update(jnp.array([2.0])), "f1/cat": Mean.of(7.0)}
    values = _logs.compute({name: metrics[name] for name in order})
    assert len(values) == 3 and {float(v) for v in values.values()} == {2.0, -2.0, 7.0}


def test_results_are_floats_and_numpy_arrays_with_the_loss_first() -> None:
    values = {"b": jnp.float32(1), "loss": jnp.int32(2), "a": jnp.ones(2), "c": {"k": jnp.ones(1)}}
    result = _logs.as_result(values, {})
    assert list(result) == ["loss", "a", "b", "c"]
    assert type(result["loss"]) is float and type(result["b"]) is float
    assert type(result["a"]) is np.ndarray and type(result["c"]["k"]) is np.ndarray
