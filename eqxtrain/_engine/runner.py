"""One pass of a step over batches: fold, merge, emit.

`fit`, `evaluate` and `predict` all stand on `Pass`. It knows no epochs and no callbacks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .. import _data as data, _tree
from .._identity.survey import Survey
from .._steps.contract import without_state
from .._steps.ladder import AbstractLearner, enforce_contracts
from .._steps.state import at_rest
from ..metrics import _logs
from . import compile as _compile, compile_log as _record, padding_check as _padding
from .call_queue import CallQueue
from .programs import (
    CallPlan,
    CompiledStep,
    Jit,
    Options,
    StepProgram,
    StepPrograms,
    batch_of,
    one_of,
    run_eagerly,
)
from .step import STEPS, Y_PRED, CallOutput, Carry, Consts, StepKind

_IN_FLIGHT = 2
"""How many calls may be under way before the next one waits: one where memory is short, since each
has temporaries of its own."""


_DEFAULT = Options()


class StepRunner:
    """One pass of a step over batches.

    A stack of batches is loaded, and its steps are run, in as many calls as one likes: where they
    are cut changes no bit.

    **Arguments:**

    - `learner`: an initialised learner, whose arrays are read and never donated.
    - `kind`: which step: `train_step`, `test_step` or `pred_step`.
    - `donate`: give the learner's own arrays away instead of copies.
    """

    def __init__(
        self,
        learner: Any,
        kind: StepKind,
        *,
        class_weight: Any = None,
        options: Options = _DEFAULT,
        donate: bool = False,
    ) -> None:
        self.kind: StepKind = kind
        self.compilations: list[_record.Compilation] = []
        self.steps_per_call = 1
        self._options = options
        disabled: bool = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        own = self._has_own_jit = type(learner).jit_step is not AbstractLearner.jit_step
        jit = _compile.kind_of_jit(learner.jit_step) if own else _compile.JitTraits(True, True)
        self._eager = options.eager or disabled or not jit.compiles
        if not jit.lowers:  # it may be plain Python, and a loop in it would be compiled each time
            self._options = options._replace(steps_per_call=1)
        self._class_weight = None if class_weight is None else jnp.asarray(class_weight)
        self._calls = CallQueue(1 if donate else _IN_FLIGHT)
        self._metrics, self._metrics_static = _tree.partition_leaves({})
        self._programs: dict[Any, StepPrograms] = {}
        self._earlier: list[Any] = []  # whose programs serve those that took their place, too
        self._spans: dict[tuple[int, int], jax.Array] = {}
        self._found: StepPrograms | None = None
        self._program: StepProgram | None = None
        self._loaded = self._will_pad = False
        self._put: list[Any] = []
        self.adopt(learner, donate=donate)

    def adopt(self, learner: Any, *, donate: bool = False) -> None:
        """Begin, or go on, from this learner. The accumulators of the pass stay as they are.

        What will be donated is copied, even a state that `init` has just made: an optimizer may
        put arrays of the user's into it (`optax.inject_hyperparams` does).
        """
        model, state = learner.model, learner.state
        enforce_contracts(type(learner))
        self._learner = _tree.with_fields(learner, model=None, state=None)
        config = _tree.as_jax_arrays(without_state(learner))
        own = _tree.donatable if donate else _tree.copy
        threaded = _tree.with_fields(state, metrics={}, opt_state_leaves=None)
        begun: Any = np.zeros((), np.int32)
        if self.kind == "train":
            self._kept = Consts(config, None, None, self._class_weight, None)
            carry = own(Carry(model, threaded, begun))
            if donate:  # all of it, so that a small model tells who uses it again, too
                kept_ids = set(map(id, jax.tree.leaves(carry)))
                _tree.delete(leaf for leaf in jax.tree.leaves(model) if id(leaf) not in kept_ids)
        else:
            fixed = _tree.inference_mode(model)
            self._kept = Consts(config, fixed, state.opt_state, self._class_weight, None)
            carry = own(Carry(None, _tree.with_fields(threaded, opt_state=None), begun))
        carry = _tree.as_jax_arrays(carry)
        self._kept_leaves, kept_static = _tree.partition_leaves(self._kept)
        self._carry, self._carry_static = _tree.partition_leaves(carry)
        if not self._eager:
            seen = _tree.with_fields(carry.state, opt_state=_tree.not_arrays(state.opt_state))
            self._survey = Survey(learner=config, model=model, state=seen)
            own_jit: Any = config.jit_step if self._has_own_jit else None
            self._jit = Jit(own_jit, self._survey.key if self._has_own_jit else None)
            structures = (kept_static.treedef, self._carry_static.treedef)
            arrays = _compile.key_of([*self._kept_leaves, *self._carry], *structures)
            self._key = (self.kind, self._survey.key, arrays)
        self._platform = _compile.platform(self._carry)
        self._programs.clear()
        self._program, self._loaded = None, False

    def __call__(self, batch: Any) -> None:
        """Run the step on one batch. Returns while the device still works."""
        self.load(data.stack_of_one(batch))
        self.run(0, 1)

    def capacity(self, batch: data.Batch) -> int:
        """How many batches like this one a stack should hold."""
        if self._eager:
            return 1
        return self._call(self._programs_for(_tree.shape_structs(batch))).capacity

    def load(self, stack: data.Stack) -> None:
        """Take a stack of batches in, for `run` to run over."""
        self._stack, self._put, self._loaded = stack, [], True
        if not self._eager:
            capacity = len(jax.tree.leaves(stack.batch)[0])
            made = self._made(batch_of(stack), capacity)
            self._program, self.steps_per_call = made.program, made.call.steps
            assert self._found is not None
            self._read = self._found.select(self._kept_leaves)
        if isinstance(stack.batch, data.Masked):
            self._check_padding(np.asarray(stack.batch.mask))

    @property
    def names(self) -> tuple[str, ...]:
        """What is logged, once that is known: when a batch was loaded or its `capacity` asked."""
        return tuple(self._metrics_static.merge(self._metrics))

    @property
    def loaded(self) -> bool:
        """Whether there is a stack to run over: not after another learner was adopted."""
        return self._loaded

    def run(self, start: int, stop: int) -> None:
        """Run the steps on the batches from `start` to `stop` of the stack that is loaded.

        Returns while the device still works. At most two calls are in flight; the third waits for
        the first.
        """
        self._calls.make_room()
        if self._eager:
            self._run_eagerly(start)
            return
        assert self._program is not None and self._found is not None
        span = self._spans.get((start, stop))
        if span is None:
            span = self._spans[start, stop] = jax.device_put(np.asarray((start, stop), np.uint32))
        batches = jax.tree.leaves(self._stack.batch)
        if stop - start < self._stack.steps:  # for more than one call, put it once
            batches = self._put = self._put or jax.device_put(batches)
        program = self._program
        if (compilation := program.compilation()) is not None:
            self.compilations.append(compilation)
        out = program(self._read, batches, span, self._carry, self._metrics)
        self._carry, self._metrics, leaves = out
        self._carry_static = self._found.carry_static
        self._calls.add(program.called(leaves), self._found.emitted_static, (start, stop))

    def _run_eagerly(self, index: int) -> None:
        """One step as plain Python."""
        arguments = self._arguments(one_of(self._stack.batch, index))
        metrics = self._metrics_static.merge(self._metrics)
        carry, metrics, emitted = map(
            _tree.partition_leaves, run_eagerly(self.kind, *arguments, metrics)
        )
        self._carry, self._carry_static = carry
        self._metrics, self._metrics_static = metrics
        emitted, static = emitted
        called = CallOutput(self._carry[-1], [leaf[None] for leaf in emitted])
        self._calls.add(called, static, (index, index + 1))

    def prepare(self, batch: data.Batch) -> CompiledStep | None:
        """Trace and lower the program for batches like this one, without running it."""
        if self._eager:
            return None
        shapes = _tree.shape_structs(batch)
        return self._made(shapes, self._call(self._programs_for(shapes)).capacity)

    def prepare_for(
        self, reader: data.Reader, most: int | None = None, *, shapes: int | None = None
    ) -> Iterator[StepProgram | _compile.Program]:
        """Trace what the next pass over a reader's batches needs, as far as that is known.

        What is wrong with a step or a metric shows now, before anything is run.

        **Arguments:**

        - `most`: how many batches will be run.
        - `shapes`: for how many of their shapes; None for all.

        **Returns:** the programs, which are to be begun. Each is traced when it is asked for.
        """
        self._will_pad = reader.will_pad
        for batch in reader.upcoming(most)[:shapes]:
            made = self.prepare(batch)
            if made is not None:
                yield made.program
        if self._found is not None and self.kind != "predict":
            yield self._found.prepare_to_compute()

    def _check_padding(self, mask: np.ndarray) -> None:
        """Refuse a step that padding changes the numbers of, before there is any."""
        found, state = self._found, self._carry_static.merge(self._carry).state
        if found is not None and found.is_padding_checked:
            return
        if self.kind == "train" and state.model_state is not None:
            return  # batch statistics take it in, of which people were warned
        padded = self._will_pad or not mask[: self._stack.steps].all()
        stacks = _padding.filled_twice(self._stack) if padded else None
        if stacks is not None:
            step = f"{type(self._learner).__name__}.{STEPS[self.kind]}"
            for noisy in (False, True):
                values = (self._values_of_first(stack, noisy=noisy) for stack in stacks)
                _padding.check(*values, who=step)
            if found is not None:
                found.is_padding_checked = True

    def _values_of_first(self, batch: data.Batch, *, noisy: bool) -> dict[str, Any]:
        """What a step would measure, or predict, on the first batch of a stack."""
        change = _padding.perturbed if noisy else list
        carry, read = change(_tree.copy(self._carry)), change(self._kept_leaves)
        if self._eager:
            kept, _ = self._arguments(one_of(batch, 0))
            leaves, static = _tree.partition_leaves(kept._replace(batch=None))
            kept = static.merge(change(leaves))._replace(batch=kept.batch)
            threaded = self._carry_static.merge(carry)
            _, metrics, emitted = run_eagerly(self.kind, kept, threaded, {})
            values = _logs.compute(_logs.without_gathers(metrics))
        else:
            assert self._program is not None and self._found is not None
            span, begun = np.asarray((0, 1), np.uint32), _tree.copy(self._found.metrics)
            arrays = jax.tree.leaves(batch)
            _, metrics, called = self._program(self._found.select(read), arrays, span, carry, begun)
            values = self._found.compute(self._found.metrics_static.merge(metrics))
            emitted = [leaf[0] for leaf in self._program.called(called).emitted]
        if self.kind != "predict":
            return values
        real = np.asarray(batch.mask[0])
        leaves = jax.tree.leaves(emitted)
        return {"y_pred": np.concatenate([np.asarray(x)[real].ravel() for x in leaves])}

    def _call(self, found: StepPrograms) -> CallPlan:
        return found.call(self._options.steps_per_call, self._platform)

    def _programs_for(self, batch: data.Batch) -> StepPrograms:
        """The programs for batches of these shapes."""
        leaves, structure = jax.tree.flatten(batch)
        signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in self._programs:
            found = self._traced(batch, signature)
            if self._metrics_static.leaves:
                _logs.check_same_structure(self._metrics_static.merge(self._metrics), found.empty)
            self._programs[signature] = found
        found = self._found = self._programs[signature]
        if not self._metrics_static.leaves:
            self._metrics, self._metrics_static = _tree.partition_leaves(_tree.copy(found.empty))
        return found

    def _traced(self, batch: data.Batch, signature: Any) -> StepPrograms:
        """The step on batches of these shapes, traced unless that would give the same again."""
        seen = Survey(batch=batch)
        arguments = (*self._arguments(batch), self._jit, self._survey)
        trace = lambda: StepPrograms(self.kind, *arguments)
        if self._survey.is_whole and seen.is_whole:
            return _compile.cached((self._key, signature, seen.key), trace)
        found = trace()
        self._earlier.append(_compile.kept(key := ("traced", found.form)))
        return _compile.keep(key, found)

    def _made(self, batch: data.Batch, capacity: int) -> CompiledStep:
        """The program for stacks of so many batches of these shapes."""
        found = self._programs_for(batch)
        call = CallPlan(min(self._call(found).steps, capacity), capacity)
        made = found.program(call)
        if made is None:
            made = found.compile(call, *self._arguments(batch))
        return made

    def _arguments(self, batch: data.Batch) -> tuple[Consts, Carry]:
        """What a step is called with on a batch, or on one of these shapes."""
        return self._kept._replace(batch=batch), self._carry_static.merge(self._carry)

    def wait(self) -> None:
        """Wait for the calls in flight, and for what went wrong in them."""
        self._calls.wait()
        jax.block_until_ready(self._carry)

    @property
    def intact(self) -> bool:
        """Whether model and state can still be read: false after the device failed in a call."""
        try:
            self.wait()
        except Exception:
            return False
        return not any(leaf.is_deleted() for leaf in self._carry)

    def begin(self) -> None:
        """Empty the accumulators, for another pass over data."""
        self._calls.forget()
        self._metrics, self._metrics_static = _tree.partition_leaves({})

    @property
    def learner(self) -> Any:
        """The learner of now, without accumulators, in buffers that the next call takes away."""
        carry: Carry = self._carry_static.merge(self._carry)
        state = carry.state
        if self.kind == "train":
            return _tree.with_fields(self._learner, model=carry.model, state=at_rest(state))
        state = at_rest(_tree.with_fields(state, opt_state=self._kept.opt_state))
        return _tree.with_fields(self._learner, model=self._kept.model, state=state)

    def logs(self, *, whole: bool = True, after: int | None = None) -> dict[str, Any]:
        """What was measured so far, computed and fetched; waits for the device.

        **Arguments:**

        - `whole`: whether the pass is over. What is gathered is joined only then.
        - `after`: which batch of the stack, of the last call's, the numbers are those after; None
            for the last one.
        """
        leaves = self._metrics if after is None else self._calls.trail(after, self._metrics)
        metrics: Mapping[str, Any] = self._metrics_static.merge(leaves)
        if not whole:
            metrics = _logs.without_gathers(metrics)
        if self._eager or self._found is None or any(map(_logs.has_gather, metrics.values())):
            metrics = self._calls.with_emitted(metrics)
            values = _logs.compute(metrics)
        else:
            values = self._found.compute(metrics)
        result = _logs.as_result(values)
        if whole:
            _logs.emit_warnings(metrics)
        return result

    def outputs(self) -> PyTree:
        """Of a `predict` pass: what the step gave, one row an example, as NumPy arrays."""
        return jax.tree.map(np.asarray, self.accumulated()[Y_PRED].compute())

    def accumulated(self) -> Any:
        """The accumulators so far, with what was gathered; waits for the device."""
        return self._calls.with_emitted(self._metrics_static.merge(self._metrics))
