"""A step on batches of one shape: what it costs, and the programs that are made of it."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .. import _data as data, _tree
from .._identity.survey import Survey
from ..metrics import _logs
from . import (
    compile as _compile,
    compile_log as _record,
    cost as _cost,
    recompile_reason as _account,
)
from .step import (
    STEPS,
    CallOutput,
    Carry,
    Consts,
    StepKind,
    StepOutput,
    call_output,
    fused_program,
    one_step_program,
    run_step,
)


class Options(NamedTuple):
    """How steps are run: without compiling them, and how many a call may run."""

    eager: bool = False
    steps_per_call: _cost.StepsPerCall = "auto"


class CallPlan(NamedTuple):
    """How batches of one shape are run.

    **Arguments:**

    - `steps`: how many one call may run.
    - `capacity`: how many a stack holds.
    """

    steps: int
    capacity: int

    @property
    def key(self) -> tuple[int, bool]:
        """What a program depends on in it."""
        return self.capacity, self.steps > 1


class Jit(NamedTuple):
    """How a learner has its programs compiled.

    **Arguments:**

    - `compile`: its own `jit_step`, or None for ours.
    - `key`: what that depends on.
    """

    compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    key: Hashable = None


class CompiledStep(NamedTuple):
    """A program, how it is called, and what its step costs."""

    program: "StepProgram"
    call: CallPlan
    cost: _cost.Cost


_one_at_a_time = threading.Lock()


class Layout(NamedTuple):
    """What a call gives beside what it threads: how many arrays a step emits, the dtypes of the
    accumulators, and whether there is a row of them for each step."""

    emitted: int
    dtypes: tuple[str, ...]
    trail: bool


class Compiling(NamedTuple):
    """What is known of a compile when it begins."""

    step: str
    reason: str
    signature: Mapping[str, str]
    trace: float


class StepProgram:
    """A program that runs a step over a stack of batches, called on lists of arrays.

    **Arguments:**

    - `program`: what is compiled. Steps that do the same share it.
    - `compiling`: why it had to be compiled; None if it was there.
    """

    def __init__(
        self,
        program: _compile.Program,
        layout: Layout,
        compiling: Compiling | None,
        trace_seconds: float,
    ) -> None:
        self._compiled = program
        self._trace_seconds = trace_seconds
        self._layout = layout
        self._compiling = compiling

    def begin(self) -> None:
        """Begin to compile it in a thread, unless that was done."""
        self._compiled.begin()

    @property
    def executable(self) -> jax.stages.Compiled | None:
        """What JAX compiled, waited for."""
        return self._compiled.executable

    @property
    def seconds(self) -> float:
        """How long it took to be made, whoever it was made for."""
        self._compiled.wait()
        return self._trace_seconds + self._compiled.lower_seconds + self._compiled.compile_seconds

    def compilation(self) -> _record.Compilation | None:
        """The record of its compile, which is waited for.

        None where there was none to do, or where somebody has asked for it before.
        """
        if self._compiling is None:
            return None
        self._compiled.wait()
        with _one_at_a_time:
            compiling, self._compiling = self._compiling, None
        if compiling is None:
            return None
        seconds = (self._compiled.lower_seconds, self._compiled.compile_seconds)
        compilation = _record.Compilation(*compiling, *seconds)
        _record.end(compilation)
        return compilation

    def __call__(
        self, read: list[Any], batches: list[Any], span: Any, carry: list[Any], metrics: list[Any]
    ) -> tuple[list[Any], ...]:
        """Run a call.

        **Arguments:**

        - `read`: what the step reads, as `StepPrograms.select` gives it.
        - `batches`: the arrays of a stack.
        """
        return self._compiled([*read, *batches, span], carry, metrics)

    def called(self, leaves: list[Any]) -> CallOutput:
        """What a call gave beside what it threads."""
        return call_output(leaves, *self._layout)


class StepPrograms:
    """A step, traced on batches of one shape, and its programs. It holds no arrays of a learner.

    **Arguments:**

    - `kind`: which step.
    - `kept`, `carry`: what it is called with, one batch of shapes in it.
    - `survey`: what was seen of the learner besides its arrays.
    """

    def __init__(
        self, kind: StepKind, kept: Consts, carry: Carry, jit: Jit, survey: Survey
    ) -> None:
        self.kind: StepKind = kind
        self._jit = jit
        self._survey = survey
        self._owner = type(kept.learner)
        self._parts = len(jax.tree.leaves(kept.batch))

        def step(kept: Consts, carry: Carry) -> tuple[PyTree, ...]:
            folded = run_step(kind, kept, carry)
            return folded.carry, folded.logs, folded.emitted

        self._step = _compile.Traced(step, kept, carry)
        shapes = StepOutput(*self._step.shapes)
        self.cost = _cost.cost(self._step.jaxpr.jaxpr)
        self.empty = self._begin(shapes.logs, kept, carry)
        self.metrics, self.metrics_static = _tree.partition_leaves(self.empty)
        merge = lambda metrics, logs: (_logs.merge(metrics, logs),)
        self._merge = _compile.Traced(merge, self.empty, shapes.logs)
        self.carry_static, _, self.emitted_static = self._step.out
        self._emits = _tree.partition_leaves(shapes.emitted)[0]
        self._seconds = self._step.seconds + self._merge.seconds
        read, carried = (len(_tree.partition_leaves(tree)[0]) for tree in (kept, carry))
        first = read - self._parts  # of the batch's arrays, which are all given
        kinds = [
            jnp.issubdtype(x.dtype, jax.dtypes.extended) for x in _tree.partition_leaves(kept)[0]
        ]
        # zeros can't stand for random keys
        used = [u or is_key for u, is_key in zip(self._step.used(), kinds, strict=False)]
        self._used = [*used[:first], *[True] * self._parts]
        used = [*self._used, *[True] * carried]
        layout = (sum(self._used), self._parts, carried, len(self.metrics), len(self._emits))
        self.form = (kind, jit.key, layout, self._step.form(used), self._merge.form())
        """What it does, however it was written."""
        self._made: dict[tuple[int, bool], StepProgram] = {}
        self.is_padding_checked = False
        self._compute: tuple[_compile.Program, _tree.Static] | None = None
        held = jax.tree.leaves((kept.batch, shapes.emitted, self.empty))
        self._bytes = _cost.nbytes(filter(_tree.is_array, held))

    def _begin(self, logs: Any, kept: Consts, carry: Carry) -> dict[str, Any]:
        """Empty accumulators for what the step logs, on the host."""
        empty = _logs.begin(logs)
        if not _tree.same_bits(empty, _logs.begin(logs, fill=1)):
            # its metrics are configured by arrays, which `reset` keeps: take them as they are
            leaves = [
                _tree.partition_leaves(tree)[0] for tree in (_tree.zeros_for_structs(kept), carry)
            ]
            _, found, _ = self._step(*leaves)
            empty = _logs.begin(self._step.out[1].merge(found))
        return _tree.to_host(empty)

    def call(self, asked: _cost.StepsPerCall, platform: str) -> CallPlan:
        """How batches of this shape are run."""
        capacity = _cost.stack_capacity(asked, self._bytes, platform)
        return CallPlan(_cost.steps_per_call(asked, self.cost, capacity, platform), capacity)

    def program(self, call: CallPlan) -> CompiledStep | None:
        """The program of such calls, if it is there."""
        made = self._made.get(call.key)
        return None if made is None else CompiledStep(made, call, self.cost)

    def select(self, read: Sequence[Any]) -> list[Any]:
        """Those arrays that the step does something with, of what it may read but batches."""
        return [leaf for leaf, used in zip(read, self._used, strict=False) if used]

    def compile(self, call: CallPlan, kept: Consts, carry: Carry) -> CompiledStep:
        """Begin to compile the program of such calls, unless one that does the same is there."""
        read, carried = (
            _tree.partition_leaves(tree)[0] for tree in (kept._replace(batch=None), carry)
        )
        batch = _tree.partition_leaves(kept.batch)[0]
        stack = [jax.ShapeDtypeStruct((call.capacity, *x.shape), x.dtype) for x in batch]
        span = jax.ShapeDtypeStruct((2,), jnp.uint32)
        args = ([*self.select(read), *stack, span], carried, self.metrics)
        places = tuple(_compile.placement(leaf) for leaves in args[:2] for leaf in leaves)
        settings = tuple(_compile.settings().values())
        key = (self.form, settings, places, call.key)
        trees = _described(self.kind, kept, carry)
        compiling: Compiling | None = None

        def build() -> _compile.Program:
            nonlocal compiling
            account = _account.account(trees, self._survey, _compile.settings())
            reason = _record.begin(STEPS[self.kind], self._owner, account)
            if self._made and reason == _record.SAME:
                reason = "same step, but a different stack size or number of steps per call"
            seconds, self._seconds = self._seconds, 0.0  # the trace is shared, and counted once
            compiling = Compiling(STEPS[self.kind], reason, _account.signature(trees), seconds)
            step = self._on_used([*read, *batch])
            fn = (
                fused_program(step, self._merge, self._parts, self._emits, call.capacity)
                if call.steps > 1
                else one_step_program(step, self._merge, self._parts)
            )
            fn.__name__ = STEPS[self.kind]  # by which profilers and caches know it
            return _compile.Program(fn, args, jit=self._jit.compile)

        program = _compile.shared(key, build)
        dtypes = tuple(jnp.dtype(leaf.dtype).name for leaf in self.metrics)
        layout = Layout(len(self._emits), dtypes, trail=call.steps > 1)
        trace_seconds = self._step.seconds + self._merge.seconds
        made = StepProgram(program, layout, compiling, trace_seconds)
        self._made[call.key] = made
        return CompiledStep(made, call, self.cost)

    def _on_used(self, read: list[Any]) -> Callable[..., Any]:
        """The step on those arrays that it does something with; zeros stand for the others."""
        used, traced = self._used, self._step
        shapes = [
            None if u else (leaf.shape, leaf.dtype) for leaf, u in zip(read, used, strict=True)
        ]

        def step(given: list[Any], carry: list[Any]) -> tuple[list[Any], ...]:
            rest = iter(given)
            zeros = {shape: jnp.zeros(*shape) for shape in shapes if shape is not None}
            return traced([next(rest) if s is None else zeros[s] for s in shapes], carry)

        return step

    def prepare_to_compute(self) -> _compile.Program:
        """The program that gives the values of accumulators, but for those that gather.

        Those are computed on the host.
        """
        if self._compute is None:
            computed = _logs.without_gathers(self.empty)
            traced = _compile.Traced(lambda metrics: (_logs.compute(metrics),), computed)
            leaves = _tree.partition_leaves(computed)[0]
            build = lambda: _compile.Program(lambda leaves: traced(leaves), (leaves,))
            key = ("compute", traced.form(), tuple(_compile.settings().values()))
            self._compute = (_compile.shared(key, build), traced.out[0])
        return self._compute[0]

    def compute(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The values of those accumulators that do not gather."""
        program = self.prepare_to_compute()
        assert self._compute is not None
        _, static = self._compute
        return static.merge(program(_tree.partition_leaves(dict(metrics))[0])[0])


def _described(kind: StepKind, kept: Consts, carry: Carry) -> dict[str, PyTree]:
    """What a program depends on, under the names that people know."""
    return {
        "learner": kept.learner,
        "model": carry.model if kind == "train" else kept.model,
        "state": carry.state,
        "opt_state": kept.opt_state,
        "class_weight": kept.class_weight,
        "batch": data.strip_mask(kept.batch),
        "mask": kept.batch.mask if isinstance(kept.batch, data.Masked) else None,
    }


def batch_of(stack: data.Stack) -> data.Batch:
    """The shapes of one batch of a stack."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stack.batch)


def one_of(batches: data.Batch, index: int) -> data.Batch:
    """One batch of a stack's."""
    return jax.device_put(jax.tree.map(lambda leaf: leaf[index], batches))


def run_eagerly(
    kind: StepKind, kept: Consts, carry: Carry, metrics: Mapping[str, Any]
) -> tuple[Carry, dict[str, Any], list[PyTree]]:
    """One step as plain Python: what it threads, the accumulators, and what it emitted.

    **Arguments:**

    - `metrics`: the accumulators, empty before the first step.
    """
    folded = run_step(kind, kept, carry)
    merged = _logs.merge(metrics or _logs.begin(folded.logs), folded.logs)
    return _tree.as_jax_arrays(folded.carry), _tree.as_jax_arrays(merged), folded.emitted
