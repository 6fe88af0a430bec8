"""Which rows of a batch count, and how much."""

import numpy as np
import pytest

from eqxtrain.metrics._masks import combine_weights, mask_weights, masked_values

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
