"""A step on batches of one shape: what it costs, and the programs that are made of it."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from . import _compile, _cost, _record, _tree, data
from ._fold import STEPS, Carry, Folded, Kept, Kind, fold, fused, single
from ._identity import is_fixed
from .metrics import _logs


class Call(NamedTuple):
    """How batches of one shape are run.

    **Arguments:**

    - `steps`: how many one call may run.
    - `capacity`: how many a stack holds.
    """

    steps: int
    capacity: int


class Made(NamedTuple):
    """A program, how it is called, what its step costs, and the record of its compile."""

    program: _compile.Program
    call: Call
    cost: _cost.Cost
    compilation: _record.Compilation


class StepPrograms:
    """A step, traced on batches of one shape, and its programs. It holds no arrays of a learner.

    **Arguments:**

    - `kind`: which step.
    - `kept`, `carry`: what it is called with, one batch of shapes in it.
    """

    def __init__(self, kind: Kind, kept: Kept, carry: Carry) -> None:
        began = time.perf_counter()
        model = carry.model if kind == "train" else kept.model
        _refuse_unhashable(learner=kept.learner, model=model, state=carry.state)
        self.kind: Kind = kind
        self.compute = _compile.TracedOnce(_logs.compute)
        self._step = _compile.TracedOnce(fold)
        self._shapes, jaxpr = self._step.trace(kind, kept, carry)
        self.cost = _cost.cost(jaxpr)
        self.empty = self._begin(kept, carry)
        self._seconds = time.perf_counter() - began
        self._made: dict[tuple[int, bool], Made] = {}
        held = jax.tree.leaves((kept.batch, self._shapes.emitted, self.empty))
        self._bytes = _cost.nbytes(filter(_tree.is_array, held))

    def _begin(self, kept: Kept, carry: Carry) -> dict[str, Any]:
        """Empty accumulators for what the step logs, on the host."""
        shapes: Folded = self._shapes
        empty = _logs.begin(shapes.logs)
        if not _tree.same_bits(empty, _logs.begin(shapes.logs, fill=1)):
            # its metrics are configured by arrays, which `reset` keeps: take them as they are
            begin = lambda kept, carry: _logs.begin(self._step(self.kind, kept, carry).logs)
            empty = _compile.compiled(begin, kept._replace(batch=_tree.unshaped(kept.batch)), carry)
        return _tree.to_host(empty)

    def call(self, asked: _cost.StepsPerCall, platform: str) -> Call:
        """How batches of this shape are run."""
        capacity = _cost.stack_capacity(asked, self._bytes, platform)
        return Call(_cost.steps_per_call(asked, self.cost, capacity, platform), capacity)

    def program(self, call: Call) -> Made | None:
        """The program of such calls, if it is there."""
        made = self._made.get((call.capacity, call.steps > 1))
        return None if made is None else made._replace(call=call)

    def compile(self, call: Call, kept: Kept, carry: Carry, owner: type) -> Made:
        """Compile the program of such calls, for learners of the class `owner`."""
        step, trees = STEPS[self.kind], _described(self.kind, kept, carry)
        reason = _record.why(step, owner, trees)
        if self._made and reason == _record.SAME:
            reason = "another number of steps in a call, or of batches in a stack"
        _record.check_limits(step, reason)
        stack = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((call.capacity, *leaf.shape), leaf.dtype), kept.batch
        )
        kept = kept._replace(batch=stack, span=jax.ShapeDtypeStruct((2,), jnp.uint32))
        fn = (
            fused(self.kind, self._step, self._shapes, call.capacity)
            if call.steps > 1
            else single(self.kind, self._step)
        )
        made = _compile.Program(fn, (kept, carry, self.empty), jit=kept.learner.jit_step)
        trace, self._seconds = self._seconds, 0.0  # the trace is shared, and counted once
        seconds = (trace, made.lower_seconds, made.compile_seconds)
        compilation = _record.Compilation(step, reason, _record.signature(trees), *seconds)
        _record.note(compilation, owner, trees)
        key = (call.capacity, call.steps > 1)
        self._made[key] = Made(made, call, self.cost, compilation)
        return self._made[key]


def _described(kind: Kind, kept: Kept, carry: Carry) -> dict[str, PyTree]:
    """What a program depends on, under the names that people know."""
    return {
        "learner": kept.learner,
        "model": carry.model if kind == "train" else kept.model,
        "state": carry.state,
        "opt_state": kept.opt_state,
        "class_weight": kept.class_weight,
        "batch": data.bare(kept.batch),
        "mask": kept.batch.mask if isinstance(kept.batch, data.Masked) else None,
        "jax.config": {name: str(value) for name, value in _compile.settings().items()},
    }


def eager_program(kind: Kind, kept: Kept, carry: Carry, metrics: PyTree) -> _compile.Program:
    """A step that is run as plain Python."""
    args = (kept._replace(span=np.zeros(2, np.uint32)), carry, metrics)
    return _compile.Program(single(kind, fold), args, jit=lambda fn: fn)


def batch_of(stack: data.Stack) -> data.Batch:
    """The shapes of one batch of a stack."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stack.batch)


def _refuse_unhashable(**trees: PyTree) -> None:
    """Refuse leaves whose changes a compiled program would not see."""
    for root, tree in trees.items():
        changeable = lambda leaf: not _tree.is_array(leaf) and not is_fixed(leaf)
        if where := _tree.first(changeable, tree, root):
            raise TypeError(
                f"`{where}` can't be hashed, so a change of it would not be seen by the compiled "
                "step: make it an `eqx.Module` or a frozen dataclass, or hold arrays in it."
            )
