"""The loop's side of a run: its state, and what it shows to callbacks."""

import copy
import dataclasses
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from .. import _data as data, _placement, _tree
from .._check import whole_number
from .._engine.accumulators import Accumulators, Computing
from .._engine.runner import StepRunner
from .._history import History, PassTiming
from .._steps.ladder import AbstractLearner
from ..callbacks import Replay, Run
from ..callbacks._dispatch import Callbacks
from ..metrics import _logs
from ..metrics._base import Directions
from .run_state import RunState


def step_of(learner: Any) -> int:
    """How many training steps a learner has taken; waits for the device."""
    return int(_placement.fetch(learner.state.step))


class RunControl:
    """Holds where a run stands, and the `Run` that callbacks see of it.

    **Attributes:**

    - `state`: where the run stands.
    - `steps_of_pass`: how many steps the pass under way has, if that is known.
    - `steps_of_call`: how many steps the last call of the device ran.
    - `find_directions`: a weak reference to a function that finds out what the run measures.
    - `find_replay`: a weak reference to a function that goes back to a step.
    - `validation_prefixes`: what the logs of each validation set begin with.
    - `reads`: what the callback that is being called declares to read.
    """

    def __init__(self, learner: Any, callbacks: Callbacks, params: Mapping[str, Any]) -> None:
        self.state = RunState(learner, History())
        self.callbacks = callbacks
        self.params: dict[str, Any] = dict(params)
        self._run: weakref.ref[Run] | None = None
        self.exception: BaseException | None = None
        self.reads = "state"
        self.steps_of_pass: int | None = None
        self.steps_of_call = 0
        self.reader: data.Reader | None = None
        self.find_directions: weakref.ref[Callable[[], Directions]] | None = None
        self.find_replay: weakref.ref[Callable[[int], Replay]] | None = None
        self.validation_prefixes: tuple[str, ...] = ()
        self._runner: StepRunner | None = None
        self._measuring: Accumulators | None = None
        # What was read since the last step: a callback may read it twice, and add to the logs.
        self._learner_copy: Any = None
        self._logs: dict[str, Any] | None = {}
        self._hidden_logs: dict[str, Any] = {}
        self._hidden_recent: dict[str, Any] = {}
        self._recent_logs: dict[str, Any] = {}
        self._computing: Computing | None = None
        self._logs_after: int | None = None
        if learner.state is not None:
            self.set_initial_learner(learner)

    @property
    def run(self) -> Run:
        """What hooks are called with: the same object for as long as somebody holds it.

        A strong reference to it would be a cycle, which keeps the data alive after the run.
        """
        run = None if self._run is None else self._run()
        if run is None:
            run = Run(self)
            self._run = weakref.ref(run)
        return run

    # What callbacks see and do, through `Run`.

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return self.state.epoch

    @property
    def step(self) -> int:
        """How many training steps the learner has taken in its life."""
        return self.state.step

    @property
    def history(self) -> History:
        """The complete epochs."""
        return self.state.history

    @property
    def timing(self) -> PassTiming:
        """What the steps of the epoch under way did, and where their time went."""
        return self.state.timing

    @property
    def stop_reason(self) -> str | None:
        """Why a callback stopped the run; None if none did."""
        return self.state.stop_reason

    @property
    def learner(self) -> Any:
        """The learner after the last step: a copy, or the one that a callback put in place."""
        if self.state.replacement is not None:
            return self.state.replacement
        if self._learner_copy is None:
            self._learner_copy = self._current_learner()
        return self._learner_copy

    def _current_learner(self) -> Any:
        if self._runner is None:
            return self.state.learner
        return _placement.copy(self._runner.learner)

    @property
    def position(self) -> data.Position | None:
        """Where `fit` is in its data; None outside of `fit`."""
        return self.state.position if self.reader is None else self.reader.position

    @property
    def logs(self) -> dict[str, Any]:
        """What was measured so far, computed when somebody asks."""
        if self._logs is None:
            assert self._measuring is not None
            self._logs = self._measuring.compute_logs(whole=False, after=self._logs_after)
            self._hidden_logs = _logs.take_hidden(self._logs)
        return self._logs

    @property
    def recent_logs(self) -> dict[str, Any]:
        """What was measured as of the last call whose numbers have arrived."""
        if self._logs:  # they were computed
            return self._logs
        if self._computing is not None and self._computing.have_arrived():
            self._recent_logs, self._computing = self._computing.fetch(), None
            self._hidden_recent = _logs.take_hidden(self._recent_logs)
        if self._computing is None and self._measuring is not None:
            self._computing = self._measuring.begin_computing()
        return self._recent_logs

    @property
    def hidden_logs(self) -> dict[str, Any]:
        """What callbacks have measured for themselves, as of the same step as `recent_logs`."""
        _ = self.recent_logs
        return self._hidden_logs if self._logs else self._hidden_recent

    @property
    def directions(self) -> Directions:
        """What the run measures, as far as that is known, and which values are best."""
        find = None if self.find_directions is None else self.find_directions()
        return {} if find is None else find()

    def stop(self, reason: str) -> None:
        """Stop the run after the step under way."""
        self._check_trains("stop")
        self.state.stop_reason = reason

    def replace(self, learner: Any) -> None:
        """Put another learner in place, which the loop takes over before the next step."""
        self._check_trains("replace")
        if not isinstance(learner, AbstractLearner):
            raise TypeError(
                f"`run.replace` takes a learner; got a `{type(learner).__name__}`. To change the "
                "model, `run.replace(run.learner.replace(model=model))`."
            )
        if learner.state is None:
            raise ValueError(
                "`run.replace` was given a learner without a state: change the one that there is, "
                "`run.replace(run.learner.replace(...))`, or `.init()` it first."
            )
        self.state.replacement = learner

    def replay(self, step: int) -> Replay:
        """Go back to a step of the epoch under way."""
        find = None if self.find_replay is None else self.find_replay()
        if find is None:
            raise ValueError("`run.replay` goes back to a training step of `fit`; this is none.")
        return find(whole_number("run.replay(step)", step, at_least=0))

    def _check_trains(self, method: str) -> None:
        if self._runner is None:
            raise RuntimeError(
                f"`run.{method}` is for `fit`: `evaluate` and `predict` change no learner, and "
                "measure all of their data."
            )

    # What the loop does.

    def call_hook(self, hook: str, *, reads: Any = None) -> None:
        """Call a hook of the callbacks."""
        self.callbacks.call_hook(hook, self, reads=reads)

    def set_initial_learner(self, learner: Any) -> None:
        """Take the initialised learner that the run begins with."""
        self.state.learner, self.state.step = learner, step_of(learner)

    def set_runners(
        self,
        *,
        training: StepRunner | None,
        measuring: StepRunner | None,
        steps: int | None = None,
    ) -> None:
        """Set the runner that trains the learner, and the one that measures the logs.

        **Arguments:**

        - `steps`: how many steps the pass has that is measured, if that is known.
        """
        self._runner, self.steps_of_pass = training, steps
        self._measuring = None if measuring is None else measuring.accumulators
        self._recent_logs, self._hidden_recent, self._computing = {}, {}, None
        self.set_logs({})

    def set_logs(self, logs: dict[str, Any] | None, *, after: int | None = None) -> None:
        """Set the logs after a step, and drop the learner that was read before it.

        **Arguments:**

        - `logs`: None for those of the pass under way, which are computed once somebody reads them.
        - `after`: the step of the stack that those should be as of; None for the last one.
        """
        self._learner_copy, self._logs, self._logs_after = None, logs, after
        self._hidden_logs = _logs.take_hidden(logs) if logs else {}

    def current(self) -> RunState:
        """Where the run stands now. The next call of the device donates its learner's arrays."""
        assert self._runner is not None and self.reader is not None
        learner, position = self._runner.learner, self.reader.position
        return dataclasses.replace(self.state, learner=learner, position=position)

    def capture(self, *, within_pass: bool = False) -> RunState:
        """Copy where the run stands to the host, between two calls of the device.

        **Arguments:**

        - `within_pass`: whether to include what only a checkpoint in the middle of a pass will
            need: the accumulators, what callbacks remember, and a copy of the history.
        """
        state = self.current()
        arrays = {"model": state.learner.model, "state": state.learner.state}
        state.learner = _tree.with_fields(state.learner, **_placement.owned_by_host(arrays))
        state.validation_logs = dict(state.validation_logs)
        state.timing = dataclasses.replace(state.timing)
        if within_pass:
            assert self._runner is not None
            state.history = copy.deepcopy(state.history)
            state.metrics = _placement.owned_by_host(self._runner.accumulators.with_emitted())
            state.callbacks = tuple(callback.state_dict() for callback in self.callbacks)
        return state

    def forget_learner(self) -> None:
        """Drop the copy of the learner that callbacks read: it has changed."""
        self._learner_copy = None

    def fall_back(self, state: RunState) -> None:
        """Go back to the last captured state, since the device failed."""
        self._runner = self.reader = self._learner_copy = None
        self.state = state
