"""A step, traced on batches of one shape, and the programs that are compiled from it."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .. import _data as data, _placement, _tree
from .._identity.survey import Survey
from ..metrics import _logs
from . import cache, call_plan, compile as aot, compile_log, cost, recompile_reason
from .call_plan import CallPlan, StepsPerCall
from .jax_settings import program_settings
from .loops import CallOutput, call_output, fused_program, one_step_program
from .step import Carry, Consts, Step, StepOutput, run_step


class Options(NamedTuple):
    """How steps are run: whether without compiling them, and how many of them in one call."""

    eager: bool = False
    steps_per_call: StepsPerCall = "auto"


class Jit(NamedTuple):
    """How a learner has its programs compiled.

    **Arguments:**

    - `compile`: its own `jit_step`, or None for ours.
    - `key`: what that depends on.
    """

    compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    key: Hashable = None


class OutputLayout(NamedTuple):
    """Which leaves make up a `CallOutput`; see `call_output`."""

    num_emitted: int
    dtypes: tuple[str, ...]
    has_metrics_per_step: bool


class PendingCompile(NamedTuple):
    """What the record of compiles holds when a compile begins: all but its last two times."""

    step: str
    reason: str
    signature: Mapping[str, str]
    trace_seconds: float


_one_at_a_time = threading.Lock()


class StepProgram:
    """A program that runs a step over a stack of batches, called on lists of arrays.

    **Arguments:**

    - `program`: the compiled program. Steps that do the same share it.
    - `pending`: why it had to be compiled; None if it was there already.
    """

    def __init__(
        self,
        program: aot.Program,
        layout: OutputLayout,
        pending: PendingCompile | None,
        trace_seconds: float,
    ) -> None:
        self._program = program
        self._trace_seconds = trace_seconds
        self._layout = layout
        self._pending = pending

    def start_compiling(self) -> None:
        """Start to compile it in a thread, unless that has been done."""
        self._program.start_compiling()

    def wait_for_executable(self) -> jax.stages.Compiled | None:
        """Wait for what JAX compiles; None where a `jit_step` returned something else."""
        return self._program.wait_for_executable()

    def wait_for_seconds(self) -> float:
        """Wait until it is compiled; returns how long making it took, for whichever step."""
        self._program.wait()
        return self._trace_seconds + self._program.lower_seconds + self._program.compile_seconds

    def take_compilation(self) -> compile_log.Compilation | None:
        """Wait for its compile, and return the record of that once; None the next time.

        Also None where there was nothing to compile.
        """
        if self._pending is None:
            return None
        with compile_log.waiting_for(self._pending.step):
            self._program.wait()
        with _one_at_a_time:
            pending, self._pending = self._pending, None
        if pending is None:
            return None
        compilation = compile_log.Compilation(
            *pending, self._program.lower_seconds, self._program.compile_seconds
        )
        compile_log.record_end(compilation)
        return compilation

    def __call__(
        self,
        consts: list[Any],
        batches: list[Any],
        step_range: Any,
        carry: list[Any],
        metrics: list[Any],
    ) -> tuple[list[Any], list[Any], CallOutput]:
        """Run a call: returns the carry, the accumulators, and the rest.

        **Arguments:**

        - `consts`: what the step reads, as `TracedStep.select` returns it.
        - `batches`: the arrays of a stack.
        """
        carry, metrics, leaves = self._program([*consts, *batches, step_range], carry, metrics)
        return carry, metrics, call_output(leaves, *self._layout)


class CompiledStep(NamedTuple):
    """A program, how it is called, and the traced step that it was made from."""

    program: StepProgram
    plan: CallPlan
    traced: "TracedStep"


class TracedStep:
    """A step, traced on batches of one shape, and its programs. Holds no arrays of a learner.

    **Arguments:**

    - `consts`, `carry`: what the step is called with, with the shapes of one batch.
    - `survey`: what was seen of the learner besides its arrays.
    """

    def __init__(self, step: Step, consts: Consts, carry: Carry, jit: Jit, survey: Survey) -> None:
        self._step = step
        self._jit = jit
        self._survey = survey
        self._owner = type(consts.learner)
        self._batch_leaves = len(jax.tree.leaves(consts.batch))

        def as_tuple(consts: Consts, carry: Carry) -> tuple[PyTree, ...]:
            return tuple(run_step(step, consts, carry))

        def merge(metrics: PyTree, logs: PyTree) -> tuple[PyTree, ...]:
            return (_logs.merge(metrics, logs),)

        with compile_log.waiting_for(step.name):
            self._traced = aot.TracedFunction(as_tuple, consts, carry)
        shapes = StepOutput(*self._traced.shapes)
        self.cost = cost.cost(self._traced.jaxpr.jaxpr)
        self.empty = self._empty_accumulators(shapes.logs, consts, carry)
        self.metrics, self.metrics_static = _tree.partition_leaves(self.empty)
        self._merge = aot.TracedFunction(merge, self.empty, shapes.logs)
        self.carry_static, _, self.emitted_static = self._traced.out
        self._emits = _tree.partition_leaves(shapes.emitted)[0]
        # The trace is shared by all programs, and counted for the first one alone.
        self._uncounted_seconds = self._trace_seconds = self._traced.seconds + self._merge.seconds
        self._used = self._used_consts(consts)
        self.form = self._form(carry)
        """What the step does, however it was written: equal forms share their programs."""
        self._programs: dict[tuple[int, bool], StepProgram] = {}
        self.is_padding_checked = False
        self._compute: tuple[aot.Program, _tree.Static] | None = None
        self._compute_rows: dict[int, tuple[aot.Program, _tree.Static]] = {}  # by capacity
        held = jax.tree.leaves((consts.batch, shapes.emitted, self.empty))
        self._bytes_per_batch = call_plan.nbytes(filter(_tree.is_array, held))

    def _empty_accumulators(self, logs: Any, consts: Consts, carry: Carry) -> dict[str, Any]:
        """Make empty accumulators for what the step logs, on the host."""
        empty, filled = (_logs.empty_accumulators(logs, fill=fill) for fill in (0, 1))
        if not _tree.same_bits(_placement.fetch(empty), _placement.fetch(filled)):
            # `reset` kept arrays that configure a metric, and shapes don't tell their values: run
            # the step once to get them.
            leaves = [
                _tree.partition_leaves(tree)[0] for tree in (_tree.zeros_for_structs(consts), carry)
            ]
            _, found, _ = self._traced(*leaves)
            empty = _logs.empty_accumulators(self._traced.out[1].merge(found))
        return _placement.owned_by_host(empty)

    def _used_consts(self, consts: Consts) -> list[bool]:
        """Which arrays of the constants are passed to programs."""
        leaves = _tree.partition_leaves(consts)[0]
        first_of_batch = len(leaves) - self._batch_leaves
        used = self._traced.used()
        return [
            # Zeros stand in for unused arrays, but not for keys; the batch is passed whole.
            used[i] or jnp.issubdtype(leaf.dtype, jax.dtypes.extended) or i >= first_of_batch
            for i, leaf in enumerate(leaves)
        ]

    def _form(self, carry: Carry) -> Hashable:
        carried = len(_tree.partition_leaves(carry)[0])
        counts = (sum(self._used), self._batch_leaves, carried)
        counts += (len(self.metrics), len(self._emits))
        step = self._traced.form([*self._used, *[True] * carried])
        return self._step.kind, self._jit.key, counts, step, self._merge.form()

    def plan(self, requested: StepsPerCall, platform: str) -> CallPlan:
        """Decide how batches of this shape are run."""
        capacity = call_plan.stack_capacity(requested, self._bytes_per_batch, platform)
        return CallPlan(
            call_plan.steps_per_call(requested, self.cost, capacity, platform), capacity
        )

    def lookup(self, plan: CallPlan) -> CompiledStep | None:
        """Look up the program for such a plan; None if there is none yet."""
        program = self._programs.get(plan.key)
        return None if program is None else CompiledStep(program, plan, self)

    def select(self, consts: Sequence[Any]) -> list[Any]:
        """Select the arrays that programs are passed, of the constants without the batch."""
        return [leaf for leaf, used in zip(consts, self._used, strict=False) if used]

    def compile(self, plan: CallPlan, consts: Consts, carry: Carry) -> CompiledStep:
        """Make the program for such a plan, unless another step has one that does the same."""
        const_leaves = _tree.partition_leaves(consts._replace(batch=None))[0]
        carried = _tree.partition_leaves(carry)[0]
        batch = _tree.partition_leaves(consts.batch)[0]
        stack = [jax.ShapeDtypeStruct((plan.capacity, *x.shape), x.dtype) for x in batch]
        step_range = jax.ShapeDtypeStruct((2,), jnp.uint32)
        args = ([*self.select(const_leaves), *stack, step_range], carried, self.metrics)
        shardings = tuple(_placement.sharding(leaf) for leaves in args[:2] for leaf in leaves)
        key = (self.form, tuple(program_settings().values()), shardings, plan.key)
        pending: PendingCompile | None = None

        def build() -> aot.Program:
            nonlocal pending
            pending = self._pending_compile(consts, carry)
            step = self._with_zeros_for_unused([*const_leaves, *batch])
            fn = (
                fused_program(step, self._merge, self._batch_leaves, self._emits, plan.capacity)
                if plan.steps > 1
                else one_step_program(step, self._merge, self._batch_leaves)
            )
            fn.__name__ = self._step.name  # the name that profilers and caches show
            with compile_log.waiting_for(self._step.name):
                return aot.Program(fn, args, jit=self._jit.compile)

        program = cache.shared_program(key, build)
        if pending is None:
            read = self._dependencies(consts, carry)
            compile_log.record_shared(self._step.name, self._owner, read)
        dtypes = tuple(jnp.dtype(leaf.dtype).name for leaf in self.metrics)
        layout = OutputLayout(len(self._emits), dtypes, plan.steps > 1)
        compiled = StepProgram(program, layout, pending, self._trace_seconds)
        self._programs[plan.key] = compiled
        return CompiledStep(compiled, plan, self)

    def _dependencies(self, consts: Consts, carry: Carry) -> recompile_reason.Dependencies:
        trees = _describe(self._step, consts, carry)
        return recompile_reason.dependencies(trees, self._survey, program_settings())

    def _pending_compile(self, consts: Consts, carry: Carry) -> PendingCompile:
        read = self._dependencies(consts, carry)
        reason = compile_log.record_start(self._step.name, self._owner, read)
        if self._programs and reason == compile_log.SAME:
            reason = "same step, but a different stack size or number of steps per call"
        seconds, self._uncounted_seconds = self._uncounted_seconds, 0.0
        signature = recompile_reason.array_signature(_describe(self._step, consts, carry))
        return PendingCompile(self._step.name, reason, signature, seconds)

    def _with_zeros_for_unused(self, const_leaves: list[Any]) -> Callable[..., Any]:
        """Make the step a function of the arrays that it uses; zeros stand in for the others."""
        traced = self._traced
        unused = [
            None if used else (leaf.shape, leaf.dtype)
            for leaf, used in zip(const_leaves, self._used, strict=True)
        ]

        def step(leaves: list[Any], carry: list[Any]) -> tuple[list[Any], ...]:
            rest = iter(leaves)
            zeros = {shape: jnp.zeros(*shape) for shape in unused if shape is not None}
            return traced([next(rest) if s is None else zeros[s] for s in unused], carry)

        return step

    def prepare_to_compute(self) -> aot.Program:
        """Make the program that computes the values of accumulators.

        Those that gather are left out: they are computed on the host.
        """
        if self._compute is None:
            computed = _logs.without_gathers(self.empty)
            traced = aot.TracedFunction(lambda metrics: (_logs.compute(metrics),), computed)
            leaves = _tree.partition_leaves(computed)[0]

            def build() -> aot.Program:
                return aot.Program(lambda leaves: traced(leaves), (leaves,))

            key = ("compute", traced.form(), tuple(program_settings().values()))
            self._compute = (cache.shared_program(key, build), traced.out[0])
        return self._compute[0]

    def compute_rows(self, call: CallOutput, step_range: tuple[int, int]) -> dict[str, Any]:
        """Compute the values of the accumulators after each step of a call of several.

        **Returns:** by name, the values with a new first axis, the steps of the stack. Those
        outside of the range are repeated.
        """
        rows = call.metrics_per_step
        assert rows is not None
        capacity = len(next(iter(rows.values())))
        if capacity not in self._compute_rows:
            self._compute_rows[capacity] = self._prepare_to_compute_rows(rows)
        program, static = self._compute_rows[capacity]
        leaves = _tree.partition_leaves(rows)[0]
        return static.merge(program([*leaves, np.array(step_range, np.int32)])[0])

    def _prepare_to_compute_rows(self, rows: dict[str, Any]) -> tuple[aot.Program, _tree.Static]:
        def compute(rows: dict[str, Any], step_range: Any) -> tuple[dict[str, Any]]:
            first, last = step_range[0], step_range[1] - 1
            capacity = len(next(iter(rows.values())))
            steps = jnp.clip(jnp.arange(capacity, dtype=jnp.int32), first, last)

            def compute_one(step: Any) -> dict[str, Any]:
                leaves = _tree.unpack({name: row[step] for name, row in rows.items()}, self.metrics)
                return _logs.compute(_logs.without_gathers(self.metrics_static.merge(leaves)))

            return (jax.lax.map(compute_one, steps),)

        step_range = jax.ShapeDtypeStruct((2,), jnp.int32)
        traced = aot.TracedFunction(compute, _tree.shape_structs(rows), step_range)
        leaves = [*_tree.partition_leaves(_tree.shape_structs(rows))[0], step_range]
        key = ("compute rows", traced.form(), tuple(program_settings().values()))

        def build() -> aot.Program:
            return aot.Program(lambda leaves: traced(leaves[:-1], leaves[-1:]), (leaves,))

        return cache.shared_program(key, build), traced.out[0]

    def can_compute(self) -> bool:
        """Whether `compute` would not have to wait for its program."""
        return self._compute is not None and self._compute[0].is_compiled

    def compute(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Compute the values of accumulators, none of which gathers.

        Returns while the device still works, if its program is there.
        """
        program = self.prepare_to_compute()
        assert self._compute is not None
        _, static = self._compute
        return static.merge(program(_tree.partition_leaves(dict(metrics))[0])[0])


def _describe(step: Step, consts: Consts, carry: Carry) -> dict[str, PyTree]:
    """Everything that a program depends on, under the names that users know."""
    return {
        "learner": consts.learner,
        "model": carry.model if step.trains else consts.model,
        "state": carry.state,
        **consts.held,
        "class_weight": consts.class_weight,
        "batch": data.strip_mask(consts.batch),
        "mask": consts.batch.mask if isinstance(consts.batch, data.MaskedBatch) else None,
    }
