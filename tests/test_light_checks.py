"""The package is checked at run time: types by beartype, shapes by jaxtyping."""

import jax.numpy as jnp
import jaxtyping
import pytest

from eqxtrain._format import num_bytes
from eqxtrain.metrics._compensated import Moments


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"num_bytes\(\) parameter count"):
        num_bytes("many")  # pyright: ignore[reportArgumentType]


def test_a_wrong_axis_is_an_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="weight"):
        Moments.of(jnp.ones((3, 2)), jnp.ones(4))


def test_checks_can_be_switched_off(unchecked: None) -> None:
    with pytest.raises(TypeError) as caught:
        num_bytes("many")  # pyright: ignore[reportArgumentType]
    assert "parameter count" not in str(caught.value)
