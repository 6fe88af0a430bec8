"""`RunState`: where a run stands."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .._data import Position
from .._history import History


@dataclasses.dataclass
class RunState:
    """Where a run stands: all that it takes to go on from there.

    The loop counts in its own one while it runs. What the loop does not own is only in the copies
    that `RunControl.capture` makes: the learner, which is with the runner, the position, which is
    with the reader, the accumulators, and what callbacks remember.

    **Arguments:**

    - `learner`: the learner after the last step; in the loop's own state, the one that it began
        with.
    - `history`: the complete epochs.
    - `step`: how many training steps the learner has taken in its life.
    - `epochs_begun`, `steps_taken`: how many epochs this run has begun, and how many steps it took.
    - `steps_of_epoch`: how many of these belong to the epoch under way.
    - `steps_due`: how many the epoch has, if that is known.
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
    stop_reason: str | None = None
    validation_logs: dict[str, Any] = dataclasses.field(default_factory=dict)
    position: Position | None = None
    metrics: Mapping[str, Any] | None = None
    callbacks: tuple[dict[str, Any], ...] = ()

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return max(self.epochs_begun - 1, 0)
