"""`Run`: what a callback is told."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .. import _tree
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
    """A live view of a run, handed to every hook.

    What `learner` and `state` give are copies that survive the next step.

    **Arguments:**

    - `epoch`: which epoch of this call it is, from 0.
    - `step`: how many training steps the learner has taken in its life.
    - `history`: the epochs of this run so far.
    - `params`: `epochs`, `steps` (of one epoch), `batch_size`, `verbose`; those that are not known
        beforehand are None.
    - `exception`: in `on_exception`, what was raised.
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
        """The learner as it is after the last step."""
        self._check_reads()
        if self.replacement is not None:
            return self.replacement
        if self._copy is None:
            self._copy = self._current()
        return self._copy

    def _current(self) -> Any:
        if self._training is None:
            return self._learner
        return _tree.copy(self._training.learner)  # without accumulators, so that its file loads

    def _check_reads(self) -> None:
        if self.reads == "logs":
            raise RuntimeError(
                'This callback declares `reads = "logs"`, so it may be told of several steps after '
                'they were taken, when their states are gone: declare `reads = "state"`.'
            )

    @property
    def position(self) -> dict[str, Any] | None:
        """Where in its data `fit` is: what `fit(..., position=...)` goes on from, else None.

        Batches that were read ahead do not count. It is plain data, but for what an iterator with
        a state of its own told.
        """
        self._check_reads()
        return self._position()

    @property
    def state(self) -> Any:
        """The state of `learner`."""
        return self.learner.state

    @property
    def logs(self) -> dict[str, Any]:
        """What was measured in the pass under way; reading it waits for the device.

        Empty at the beginnings, running values after a batch, whole values after a pass. In
        `on_epoch_end`, those of validation are among them, as `val_...`. A callback may add to it.
        """
        if self._logs is None:
            assert self._measuring is not None
            self._logs = self._measuring.logs(whole=False, after=self._after)
        return self._logs

    def stop(self, reason: str = "stopped") -> None:
        """End training after the step in hand, with `history.stopped = reason`.

        That is the step whose hooks are told, or, for a callback that `reads = "logs"`, the last
        of its call. The unfinished epoch is validated if it is due, and recorded; one that was
        stopped in `on_epoch_begin` has no steps, and is not.
        """
        self._check_trains("stop")
        self.stopped = reason

    def replace(self, learner: Any) -> None:
        """Go on training from `learner`: another model, state, optimizer or hyperparameter.

        What was measured so far in the pass under way stays measured.
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
