"""What every metric is made with. That no split changes one is in `test_law.py`."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import eqxtrain as et
from eqxtrain.metrics import Metric
from eqxtrain.metrics._base import (
    check_same_shape,
    combine_weights,
    mask_weights,
    masked_values,
    num_examples,
)

NAN = np.float32(np.nan)


def test_a_mask_weighs_every_value_of_its_rows() -> None:
    assert mask_weights(None, (2, 3)).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert mask_weights(np.array([True, False]), (2, 3)).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert mask_weights(np.array([0.25, 2.0]), (2,)).tolist() == [0.25, 2.0]
    assert mask_weights(np.array([[1, 0, 2], [0, 0, 1]]), (2, 3)).tolist() == [[1, 0, 2], [0, 0, 1]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (2, 3, 1)])
def test_a_mask_that_is_not_of_the_first_axes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`mask` has shape .* values have shape \(2, 3\)"):
        mask_weights(np.ones(shape, bool), (2, 3))


def test_axes_beyond_those_of_the_mask_are_averaged() -> None:
    values = np.arange(12, dtype=np.int32).reshape(2, 3, 2)
    assert masked_values(values)[0].tolist() == [2.5, 8.5]
    by_row, weight = masked_values(values, np.array([0.5, 2.0], np.float32))
    assert by_row.tolist() == [2.5, 8.5] and weight.tolist() == [0.5, 2.0]
    by_token, weight = masked_values(values, np.array([[1, 0, 2], [1, 1, 1]], np.float32))
    assert by_token.tolist() == [[0.5, 0, 4.5], [6.5, 8.5, 10.5]]
    assert weight.tolist() == [[1, 0, 2], [1, 1, 1]]


def test_what_counts_nothing_may_be_nan() -> None:
    values, weight = masked_values(np.array([1, NAN]), np.array([True, False]))
    assert values.tolist() == [1, 0] and weight.tolist() == [1, 0]
    assert combine_weights(np.array([2, NAN]), np.array([True, False])).tolist() == [2, 0]


def test_weights_and_masks_combine_in_the_higher_of_their_ranks() -> None:
    tokens, rows = np.array([[1, 2], [3, 4]], np.float32), np.array([True, False])
    assert combine_weights(tokens, rows).tolist() == [[1, 2], [0, 0]]
    assert combine_weights(rows, tokens).tolist() == [[1, 2], [0, 0]]
    assert combine_weights(tokens, None).tolist() == tokens.tolist()


def test_the_number_of_examples_is_that_of_the_first_axis() -> None:
    assert num_examples({"x": {"a": np.ones((3, 2))}, "y_pred": np.ones((5, 1))}) == 3
    assert num_examples({"x": None, "y_pred": (np.ones(5),)}) == 5
    with pytest.raises(TypeError, match="number of examples is unknown"):
        num_examples({"model": np.ones(3)})


def test_shapes_that_would_broadcast_are_refused() -> None:
    check_same_shape("It", np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"`It` compares .*\(2, 1\) and `y_true` has shape \(2,\)"):
        check_same_shape("It", np.ones((2, 1)), np.ones(2))


class Nested(Metric):
    """A metric whose value is a dict of dicts."""

    mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

    def update(self, y_pred: Any) -> Any:
        return self.replace(mean=self.mean.update(y_pred))

    def compute(self) -> Any:
        mean = self.mean.compute()
        return {"a": {"b": mean, "c": 2 * mean}, "d": 3 * mean}


def test_a_dict_of_values_is_logged_by_the_path_of_each() -> None:
    results = Nested().update(jnp.ones(2)).results("n")
    assert results == {"n/a/b": 1, "n/a/c": 2, "n/d": 3}


def test_what_a_metric_lacks_is_named() -> None:
    class Unfinished(Metric):
        mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

    with pytest.raises(NotImplementedError, match="`Unfinished` does not define `update`"):
        Unfinished().update(y_pred=jnp.zeros(3))
    with pytest.raises(NotImplementedError, match="`Unfinished` does not define `compute`"):
        Unfinished().compute()
