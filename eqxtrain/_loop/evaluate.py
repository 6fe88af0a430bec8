"""Passes that change no learner: `evaluate`, `predict`, and single batches."""

from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from .. import _data as data
from .._engine.programs import Options
from .._engine.runner import StepRunner
from .._engine.step import STEPS
from .._losses.class_weight import class_weight_table
from .._steps.frozen_leaves import warn_of_frozen_changes
from .._steps.ladder import AbstractLearner
from .._types import PyTree, StepKind
from .._warn import warn
from .driver import Driver, never
from .inputs import PassInputs
from .ready import ensure_ready
from .rescue import handle_exceptions, translate_errors
from .run_control import RunControl

L = TypeVar("L", bound=AbstractLearner[Any])


def evaluate(
    learner: AbstractLearner[Any], inputs: PassInputs, steps: int | None
) -> dict[str, Any]:
    """Run one pass of `test_step`. The arguments are those of `Learner.evaluate`, checked."""
    return _whole_pass(learner, inputs, "test", steps)


def predict(learner: AbstractLearner[Any], inputs: PassInputs, steps: int | None) -> PyTree:
    """Run one pass of `pred_step`. The arguments are those of `Learner.predict`, checked."""
    return _whole_pass(learner, inputs, "predict", steps)


def _whole_pass(
    learner: AbstractLearner[Any], inputs: PassInputs, kind: StepKind, max_batches: int | None
) -> Any:
    """Run a pass outside of `fit`: returns what it measured, or what it predicted."""
    batches = inputs.source.num_batches(inputs.batching)
    known = [n for n in (max_batches, batches) if isinstance(n, int)]
    params = {"steps": min(known, default=None), **inputs.params}
    control = RunControl(learner, inputs.callbacks, params)
    with (
        handle_exceptions(control, lambda: learner),  # assigned below: the latest one
        inputs.source.open_reader(inputs.batching, max_batches=max_batches) as reader,
    ):
        learner = inputs.ready(learner, reader.peek(), kind)
        control.set_initial_learner(learner)
        options, class_weight = inputs.options, inputs.class_weight
        runner = StepRunner(learner, STEPS[kind], class_weight=class_weight, options=options)
        measuring = None if runner.step.predicts else runner
        control.set_runners(training=None, measuring=measuring, steps=params["steps"])
        measured = run_pass(control, runner, reader, max_batches)
        return runner.accumulators.compute_outputs() if runner.step.predicts else measured


def run_pass(
    control: RunControl,
    runner: StepRunner,
    reader: data.Reader,
    max_batches: int | None,
    should_stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Run a pass that changes no learner, and tell callbacks of it; returns what it measured."""
    kind = runner.step.kind
    control.call_hook(f"on_{kind}_begin")
    for program in runner.prepare_for(reader, max_batches):
        program.start_compiling()
    first = reader.num_consumed
    driver = Driver(control, runner, reader, should_stop=should_stop)
    with closing(reader.stacks(runner.plan_stack, max_batches)) as stacks:
        for stack in stacks:
            driver.load(stack)
            while driver.has_steps_left():
                driver.run_call()
            if driver.is_stopped:
                break
    if should_stop():
        return {}
    steps = reader.num_consumed - first
    if max_batches is not None and steps < max_batches:
        warn(f"The data ran out after {steps} of the {max_batches} steps that were asked for.")
    result = {} if runner.step.predicts else runner.accumulators.compute_logs()
    control.set_logs(result)
    control.call_hook(f"on_{kind}_end")
    return dict(result)


def on_batch(
    learner: L, kind: StepKind, arrays: tuple[PyTree, ...], class_weight: Any, eager: bool
) -> tuple[L, Any]:
    """Run one step on one batch: the learner after it, and what it measured, or predicted.

    **Arguments:**

    - `arrays`: `x`, `y` and `sample_weight`.
    """
    batch = data.array_source(*arrays).take(slice(None))
    table = class_weight_table(class_weight, arrays[1])
    with translate_errors():
        learner = ensure_ready(learner, batch, kind)
        runner = StepRunner(learner, STEPS[kind], class_weight=table, options=Options(eager, 1))
        runner(batch)
        if runner.step.trains:
            warn_of_frozen_changes(learner, lambda: runner.learner)
        measured = runner.accumulators
        predicts = runner.step.predicts
        result = measured.compute_outputs() if predicts else measured.compute_logs()
    return runner.learner, result
