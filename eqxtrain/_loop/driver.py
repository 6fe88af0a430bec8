"""A pass told to callbacks: where calls are cut, and who hears of each step."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .. import _data as data
from .._engine.runner import StepRunner
from ..callbacks import Run
from ..callbacks._base import Callbacks


class PeriodicAction(NamedTuple):
    """Something done every so many steps of the learner's life, between two calls."""

    every: int
    do: Callable[[], None]


class Driver:
    """Runs a pass over stacks of batches, and tells the callbacks of each.

    A call runs as many steps as it can without passing a hook that reads the state, or a pause.
    Callbacks that read the logs alone are told of its steps when it is under way.

    **Arguments:**

    - `ran`: called with how many steps a call ran.
    - `settle`: called after hooks, to put a learner in place that a callback gave.
    - `halted`: whether to stop after this call.
    - `pause`: what is done between calls.
    """

    def __init__(
        self,
        run: Run,
        callbacks: Callbacks,
        *,
        ran: Callable[[int], None] = lambda steps: None,
        settle: Callable[[], None] = lambda: None,
        halted: Callable[[], bool] = lambda: False,
        pause: PeriodicAction | None = None,
    ) -> None:
        self._run = run
        self._callbacks = callbacks
        self._ran = ran
        self._settle = settle
        self._halted = halted
        self._pause = pause

    def over(self, pass_: StepRunner, stacks: Iterator[data.Stack]) -> int:
        """Run the pass over all of the stacks, or until halted; gives how many steps were run."""
        total = 0
        for stack in stacks:
            pass_.load(stack)
            start = 0
            while start < stack.steps:
                steps = self._call(pass_, stack, start)
                start, total = start + steps, total + steps
                if self._pause is not None and self._run.step % self._pause.every == 0:
                    self._pause.do()
                if self._halted():
                    return total
                if not pass_.loaded:  # another learner was put in place
                    pass_.load(stack)
        return total

    def _most(self, pass_: StepRunner, stack: data.Stack, start: int) -> int:
        """How many steps of the stack a call may run."""
        most = min(stack.steps - start, pass_.steps_per_call)
        if self._pause is not None:
            most = min(most, self._pause.every - self._run.step % self._pause.every)
        return self._callbacks.steps_until_cut(pass_.kind, self._run.step, most)

    def _call(self, pass_: StepRunner, stack: data.Stack, start: int) -> int:
        """One call; gives how many steps it ran."""
        run, callbacks, kind = self._run, self._callbacks, pass_.kind
        begin, end = f"on_{kind}_batch_begin", f"on_{kind}_batch_end"
        train = kind == "train"
        steps = 1 if self._halted() else self._most(pass_, stack, start)
        if not callbacks.listen(kind):
            pass_.run(start, start + steps)
            self._ran(steps)
            run.step += train * steps
            run.forget()
            return steps
        run.forget({})
        callbacks.tell(begin, run, reads="state")
        self._settle()
        if not pass_.loaded:
            pass_.load(stack)
            steps = min(steps, self._most(pass_, stack, start))
        if self._halted():  # by one of them, or before: this step is the last
            steps = 1
        pass_.run(start, start + steps)
        self._ran(steps)
        for after in range(start, start + steps):
            run.forget({})
            callbacks.tell(begin, run, reads="logs")
            run.step += train
            run.forget(None if kind != "predict" else {}, after=after)
            callbacks.tell(end, run, reads=None if after == start + steps - 1 else "logs")
        self._settle()
        return steps
