"""Other people's code under JAX's own rules of promotion."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def standard_promotion() -> Iterator[None]:
    """Let dtypes and ranks mix, as some libraries do, where the user's settings refuse it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
