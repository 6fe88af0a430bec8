"""Mistakes in labels get a sentence, before numbers come out that look like numbers."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner

import eqxtrain as et
from eqxtrain._losses.loss import compute_losses

SCORES = np.zeros((4, 3), np.float32)
INDICES = [
    CROSS_ENTROPY,
    optax.losses.multiclass_hinge_loss,
    optax.losses.multiclass_perceptron_loss,
    functools.partial(CROSS_ENTROPY, axis=-1),
    jax.jit(CROSS_ENTROPY),
]


def total(loss: Any, y_pred: Any, y_true: Any, **more: Any) -> Any:
    return compute_losses(loss, {"y_pred": y_pred, "y_true": y_true, **more})[0]


@pytest.mark.parametrize("loss", INDICES)
@pytest.mark.parametrize(
    ("y_true", "says"),
    [
        (np.zeros(4, np.float32), r"integers, but `y_true` is float32: pass `y.astype"),
        (np.zeros(4, bool), r"integers, but `y_true` is bool"),
        (np.eye(3, dtype=np.int32)[[0, 1, 2, 0]], r"as one-hot labels have: pass `y.argmax\(-1\)`"),
        (np.zeros((4, 1), np.int32), r"has shape \(4, 1\): drop its last axis"),
        (np.zeros(5, np.int32), r"`y_true` has shape \(5,\): make them agree"),
    ],
)
def test_labels_that_are_no_indices_of_classes_are_refused(
    loss: Any, y_true: np.ndarray, says: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        total(loss, SCORES, y_true)


def test_indices_for_a_loss_of_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"for class indices, use `optax\..*integer_labels`"):
        total(optax.softmax_cross_entropy, np.zeros((3, 3), np.float32), np.zeros(3, np.int32))


@pytest.mark.parametrize("loss", [optax.squared_error, optax.sigmoid_binary_cross_entropy])
def test_a_column_against_a_row_is_refused_by_an_elementwise_loss(loss: Any) -> None:
    with pytest.raises(
        ValueError, match=r"element by element, but .*\(4, 1\).*`y_true` has shape \(4,\)"
    ):
        total(loss, SCORES[:, :1], SCORES[:, 0])


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, t: (p - t) ** 2,
        lambda p, t: jnp.mean((p - t) ** 2),
        lambda y_pred, y_true: jnp.abs(y_pred - y_true).mean(),
    ],
)
@pytest.mark.parametrize("column_first", [True, False])
def test_a_column_is_never_broadcast_against_a_row(loss: Any, column_first: bool) -> None:
    column, row = jnp.asarray(SCORES[:, :1]), jnp.asarray(SCORES[:, 0])
    pair = (column, row) if column_first else (row, column)
    with jax.numpy_rank_promotion("allow"):
        says = r"would broadcast .*comparing each example with the labels of all: .*`y\[:, None\]`"
        with pytest.raises(ValueError, match=says):
            total(loss, *pair)
        with pytest.raises(ValueError, match=says):
            metric = et.metrics.from_function(loss)
            metric.update(y_pred=pair[0], y_true=pair[1])


def test_a_loss_that_brings_a_column_into_shape_itself_is_left_alone() -> None:
    loss = lambda p, t: (p[:, 0] - t) ** 2 + jnp.zeros((4, 3)).sum(axis=0).sum()
    broadcasts_otherwise = lambda p, t: ((p - t[:, None]) + jnp.zeros(1)) ** 2
    with jax.numpy_rank_promotion("allow"):
        for fn in (loss, broadcasts_otherwise):
            assert total(fn, jnp.ones((4, 1)), jnp.zeros(4)) == 1


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_an_error_where_its_value_is_known(label: int) -> None:
    y_true = np.array([0, 1, label, 2], np.int32)
    with pytest.raises(ValueError, match=rf"was given the label {label}, but there are 3 classes"):
        total(CROSS_ENTROPY, SCORES, y_true)
    weight = np.array([1, 1, 0, 1], np.float32)
    assert np.isfinite(total(CROSS_ENTROPY, SCORES, y_true, sample_weight=weight))
    assert np.isfinite(total(CROSS_ENTROPY, SCORES, y_true, mask=weight > 0))


@pytest.mark.slow
def test_eager_steps_check_labels_and_compiled_ones_only_where_they_are_told_to() -> None:
    x, y = data(8)
    wrong = np.where(y == 0, 7, y).astype(np.int32)
    with pytest.raises(ValueError, match="was given the label 7, but there are 3 classes"):
        learner().fit(x, wrong, eager=True, verbose=0)
    assert np.isnan(learner(metrics=None).evaluate(x, wrong)["loss"])
    with pytest.warns(
        UserWarning, match="`accuracy` is nan: .* a label that is not one of its classes"
    ):
        assert np.isnan(learner().evaluate(x, wrong)["accuracy"])
    checked = learner(loss=et.Loss(CROSS_ENTROPY, check_labels=True))
    assert np.isfinite(checked.evaluate(x, y)["loss"])
    with pytest.raises(Exception, match="was given a label outside of its 3 classes"):
        checked.evaluate(x, wrong)


def test_a_loss_along_another_axis_and_one_of_ones_own_are_left_alone() -> None:
    along = functools.partial(CROSS_ENTROPY, axis=0)
    assert np.isfinite(
        total(lambda y_pred, y_true: along(y_pred.T, y_true), SCORES, np.zeros(4, int))
    )
    ignoring = lambda p, t: jnp.where(t == -100, 0.0, p[:, 0])
    assert total(ignoring, SCORES, np.array([-100, 0, 1, 2])) == 0


def test_in_a_fit_the_sentence_comes_before_anything_is_trained() -> None:
    x, y = data(8)
    with pytest.raises(TypeError, match=r"but `y_true` is float32"):
        learner().fit(x, y.astype(np.float32), verbose=0)
    one_hot = np.eye(3, dtype=np.float32)[y]
    with pytest.raises(ValueError, match=r"as one-hot labels have"):
        learner().fit(x, one_hot, verbose=0)
    regression = et.Learner(
        eqx.nn.Linear(4, 1, key=jax.random.key(0)), optax.sgd(0.1), loss=lambda p, t: (p - t) ** 2
    )
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match="would broadcast"):
        regression.fit(x, y.astype(np.float32), verbose=0)


def test_labels_in_parts_are_not_taken_whole() -> None:
    x, y = data(8)
    with pytest.raises(TypeError, match=r"The labels are a `dict`, which .* could not take whole"):
        learner(loss=lambda y_pred: y_pred[:, 0]).evaluate(x, {"a": y})


def test_values_of_each_example_with_each_other_are_refused() -> None:
    one_hot = lambda y_pred, y_true: optax.softmax_cross_entropy(y_pred, jax.nn.one_hot(y_true, 3))
    with jax.numpy_rank_promotion("allow"):
        column, says = (
            np.zeros((4, 1), np.int32),
            r"\(4, 4\) for 4 examples, one for each pair of them",
        )
        with pytest.raises(ValueError, match=says):
            total(one_hot, SCORES, column)
        with pytest.raises(ValueError, match=says):
            et.metrics.from_function(one_hot).update(y_pred=SCORES, y_true=column)
    assert np.isfinite(total(one_hot, SCORES, np.zeros(4, np.int32)))
    square = np.ones((4, 4), np.float32)
    assert total(lambda p, t: (p - t) ** 2, square, square) == 0


def test_a_metric_of_ones_own_does_not_broadcast_a_column_either() -> None:
    class Error(et.metrics.Metric):
        mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

        def update(self, y_pred: Any, y_true: Any) -> Any:
            error = et.metrics.Mean.of(jnp.abs(y_pred - y_true))
            return self.replace(mean=self.mean.merge(error))

    x, y = data(8)
    model = eqx.nn.Linear(4, 1, key=jax.random.key(0))
    measured = learner(model, loss=lambda y_pred: y_pred, metrics=Error())
    says = "The metric `error` would broadcast"
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=says):
        measured.evaluate(x, y.astype(np.float32))
