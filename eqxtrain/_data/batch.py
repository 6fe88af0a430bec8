"""Batches, and the names by which steps ask for their parts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from .._request import FROM_BATCH, OUR_NAMES
from .._types import PyTree

Batch = PyTree
"""`(x,)`, `(x, y)` or `(x, y, sample_weight)`; a mapping; or any other tree, which is `x`."""


class MaskedBatch(NamedTuple):
    """A batch that may be padded.

    **Arguments:**

    - `mask`: one bool a row, false where the row is padding.
    """

    batch: Batch
    mask: Any


def make_batch(x: PyTree, y: PyTree = None, sample_weight: PyTree = None) -> Batch:
    """Inputs, labels and weights as one batch. A mapping without `y` stays one."""
    if y is None and isinstance(x, Mapping):
        if sample_weight is not None and "sample_weight" in x:
            raise ValueError(
                "`sample_weight` was given twice, as an argument and as a key of the mapping: drop "
                "one of them."
            )
        return x if sample_weight is None else {**x, "sample_weight": sample_weight}
    if y is None and sample_weight is None:
        return (x,)
    return (x, y) if sample_weight is None else (x, y, sample_weight)


def step_arguments(batch: Batch) -> dict[str, Any]:
    """The parts of a batch by the names that a step may ask for.

    Without labels there is no `y_true`. The keys of a mapping are among the names, except for those
    that would shadow one of ours. If it has no key `x`, then `x` is the mapping itself, without its
    labels and weights.
    """
    if isinstance(batch, MaskedBatch):
        return step_arguments(batch.batch) | {"mask": batch.mask}
    names: dict[str, Any] = {"batch": batch, "sample_weight": None}
    if isinstance(batch, Mapping):
        held_out = FROM_BATCH & batch.keys()
        names["x"] = {k: v for k, v in batch.items() if k not in held_out} if held_out else batch
        names |= {
            key: value
            for key, value in batch.items()
            if isinstance(key, str) and (key in FROM_BATCH or key not in OUR_NAMES)
        }
    elif type(batch) in (tuple, list) and 1 <= len(batch) <= 3:
        names |= dict(zip(("x", "y_true", "sample_weight"), batch, strict=False))
        if names.get("y_true") is None:
            names.pop("y_true", None)
    else:
        names["x"] = batch
    return names


def num_rows(batch: Batch) -> int:
    """How many rows a batch has, padding included."""
    return next(int(np.shape(leaf)[0]) for leaf in jax.tree.leaves(batch))


def strip_mask(batch: Batch) -> Batch:
    """A batch without its mask."""
    return batch.batch if isinstance(batch, MaskedBatch) else batch


def pad_batch(batch: Batch, rows: int) -> MaskedBatch:
    """A batch on the host, padded to `rows` rows with copies of its last.

    Padding counts for nothing, but steps compute with it all the same. Zeros might give nan or inf
    there; a copy of a real row does not.
    """
    count = num_rows(batch)

    def pad(leaf: Any) -> np.ndarray:
        return np.concatenate([leaf, np.repeat(leaf[-1:], rows - count, axis=0)])

    return MaskedBatch(jax.tree.map(pad, batch), np.arange(rows) < count)


def drop_padding(batch: Batch) -> Batch:
    """A batch on the host without its padding."""
    if not isinstance(batch, MaskedBatch):
        return batch
    return jax.tree.map(lambda leaf: leaf[batch.mask], batch.batch)
