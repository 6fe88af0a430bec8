"""Whether the rows that fill a batch up change what is measured, which they must not.

A step may look across the batch (a contrastive loss, its own batch statistics) and ignore the mask.
Its code does not tell; its numbers do: they change when other rows are used as padding. They are
looked at with the weights as they are, and with other ones, since a model that begins with zeros
gives every row the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _data as data

_TOLERANCE = 1e-4
"""Relative. Rows that count nothing add exact zeros, so most steps differ by nothing at all."""


def filled_twice(stack: data.Stack) -> tuple[data.Batch, data.Batch] | None:
    """A stack with padding in its first batch, filled with one row of it and with another.

    None where the batch has a single row.
    """
    assert isinstance(stack.batch, data.Masked)
    mask = np.array(stack.batch.mask)
    last = int(mask[0].sum()) - (1 if mask[0].all() else 0)  # the first row that is filled
    if last < 1:
        return None
    mask[0, last:] = False

    def filled(row: int, *, noisy: bool) -> data.Batch:
        def fill(leaf: Any) -> np.ndarray:
            copied = np.array(leaf)
            rows = copied[0, row : row + 1]
            copied[0, last:] = perturbed([rows])[0] if noisy else rows  # rows may be all alike
            return copied

        return data.Masked(jax.tree.map(fill, stack.batch.batch), mask)

    return filled(0, noisy=False), filled(last - 1, noisy=True)


def perturbed(leaves: Sequence[Any]) -> list[Any]:
    """Arrays with some noise in those that are floating."""
    rng = np.random.default_rng(0)

    def noisy(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return leaf + np.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return [*map(noisy, leaves)]


def check(first: Mapping[str, Any], second: Mapping[str, Any], *, who: str) -> None:
    """Refuse a step whose values change with the rows that fill its batch up.

    **Arguments:**

    - `first`, `second`: what was measured with the one and with the other.
    - `who`: the step.

    **Raises:** `ValueError`.
    """
    for name, value in first.items():
        a, b = np.asarray(value), np.asarray(second[name])
        scale = np.max(np.abs(np.where(np.isfinite(a), a, 0)), initial=0.0)
        if not np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True):
            shown = (
                f": {a:.6g} with one row as padding, {b:.6g} with another" if a.ndim == 0 else ""
            )
            raise ValueError(
                f'With `remainder="pad"`, `{name}` depends on the padding{shown}. Something '
                f"in `{who}` looks across the batch and includes the padding: let the loss or the "
                "metric ask for `mask` and leave out the rows where it is false, or use "
                '`remainder="keep"` or `"drop"`.'
            )
