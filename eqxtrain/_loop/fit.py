"""The loop of `fit`."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .. import _data as data
from .._engine.runner import StepRunner
from .._engine.step import training_step
from .._history import Fitted, History
from .._steps.ladder import AbstractLearner
from .inputs import FitOptions, PassInputs
from .interrupt import Interrupt
from .replay import Replayer
from .rescue import end_interrupted_run, handle_exceptions
from .run_control import RunControl
from .schedule import Schedule
from .training import Training
from .validation import Validation, validation_sets

L = TypeVar("L", bound=AbstractLearner[Any])


def fit(
    learner: L,
    check_data: Callable[[], tuple[PassInputs, Mapping[str, data.Source]]],
    schedule: Schedule,
    options: FitOptions,
) -> Fitted[L]:
    """Train for some epochs.

    **Arguments:**

    - `check_data`: returns what to train on, and the sets to validate on by the prefix of their
        logs. It may read some of the data, and so may be interrupted.
    """
    where = "before the first step"
    checked = None
    with contextlib.suppress(KeyboardInterrupt):
        checked = check_data()
    if checked is None:
        return end_interrupted_run(options.on_interrupt, learner, History(), where)
    inputs, validation_sources = checked
    batches = inputs.source.num_batches(inputs.batching)
    shape = {"epochs": schedule.epochs_of(batches), "steps": schedule.steps_of(batches)}
    control = RunControl(learner, inputs.callbacks, {**shape, **inputs.params})
    training: Training | None = None

    def rescue() -> Any:  # `learner` is assigned anew below, so this returns the latest
        return learner if training is None else training.rescue()

    with (
        Interrupt() as interrupt,
        handle_exceptions(control, rescue),
        inputs.source.open_reader(
            inputs.batching, keep_waiting=interrupt.keep_waiting, max_batches=schedule.max_steps
        ) as reader,
    ):
        control.reader = reader
        if options.position is not None:
            reader.seek(options.position)
        first = reader.peek()
        if first is None:  # interrupted while it was awaited
            control.history.position = reader.position
        else:
            learner = inputs.ready(learner, first, "train")
            control.set_initial_learner(learner)
            step = training_step(inputs.callbacks.metrics())
            runner = StepRunner(
                learner,
                step,
                class_weight=inputs.class_weight,
                options=inputs.options,
                donate=options.donate,
            )
            runner.compilations = control.history.timing.compilations
            max_batches = schedule.validation_steps
            sets = validation_sets(validation_sources, options.validation_weights)
            with Validation(control, runner, inputs, sets, max_batches, interrupt) as validation:
                replayer = Replayer(inputs, step, options.shuffle)
                training = Training(
                    control, runner, reader, schedule, validation, options, interrupt, replayer
                )
                _run_epochs(training)
            learner = training.learner
            where = f"in epoch {control.epoch + 1}, after step {control.step}"
    if interrupt.requested:  # read after the handler is gone, so that none is missed
        return end_interrupted_run(options.on_interrupt, learner, control.history, where)
    return Fitted(learner, control.history)


def _run_epochs(training: Training) -> None:
    """The schedule: for each epoch, for each stack of batches, for each call of the device."""
    training.begin()
    while training.has_next_epoch():
        training.begin_epoch()
        if training.is_stopped():  # before the first step
            training.end_empty_epoch()
            break
        with training.recording_failures():
            driver = training.make_driver()
            with training.stacks() as stacks:
                for stack in stacks:
                    driver.load(stack)
                    while driver.has_steps_left():
                        driver.run_call()
                    if driver.is_stopped:
                        break
            if not training.end_steps():  # Ctrl-C came before the last one
                break
            logs = training.compute_logs()
        training.end_epoch(logs)
    training.end()
