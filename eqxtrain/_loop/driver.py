"""Running a step over stacks of batches, in calls that end where a callback must be told."""

from collections.abc import Callable
from typing import NamedTuple

from .. import _data as data
from .._engine.runner import StepRunner
from .run_control import RunControl


class PeriodicAction(NamedTuple):
    """Something to do every so many steps of the learner's life, between two calls."""

    every: int
    do: Callable[[], None]


def never() -> bool:
    """False, for a pass that nothing stops."""
    return False


def do_nothing() -> None:
    """For a pass whose learner no callback can replace."""
    return None


def ignore_steps(steps: int, examples: int) -> None:
    """For a pass whose reader alone counts the steps."""
    del steps, examples


class Driver:
    """Runs the steps of one stack after another, and tells callbacks of each step.

    A call runs as many steps as it can without passing a hook that reads the state, or a periodic
    action. Hooks that read only the logs are called while the device works on the call.

    **Arguments:**

    - `reader`: yields the stacks, and knows which of their batches are consumed.
    - `on_steps`: called with how many steps a call ran, and on how many examples; their batches
        are consumed by then.
    - `apply_replacement`: called after hooks, to put a learner in place that a callback gave.
    - `should_stop`: whether the step that is under way is to be the last.
    - `periodic`: what to do between calls.

    **Attributes:**

    - `is_stopped`: whether to run no further calls.
    """

    def __init__(
        self,
        control: RunControl,
        runner: StepRunner,
        reader: data.Reader,
        *,
        on_steps: Callable[[int, int], None] = ignore_steps,
        apply_replacement: Callable[[], None] = do_nothing,
        should_stop: Callable[[], bool] = never,
        periodic: PeriodicAction | None = None,
    ) -> None:
        self._control = control
        self._runner = runner
        self._reader = reader
        self._on_steps = on_steps
        self._apply_replacement = apply_replacement
        self._should_stop = should_stop
        self._periodic = periodic
        self._has_batch_hooks = control.callbacks.has_batch_hooks(runner.step.kind)
        self._tells_of_begins = control.callbacks.has_hook(
            f"on_{runner.step.kind}_batch_begin", reads="logs"
        )
        self._hears_each_step = control.callbacks.hears_each_step(runner.step.kind)
        self.is_stopped = False
        self._stack: data.Stack
        self._stack_begins_at: int  # in batches of the reader

    def load(self, stack: data.Stack) -> None:
        """Take the next stack."""
        self._stack, self._stack_begins_at = stack, self._reader.num_consumed
        self._runner.load(stack)

    def has_steps_left(self) -> bool:
        """Whether there is a call to run on this stack."""
        return self._next_batch() < self._stack.num_batches and not self.is_stopped

    def _next_batch(self) -> int:
        """The index in the stack of the batch that the next step takes."""
        return self._reader.num_consumed - self._stack_begins_at

    def run_call(self) -> None:
        """Run the next call: some steps of the stack, and the hooks that are due."""
        start, control, kind = self._next_batch(), self._control, self._runner.step.kind
        if not self._has_batch_hooks:  # the same, without asking anybody
            stop = start + self._steps_of_call(start)
            self._runner.run(start, stop)
            self._count(start, stop)
            if self._runner.step.trains:
                control.state.step += stop - start
            control.set_logs(None)
        else:
            # Hooks that read the state are called when it is there: at the beginning of the first
            # step and at the end of the last. Only then do those that read the logs hear of each
            # step in turn, for which the call has kept the accumulators.
            begin, end = f"on_{kind}_batch_begin", f"on_{kind}_batch_end"
            control.set_logs({})
            control.call_hook(begin, reads="state")
            self._apply_replacement()
            stop = start + self._steps_of_call(start)
            self._runner.run(start, stop)
            self._count(start, stop)
            run = control.run  # held, so that not every hook makes another
            trains, predicts = self._runner.step.trains, self._runner.step.predicts
            control.steps_of_call, first = stop - start, start
            if not self._hears_each_step:
                first = stop - 1
                control.state.step += first - start if trains else 0
            for step in range(first, stop):
                if self._tells_of_begins:
                    control.set_logs({})
                    control.call_hook(begin, reads="logs")
                if trains:
                    control.state.step += 1
                control.set_logs({} if predicts else None, after=step)
                control.call_hook(end, reads=None if step == stop - 1 else "logs")
            del run
            self._apply_replacement()
        if self._periodic is not None and control.step % self._periodic.every == 0:
            self._periodic.do()
        self.is_stopped = self._should_stop()

    def _steps_of_call(self, start: int) -> int:
        """How many steps of the stack the next call runs."""
        if not self._runner.is_loaded:  # a callback put another learner in place
            self._runner.load(self._stack)
        if self._should_stop():  # by a hook, or before: this step is the last
            return 1
        step, kind = self._control.step, self._runner.step.kind
        max_steps = min(self._stack.num_batches - start, self._runner.steps_per_call)
        if self._periodic is not None:
            max_steps = min(max_steps, self._periodic.every - step % self._periodic.every)
        return self._control.callbacks.steps_until_hook(kind, step, max_steps)

    def _count(self, start: int, stop: int) -> None:
        self._reader.consume(stop - start)
        self._on_steps(stop - start, self._stack.num_examples(start, stop))
