"""Running a step over stacks of batches. `fit`, `evaluate` and `predict` all stand on it."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import _data as data, _placement, _tree
from .._identity.survey import Survey
from .._steps.contract import without_state
from .._steps.ladder import AbstractLearner, enforce_contracts
from .._steps.state import at_rest
from ..metrics import _logs
from . import compile as aot, compile_log, padding_check
from .accumulators import Accumulators
from .cache import trace_key
from .call_plan import CallPlan
from .call_queue import CallQueue
from .device_watch import DeviceWatch
from .loops import CallOutput
from .programs import CompiledStep, Jit, Options, StepProgram, TracedStep
from .step import OF_TRAINING, Carry, Consts, Step, arguments_of, run_step
from .trace_table import TraceTable

_IN_FLIGHT = 2
"""How many calls may be in flight before the next one waits. With `donate=True`, where memory is
short, one: each call has temporaries of its own."""

_DEFAULT = Options()


class _CallInputs(NamedTuple):
    """What a call on the loaded stack takes, all from one trace: a later `prepare` changes none."""

    program: StepProgram
    traced: TracedStep
    consts: list[Any]


class StepRunner:
    """Runs a step over batches, threading model and state. It knows no epochs and no callbacks.

    Load a stack of batches, then run its steps in as many calls as you like: where calls are cut
    changes no bit.

    **Arguments:**

    - `learner`: an initialised learner, whose arrays are copied and never donated.
    - `donate`: give the learner's own arrays away instead of copies.

    **Attributes:**

    - `accumulators`: what the pass has measured so far.
    - `compilations`: the records of the compiles that calls have waited for.
    """

    def __init__(
        self,
        learner: Any,
        step: Step,
        *,
        class_weight: Any = None,
        options: Options = _DEFAULT,
        donate: bool = False,
    ) -> None:
        self.step = step
        self.compilations: list[compile_log.Compilation] = []
        self.steps_per_call = 1
        self._options = options
        self._class_weight = _placement.as_jax_arrays(class_weight)
        disabled: bool = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        self._has_own_jit = type(learner).jit_step is not AbstractLearner.jit_step
        traits = aot.JitTraits(compiles=True, lowers=True)
        if self._has_own_jit:
            traits = aot.jit_traits(learner.jit_step)
        self._eager = options.eager or disabled or not traits.compiles
        if not traits.lowers:
            # What `jit_step` returned may be plain Python. A loop around it would be compiled each
            # time that it is called.
            self._options = options._replace(steps_per_call=1)
        self._calls = CallQueue(1 if donate else _IN_FLIGHT)
        self.accumulators = Accumulators(self._calls)
        self._traced: TracedStep | None = None
        self._compiled: _CallInputs | None = None
        self._step_ranges: dict[tuple[int, int], jax.Array] = {}
        self._keep_alive: list[Any] = []
        self._will_pad = False
        self._stack: data.Stack | None = None
        self._stack_on_device: list[Any] = []
        # What `adopt` sets.
        self._learner: Any  # without model and state
        self._consts: Consts
        self._const_leaves: list[Any]
        self._carry: list[Any]
        self._carry_static: _tree.Static
        self._traces: TraceTable
        self._platform: str
        self.adopt(learner, donate=donate)

    def adopt(self, learner: Any, *, donate: bool = False) -> None:
        """Begin, or go on, from this learner. The accumulators of the pass stay as they are.

        What programs will donate is copied first, even a state that `init` has just made: an
        optimizer may put arrays of the user's into it (`optax.inject_hyperparams` does).
        """
        enforce_contracts(type(learner))
        self._learner = _tree.with_fields(learner, model=None, state=None)
        config = _placement.as_jax_arrays(without_state(learner))
        model, state = learner.model, learner.state
        threaded = _tree.with_fields(state, metrics={}, opt_state_checksum=None)
        batch_index: Any = np.zeros((), np.int32)
        if self.step.trains:
            self._consts = Consts(config, None, {}, self._class_weight, None)
            carry = Carry(model, threaded, batch_index)
        else:
            fixed = _tree.inference_mode(model)
            held = {name: getattr(state, name) for name in OF_TRAINING}
            self._consts = Consts(config, fixed, held, self._class_weight, None)
            threaded = _tree.with_fields(threaded, **dict.fromkeys(held))
            carry = Carry(None, threaded, batch_index)
        carry = _placement.donatable(carry) if donate else _placement.copy(carry)
        if donate:
            # Small arrays were copied. Delete them as well, so that using a learner after it was
            # donated always raises, whatever its size.
            kept = set(map(id, jax.tree.leaves(carry)))
            _placement.delete(leaf for leaf in jax.tree.leaves(model) if id(leaf) not in kept)
        carry = _placement.as_jax_arrays(carry)
        self._const_leaves, consts_static = _tree.partition_leaves(self._consts)
        self._carry, self._carry_static = _tree.partition_leaves(carry)
        if not self._eager:
            # The shapes of the optimizer's state are in `arrays`; this is what is not an array.
            seen = _tree.with_fields(carry.state, opt_state=_tree.not_arrays(state.opt_state))
            step = self.step.call
            survey = Survey(learner=config, model=model, state=seen, step=step)
            structures = (consts_static.treedef, self._carry_static.treedef)
            arrays = trace_key([*self._const_leaves, *self._carry], *structures)
            own_jit: Any = config.jit_step if self._has_own_jit else None
            jit = Jit(own_jit, survey.key if self._has_own_jit else None)
            self._traces = TraceTable(self.step, survey, jit, arrays)
        self._platform = _placement.platform(self._carry)
        self._compiled = self._stack = None

    def watch_calls(self, watch: DeviceWatch | None) -> None:
        """Tell `watch` of each call from now on; None ends it."""
        self._calls.watch = watch

    @property
    def flops_per_step(self) -> float:
        """Operations of one step on the loaded stack; nan where steps run eagerly."""
        return math.nan if self._compiled is None else self._compiled.traced.cost.flops

    @property
    def is_loaded(self) -> bool:
        """Whether there is a stack to run over: not after another learner was adopted."""
        return self._stack is not None

    @property
    def learner(self) -> Any:
        """The current learner, without accumulators. The next call donates its buffers."""
        carry: Carry = self._carry_static.merge(self._carry)
        model, state = carry.model, carry.state
        if not self.step.trains:
            model, state = self._consts.model, _tree.with_fields(state, **self._consts.held)
        return _tree.with_fields(self._learner, model=model, state=at_rest(state))

    # Running.

    def __call__(self, batch: Any) -> None:
        """Run the step on one batch. Returns while the device still works."""
        self.load(data.stack_of_one(batch))
        self.run(0, 1)

    def load(self, stack: data.Stack) -> None:
        """Take a stack of batches, for `run` to run over."""
        self._stack, self._stack_on_device = stack, []
        if not self._eager:
            capacity = len(jax.tree.leaves(stack.batches)[0])
            program, plan, traced = self._compile(_shapes_of_one(stack.batches), capacity)
            self._compiled = _CallInputs(program, traced, traced.select(self._const_leaves))
            self.steps_per_call = plan.steps
        if isinstance(stack.batches, data.MaskedBatch):
            self._check_padding(stack, stack.batches.mask)

    def run(self, start: int, stop: int) -> None:
        """Run the steps on the batches from `start` to `stop` of the loaded stack, in one call.

        Returns while the device still works: this waits only for earlier calls, if too many of
        them are in flight.
        """
        self._calls.make_room()
        if self._eager:
            self._run_eagerly(start)
            return
        assert self._stack is not None and self._compiled is not None
        stack, (program, traced, consts) = self._stack, self._compiled
        step_range = self._step_ranges.get((start, stop))
        if step_range is None:
            step_range = _placement.put(np.array((start, stop), np.uint32))
            self._step_ranges[start, stop] = step_range
        batches = jax.tree.leaves(stack.batches)
        if stop - start < stack.num_batches:  # the stack takes several calls, but one transfer
            self._stack_on_device = self._stack_on_device or _placement.put(batches)
            batches = self._stack_on_device
        if (compilation := program.take_compilation()) is not None:
            self.compilations.append(compilation)
        leaves = self.accumulators.leaves
        out = program(consts, batches, step_range, self._carry, leaves)
        self._carry, self.accumulators.leaves, output = out
        # A step may return another Python value, so what is not an array comes from the trace.
        self._carry_static = traced.carry_static
        self._calls.add(output, traced.emitted_static, (start, stop))

    def run_first(self, count: int) -> None:
        """Run the first `count` steps of the loaded stack, in as few calls as possible."""
        for start in range(0, count, self.steps_per_call):
            self.run(start, min(start + self.steps_per_call, count))

    def _run_eagerly(self, index: int) -> None:
        """Run one step as plain Python."""
        assert self._stack is not None
        out = run_step(self.step, *self._arguments(_batch_of(self._stack.batches, index)))
        self.accumulators.merge(out.logs)
        carry = _placement.as_jax_arrays(out.carry)
        self._carry, self._carry_static = _tree.partition_leaves(carry)
        emitted, static = _tree.partition_leaves(out.emitted)
        output = CallOutput(self._carry[-1], [leaf[None] for leaf in emitted])
        self._calls.add(output, static, (index, index + 1))

    def arguments(self, index: int) -> dict[str, Any]:
        """All that the step may ask for on a batch of the loaded stack, by name."""
        assert self._stack is not None
        batch = _batch_of(self._stack.batches, index)
        return arguments_of(self.step, *self._arguments(batch))

    def wait(self) -> None:
        """Wait for the calls in flight, and raise what went wrong in them."""
        self._calls.wait()
        _placement.wait(self._carry)

    def is_intact(self) -> bool:
        """Wait for the device, and say whether model and state can be read: not if it failed."""
        try:
            self.wait()
        except Exception:
            return False
        return not any(map(_placement.is_deleted, self._carry))

    # Programs.

    def plan_stack(self, batch: data.Batch) -> int:
        """Trace the step for batches like this one, and say how many of them a stack should hold.

        From then on it is known what the step logs.
        """
        if self._eager:
            return 1
        return self._plan(self._trace(_tree.shape_structs(batch))).capacity

    def prepare(self, batch: data.Batch) -> CompiledStep | None:
        """Trace and lower the program for batches like this one; None where steps run eagerly."""
        if self._eager:
            return None
        shapes = _tree.shape_structs(batch)
        return self._compile(shapes, self._plan(self._trace(shapes)).capacity)

    def prepare_for(
        self, reader: data.Reader, max_batches: int | None = None, *, max_shapes: int | None = None
    ) -> Iterator[StepProgram | aot.Program]:
        """Trace what the next pass over a reader's batches needs, as far as that is known.

        What is wrong with a step or a metric shows now, before anything is run.

        **Arguments:**

        - `max_batches`: how many batches will be run.
        - `max_shapes`: for how many of their shapes; None for all.

        **Returns:** the programs, for you to begin. Each is traced when you ask for it.
        """
        self._will_pad = reader.will_pad
        for batch in reader.upcoming(max_batches)[:max_shapes]:
            compiled = self.prepare(batch)
            if compiled is not None:
                yield compiled.program
        if self._traced is not None and not self.step.predicts:
            yield self._traced.prepare_to_compute()

    def _trace(self, shapes: data.Batch) -> TracedStep:
        """Find the traced step for batches of these shapes, and begin to measure with it."""
        traced = self._traced = self._traces.find(shapes, self._arguments, self._keep_alive)
        self.accumulators.prepare_for(traced)
        return traced

    def _plan(self, traced: TracedStep) -> CallPlan:
        return traced.plan(self._options.steps_per_call, self._platform)

    def _compile(self, shapes: data.Batch, capacity: int) -> CompiledStep:
        """Find or make the program for stacks of so many batches of these shapes."""
        traced = self._trace(shapes)
        plan = CallPlan(min(self._plan(traced).steps, capacity), capacity)
        return traced.lookup(plan) or traced.compile(plan, *self._arguments(shapes))

    def _arguments(self, batch: data.Batch) -> tuple[Consts, Carry]:
        """What the step is called with on a batch, or on the shapes of one."""
        return self._consts._replace(batch=batch), self._carry_static.merge(self._carry)

    # Padding: the first padded batch is run with two fillings, beside the pass.

    def _check_padding(self, stack: data.Stack, mask: np.ndarray) -> None:
        """Refuse a step whose numbers depend on padding, before it has measured anything."""
        traced = None if self._compiled is None else self._compiled.traced
        state = self._carry_static.merge(self._carry).state
        if traced is not None and traced.is_padding_checked:
            return
        if self.step.trains and state.model_state is not None:
            return  # batch statistics take padding in, of which people were warned
        if self._will_pad or not mask[: stack.num_batches].all():
            who = self.step.qualified_name(self._learner)
            was_checked = padding_check.check(stack, self._try_first, self.step, who=who)
            if was_checked and traced is not None:
                traced.is_padding_checked = True

    def _try_first(self, batches: data.Batch, change: padding_check.Change) -> padding_check.Trial:
        """What the step does with the first batch of a stack, leaving the pass as it is.

        **Arguments:**

        - `change`: applied to the arrays that the step reads and threads.
        """
        carry, consts = change(_placement.copy(self._carry)), change(self._const_leaves)
        before = _placement.fetch(_placement.copy(carry)) if self.step.trains else []
        if self._eager:
            static = _tree.partition_leaves(self._consts)[1]
            arguments = static.merge(consts)._replace(batch=_batch_of(batches, 0))
            out = run_step(self.step, arguments, self._carry_static.merge(carry))
            accumulated = _logs.merge(_logs.empty_accumulators(out.logs), out.logs)
            values = _logs.compute(_logs.without_gathers(accumulated))
            emitted = jax.tree.leaves(out.emitted)
            after = _tree.partition_leaves(_placement.as_jax_arrays(out.carry))[0]
        else:
            assert self._compiled is not None
            program, traced, _ = self._compiled
            leaves, first = jax.tree.leaves(batches), np.array((0, 1), np.uint32)
            metrics = _placement.copy(traced.metrics)
            after, metrics, output = program(traced.select(consts), leaves, first, carry, metrics)
            values = traced.compute(traced.metrics_static.merge(metrics))
            emitted = [leaf[0] for leaf in output.emitted]
        return padding_check.Trial(before, *_placement.fetch((after, values, emitted)))


def _shapes_of_one(batches: data.Batch) -> data.Batch:
    """The shapes of one batch of a stack's."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    return jax.tree.map(shape, batches)


def _batch_of(batches: data.Batch, index: int) -> data.Batch:
    """One batch of a stack's, on the device."""
    return _placement.put(jax.tree.map(lambda leaf: leaf[index], batches))
