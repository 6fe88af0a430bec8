"""Calling what looks at predictions, and picking a part of them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import pytest

from eqxtrain.metrics._calling import call_on_predictions, pick


class Outputs(NamedTuple):
    label: Any
    box: Any


ONE, TWO = jnp.ones(2), jnp.zeros(2)


@pytest.mark.parametrize(
    ("y_pred", "on"),
    [
        ({"a": TWO, "b": ONE}, "b"),
        ((TWO, ONE), 1),
        ([TWO, ONE], -1),
        ({"a": [TWO, {"c": ONE}]}, ("a", 1, "c")),
        (Outputs(ONE, TWO), "label"),
        (Outputs(ONE, TWO), 0),
    ],
)
def test_a_part_is_picked_by_key_index_or_field(y_pred: Any, on: Any) -> None:
    labels = jnp.ones(2)
    picked = pick({"y_pred": y_pred, "y_true": labels}, on, who="it")
    assert picked.keys() == {"y_pred"} and picked["y_pred"] is ONE


def test_labels_and_weights_are_picked_where_they_have_parts() -> None:
    tree = {"a": TWO, "b": ONE}
    given = {"y_pred": tree, "y_true": tree, "sample_weight": tree}
    assert all(part is ONE for part in pick(given, "b", who="it").values())
    assert pick({"y_pred": tree, "y_true": {"a": TWO, "b": None}}, "b", who="it")["y_true"] is None


@pytest.mark.parametrize("on", ["c", 0, ("b", 0)])
def test_what_is_not_there_is_named_with_what_there_is(on: Any) -> None:
    with pytest.raises(KeyError, match=r"it is on .*, which `y_pred` lacks"):
        pick({"y_pred": {"a": TWO, "b": ONE}}, on, who="it")


def test_a_function_is_called_by_position_or_by_name() -> None:
    available = {"y_pred": ONE, "y_true": TWO, "x": jnp.ones(3)}
    options: dict[str, Any] = {"names": {"y_pred", "x"}, "role": "loss", "who": "it"}
    assert call_on_predictions(lambda p, t: (p, t), available, **options) == (ONE, TWO)
    assert call_on_predictions(lambda x: x, available, **options) is available["x"]
    with pytest.raises(TypeError, match="not half and half"):
        call_on_predictions(lambda x, other: x, available, **options)
