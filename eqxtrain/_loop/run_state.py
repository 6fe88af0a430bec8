"""`RunState`: where a run stands."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .._data import Position
from .._history import History, PassTiming


@dataclasses.dataclass
class RunState:
    """Where a run stands: all that it takes to go on from there.

    While a run goes on, its runner holds the learner and the accumulators, its reader the position,
    and callbacks what they remember. The fields of those names are filled in the copies that
    `RunControl.current` and `RunControl.capture` return.

    **Arguments:**

    - `learner`: the learner after the last step; until something is captured, the one that the
        run began with.
    - `history`: the complete epochs.
    - `step`: how many training steps the learner has taken in its life.
    - `epochs_begun`, `steps_taken`: how many epochs this run has begun, and how many steps it took.
    - `steps_of_epoch`: how many of these belong to the epoch under way.
    - `steps_due`: how many the epoch has, if that is known.
    - `epoch_began`: when the epoch began, on the clock of `time.perf_counter`.
    - `timing`: where the time of its steps went so far.
    - `replacement`: the learner that a callback put in place, until the loop takes it over.
    - `frozen`: a learner with the frozen leaves from before the steps that may have changed them;
        None once it is known whether they did.
    - `warned_of_nan`: whether the user was told that the loss is nan.
    - `stop_reason`: why a callback stopped the run; None if none did.
    - `validation_logs`: what was validated last and is not in the history yet.
    - `position`: where the next batch comes from.
    - `metrics`: the accumulators of the pass under way, with what was gathered.
    - `callbacks`: what each callback remembers, from its `state_dict`.
    """

    learner: Any
    history: History
    step: int = 0
    epochs_begun: int = 0
    steps_taken: int = 0
    steps_of_epoch: int = 0
    steps_due: int | None = None
    epoch_began: float = 0.0
    timing: PassTiming = dataclasses.field(default_factory=PassTiming)
    replacement: Any = None
    frozen: Any = None
    warned_of_nan: bool = False
    stop_reason: str | None = None
    validation_logs: dict[str, Any] = dataclasses.field(default_factory=dict)
    position: Position | None = None
    metrics: Mapping[str, Any] | None = None
    callbacks: tuple[dict[str, Any], ...] = ()

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return max(self.epochs_begun - 1, 0)
