"""A step as a program: run on one batch of a stack, or on several of them in a loop."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import _tree
from .._types import PyTree


class CallOutput(NamedTuple):
    """What a call returns besides the carry and the accumulators.

    **Arguments:**

    - `done`: an array that no later call donates. Once it has arrived, the call is over.
    - `emitted`: what the steps gathered, a row for each step.
    - `metrics_per_step`: the accumulators after each step, packed; None for a call of one step.
    """

    done: jax.Array
    emitted: list[Any]
    metrics_per_step: dict[str, jax.Array] | None = None


StepOnArrays = Callable[[list[Any], list[Any]], tuple[list[Any], ...]]
"""A step on arrays: takes the constants (one batch last) and the carry; returns the carry, the
accumulators of what it logged, and what it emitted."""

Merge = Callable[[list[Any], list[Any]], tuple[list[Any], ...]]
"""Merges accumulators, as lists of arrays."""

ProgramBody = Callable[[list[Any], list[Any], list[Any]], tuple[list[Any], ...]]
"""A call on arrays: takes the constants (a stack of batches and the range of steps last), the carry
and the accumulators; returns the carry, the accumulators, and the leaves of a `CallOutput`.

The range is half open, and unsigned: for signed numbers, XLA would check at every step whether the
index is negative."""


def one_step_program(step: StepOnArrays, merge: Merge, batch_leaves: int) -> ProgramBody:
    """Make the program that runs one step, on the batch where the range begins.

    **Arguments:**

    - `batch_leaves`: how many arrays a batch has.
    """

    def program(consts: list[Any], carry: list[Any], metrics: list[Any]) -> Any:
        *const_leaves, step_range = consts
        batch = _select_batch(const_leaves, batch_leaves, step_range[0])
        carry, logs, emitted = step(batch, carry)
        (metrics,) = merge(metrics, logs)
        output = CallOutput(_done(), [leaf[None] for leaf in emitted])
        return carry, metrics, jax.tree.leaves(output)

    return program


def fused_program(
    step: StepOnArrays, merge: Merge, batch_leaves: int, emits: Sequence[Any], capacity: int
) -> ProgramBody:
    """Make the program that runs every step of the range.

    How many there are is an input of the program, so cutting a call in two changes no bit.

    **Arguments:**

    - `batch_leaves`: how many arrays a batch has.
    - `emits`: the shapes of what a step emits.
    - `capacity`: how many batches a stack holds.
    """

    def rows_for_steps(leaf: Any) -> jax.Array:
        return jnp.zeros((capacity, *leaf.shape), leaf.dtype)

    def program(consts: list[Any], carry: list[Any], metrics: list[Any]) -> Any:
        *const_leaves, step_range = consts
        # A loop can't return arrays of unknown length, so each step writes into its row of buffers
        # for the whole stack. The host ignores the rows outside of the range.
        per_step = jax.tree.map(rows_for_steps, _tree.pack(metrics))
        init = (carry, metrics, [rows_for_steps(shape) for shape in emits], per_step)

        def body(i: jax.Array, loop_state: Any) -> Any:
            carry, metrics, emitted, per_step = loop_state
            carry, logs, new = step(_select_batch(const_leaves, batch_leaves, i), carry)
            (metrics,) = merge(metrics, logs)
            per_step = _write_row(per_step, _tree.pack(metrics), i)
            return carry, metrics, _write_row(emitted, new, i), per_step

        final = jax.lax.fori_loop(step_range[0], step_range[1], body, init)
        carry, metrics, emitted, per_step = final
        output = CallOutput(_done(), emitted, per_step)
        return carry, metrics, jax.tree.leaves(output)

    return program


def call_output(
    leaves: list[Any], num_emitted: int, dtypes: Sequence[str], has_metrics_per_step: bool
) -> CallOutput:
    """Put the leaves of a `CallOutput` together again.

    **Arguments:**

    - `num_emitted`: how many arrays a step emits.
    - `dtypes`: those of the accumulators. Packing joins the arrays of each dtype.
    """
    done, rest = leaves[0], leaves[1:]
    per_step = None
    if has_metrics_per_step:
        per_step = dict(zip(sorted(set(dtypes)), rest[num_emitted:], strict=True))
    return CallOutput(done, rest[:num_emitted], per_step)


def _done() -> jax.Array:
    """Any new array will do: all results of a program arrive together."""
    return jnp.zeros((), jnp.int32)


def _select_batch(const_leaves: list[Any], batch_leaves: int, index: Any) -> list[Any]:
    """Replace the stack of batches, which comes last, with one of its batches."""
    first = len(const_leaves) - batch_leaves

    def take(leaf: Any) -> Any:
        if leaf.shape[0] == 1:  # a slice at an unknown index would copy it
            return leaf[0]
        return jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False)

    return [*const_leaves[:first], *map(take, const_leaves[first:])]


def _write_row(rows: PyTree, new: PyTree, index: Any) -> PyTree:
    """Write arrays into their row."""

    def write(old: Any, leaf: Any) -> Any:
        return jax.lax.dynamic_update_index_in_dim(old, leaf, index, 0)

    return jax.tree.map(write, rows, new)
