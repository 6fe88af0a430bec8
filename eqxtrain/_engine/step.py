"""One step on one batch as a pure function of trees, and the program around it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .. import _data as data, _tree
from .._steps.state import LearnerState, Stream, step_key
from ..metrics import _logs

StepKind = Literal["train", "test", "predict"]

_STREAMS = {"train": Stream.TRAIN, "test": Stream.TEST, "predict": Stream.PREDICT}
STEPS = {"train": "train_step", "test": "test_step", "predict": "pred_step"}
Y_PRED = "y_pred"


class Carry(NamedTuple):
    """What a program takes in and gives back, donated: all that a step may change.

    **Arguments:**

    - `model`: in training; in other passes it is only read, and None here.
    - `state`: without its metrics; outside training also without the optimizer's state.
    - `position`: of the batch since the step last advanced.
    """

    model: PyTree
    state: LearnerState
    position: jax.Array


class Consts(NamedTuple):
    """What a program only reads.

    **Arguments:**

    - `batch`: in a program, a stack of batches; in a step, one of them.
    - `span`: in a program, the first batch of this call and the one behind its last, unsigned (or
        XLA would look whether they are negative at every step).
    """

    learner: Any
    model: PyTree
    opt_state: PyTree
    class_weight: Any
    batch: data.Batch
    span: Any = None


class StepOutput(NamedTuple):
    """What one call of a step comes to."""

    carry: Carry
    logs: dict[str, Any]
    emitted: list[PyTree]


def run_step(kind: StepKind, kept: Consts, carry: Carry) -> StepOutput:
    """One step on one batch, as a pure function of trees."""
    training = kind == "train"
    names = data.step_arguments(kept.batch) | {
        "model": carry.model if training else kept.model,
        "state": carry.state if training else carry.state.update(opt_state=kept.opt_state),
        "class_weight": kept.class_weight,
        "training": training,
    }
    position = None if training else carry.position
    names["key"] = step_key(carry.state.key, _STREAMS[kind], carry.state.step, position)
    out = getattr(kept.learner, STEPS[kind])(**names)
    if kind == "train":
        logs, model, state = out
    elif kind == "test":
        (_, logs, state), model = out, None
    else:
        (y_pred, state), model = out, None
        logs = {Y_PRED: _logs.Gather(y_pred)}
    state = state.update(metrics={}, step=carry.state.step + int(training))
    if not training:
        state = state.update(opt_state=None)
    rows, mask = data.num_rows(kept.batch), names.get("mask")
    real = rows if mask is None else jnp.sum(mask.astype(jnp.float32))
    contributed = _logs.contributions(logs, real)
    _check_gathered(contributed, rows)
    contributed = _logs.drop_masked_rows(contributed, mask)
    accumulated, emitted = _logs.extract_gathers(contributed)
    new = Carry(model, state, carry.position if training else carry.position + 1)
    _check_carry(carry, new, who=f"{type(kept.learner).__name__}.{STEPS[kind]}")
    return StepOutput(new, accumulated, emitted)


def _check_carry(old: Carry, new: Carry, *, who: str) -> None:
    """Refuse a step that changes the structure of what it threads."""
    for name in ("model", "state"):
        before, after = getattr(old, name), getattr(new, name)
        if name == "state" and type(before) is not type(after):
            raise TypeError(
                f"`{who}` was given a `{type(before).__name__}` as state and returned a "
                f"`{type(after).__name__}`: return `state.update(...)`."
            )
        changes = _tree.differences(_tree.shape_structs(before), _tree.shape_structs(after), name)
        if changes:
            raise TypeError(
                f"`{who}` changed the structure of the {name}, which must stay the same from step "
                "to step: " + "; ".join(changes[:5]) + ". Keep shapes and dtypes (`.astype`), and "
                "hold what changes in arrays, not in Python numbers."
            )


def _check_gathered(logs: dict[str, Any], rows: int) -> None:
    for name, metric in logs.items():
        # what a metric gathers inside of it may be of tokens
        values = [metric.values] if _logs.is_gather(metric) else []
        leaves = [pair for tree in values for pair in _tree.paths(tree, name)]
        if values and not leaves:
            raise TypeError(f"`{name}` holds no array: there is nothing to predict or to gather.")
        for path, leaf in leaves:
            if _tree.is_typed_key(leaf) or not _tree.is_array(leaf):
                what = "a random key" if _tree.is_typed_key(leaf) else f"{leaf!r}"
                raise TypeError(
                    f"`{path}` is {what}, and no array of numbers: what is predicted or gathered "
                    "are arrays with one row an example, or trees of them."
                )
            if leaf.ndim == 0 or leaf.shape[0] != rows:
                raise ValueError(
                    f"`{path}` has the shape {leaf.shape} for a batch of {rows} examples: what is "
                    "predicted or gathered has one row an example, the batch axis first."
                )


class CallOutput(NamedTuple):
    """What a call gives beside what it threads.

    **Arguments:**

    - `done`: not donated on, so that its arrival tells that the call is over.
    - `emitted`: what was gathered, a step's along a new first axis.
    - `trail`: the accumulators after each step, packed, along a new first axis; None for a single
        step.
    """

    done: jax.Array
    emitted: list[Any]
    trail: dict[str, jax.Array] | None = None


Step = Callable[[list[Any], list[Any]], tuple[list[Any], ...]]
"""A step on arrays: from what it reads (one batch last) and what it threads, to what it threads,
the accumulators of what it logged, and what it emitted."""

Merge = Callable[[list[Any], list[Any]], tuple[list[Any], ...]]
"""Accumulators with one more contribution, on arrays."""

Body = Callable[[list[Any], list[Any], list[Any]], tuple[list[Any], ...]]
"""A call on arrays: from what is read (a stack of batches and the span last), what is threaded and
the accumulators, to what is threaded, the accumulators, and the leaves of a `Called`."""


def one_step_program(step: Step, merge: Merge, parts: int) -> Body:
    """The program of one step: of the batch where the span begins.

    **Arguments:**

    - `parts`: how many arrays a batch has.
    """

    def program(kept: list[Any], carry: list[Any], metrics: list[Any]) -> Any:
        *read, span = kept
        carry, logs, emitted = step(_with_one(read, parts, span[0]), carry)
        (metrics,) = merge(metrics, logs)
        called = CallOutput(jnp.zeros((), jnp.int32), [leaf[None] for leaf in emitted])
        return carry, metrics, jax.tree.leaves(called)

    return program


def fused_program(
    step: Step, merge: Merge, parts: int, shapes: Sequence[Any], capacity: int
) -> Body:
    """The program of as many steps as the span is long.

    Their number is not part of the program, so cutting a call in two changes no bit.

    **Arguments:**

    - `parts`: how many arrays a batch has.
    - `shapes`: of what the step emits.
    - `capacity`: how many batches a stack holds.
    """

    def program(kept: list[Any], carry: list[Any], metrics: list[Any]) -> Any:
        *read, span = kept
        rows = lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype)
        trail = jax.tree.map(rows, _tree.pack(metrics))
        begun = (carry, metrics, [*map(rows, shapes)], trail)

        def body(i: jax.Array, so_far: Any) -> Any:
            carry, metrics, emitted, trail = so_far
            carry, logs, new = step(_with_one(read, parts, i), carry)
            (metrics,) = merge(metrics, logs)
            return carry, metrics, _put(emitted, new, i), _put(trail, _tree.pack(metrics), i)

        carry, metrics, emitted, trail = jax.lax.fori_loop(span[0], span[1], body, begun)
        called = CallOutput(jnp.zeros((), jnp.int32), emitted, trail)
        return carry, metrics, jax.tree.leaves(called)

    return program


def call_output(leaves: list[Any], emitted: int, dtypes: Sequence[str], trail: bool) -> CallOutput:
    """The leaves of a `Called` as one.

    **Arguments:**

    - `emitted`: how many arrays a step emits.
    - `dtypes`: of the accumulators.
    """
    done, rest = leaves[0], leaves[1:]
    rows = dict(zip(sorted(set(dtypes)), rest[emitted:], strict=True)) if trail else None
    return CallOutput(done, rest[:emitted], rows)


def _with_one(read: list[Any], parts: int, index: Any) -> list[Any]:
    """What a step reads: one batch in the place of a stack."""
    first = len(read) - parts

    def take(leaf: Any) -> Any:
        only = leaf.shape[0] == 1
        return leaf[0] if only else jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False)

    return [*read[:first], *map(take, read[first:])]


def _put(stack: PyTree, new: PyTree, index: Any) -> PyTree:
    """`stack` with the arrays of `new` in their row."""
    put = lambda old, leaf: jax.lax.dynamic_update_index_in_dim(old, leaf, index, 0)
    return jax.tree.map(put, stack, new)
