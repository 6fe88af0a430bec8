"""Running other libraries under JAX's default rules of type and rank promotion."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def standard_promotion() -> Iterator[None]:
    """Let dtypes and ranks mix, as some libraries do, even if the user's settings refuse it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
