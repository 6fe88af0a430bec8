"""A batch, and the names of its parts."""

from typing import Any

import numpy as np
import pytest

from eqxtrain import _data as data
from eqxtrain._data.batch import make_batch

X, Y, W = np.ones((2, 3)), np.zeros(2), np.ones(2)


@pytest.mark.parametrize(
    ("batch", "names"),
    [
        ((X,), {"x": X, "sample_weight": None}),
        ((X, Y), {"x": X, "y_true": Y, "sample_weight": None}),
        ((X, Y, W), {"x": X, "y_true": Y, "sample_weight": W}),
        ((X, None, W), {"x": X, "sample_weight": W}),
        ([X, Y], {"x": X, "y_true": Y, "sample_weight": None}),
        (X, {"x": X, "sample_weight": None}),
        (((X, X),), {"x": (X, X), "sample_weight": None}),
    ],
)
def test_tuples_of_one_to_three_have_the_usual_names(batch: Any, names: dict[str, Any]) -> None:
    found = data.step_arguments(batch)
    assert found.pop("batch") is batch and found == names


def test_the_keys_of_a_mapping_stand_among_the_names_but_do_not_shadow_ours() -> None:
    batch = {"image": X, "y_true": Y, "state": W}
    found = data.step_arguments(batch)
    assert list(found["x"]) == ["image", "state"]  # what is no label and no weight
    assert found["image"] is X and found["y_true"] is Y
    assert data.step_arguments({"image": X})["x"] == {"image": X}
    assert "state" not in found


def test_a_mapping_alone_stays_a_mapping() -> None:
    assert make_batch({"a": X}) == {"a": X}
    assert make_batch({"a": X}, Y) == ({"a": X}, Y)
    assert make_batch(X, None, W) == (X, None, W)
    assert make_batch({"a": X}, None, W) == {"a": X, "sample_weight": W}


def test_weights_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="given twice"):
        make_batch({"a": X, "sample_weight": W}, None, W)
