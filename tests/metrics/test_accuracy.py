"""Accuracy, next to scikit-learn's `accuracy_score`."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import in_batches, library
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from eqxtrain.metrics import Accuracy, TopKAccuracy


def accuracy(y_pred: Any, y_true: Any, mask: Any = None, **options: Any) -> float:
    updated = Accuracy(**options).update(jnp.asarray(y_pred), jnp.asarray(y_true), mask=mask)
    return float(updated.compute())


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint8])
def test_scores_against_class_indices(dtype: Any, rng: np.random.Generator) -> None:
    scores, labels = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    oracle = accuracy_score(labels, scores.argmax(1))
    np.testing.assert_allclose(accuracy(scores, labels.astype(dtype)), oracle, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.bool_])
def test_scores_against_one_hot_labels(dtype: Any, rng: np.random.Generator) -> None:
    scores, labels = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    oracle = accuracy_score(labels, scores.argmax(1))
    np.testing.assert_allclose(accuracy(scores, np.eye(4, dtype=dtype)[labels]), oracle, rtol=1e-6)


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.bool_])
def test_binary_probabilities_against_labels_of_any_dtype(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator
) -> None:
    chance, labels = rng.uniform(size=50).astype(np.float32), rng.integers(0, 2, 50)
    oracle = accuracy_score(labels, chance > 0.5)
    result = accuracy(chance.reshape(shape), labels.astype(dtype).reshape(shape))
    np.testing.assert_allclose(result, oracle, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.float16])
def test_hard_binary_predictions_of_any_dtype(dtype: Any, rng: np.random.Generator) -> None:
    predicted, labels = rng.integers(0, 2, (2, 50))
    result = accuracy(predicted.astype(dtype), labels.astype(np.int32))
    np.testing.assert_allclose(result, accuracy_score(labels, predicted), rtol=1e-6)


def test_a_threshold_of_0_fits_logits() -> None:
    assert accuracy([-1.0, 0.2, 3.0, -0.1], [0, 1, 1, 0], threshold=0.0) == 1
    assert accuracy([-1.0, 0.2, 3.0, -0.1], [0, 1, 1, 0]) == 0.75


@pytest.mark.slow
def test_tokens_are_averaged_within_their_example(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(6, 5, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (6, 5)).astype(np.int32)
    oracle = accuracy_score(labels.ravel(), scores.argmax(-1).ravel())
    np.testing.assert_allclose(accuracy(scores, labels), oracle, rtol=1e-6)


def test_padding_counts_neither_as_right_nor_as_wrong() -> None:
    scores = jnp.array([[1.0, 0.0], [1.0, 0.0], [jnp.nan, jnp.nan]])
    labels = jnp.array([0, 1, 0])
    assert accuracy(scores, labels, mask=jnp.array([True, True, False])) == 0.5


@pytest.mark.slow
def test_a_class_beyond_the_range_of_the_labels_dtype_is_not_taken_for_another() -> None:
    assert accuracy(np.eye(300, dtype=np.float32)[[256]], np.array([0], np.uint8)) == 0


def test_labels_that_are_no_indices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 scores.*`y_true` is float32: cast .* int32"):
        accuracy(jnp.zeros((2, 3)), jnp.zeros(2))


@pytest.mark.parametrize(
    "shapes", [((4, 1), (4,)), ((4, 3), (5,)), ((4,), (4, 1)), ((2, 3), (3, 3))]
)
def test_shapes_that_would_broadcast_are_refused(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    with pytest.raises(ValueError, match=r"`Accuracy`.*`y_pred` has shape.*(reshape|axis)"):
        accuracy(jnp.zeros(shapes[0]), jnp.zeros(shapes[1], int))


@pytest.mark.slow
def test_accuracy_of_predicted_classes_and_of_tokens(rng: np.random.Generator) -> None:
    predicted, labels = rng.integers(0, 9, (2, 40)).astype(np.int32)
    np.testing.assert_allclose(accuracy(predicted, labels), accuracy_score(labels, predicted), 1e-6)
    tokens = labels.reshape(8, 5)
    kept = tokens != 3
    expected = accuracy_score(tokens[kept], predicted.reshape(8, 5)[kept])
    result = accuracy(predicted.reshape(8, 5), tokens, ignore_index=3)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.slow
def test_accuracy_of_several_labels_counts_them_one_by_one(rng: np.random.Generator) -> None:
    chance, labels = rng.random((20, 3)).astype(np.float32), rng.integers(0, 2, (20, 3))
    expected = ((chance > 0.4) == labels).mean()
    result = accuracy(chance, labels, multilabel=True, threshold=0.4)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_accuracy_is_that_of_scikit_learn(
    k: int, weighted: bool, rng: np.random.Generator
) -> None:
    scores, labels = rng.normal(size=(30, 9)).astype(np.float32), rng.integers(0, 9, 30)
    weight = rng.random(30).astype(np.float32) if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(9), sample_weight=weight)
    for given in (labels, np.eye(9, dtype=np.float32)[labels]):
        result = in_batches(TopKAccuracy(k), scores, given, weight=weight).compute()
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.slow
def test_ties_are_among_the_top_k_as_in_keras() -> None:
    keras: Any = library("keras")
    scores = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0.5]], np.float32)
    labels = np.array([1, 0, 1], np.int32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras.metrics.sparse_top_k_categorical_accuracy(labels, scores, k=1)
    result = TopKAccuracy(1).update(scores, labels).compute()
    np.testing.assert_allclose(result, np.mean(theirs))


def test_top_k_needs_scores_of_several_classes() -> None:
    with pytest.raises(ValueError, match="needs a score for each of several classes"):
        TopKAccuracy(1).update(np.ones(3, np.float32), np.ones(3, np.int32))
    with pytest.raises(ValueError, match="was given the class 3, but there are 3"):
        TopKAccuracy(1).update(np.eye(3, dtype=np.float32), np.array([0, 1, 3], np.int32))


@pytest.mark.slow
def test_torchmetrics_agrees(rng: np.random.Generator) -> None:
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics import classification as tm

    scores, labels = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 5, 40)
    theirs = torch.from_numpy(scores), torch.from_numpy(labels)
    several = tm.MulticlassAccuracy(5, average="micro", ignore_index=2)(*theirs)
    top = tm.MulticlassAccuracy(5, top_k=3, average="micro")(*theirs)
    chance, many = rng.random((40, 3)).astype(np.float32), rng.integers(0, 2, (40, 3))
    each = tm.MultilabelAccuracy(3, threshold=0.3)(torch.from_numpy(chance), torch.from_numpy(many))
    one = tm.BinaryAccuracy()(torch.from_numpy(chance[:, 0]), torch.from_numpy(many[:, 0]))
    ours = [
        accuracy(scores, labels, ignore_index=2),
        in_batches(TopKAccuracy(3), scores, labels).compute(),
        accuracy(chance, many, multilabel=True, threshold=0.3),
        accuracy(chance[:, 0], many[:, 0]),
    ]
    np.testing.assert_allclose(ours, [several, top, each, one], rtol=1e-6)
