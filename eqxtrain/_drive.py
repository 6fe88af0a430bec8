"""A pass told to callbacks: where calls are cut, and who hears of each step."""

from collections.abc import Callable, Iterator

from . import data
from ._engine import Pass
from .callbacks import Run
from .callbacks._base import Callbacks


class Driver:
    """Runs a pass over stacks of batches, and tells the callbacks of each.

    A call runs as many steps as it can without passing a hook that reads the state. Callbacks that
    read the logs alone are told of its steps when it is under way.

    **Arguments:**

    - `settle`: called after hooks, to put a learner in place that a callback gave.
    - `halted`: whether to stop after this call.
    """

    def __init__(
        self,
        run: Run,
        callbacks: Callbacks,
        *,
        settle: Callable[[], None] = lambda: None,
        halted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._run = run
        self._callbacks = callbacks
        self._settle = settle
        self._halted = halted

    def over(self, pass_: Pass, stacks: Iterator[data.Stack]) -> None:
        """Run the pass over all of the stacks, or until halted."""
        for stack in stacks:
            pass_.load(stack)
            start = 0
            while start < stack.steps:
                most = min(stack.steps - start, pass_.steps_per_call)
                start += self._call(pass_, stack, start, most)
                if self._halted():
                    return
                if not pass_.loaded:  # another learner was put in place
                    pass_.load(stack)

    def _call(self, pass_: Pass, stack: data.Stack, start: int, most: int) -> int:
        """One call, of `most` steps at most; gives how many they were."""
        run, callbacks, kind = self._run, self._callbacks, pass_.kind
        begin, end = f"on_{kind}_batch_begin", f"on_{kind}_batch_end"
        train = kind == "train"
        steps = callbacks.steps_until_cut(kind, run.step, most)
        if not callbacks.listen(kind):
            pass_.run(start, start + steps)
            run.step += train * steps
            run.forget()
            return steps
        run.forget({})
        callbacks.tell(begin, run, reads="state")
        self._settle()
        if not pass_.loaded:
            pass_.load(stack)
            steps = min(steps, pass_.steps_per_call)
        if self._halted():  # by one of them: this step is the last
            steps = 1
        pass_.run(start, start + steps)
        for after in range(start, start + steps):
            run.forget({})
            callbacks.tell(begin, run, reads="logs")
            run.step += train
            run.forget(None if kind != "predict" else {}, after=after)
            callbacks.tell(end, run, reads=None if after == start + steps - 1 else "logs")
        self._settle()
        return steps
