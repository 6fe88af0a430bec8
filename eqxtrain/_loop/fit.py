"""The loop of `fit`: epochs, validation, interruption, callbacks."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import numpy as np

from .. import _data as data, _placement, _tree
from .._engine.runner import StepRunner
from .._history import Fitted, History
from .._naming import unique
from .._steps import frozen_leaves as _frozen
from .._steps.ladder import AbstractLearner
from .._warn import warn
from ..callbacks import Run
from ..metrics import _logs
from .driver import Driver, PeriodicAction
from .evaluate import PassInputs, Validation
from .interrupt import Interrupt
from .ready import ensure_ready
from .rescue import interrupted, telling_of_exceptions
from .schedule import Schedule

L = TypeVar("L", bound=AbstractLearner[Any])


def fit(
    learner: L,
    checked: Callable[[], tuple[PassInputs, Mapping[str, data.Source]]],
    schedule: Schedule,
    *,
    shuffle: bool,
    position: data.Position | None,
    on_interrupt: Literal["return", "raise"] | None,
    donate: bool,
    snapshots: bool,
) -> Fitted[L]:
    """Train for some epochs. The arguments are those of `Learner.fit`, checked.

    **Arguments:**

    - `checked`: gives what is trained on, and what is validated on; it may read of the data.
    """
    history, where, training_data = History(), "before the first step", None
    with contextlib.suppress(KeyboardInterrupt):
        training_data = checked()
    if training_data is None:
        return interrupted(on_interrupt, learner, history, where)
    given, validation = training_data
    batches = given.source.steps(given.batching)
    shape = {"epochs": schedule.epochs_of(batches), "steps": schedule.steps_of(batches)}
    reader = None
    position_of = lambda: None if reader is None else reader.position
    run = Run(learner, history, {**shape, **given.params}, position_of)
    rescue = lambda: learner
    with (
        Interrupt() as interrupt,
        telling_of_exceptions(run, given.callbacks, lambda: rescue()),
        contextlib.ExitStack() as closed,
    ):
        keep_waiting = lambda: not interrupt.asked
        reader = given.source.read(
            given.batching, keep_waiting=keep_waiting, max_batches=schedule.max_steps
        )
        closed.enter_context(reader)
        if position is not None:
            reader.seek(position)
        first = reader.peek()
        if first is None:
            history.position = reader.position
        else:
            learner = given.ready(learner, first, "train")
            run.begin(learner)
            kept = {"class_weight": given.class_weight, "options": given.options}
            training = StepRunner(learner, "train", donate=donate, **kept)
            training.compilations = history.timing.compilations
            validating = Validation(
                run, training, given, validation, interrupt, schedule.validation_steps
            )
            closed.enter_context(validating)
            loop = _Fit(
                run, training, given, schedule, reader, validating, interrupt, shuffle, snapshots
            )
            rescue = loop.rescue
            loop()
            learner, where = training.learner, f"in epoch {run.epoch + 1}, after step {run.step}"
    if interrupt.asked:  # asked for once the handler is gone, so that none is missed
        return interrupted(on_interrupt, learner, history, where)
    return Fitted(learner, history)


@dataclasses.dataclass
class _Fit:
    """The run of one `fit`: what `epoch` needs, and what is rescued when it fails."""

    _run: Run
    _training: StepRunner
    _given: PassInputs
    _schedule: Schedule
    _reader: data.Reader
    _validation: Validation
    _interrupt: Interrupt
    _shuffle: bool
    _keep_snapshots: bool

    def __post_init__(self) -> None:
        self._snapshot: Any = (self._run.learner, self._reader.position)
        self._given_learner: Any = self._run.learner  # until it is known what its steps change
        self._has_run = False
        self._to_begin: list[Any] = []  # programs that are traced
        self._taken = 0
        self._measured: dict[str, Any] = {}
        self._told_of_nan = False

    def _driver(self) -> Driver:
        """One for each epoch: kept, it would be held by what it holds, and so would the data."""
        every = self._schedule.validates_every if self._validation else None
        return Driver(
            self._run,
            self._given.callbacks,
            ran=self._count,
            settle=self._settle,
            halted=self._is_halted,
            pause=None if every is None else PeriodicAction(every, self._validate),
        )

    def _look_at_frozen(self) -> None:
        """Tell of frozen leaves that the steps so far have changed."""
        if self._given_learner is not None:
            current = lambda: self._training.learner
            if not _frozen.may_change_yet(self._given_learner, current):
                self._given_learner = None

    def __call__(self) -> None:
        run, schedule = self._run, self._schedule
        run.enter(training=self._training, measuring=self._training)
        if schedule.goes_on(0, 0):
            self._prepare()
        self._tell("on_train_begin")
        epoch = 0
        while schedule.goes_on(epoch, self._taken) and not self._is_halted():
            self._epoch(epoch)
            epoch += 1
        self._training.wait()
        run.history.stopped = "interrupted" if self._interrupt.asked else run.stopped
        run.history.position = self._reader.position
        self._tell("on_train_end")

    def _prepare(self) -> None:
        """Trace all that the first epoch needs. Only the first step's program is compiled at once.

        The others are compiled side by side while the first steps run.
        """
        self._to_begin += self._validation.prepare(shapes=1)
        training = self._training.prepare_for(self._reader, self._schedule.most(0))
        for program in itertools.islice(training, 1):
            program.begin()
        self._to_begin = [*training, *self._to_begin]
        self._validation.check_names(self._training.names)
        self._to_begin += self._validation.prepare()

    def rescue(self) -> Any:
        """The learner of the last step, or of the last snapshot if the device lost that."""
        run = self._run
        run.history.position = self._reader.position
        if self._training.intact:
            learner = self._training.learner
            run.step = int(learner.state.step)  # those told of the logs may be behind
            return learner
        learner, position = self._snapshot
        if not all(map(_is_there, jax.tree.leaves((learner.model, learner.state)))):
            raise RuntimeError(
                "the device failed and lost the model. With `donate=True` there is neither a "
                "snapshot nor the learner that `fit` was given; only `.history` is left"
            )
        step, origin = int(learner.state.step), "the beginning of the epoch"
        if not self._keep_snapshots:
            origin = "before this `fit`, since `snapshots=False`"
        text = (
            f"The device lost the learner of the last step. `.learner` is from {origin}, after "
            f"step {step}; `.history.position` says where it was in the data."
        )
        if isinstance(run.exception, eqx.EquinoxRuntimeError):  # which ends in its own sentence
            run.exception.args = (f"{text}\n{run.exception}",)
        elif run.exception is not None:
            run.exception.add_note(text)
        run.history.position = position
        run.fall_back(learner, position)
        return learner

    def _is_halted(self) -> bool:
        return self._run.stopped is not None or self._interrupt.asked

    def _take_snapshot(self) -> None:
        if not self._keep_snapshots:
            return
        learner = self._training.learner
        held = _placement.owned_by_host({"model": learner.model, "state": learner.state})
        self._snapshot = (_tree.with_fields(learner, **held), self._reader.position)

    def _tell(self, hook: str) -> None:
        """Call a hook, and take over the learner that a callback may have put in place."""
        self._given.callbacks.tell(hook, self._run)
        self._settle()

    def _settle(self) -> None:
        run = self._run
        if run.replacement is not None:
            learner, run.replacement = ensure_ready(run.replacement, None, "train"), None
            self._given_learner = None if self._given_learner is None else learner
            self._training.adopt(learner)
            self._take_snapshot()
            run.step = int(learner.state.step)
            run.forget()

    def _epoch(self, epoch: int) -> None:
        """One epoch: training, validation, and the record of both."""
        run, training = self._run, self._training
        began = time.perf_counter()
        if epoch > 0:
            self._take_snapshot()
        run.epoch, self._measured = epoch, {}
        self._ran, self._due = 0, None
        run.enter(training=training, measuring=training)
        self._tell("on_epoch_begin")
        if run.stopped is not None:  # before a step: there is nothing to measure or to record
            run.forget(dict.fromkeys(run.history, math.nan))
            self._tell("on_epoch_end")
            return
        trained = False
        try:
            whole = self._train()
            self._look_at_frozen()
            self._given_learner = None
            if self._interrupt.asked and not whole:
                return
            trained = True
            result = training.logs()
        except BaseException:
            if trained or self._ran == self._due:
                self._record_what_is_left(began)
            raise
        training.begin()
        try:
            self._warn_of_nan(result)
            if self._validation and self._schedule.validates(epoch):
                self._validate()
            self._add_validation_to(result)
            if not self._interrupt.asked:
                run.enter(training=training, measuring=None)
                run.forget(result)
                self._tell("on_epoch_end")
        finally:  # it was trained whole, whatever became of validation and of those who were told
            self._add_validation_to(result)
            self._record(result, began)

    def _add_validation_to(self, result: dict[str, Any]) -> None:
        """Add what was validated last, once."""
        measured, self._measured = self._measured, {}
        for name, value in measured.items():
            result[unique(name, result)] = value

    def _record(self, result: Mapping[str, Any], began: float) -> None:
        history = self._run.history
        history.append(result)
        history.timing.epochs.append(time.perf_counter() - began)

    def _record_what_is_left(self, began: float) -> None:
        """Record an epoch after whose last step something failed, perhaps its numbers themselves.

        If it was the device, there is no such epoch: the learner of its beginning is rescued.
        """
        with contextlib.suppress(Exception):  # what went wrong first is what people must see
            if self._training.intact:
                result = _logs.computable(self._training.accumulated())
                self._add_validation_to(result)
                self._record(result, began)

    def _warn_of_nan(self, result: Mapping[str, Any]) -> None:
        loss = result.get("loss")
        if not self._told_of_nan and isinstance(loss, float) and math.isnan(loss):
            self._told_of_nan = True
            warn(
                f"The loss of epoch {self._run.epoch + 1} is nan. Look for nan in the data, for a "
                "learning rate that is too high, and for `log(0)`, `0 / 0` or `sqrt(0)` in model "
                "and loss. `with jax.debug_nans(True): learner.fit(..., eager=True)` raises at the "
                "operation that makes the first."
            )

    def _train(self) -> bool:
        """The steps of an epoch; gives whether these were all that it has."""
        reader, most = self._reader, self._schedule.most(self._taken)
        left = reader.remaining
        due = most if self._schedule.steps_per_epoch is not None else left
        self._due = due = due if due is None or most is None else min(due, most)
        with closing(reader.stacks(self._training.capacity, most, self._order())) as stacks:
            steps = self._driver().over(self._training, stacks)
        self._taken += steps
        if due is not None and steps < due and not self._is_halted():
            warn(
                f"The data ran out after {steps} of the {due} steps of epoch "
                f"{self._run.epoch + 1}, which ends here; the next one begins a new pass over them."
            )
        return not self._is_halted() if due is None else steps >= due

    def _count(self, steps: int) -> None:
        self._reader.consume(steps)
        self._ran += steps
        if not self._has_run:
            self._has_run = True
            while self._to_begin:
                self._to_begin.pop(0).begin()
            self._validation.check_names(self._training.names)
            self._look_at_frozen()

    def _order(self) -> data.Order | None:
        """The order of a pass that begins now."""
        if not self._shuffle:
            return None
        key = np.asarray(self._training.learner.state.key)
        return data.Order(tuple(map(int, key)), self._run.step)

    def _validate(self) -> None:
        """Validation, at the end of an epoch or between two of its steps."""
        if self._interrupt.asked:
            return
        self._measured = {}
        self._validation(self._measured)
        self._run.enter(training=self._training, measuring=self._training)
        self._settle()


def _is_there(leaf: Any) -> bool:
    return not _placement.is_deleted(leaf)
