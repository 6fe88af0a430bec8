"""Batches of one shape, stacked, so that one transfer and one call do many steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .._placement import aligned_empty, as_numpy
from .batch import Batch, MaskedBatch


class Stack(NamedTuple):
    """Batches of one shape along a new first axis.

    **Arguments:**

    - `batches`: leaves of shape `(capacity, rows, ...)`.
    - `num_batches`: how many are real. They come first; what follows them is never read.
    """

    batches: Batch
    num_batches: int

    def num_examples(self, start: int, stop: int) -> int:
        """How many examples the batches from `start` to `stop` have, padding left out."""
        if isinstance(self.batches, MaskedBatch):
            return int(self.batches.mask[start:stop].sum())
        return (stop - start) * jax.tree.leaves(self.batches)[0].shape[1]


def stack_of_one(batch: Batch) -> Stack:
    """A stack of one batch."""
    return Stack(jax.tree.map(lambda leaf: as_numpy(leaf)[None], batch), 1)


def stack_batches(batches: Sequence[Batch], capacity: int) -> Stack:
    """A stack of batches of one shape."""
    if capacity == 1:
        return stack_of_one(batches[0])

    def fill(*leaves: Any) -> np.ndarray:
        buffer = aligned_empty((capacity, *leaves[0].shape), leaves[0].dtype)
        for i, leaf in enumerate(leaves):
            buffer[i] = leaf
        return buffer

    return Stack(jax.tree.map(fill, *batches), len(batches))
