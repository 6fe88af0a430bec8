"""Predictions and labels of any form, as rows of classes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxtrain.metrics._class_inputs import (
    check_classes,
    decide,
    probabilities,
    require_scores,
    tally,
)

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32)


@pytest.mark.parametrize(
    ("y_pred", "y_true", "options", "predicted", "true"),
    [
        (SCORES, np.array([1, 2]), {}, [1, 0], [1, 2]),
        (SCORES, np.array([1, 2], np.uint8), {}, [1, 0], [1, 2]),
        (SCORES, np.eye(3)[[1, 2]], {}, [1, 0], [1, 2]),
        (SCORES, np.eye(3, dtype=int)[[1, 2]], {}, [1, 0], [1, 2]),
        (np.array([1, 0]), np.array([1, 2]), {"num_classes": 3}, [1, 0], [1, 2]),
        (SCORES[:, 0], np.array([1, 0]), {"threshold": 0.2}, [False, True], [True, False]),
        (SCORES[:, :1], np.array([[1], [0]]), {}, [False, False], [True, False]),
        (SCORES[:, 0] > 0.2, np.array([1.0, 0.0]), {}, [False, True], [True, False]),
        (SCORES[:, :2], np.eye(2)[::-1], {"multilabel": True}, [[0, 1], [0, 0]], [[0, 1], [1, 0]]),
    ],
)
def test_what_is_compared_follows_from_the_shapes(
    y_pred: Any, y_true: Any, options: Any, predicted: Any, true: Any
) -> None:
    d = decide("It", y_pred, y_true, **options)
    assert d.predicted.tolist() == predicted and d.true.tolist() == true
    assert d.weight.shape == d.true.shape and not d.outside.any()


def test_axes_between_batch_and_classes_are_rows_of_their_own() -> None:
    y_pred = np.stack([SCORES, SCORES[::-1]])
    d = decide("It", y_pred, np.array([[1, 2], [9, 0]]), np.array([0.5, 2.0]), ignore_index=9)
    assert d.predicted.tolist() == [1, 0, 0, 1] and d.weight.tolist() == [0.5, 0.5, 0, 2]
    assert d.scores is not None and d.scores.shape == (4, 3)


def test_labels_to_ignore_are_so_in_any_dtype() -> None:
    for dtype in (np.int32, np.uint8, np.float32):
        d = decide(
            "It", np.ones(3, np.float32), np.array([0, 1, 255]).astype(dtype), ignore_index=255
        )
        assert d.weight.tolist() == [1, 1, 0] and not d.outside.any()
    d = decide("It", SCORES, np.array([1, 2], np.uint8), ignore_index=-100)
    assert d.weight.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("y_pred", "y_true", "options", "says"),
    [
        (SCORES, np.array([0.0, 1.0]), {}, "`y_true` is float.*cast the labels to int32"),
        (SCORES[:, :1], np.array([0, 1]), {}, r"`It` compares element by element, .*\(2, 1\)"),
        (
            SCORES[:, 0],
            np.array([0, 1]),
            {"multilabel": True},
            r"compares arrays of shape `\(batch, labels\)`",
        ),
        (SCORES, np.array([0, 1]), {"num_classes": 4}, r"num_classes=4.* was given 3 classes"),
        (SCORES[:, 0], np.array([0, 1]), {"num_classes": 2}, "scores of a single class"),
        (SCORES, np.eye(3)[:2], {"ignore_index": 0}, r"one-hot: pass `y_true.argmax\(-1\)`"),
        (SCORES, np.array([0, 1, 2]), {}, "element by element"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(
    y_pred: Any, y_true: Any, options: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        decide("It", y_pred, y_true, **options)


def test_decisions_have_no_scores_to_look_at() -> None:
    for y_pred in (np.array([0, 1]), np.array([False, True])):
        with pytest.raises(ValueError, match="`It` needs scores, but `y_pred` holds decisions"):
            require_scores("It", decide("It", y_pred, np.array([0, 1]), num_classes=None))


def test_labels_outside_count_as_nan_in_a_compiled_program() -> None:
    weigh = lambda t: check_classes("It", decide("It", SCORES, t)).weight
    assert jax.jit(weigh)(np.array([0, 2])).tolist() == [1, 1]
    assert np.isnan(jax.jit(weigh)(np.array([0, 3]))[1])
    assert np.isnan(jax.jit(weigh)(np.array([-1, 0]))[0])


@pytest.mark.slow
def test_probabilities_are_in_the_unit_interval_or_nan() -> None:
    d = decide("It", np.array([0.0, 1.0, 1.5, -0.1], np.float32), np.array([0, 1, 1, 0]))
    given = probabilities(d, from_logits=False)
    np.testing.assert_array_equal(given, [0, 1, np.nan, np.nan])
    expected = jax.nn.sigmoid(jnp.array([0.0, 1.0, 1.5, -0.1]))
    np.testing.assert_allclose(probabilities(d, from_logits=True), expected, rtol=1e-6)
    several = decide("It", 5 * SCORES, np.array([1, 2]))
    rows = probabilities(several, from_logits=True).sum(axis=1)
    np.testing.assert_allclose(rows, [1, 1], rtol=1e-6)


def test_a_tally_is_that_of_numpy_and_drops_what_is_outside(rng: np.random.Generator) -> None:
    index, weight = rng.integers(-2, 9, 50), rng.random(50).astype(np.float32)
    inside = (index >= 0) & (index < 7)
    expected = np.bincount(index[inside], weight[inside], minlength=7)
    result = tally(jnp.asarray(index.astype(np.int32)), jnp.asarray(weight), 7)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_a_predicted_class_that_is_none_is_told_apart_from_a_label() -> None:
    predicted, true = np.array([5]), np.array([1])
    with pytest.raises(ValueError, match="was given 5 as a prediction, but there are 3 classes"):
        check_classes("It", decide("It", predicted, true, num_classes=3))
