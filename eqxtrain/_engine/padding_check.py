"""Check that the padding of a batch does not change what is measured.

A step may look across the batch (a contrastive loss, batch statistics of its own) and ignore the
mask. Its code does not show that, but its results do: they change when other rows are used as
padding. We compare them for the actual weights and for perturbed ones, since a model that was
initialised with zeros returns the same for every row.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _data as data
from .step import Step

CHANGE = "the change of model and state"

_TOLERANCE = 1e-4
"""Relative. Rows of weight 0 add exact zeros, so for most correct steps nothing differs at all."""


Change = Callable[[Sequence[Any]], list[Any]]
"""Returns arrays of the same shapes and dtypes as those that it is given."""


class Trial(NamedTuple):
    """What a step did with one batch, fetched.

    **Arguments:**

    - `before`, `after`: the arrays that it threads.
    - `values`: what it measured.
    - `emitted`: what it predicted, or gathered.
    """

    before: list[np.ndarray]
    after: list[np.ndarray]
    values: dict[str, Any]
    emitted: list[np.ndarray]


def check(
    stack: data.Stack, attempt: Callable[[data.Batch, Change], Trial], step: Step, *, who: str
) -> bool:
    """Refuse a step whose results depend on the padding.

    **Arguments:**

    - `attempt`: runs the step on the first batch of a stack, with its arrays changed.
    - `who`: the name of the step.

    **Returns:** whether the first batch of the stack could tell.

    **Raises:** `ValueError` if the results differ between two ways of padding.
    """
    fillings = pad_two_ways(stack)
    if fillings is None:
        return False
    # Noise on the weights tells more: a model of zeros gives every row the same value.
    for change in (list, perturb):
        first, second = (_results(attempt(batch, change), batch, step) for batch in fillings)
        compare(first, second, who=who)
    return True


def _results(trial: Trial, batches: data.MaskedBatch, step: Step) -> dict[str, Any]:
    """What a step measures, or predicts, and in training how it changes model and state."""
    if step.trains:
        return trial.values | changes(trial.before, trial.after)
    if not step.predicts:
        return trial.values
    real = batches.mask[0]
    return {"y_pred": np.concatenate([leaf[real].ravel() for leaf in trial.emitted])}


def pad_two_ways(stack: data.Stack) -> tuple[data.MaskedBatch, data.MaskedBatch] | None:
    """The first batch of a stack, padded with one of its rows, and padded with another.

    None if the batch has a single row.
    """
    assert isinstance(stack.batches, data.MaskedBatch)
    mask = np.array(stack.batches.mask)
    last = int(mask[0].sum()) - (1 if mask[0].all() else 0)  # the first row of padding
    if last < 1:
        return None
    mask[0, last:] = False

    def filled(row: int, *, noisy: bool) -> data.MaskedBatch:
        def fill(leaf: Any) -> np.ndarray:
            filled_leaf = np.array(leaf)
            rows = filled_leaf[0, row : row + 1]
            # Without noise, two rows of the data that are equal would hide a difference.
            filled_leaf[0, last:] = perturb([rows])[0] if noisy else rows
            return filled_leaf

        return data.MaskedBatch(jax.tree.map(fill, stack.batches.batch), mask)

    return filled(0, noisy=False), filled(last - 1, noisy=True)


def perturb(leaves: Sequence[Any]) -> list[Any]:
    """Arrays with noise added to the floating ones."""
    rng = np.random.default_rng(0)

    def noisy(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return leaf + (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return [*map(noisy, leaves)]


def changes(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """By how much a step changed model and state, as one vector.

    A gradient may depend on padding of which what is measured tells nothing.
    """
    pairs = [
        (a, b)
        for a, b in zip(before, after, strict=True)
        if jnp.issubdtype(a.dtype, jnp.inexact) and a.shape == b.shape
    ]
    differences = [(b.astype(np.complex64) - a.astype(np.complex64)).ravel() for a, b in pairs]
    return {CHANGE: np.concatenate(differences)} if differences else {}


def compare(first: Mapping[str, Any], second: Mapping[str, Any], *, who: str) -> None:
    """Refuse a step whose results depend on the padding.

    **Arguments:**

    - `first`, `second`: the results with the one padding and with the other.
    - `who`: the name of the step.

    **Raises:** `ValueError` if they differ.
    """
    for name, value in first.items():
        a, b = np.array(value), np.array(second[name])
        scale = np.max(np.abs(np.where(np.isfinite(a), a, 0)), initial=0.0)
        if not np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True):
            shown = (
                f": {a:.6g} with one row as padding, {b:.6g} with another" if a.ndim == 0 else ""
            )
            what = name if name == CHANGE else f"`{name}`"
            raise ValueError(
                f'With `remainder="pad"`, {what} depends on the padding{shown}. Something '
                f"in `{who}` looks across the batch and includes the padding: let the loss or the "
                "metric ask for `mask` and leave out the rows where it is false (`mask` is None "
                "without padding), or use "
                '`remainder="keep"` or `"drop"`.'
            )
