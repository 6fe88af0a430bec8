"""Whether the rows that fill a batch up change what is measured, which they must not.

A step may look across the batch (a contrastive loss, batch statistics of its own) and not know of
the mask. From its code that can't be told; from its numbers it can: with other filler rows, they
are others.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from . import data

_TOLERANCE = 1e-4
"""Relative. Rows that count nothing add exact zeros, so most steps differ by nothing at all."""


def filled_twice(stack: data.Stack) -> tuple[data.Batch, data.Batch] | None:
    """A stack with padding in its first batch, filled with one row of it and with another.

    None where the batch has too few rows, or equal ones, to tell.
    """
    assert isinstance(stack.batch, data.Masked)
    mask = np.array(stack.batch.mask)
    last = int(mask[0].sum()) - (1 if mask[0].all() else 0)  # the first row that is filled
    if last < 2:
        return None
    mask[0, last:] = False

    def filled(row: int) -> data.Batch:
        def fill(leaf: Any) -> np.ndarray:
            copied = np.array(leaf)
            copied[0, last:] = copied[0, row]
            return copied

        return data.Masked(jax.tree.map(fill, stack.batch.batch), mask)

    first, second = filled(0), filled(last - 1)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return None if all(np.array_equal(a[0], b[0]) for a, b in pairs) else (first, second)


def check(first: Mapping[str, Any], second: Mapping[str, Any], *, who: str) -> None:
    """Refuse a step whose values are others where other rows fill its batch up.

    **Arguments:**

    - `first`, `second`: what was measured with the one and with the other.
    - `who`: the step.

    **Raises:** `ValueError`.
    """
    for name, value in first.items():
        a, b = np.asarray(value), np.asarray(second[name])
        scale = np.max(np.abs(np.where(np.isfinite(a), a, 0)), initial=0.0)
        if not np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True):
            shown = f": {a:.6g} with one row as padding, {b:.6g} with another" * (a.ndim == 0)
            raise ValueError(
                f'With `remainder="pad"`, `{name}` depends on the rows that fill a batch up'
                f"{shown}. Something in `{who}` looks across the batch and takes them in: let the "
                "loss or the metric ask for `mask` and leave out the rows where that is false, or "
                'choose `remainder="keep"` or `"drop"`.'
            )
