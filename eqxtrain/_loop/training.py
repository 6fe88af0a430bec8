"""What one `fit` does around its steps: preparing them, counting, validating, recording."""

import contextlib
import dataclasses
import itertools
import math
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax

from .. import _data as data, _placement
from .._engine.device_watch import DeviceWatch
from .._engine.runner import StepRunner
from .._history import PassTiming
from .._naming import unique
from .._steps.frozen_leaves import copy_frozen, warn_of_frozen_changes
from .._warn import warn
from ..callbacks import Replay
from ..metrics import _logs
from ..metrics._base import Directions
from .driver import Driver, PeriodicAction
from .epoch_clock import EpochClock
from .inputs import FitOptions
from .interrupt import Interrupt
from .ready import ensure_ready
from .replay import Replayer, pass_order
from .run_control import RunControl, step_of
from .run_state import RunState
from .schedule import Schedule
from .validation import Validation


class Training:
    """The run of one `fit`. Its schedule is in `fit.py`; this is what the schedule consists of.

    **Arguments:**

    - `reader`: reads the data.
    - `interrupt`: knows whether Ctrl-C was pressed.
    - `replayer`: repeats steps of the epoch under way.
    """

    def __init__(
        self,
        control: RunControl,
        runner: StepRunner,
        reader: data.Reader,
        schedule: Schedule,
        validation: Validation,
        options: FitOptions,
        interrupt: Interrupt,
        replayer: Replayer,
    ) -> None:
        self._control = control
        self._runner = runner
        self._reader = reader
        self._schedule = schedule
        self._validation = validation
        self._interrupt = interrupt
        self._replayer = replayer
        self._shuffle = options.shuffle
        self._donates = options.donate
        self._keep_snapshots = options.snapshots and not options.donate
        control.state.frozen = control.state.learner
        # The learner that `fit` began with, to fall back on before the first snapshot.
        self._snapshot: RunState = dataclasses.replace(control.state, position=reader.position)
        self._programs_to_compile: list[Any] = []
        self._clock = EpochClock(control.state.timing, None)

    # The run.

    def begin(self) -> None:
        """Trace what the first epoch needs, and tell the callbacks."""
        self._control.set_runners(training=self._runner, measuring=self._runner)
        if self.has_next_epoch():
            self._prepare()
        # A weak reference: the control would be in a cycle with this, and so with the data.
        self._control.validation_prefixes = self._validation.prefixes
        self._control.find_directions = weakref.WeakMethod(self._find_directions)
        self._control.callbacks.check_monitors(self._control)
        self._control.find_replay = weakref.WeakMethod(self._replay)
        self._call_hook("on_train_begin")

    def _replay(self, step: int) -> Replay:
        first = self._snapshot.step
        # Hooks that read the logs hear of a step when later ones of the call have been taken too.
        last = first + self._control.state.steps_taken - self._snapshot.steps_taken
        if not self._keep_snapshots:
            raise ValueError(
                f"Step {step} can't be gone back to: with `snapshots=False` or `donate=True`, "
                "`fit` keeps no learner of the beginning of the epoch."
            )
        if not first <= step < last:
            raise ValueError(
                f"Step {step} can't be gone back to: steps {first} to {last - 1} can, those since "
                "the beginning of the epoch."
            )
        return self._replayer.replay(self._snapshot, step)

    def _find_directions(self) -> Directions:
        trained = self._runner.accumulators.directions()
        return trained | self._validation.directions(trained)

    def _prepare(self) -> None:
        """Trace everything, but wait only for the program of the first step to be compiled.

        The others are compiled in threads, while the first steps run.
        """
        self._programs_to_compile += self._validation.prepare(max_shapes=1)
        max_steps = self._schedule.max_steps_of_epoch(0)
        programs = self._runner.prepare_for(self._reader, max_steps)
        for program in itertools.islice(programs, 1):
            program.start_compiling()
        self._programs_to_compile = [*programs, *self._programs_to_compile]
        self._validation.check_names(self._runner.accumulators.names)
        self._programs_to_compile += self._validation.prepare()
        if self._donates:
            self._control.state.frozen = copy_frozen(self._runner.learner)

    def has_next_epoch(self) -> bool:
        """Whether the schedule goes on, and nothing has stopped the run."""
        state = self._control.state
        goes_on = self._schedule.goes_on(state.epochs_begun, state.steps_taken)
        return goes_on and not self.should_stop()

    def should_stop(self) -> bool:
        """Whether a callback or Ctrl-C has stopped the run."""
        return self._control.stop_reason is not None or self._interrupt.requested

    def end(self) -> None:
        """Wait for the device, and tell the callbacks."""
        control = self._control
        self._runner.wait()
        interrupted = self._interrupt.requested
        control.history.stopped = "interrupted" if interrupted else control.stop_reason
        control.history.position = control.current().position
        self._call_hook("on_train_end")

    # An epoch.

    def begin_epoch(self) -> None:
        """Begin the next epoch."""
        state = self._control.state
        state.epoch_began = time.perf_counter()
        state.epochs_begun += 1
        state.steps_of_epoch, state.validation_logs = 0, {}
        state.timing = PassTiming()
        state.steps_due = self._count_steps_due()
        if state.epochs_begun > 1:
            self._take_snapshot()
        self._measure_training()
        self._call_hook("on_epoch_begin")

    def _measure_training(self) -> None:
        runner, steps = self._runner, self._control.state.steps_due
        self._control.set_runners(training=runner, measuring=runner, steps=steps)

    def _count_steps_due(self) -> int | None:
        """How many steps the epoch that begins now has, if that is known."""
        schedule = self._schedule
        max_steps = schedule.max_steps_of_epoch(self._control.state.steps_taken)
        due = max_steps if schedule.steps_per_epoch is not None else self._reader.remaining
        return due if due is None or max_steps is None else min(due, max_steps)

    def is_stopped(self) -> bool:
        """Whether a callback has stopped the run. (After Ctrl-C, one more step is taken.)"""
        return self._control.stop_reason is not None

    def end_empty_epoch(self) -> None:
        """End an epoch without steps, which has nothing to measure or to record."""
        self._control.set_logs(dict.fromkeys(self._control.history, math.nan))
        self._call_hook("on_epoch_end")

    @contextmanager
    def stacks(self) -> Iterator[Iterator[data.Stack]]:
        """The stacks of batches of the epoch under way."""
        max_steps = self._schedule.max_steps_of_epoch(self._control.state.steps_taken)
        times_device = self._control.callbacks.times_device
        with DeviceWatch() if times_device else contextlib.nullcontext() as watch:
            self._runner.watch_calls(watch)
            self._clock = EpochClock(self._control.state.timing, watch)
            stacks = self._reader.stacks(self._runner.plan_stack, max_steps, self._order())
            with contextlib.closing(stacks):
                yield self._clock.timed(stacks)
            self._runner.watch_calls(None)

    def _order(self) -> data.Order | None:
        """The order of a pass that begins now."""
        if not self._shuffle:
            return None
        return pass_order(self._runner.learner, self._control.step)

    def make_driver(self) -> Driver:
        """Make the driver of an epoch. One stored here would be a reference cycle with the data."""
        every = self._schedule.validates_every if self._validation else None
        return Driver(
            self._control,
            self._runner,
            self._reader,
            on_steps=self._count,
            apply_replacement=self._apply_replacement,
            should_stop=self.should_stop,
            periodic=None if every is None else PeriodicAction(every, self._validate),
        )

    def _count(self, steps: int, examples: int) -> None:
        state = self._control.state
        self._clock.count(steps, examples, steps * self._runner.flops_per_step)
        is_first_call = state.steps_taken == 0
        state.steps_of_epoch += steps
        state.steps_taken += steps
        if is_first_call:
            while self._programs_to_compile:
                self._programs_to_compile.pop(0).start_compiling()
            self._validation.check_names(self._runner.accumulators.names)
            self._check_frozen()

    def end_steps(self) -> bool:
        """Look at the steps of the epoch; false if Ctrl-C left some of them out."""
        self._check_frozen()
        state = self._control.state
        state.frozen = None
        due, ran = state.steps_due, state.steps_of_epoch
        if due is not None and ran < due and not self.should_stop():
            warn(
                f"The data ran out after {ran} of the {due} steps of epoch "
                f"{self._control.epoch + 1}: the epoch ends early, and the next one begins a new "
                "pass over the data."
            )
        is_whole = not self.should_stop() if due is None else ran >= due
        if self._interrupt.requested and not is_whole:
            return False
        state.steps_due = ran  # so that the epoch is recorded, whatever becomes of its numbers
        return True

    def compute_logs(self) -> dict[str, Any]:
        """Compute what the steps of the epoch measured."""
        logs = self._runner.accumulators.compute_logs()
        self._clock.lap()
        return logs

    @contextmanager
    def recording_failures(self) -> Iterator[None]:
        """Record the epoch if something fails after its last step, perhaps its numbers themselves.

        If the device failed, the epoch is not recorded, because `rescue` goes back to the learner
        from its beginning.
        """
        try:
            yield
        except BaseException:
            state = self._control.state
            if state.steps_of_epoch == state.steps_due:
                # What went wrong first is what people must see.
                with contextlib.suppress(Exception):
                    if self._runner.is_intact():
                        metrics = self._runner.accumulators.with_emitted()
                        self._record(_logs.computable(metrics))
            raise

    def end_epoch(self, result: dict[str, Any]) -> None:
        """Validate if it is time, tell the callbacks, and record the epoch.

        **Arguments:**

        - `result`: what its steps measured.
        """
        control, state = self._control, self._control.state
        metrics = self._runner.accumulators.metric_directions()
        prefixes = ("", *self._validation.prefixes)
        control.history.directions = {p + n: d for p in prefixes for n, d in metrics.items()}
        self._runner.accumulators.clear()
        try:
            if self._validation and self._schedule.validates(control.epoch):
                self._validate()
            self._add_validated(result)
            if not self._interrupt.requested:
                control.set_runners(training=self._runner, measuring=None, steps=state.steps_due)
                control.set_logs(result)
                self._call_hook("on_epoch_end")
                _check_added(result)
            self._warn_of_nan(result)
        finally:  # record the epoch even if validation or a callback failed
            self._record(result)

    def _validate(self) -> None:
        """Validate, at the end of an epoch or between two of its steps."""
        if self._interrupt.requested:
            return
        self._clock.lap()
        self._validation.run()
        self._clock.skip()
        self._measure_training()
        self._apply_replacement()

    def _add_validated(self, result: dict[str, Any]) -> None:
        """Add what was validated last, once."""
        state = self._control.state
        measured, state.validation_logs = state.validation_logs, {}
        for name, value in measured.items():
            result[unique(name, result)] = value

    def _record(self, result: dict[str, Any]) -> None:
        self._add_validated(result)
        _logs.take_hidden(result)
        history = self._control.history
        history.append(result, step=self._control.step)
        history.timing.epochs.append(time.perf_counter() - self._control.state.epoch_began)
        history.timing.passes.append(self._control.state.timing)

    def _warn_of_nan(self, result: Mapping[str, Any]) -> None:
        state, loss = self._control.state, result.get("loss")
        is_nan = isinstance(loss, float) and math.isnan(loss)
        if is_nan and not state.warned_of_nan and self._control.stop_reason is None:
            state.warned_of_nan = True
            warn(
                f"The loss of epoch {self._control.epoch + 1} is nan. Look for nan in the data, "
                "for a learning rate that is too high, and for `log(0)`, `0 / 0` or `sqrt(0)` in "
                "model and loss. `with jax.debug_nans(True): learner.fit(..., eager=True)` raises "
                "at the operation that makes the first."
            )

    def _check_frozen(self) -> None:
        """Warn of frozen leaves that the steps so far have changed."""
        state = self._control.state
        before = state.frozen
        if before is not None and not warn_of_frozen_changes(before, lambda: self._runner.learner):
            state.frozen = None

    # The learner.

    @property
    def learner(self) -> Any:
        """The current learner."""
        return self._control.current().learner

    def _call_hook(self, hook: str) -> None:
        """Call a hook, and take over the learner that a callback may have put in place."""
        self._control.call_hook(hook)
        self._apply_replacement()

    def _apply_replacement(self) -> None:
        state = self._control.state
        if state.replacement is None:
            return
        learner, state.replacement = ensure_ready(state.replacement, None, "train"), None
        state.frozen = None if state.frozen is None else learner
        self._runner.adopt(learner)
        state.step = step_of(learner)
        self._take_snapshot()
        self._control.forget_learner()

    def _take_snapshot(self) -> None:
        if self._keep_snapshots:
            self._snapshot = self._control.capture()

    def rescue(self) -> Any:
        """The learner of the last step, or of the last snapshot if the device lost that."""
        control = self._control
        control.history.position = control.position
        if self._runner.is_intact():
            learner = control.current().learner
            control.state.step = step_of(learner)  # hooks that read the logs may be behind
            return learner
        learner = self._snapshot.learner
        if any(map(_placement.is_deleted, jax.tree.leaves((learner.model, learner.state)))):
            raise RuntimeError(
                "the device failed and lost the model. With `donate=True` there is neither a "
                "snapshot nor the learner that `fit` was given; only `.history` is left"
            )
        self._explain_fallback(step_of(learner))
        control.history.position = self._snapshot.position
        control.fall_back(self._snapshot)
        return learner

    def _explain_fallback(self, step: int) -> None:
        """Let the exception say which learner it carries."""
        origin = "the beginning of the epoch"
        if not self._keep_snapshots:
            origin = "before this `fit`, since `snapshots=False`"
        text = (
            f"The device lost the learner of the last step. `.learner` is from {origin}, after "
            f"step {step}; `.history.position` says where it was in the data."
        )
        error = self._control.exception
        if isinstance(error, eqx.EquinoxRuntimeError):  # which ends in its own sentence
            error.args = (f"{text}\n{error}",)
        elif error is not None:
            error.add_note(text)


def _check_added(result: dict[str, Any]) -> None:
    """Refuse what a callback added to the logs and no history can hold, and drop it."""
    for name, value in list(result.items()):
        leaves = jax.tree.leaves(value)
        are_numbers = all(isinstance(n, int | float) or hasattr(n, "dtype") for n in leaves)
        if not isinstance(name, str) or not name or not are_numbers:
            del result[name]
            raise TypeError(
                f"A callback added {value!r} to `run.logs` as {name!r}: names are strings that are "
                "not empty, and values are numbers or arrays."
            )
