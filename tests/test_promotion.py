"""Other people's code, under JAX's own rules."""

import jax.numpy as jnp
import pytest

from eqxtrain._promotion import standard_promotion


def test_what_strict_settings_refuse_is_let_through_and_refused_again_after() -> None:
    mixed = lambda: jnp.ones(2, jnp.int32) + jnp.ones((2, 2), jnp.float32)
    with standard_promotion():
        assert mixed().dtype == jnp.float32
    with pytest.raises(Exception, match="promotion"):
        mixed()
