"""One pass of a step over batches: fold, merge, emit.

`fit`, `evaluate` and `predict` all stand on `Pass`. It knows no epochs and no callbacks.
"""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from . import _compile, _cost, _record, _tree, data
from ._fold import Y_PRED, Called, Carry, Kept, Kind, fold
from ._identity import Survey
from ._programs import Call, Jit, Made, StepProgram, StepPrograms, batch_of, one_of
from ._protocol import withhold
from ._steps import AbstractLearner, hold_steps
from .metrics import _logs

_IN_FLIGHT = 2
"""How many calls may be under way before the next one waits: one where memory is short, since each
has temporaries of its own."""


def _rows(leaf: np.ndarray, steps: slice) -> np.ndarray:
    """What some steps emitted, one row an example; a copy where it is a part of what was."""
    part = leaf[steps] if len(leaf[steps]) == len(leaf) else leaf[steps].copy()
    return part.reshape(part.shape[0] * part.shape[1], *part.shape[2:])


class _InFlight(NamedTuple):
    called: Called
    emitted_static: _tree.Static
    span: tuple[int, int]


class Options(NamedTuple):
    """How steps are run: without compiling them, and how many a call may run."""

    eager: bool = False
    steps_per_call: _cost.StepsPerCall = "auto"


_DEFAULT = Options()


class Pass:
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
        kind: Kind,
        *,
        class_weight: Any = None,
        options: Options = _DEFAULT,
        donate: bool = False,
    ) -> None:
        self.kind: Kind = kind
        self.compilations: list[_record.Compilation] = []
        self.steps_per_call = 1
        self._options = options
        self._most_in_flight = 1 if donate else _IN_FLIGHT
        disabled: bool = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        own = type(learner).jit_step is not AbstractLearner.jit_step
        self._has_own_jit = own
        jit = _compile.kind_of_jit(learner.jit_step) if own else _compile.Jit(True, True)
        self._eager = options.eager or disabled or not jit.compiles
        if not jit.lowers:  # it may be plain Python, and a loop in it would be compiled each time
            self._options = options._replace(steps_per_call=1)
        self._class_weight = None if class_weight is None else jnp.asarray(class_weight)
        self._in_flight: collections.deque[_InFlight] = collections.deque()
        self._fetched: list[PyTree] = []
        self._metrics, self._metrics_static = _tree.split({})
        self._programs: dict[Any, StepPrograms] = {}
        self._earlier: list[Any] = []  # whose programs serve those that took their place, too
        self._spans: dict[tuple[int, int], jax.Array] = {}
        self._last: Any = None
        self._found: StepPrograms | None = None
        self._program: StepProgram | None = None
        self._loaded = False
        self._put: list[Any] = []
        self.adopt(learner, donate=donate)

    def adopt(self, learner: Any, *, donate: bool = False) -> None:
        """Begin, or go on, from this learner. The accumulators of the pass stay as they are.

        What will be donated is copied, even a state that `init` has just made: an optimizer may
        put arrays of the user's into it (`optax.inject_hyperparams` does).
        """
        model, state = learner.model, learner.state
        hold_steps(type(learner))
        self._learner = _tree.with_fields(learner, model=None, state=None)
        config = _tree.canonical(withhold(learner))
        own = _tree.apart if donate else _tree.copy
        threaded = _tree.with_fields(state, metrics={})
        if self.kind == "train":
            self._kept = Kept(config, None, None, self._class_weight, None)
            threaded_model, threaded = own((model, threaded))
            if donate:  # all of it, so that a small model tells who uses it again, too
                kept_ids = set(map(id, jax.tree.leaves((threaded_model, threaded))))
                _tree.delete(leaf for leaf in jax.tree.leaves(model) if id(leaf) not in kept_ids)
        else:
            fixed = eqx.nn.inference_mode(model)
            self._kept = Kept(config, fixed, state.opt_state, self._class_weight, None)
            threaded_model, threaded = None, own(_tree.with_fields(threaded, opt_state=None))
        carry = Carry(threaded_model, threaded, position=_tree.strong(np.zeros((), np.int32)))
        carry = _tree.canonical(carry)
        self._kept_leaves, kept_static = _tree.split(self._kept)
        self._carry, self._carry_static = _tree.split(carry)
        if not self._eager:
            state = threaded.update(opt_state=_tree.not_arrays(state.opt_state))
            self._survey = Survey(learner=config, model=model, state=state)
            own = self._has_own_jit
            self._jit = Jit(config.jit_step, self._survey.key) if own else Jit()
            structures = (kept_static.treedef, self._carry_static.treedef)
            arrays = _compile.key_of([*self._kept_leaves, *self._carry], *structures)
            self._key = (self.kind, self._survey.key, arrays)
        self._platform = _compile.platform(self._carry)
        self._programs.clear()
        self._program, self._loaded = None, False

    def __call__(self, batch: Any) -> None:
        """Run the step on one batch. Returns while the device still works."""
        self.load(data.alone(batch))
        self.run(0, 1)

    def capacity(self, batch: data.Batch) -> int:
        """How many batches like this one a stack should hold."""
        if self._eager:
            return 1
        return self._call(self._programs_for(_tree.shapes(batch))).capacity

    def load(self, stack: data.Stack) -> None:
        """Take a stack of batches in, for `run` to run over."""
        self._stack, self._put, self._loaded = stack, [], True
        if not self._eager:
            capacity = len(jax.tree.leaves(stack.batch)[0])
            made = self._made(batch_of(stack), capacity)
            self._program, self.steps_per_call = made.program, made.call.steps
            assert self._found is not None
            self._read = self._found.select(self._kept_leaves)

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
        while len(self._in_flight) >= self._most_in_flight:
            self._finish_one()
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
        if program.is_new:
            self.compilations.append(program.compilation())
        out = program(self._read, batches, span, self._carry, self._metrics)
        self._carry, self._metrics, leaves = out
        self._carry_static = self._found.carry_static
        self._last = _InFlight(program.called(leaves), self._found.emitted_static, (start, stop))
        self._in_flight.append(self._last)

    def _run_eagerly(self, index: int) -> None:
        """One step as plain Python."""
        folded = fold(self.kind, *self._arguments(one_of(self._stack, index)))
        metrics = self._metrics_static.merge(self._metrics) or _logs.begin(folded.logs)
        metrics = _tree.canonical(_logs.merge(metrics, folded.logs))
        self._carry, self._carry_static = _tree.split(_tree.canonical(folded.carry))
        self._metrics, self._metrics_static = _tree.split(metrics)
        emitted, static = _tree.split(folded.emitted)
        called = Called(self._carry[-1], [leaf[None] for leaf in emitted])
        self._last = _InFlight(called, static, (index, index + 1))
        self._in_flight.append(self._last)

    def prepare(self, batch: data.Batch) -> Made | None:
        """Begin to compile the program for batches like this one, without running it."""
        if self._eager:
            return None
        return self._made(_tree.shapes(batch), self.capacity(batch))

    def prepare_for(
        self, reader: data.Reader, most: int | None = None, *, shapes: int | None = None
    ) -> None:
        """Begin to compile all that the next pass over a reader's batches needs, as far as known.

        What is wrong with a step or a metric shows now, before anything is run.

        **Arguments:**

        - `most`: how many batches will be run.
        - `shapes`: for how many of their shapes; None for all.
        """
        for batch in reader.upcoming(most)[:shapes]:
            self.prepare(batch)
        if self._found is not None and self.kind != "predict":
            self._found.prepare_to_compute()

    def _call(self, found: StepPrograms) -> Call:
        return found.call(self._options.steps_per_call, self._platform)

    def _programs_for(self, batch: data.Batch) -> StepPrograms:
        """The programs for batches of these shapes."""
        leaves, structure = jax.tree.flatten(batch)
        signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in self._programs:
            found = self._traced(batch, signature)
            if self._metrics_static.leaves:
                _logs.check_same(self._metrics_static.merge(self._metrics), found.empty)
            self._programs[signature] = found
        found = self._found = self._programs[signature]
        if not self._metrics_static.leaves:
            self._metrics, self._metrics_static = _tree.split(_tree.copy(found.empty))
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

    def _made(self, batch: data.Batch, capacity: int) -> Made:
        """The program for stacks of so many batches of these shapes."""
        found = self._programs_for(batch)
        call = Call(min(self._call(found).steps, capacity), capacity)
        made = found.program(call)
        if made is None:
            made = found.compile(call, *self._arguments(batch))
        return made

    def _arguments(self, batch: data.Batch) -> tuple[Kept, Carry]:
        """What a step is called with on a batch, or on one of these shapes."""
        return self._kept._replace(batch=batch), self._carry_static.merge(self._carry)

    def _finish_one(self) -> None:
        called, static, (start, stop) = self._in_flight.popleft()
        jax.block_until_ready(called.done)
        if not called.emitted:
            return
        fetched = static.merge(jax.device_get(called.emitted))
        ran = slice(start, stop) if called.trail is not None else slice(None)
        self._fetched.append(jax.tree.map(lambda leaf: _rows(leaf, ran), fetched))

    def _finish_all(self) -> None:
        while self._in_flight:
            self._finish_one()

    def wait(self) -> None:
        """Wait for the calls in flight, and for what went wrong in them."""
        self._finish_all()
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
        self._finish_all()
        self._metrics, self._metrics_static = _tree.split({})
        self._fetched.clear()

    @property
    def learner(self) -> Any:
        """The learner of now, without accumulators, in buffers that the next call takes away."""
        carry: Carry = self._carry_static.merge(self._carry)
        state = carry.state
        if self.kind == "train":
            return _tree.with_fields(self._learner, model=carry.model, state=state)
        state = state.update(opt_state=self._kept.opt_state)
        return _tree.with_fields(self._learner, model=self._kept.model, state=state)

    def logs(self, *, whole: bool = True, after: int | None = None) -> dict[str, Any]:
        """What was measured so far, computed and fetched; waits for the device.

        **Arguments:**

        - `whole`: whether the pass is over. What is gathered is joined only then.
        - `after`: which batch of the stack, of the last call's, the numbers are those after; None
            for the last one.
        """
        leaves = self._metrics
        if after is not None and (trail := self._last.called.trail):
            leaves = _tree.unpack(jax.tree.map(lambda row: np.asarray(row)[after], trail), leaves)
        metrics: Mapping[str, Any] = self._metrics_static.merge(leaves)
        if not whole:
            metrics = {n: m for n, m in metrics.items() if not _logs.has_gather(m)}
        if self._eager or self._found is None or any(map(_logs.has_gather, metrics.values())):
            metrics = self._with_emitted(metrics)
            values = _logs.compute(metrics)
        else:
            values = self._found.compute(metrics)
        result = _logs.as_result(jax.device_get(values))
        if whole:
            _logs.warn_of(metrics)
        return result

    def outputs(self) -> PyTree:
        """Of a `predict` pass: what the step gave, one row an example, as NumPy arrays."""
        return jax.tree.map(np.asarray, self.accumulated()[Y_PRED].compute())

    def accumulated(self) -> Any:
        """The accumulators of the pass so far, with what was gathered; waits for the device."""
        return self._with_emitted(self._metrics_static.merge(self._metrics))

    def _with_emitted(self, metrics: PyTree) -> PyTree:
        self._finish_all()
        return _logs.put_back(metrics, _logs.joined(self._fetched)) if self._fetched else metrics
