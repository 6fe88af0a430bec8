"""Going back to a step of the epoch under way: the learner before it, and its batch."""

from contextlib import closing
from typing import Any

from .. import _data as data, _placement
from .._engine.runner import StepRunner
from .._engine.step import Step
from ..callbacks import Replay
from .inputs import PassInputs
from .run_state import RunState


def pass_order(learner: Any, step: int) -> data.Order:
    """The order of a shuffled pass that begins after some step."""
    key = _placement.fetch(learner.state.key)
    return data.Order(tuple(map(int, key)), step)


class Replayer:
    """Repeats the steps of an epoch, with the programs that have run them.

    **Arguments:**

    - `step`: the training step.
    - `shuffle`: whether a pass has an order of its own.
    """

    def __init__(self, inputs: PassInputs, step: Step, shuffle: bool) -> None:
        self._inputs = inputs
        self._step = step
        self._shuffle = shuffle

    def replay(self, snapshot: RunState, step: int) -> Replay:
        """Repeat the steps from a snapshot up to the one after `step` steps of the learner's life.

        **Raises:** `ValueError` if the data can't be read again, or end before.
        """
        inputs = self._inputs
        inputs.source.check_passes(2, "x")
        runner = StepRunner(
            snapshot.learner, self._step, class_weight=inputs.class_weight, options=inputs.options
        )
        order = pass_order(snapshot.learner, snapshot.step) if self._shuffle else None
        before = step - snapshot.step
        with inputs.source.open_reader(inputs.batching, max_batches=before + 1) as reader:
            if snapshot.position is not None:
                reader.seek(snapshot.position)
            with closing(reader.stacks(runner.plan_stack, before + 1, order)) as stacks:
                for stack in stacks:
                    count = min(stack.num_batches, before - reader.num_consumed)
                    runner.load(stack)
                    runner.run_first(count)
                    reader.consume(count)
                    if count < stack.num_batches:
                        rows = reader.next_rows()
                        return Replay(runner.learner, runner.arguments(count), rows)
        raise ValueError(f"The data end before step {step}.")
