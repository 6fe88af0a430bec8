"""`Run`: what a callback sees of a run, and what it may do to it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from .._history import History, PassTiming
from ..metrics._base import Directions
from ..metrics._logs import HIDDEN as HIDDEN

if TYPE_CHECKING:

    class Control(Protocol):
        """The loop's side of a run, as far as a `Run` and the dispatcher of hooks need it."""

        reads: str
        exception: BaseException | None

        @property
        def stop_reason(self) -> str | None: ...
        @property
        def run(self) -> "Run": ...
        @property
        def epoch(self) -> int: ...
        @property
        def step(self) -> int: ...
        @property
        def history(self) -> History: ...
        @property
        def timing(self) -> PassTiming: ...
        @property
        def params(self) -> dict[str, Any]: ...
        @property
        def steps_of_pass(self) -> int | None: ...
        @property
        def hidden_logs(self) -> dict[str, Any]: ...
        @property
        def steps_of_call(self) -> int: ...
        @property
        def learner(self) -> Any: ...
        @property
        def logs(self) -> dict[str, Any]: ...
        @property
        def recent_logs(self) -> dict[str, Any]: ...
        @property
        def directions(self) -> Directions: ...
        @property
        def validation_prefixes(self) -> tuple[str, ...]: ...
        @property
        def position(self) -> dict[str, Any] | None: ...
        def stop(self, reason: str) -> None: ...
        def replace(self, learner: Any) -> None: ...
        def replay(self, step: int) -> "Replay": ...

else:
    Control = Any  # beartype would read every property to check it, and reading these has a cost


class Replay(NamedTuple):
    """A training step that was gone back to, with `run.replay(step)`.

    **Arguments:**

    - `learner`: the learner right before it.
    - `arguments`: what the step was called with, by name: `learner.train_step(**arguments)` runs it
        again, operation by operation.
    - `rows`: the indices of its examples in the data; None where the data are not read by index.
    """

    learner: Any
    arguments: dict[str, Any]
    rows: np.ndarray | None


class Run:
    """A live view of a run, passed to every hook."""

    __slots__ = ("__weakref__", "_control")

    def __init__(self, control: Control) -> None:
        self._control = control

    @property
    def epoch(self) -> int:
        """The epoch of this call of `fit`, from 0."""
        return self._control.epoch

    @property
    def step(self) -> int:
        """How many training steps the learner has taken in its life."""
        return self._control.step

    @property
    def history(self) -> History:
        """The complete epochs of this run."""
        return self._control.history

    @property
    def timing(self) -> PassTiming:
        """What the training steps of the current epoch did so far, and where their time went."""
        return self._control.timing

    @property
    def params(self) -> dict[str, Any]:
        """A dict of `epochs`, `steps` (of one epoch), `batch_size` and `verbose`.

        What is not known beforehand is None.
        """
        return self._control.params

    @property
    def steps_of_pass(self) -> int | None:
        """How many steps the current pass has: an epoch, a validation set, what is predicted.

        None if that is not known beforehand.
        """
        return self._control.steps_of_pass

    @property
    def exception(self) -> BaseException | None:
        """In `on_exception`, the exception."""
        return self._control.exception

    @property
    def learner(self) -> Any:
        """The learner after the last step, as a copy that is yours to keep."""
        self._check_reads()
        return self._control.learner

    @property
    def state(self) -> Any:
        """The state of `learner`."""
        return self.learner.state

    @property
    def position(self) -> dict[str, Any] | None:
        """Where `fit` is in its data, for another `fit(..., position=...)` to continue there.

        Batches that were read ahead do not count. It is plain data, except for what an iterator
        that saves its own position put into it. None outside of `fit`.
        """
        self._check_reads()
        return self._control.position

    @property
    def logs(self) -> dict[str, Any]:
        """What has been measured in the current pass. Reading it waits for the device.

        It is empty at the beginning of a pass. After a batch it has the values so far, and after
        the pass the final ones. In `on_epoch_end` it includes those of validation, as `val_...`,
        and what a callback adds goes into the history.
        """
        return self._control.logs

    @property
    def recent_logs(self) -> Mapping[str, Any]:
        """What has been measured in the current pass, as far as it has arrived.

        Reading it never waits for the device: it asks for newer numbers, and returns those that it
        asked for earlier. They are those after some step of the pass, and empty at first. What
        is computed on the host, from values of all examples, is missing until the pass is over.
        """
        return self._control.recent_logs

    @property
    def directions(self) -> Mapping[str, Literal["min", "max"] | None]:
        """What `fit` measures, validation included, and whether low or high values are best.

        None where that is unknown, as for a scalar that a step logs. Empty as long as no step was
        traced, and outside of `fit`.
        """
        return self._control.directions

    @property
    def validation_prefixes(self) -> tuple[str, ...]:
        """What the logs of each validation set begin with: `val_`, or `val_<name>_`."""
        return self._control.validation_prefixes

    @property
    def stopped(self) -> str | None:
        """The reason that a callback has stopped the run with; None if none did."""
        return self._control.stop_reason

    def stop(self, reason: str = "stopped") -> None:
        """End training after the current step, with `history.stopped = reason`.

        For a callback with `reads = "logs"`, it ends with the last step of the current call of the
        device. The unfinished epoch is validated if it is due, and recorded, unless it was stopped
        in `on_epoch_begin` and so has no steps.
        """
        self._control.stop(reason)

    def replace(self, learner: Any) -> None:
        """Go on training with `learner`: another model, state, optimizer or hyperparameter.

        What has been measured in the current pass is kept.
        """
        self._control.replace(learner)

    def replay(self, step: int) -> Replay:
        """Go back to a step of the epoch under way, to look at it.

        The steps since the beginning of the epoch (or since a callback has replaced the learner)
        are run again, which takes as long as the first time. The run itself goes on as it would.

        **Arguments:**

        - `step`: how many training steps the learner had taken in its life before it.

        **Raises:** `ValueError` if it can't be gone back to: `fit(..., snapshots=False)` or
        `donate=True` keeps nothing to go back to, and some data can be read only once.
        """
        return self._control.replay(step)

    @property
    def _hidden_logs(self) -> dict[str, Any]:
        """What callbacks measure for themselves, as of the same step as `recent_logs`."""
        return self._control.hidden_logs

    @property
    def _steps_of_call(self) -> int:
        """How many steps the call of the device ran that this hook comes after."""
        return self._control.steps_of_call

    def _check_reads(self) -> None:
        if self._control.reads == "logs":
            raise RuntimeError(
                'This callback declares `reads = "logs"`, so it may be called only after later '
                "steps, when the state of this step is gone. To look at the learner or its state, "
                'declare `reads = "state"`.'
            )
