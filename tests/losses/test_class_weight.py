"""Class weights, as the user gives them and as weights of labels."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqxtrain as et
from eqxtrain._losses.class_weight import class_weight_table, class_weights


@pytest.mark.parametrize(
    ("given", "table"),
    [
        (None, None),
        ({0: 1.0, 1: 5.0}, [1, 5]),
        ({2: 3}, [1, 1, 3]),
        ({"1": 2.0}, [1, 2]),
        ({np.int64(1): np.float32(2)}, [1, 2]),
        ([1, 2, 3], [1, 2, 3]),
    ],
)
def test_class_weights_as_people_give_them_become_a_table(given: Any, table: Any) -> None:
    made = class_weight_table(given)
    assert (made if made is None else made.tolist()) == table
    assert made is None or made.dtype == np.float32


@pytest.mark.parametrize("wrong", [{"cat": 1.0}, {-1: 1.0}, {0.5: 2.0}])
def test_keys_of_class_weights_that_are_no_indices_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"keys of `class_weight` must be class indices"):
        class_weight_table(wrong)


def test_class_weights_of_another_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one weight per class; got .* \(2, 2\)"):
        class_weight_table(np.ones((2, 2)))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.float32])
def test_each_label_has_the_weight_of_its_class(dtype: Any) -> None:
    labels = jnp.array([2, 0, 1, 7]).astype(dtype)
    weights = class_weights(np.array([1.0, 2.0, 3.0], np.float32), labels, jnp.zeros((4, 8)))
    assert weights.tolist() == [3, 1, 2, 1], "classes beyond the table weigh 1"


def test_boolean_labels_and_ignored_ones_have_weights_too() -> None:
    table = np.array([2.0, 5.0], np.float32)
    assert class_weights(table, jnp.array([True, False]), jnp.zeros(2)).tolist() == [5, 2]
    assert class_weights(table, jnp.array([-1, 0]), jnp.zeros((2, 2))).tolist() == [1, 2]


@pytest.mark.parametrize("y", [np.array([0.5, 1.0]), np.array([[0.2, 0.3], [1.0, 1.0]])])
def test_weights_of_classes_need_labels_that_are_classes(y: np.ndarray) -> None:
    with pytest.raises(ValueError, match="`y` holds numbers that aren't classes"):
        class_weight_table({0: 2.0}, y.astype(np.float32))


@pytest.mark.parametrize(
    "y", [np.array([0, 2]), np.array([0.0, 1.0]), np.eye(3)[[0, 1]], np.full((2, 4), 0.25), None]
)
def test_labels_that_are_classes_in_any_form_may_be_weighed(y: Any) -> None:
    assert class_weight_table({0: 2.0}, y) is not None


def test_a_weight_for_a_class_that_does_not_exist_is_refused() -> None:
    table = class_weight_table({7: 2.0})
    with pytest.raises(ValueError, match=r"a weight for the class 7, but there are 3 classes"):
        class_weights(table, jnp.array([0, 1]), jnp.zeros((2, 3)))


def test_class_weights_of_regression_are_refused_by_a_fit() -> None:
    x = np.ones((4, 1), np.float32)
    learner = et.Learner(eqx.nn.Identity(), None, loss=optax.squared_error)
    with pytest.raises(ValueError, match="numbers that aren't classes"):
        learner.evaluate(x, x / 3, class_weight={0: 2.0})
