"""`Run`: what a callback sees of a run."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .. import _placement
from .._history import History

if TYPE_CHECKING:

    class Watched(Protocol):
        """A pass of the engine, as far as a run looks at it."""

        @property
        def learner(self) -> Any: ...
        def logs(self, *, whole: bool = True, after: int | None = None) -> dict[str, Any]: ...

else:
    Watched = Any  # beartype would ask every pass for its `learner`, which is put together anew


class Run:
    """A live view of a run, passed to every hook.

    **Attributes:**

    - `epoch`: which epoch of this call it is, from 0.
    - `step`: how many training steps the learner has taken in its life.
    - `history`: the complete epochs of this run.
    - `params`: a dict of `epochs`, `steps` (of one epoch), `batch_size` and `verbose`. What is not
        known beforehand is None.
    - `exception`: in `on_exception`, the exception.
    """

    def __init__(
        self,
        learner: Any,
        history: History,
        params: Mapping[str, Any],
        position: Callable[[], Any] = lambda: None,
    ) -> None:
        self.history: History = history
        self.params: dict[str, Any] = dict(params)
        self.epoch: int = 0
        self.step: int = 0 if learner.state is None else int(learner.state.step)
        self.stopped: str | None = None
        self.exception: BaseException | None = None
        self.replacement: Any = None
        self.reads: Literal["state", "logs"] = "state"
        self._learner = learner
        self._position = position
        self._training: Watched | None = None
        self._measuring: Watched | None = None
        self._copy: Any = None
        self._logs: dict[str, Any] | None = {}
        self._after: int | None = None

    @property
    def learner(self) -> Any:
        """The learner after the last step, as a copy that is yours to keep."""
        self._check_reads()
        if self.replacement is not None:
            return self.replacement
        if self._copy is None:
            self._copy = self._current()
        return self._copy

    def _current(self) -> Any:
        if self._training is None:
            return self._learner
        return _placement.copy(
            self._training.learner
        )  # without accumulators, so that its file loads

    def _check_reads(self) -> None:
        if self.reads == "logs":
            raise RuntimeError(
                'This callback declares `reads = "logs"`, so it may be called only after later '
                "steps, when the state of this step is gone. To look at the learner or its state, "
                'declare `reads = "state"`.'
            )

    @property
    def position(self) -> dict[str, Any] | None:
        """Where `fit` is in its data, for another `fit(..., position=...)` to continue there.

        Batches that were read ahead do not count. It is plain data, except for what an iterator
        that saves its own position put into it. None outside of `fit`.
        """
        self._check_reads()
        return self._position()

    @property
    def state(self) -> Any:
        """The state of `learner`."""
        return self.learner.state

    @property
    def logs(self) -> dict[str, Any]:
        """What has been measured in the current pass. Reading it waits for the device.

        It is empty at the beginning of a pass. After a batch it has the values so far, and after
        the pass the final ones. In `on_epoch_end` it includes those of validation, as `val_...`,
        and what a callback adds goes into the history.
        """
        if self._logs is None:
            assert self._measuring is not None
            self._logs = self._measuring.logs(whole=False, after=self._after)
        return self._logs

    def stop(self, reason: str = "stopped") -> None:
        """End training after the current step, with `history.stopped = reason`.

        For a callback with `reads = "logs"`, it ends with the last step of the current call of the
        device. The unfinished epoch is validated if it is due, and recorded, unless it was stopped
        in `on_epoch_begin` and so has no steps.
        """
        self._check_trains("stop")
        self.stopped = reason

    def replace(self, learner: Any) -> None:
        """Go on training with `learner`: another model, state, optimizer or hyperparameter.

        What has been measured in the current pass is kept.
        """
        self._check_trains("replace")
        if getattr(learner, "state", None) is None:
            raise ValueError(
                "`run.replace` was given a learner without a state: change the one that there is, "
                "`run.replace(run.learner.replace(...))`, or `.init()` it first."
            )
        self.replacement = learner

    def _check_trains(self, method: str) -> None:
        if self._training is None:
            raise RuntimeError(
                f"`run.{method}` is for `fit`: `evaluate` and `predict` change no learner, and "
                "measure all of their data."
            )

    def begin(self, learner: Any) -> None:
        """For the loop: the learner was initialised."""
        self._learner, self.step = learner, int(learner.state.step)

    def enter(self, *, training: Watched | None, measuring: Watched | None) -> None:
        """For the loop: which pass trains, and which one `logs` come from."""
        self._training, self._measuring = training, measuring
        self.forget({})

    def forget(self, logs: dict[str, Any] | None = None, *, after: int | None = None) -> None:
        """For the loop: what was read before is old.

        **Arguments:**

        - `logs`: the new ones, None for those of the pass under way when they are asked for.
        - `after`: which batch of a stack those are after.
        """
        self._copy, self._logs, self._after = None, logs, after

    def fall_back(self, learner: Any, position: Any) -> None:
        """For the loop: the device failed, and this learner is the last that there is."""
        self._training, self._learner, self._copy = None, learner, None
        self._position = lambda: position
        self.step = int(learner.state.step)
