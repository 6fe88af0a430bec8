"""Random streams: where the keys of steps, orders and states come from."""

import enum
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

from ._tree import is_typed_key

KeyData = UInt32[Array, "words"] | UInt32[np.ndarray, "words"]


class Stream(enum.IntEnum):
    """The constants that keep our draws apart from each other, and from the user's own.

    `split(key, n)[i]` is `fold_in(key, i)`, so a small constant would collide with the keys that a
    model was built from.
    """

    STATE = zlib.crc32(b"eqxtrain/state")
    ORDER = zlib.crc32(b"eqxtrain/order")
    TRAIN = zlib.crc32(b"eqxtrain/train")
    TEST = zlib.crc32(b"eqxtrain/test")
    PREDICT = zlib.crc32(b"eqxtrain/predict")


def key_data(key: PRNGKeyArray) -> UInt32[Array, "words"]:
    """A key, typed or raw, as raw `uint32` data.

    **Raises:** `ValueError` when the key is of another implementation than JAX's default, since
    raw data does not say which one it is of.
    """
    if is_typed_key(key):
        key = jax.random.key_data(key)
    if not hasattr(key, "shape"):
        raise TypeError(f"`key` is {key!r}: give a random key, `jax.random.key(0)`.")
    words = jax.random.key_data(jax.random.key(0)).shape
    if key.shape != words:
        raise ValueError(
            f"`key` has data of shape {key.shape}, but a single key of JAX's default "
            f"implementation has {words}: give one key, and choose the implementation with "
            "`jax.config.update('jax_default_prng_impl', ...)`."
        )
    return jnp.asarray(key)


def step_key(key: KeyData, stream: Stream, step: Any, index: Any = None) -> PRNGKeyArray:
    """The key of one call of a step: a function of the stream, the step and the batch's index."""
    folded = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(key)), int(stream))
    folded = jax.random.fold_in(folded, step)
    return folded if index is None else jax.random.fold_in(folded, index)
