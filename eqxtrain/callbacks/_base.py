"""`Callback`, what it is told (`Run`) and how often (`Every`)."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from .. import _tree
from .._engine import Pass
from .._history import History

BATCH_HOOKS = tuple(
    f"on_{pass_}_batch_{moment}"
    for pass_ in ("train", "test", "predict")
    for moment in ("begin", "end")
)
HOOKS = (
    *(
        f"on_{pass_}_{moment}"
        for pass_ in ("train", "test", "predict")
        for moment in ("begin", "end")
    ),
    "on_epoch_begin",
    "on_epoch_end",
    *BATCH_HOOKS,
    "on_exception",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """How often: every so many steps, or epochs.

    `Every(steps=100)` after steps 100, 200, ... of the learner's life; `Every(epochs=2)` after the
    second, fourth, ... epoch of this call.
    """

    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.epochs) if value is not None]
        if len(given) != 1 or given[0] < 1:
            raise ValueError(
                "`Every` takes one positive number, `Every(steps=100)` or `Every(epochs=1)`; got "
                f"steps={self.steps}, epochs={self.epochs}."
            )


class Run:
    """A live view of a run, handed to every hook.

    What `learner` and `state` give are copies that survive the next step.

    **Arguments:**

    - `epoch`: which epoch of this call it is, from 0.
    - `step`: how many training steps the learner has taken in its life.
    - `history`: the epochs of this run so far.
    - `params`: `epochs`, `steps` (of one epoch), `batch_size`, `verbose`.
    - `exception`: in `on_exception`, what was raised.
    """

    def __init__(self, learner: Any, history: History, params: Mapping[str, Any]) -> None:
        self.history = history
        self.params: dict[str, Any] = dict(params)
        self.epoch = 0
        self.step = int(learner.state.step)
        self.stopped: str | None = None
        self.exception: BaseException | None = None
        self.replacement: Any = None
        self.reads: Literal["state", "logs"] = "state"
        self._learner = learner
        self._training: Pass | None = None
        self._measuring: Pass | None = None
        self._copy: Any = None
        self._logs: dict[str, Any] | None = {}

    @property
    def learner(self) -> Any:
        """The learner as it is after the last step."""
        if self.reads == "logs":
            raise RuntimeError(
                'This callback declares `reads = "logs"`, so it may be told of several steps after '
                'they were taken, when their states are gone: declare `reads = "state"`.'
            )
        if self.replacement is not None:
            return self.replacement
        if self._copy is None:
            self._copy = self._current()
        return self._copy

    def _current(self) -> Any:
        if self._training is None:
            return self._learner
        return _tree.copy(self._training.learner)  # without accumulators, so that its file loads

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
            self._logs = self._measuring.logs(whole=False)
        return self._logs

    def stop(self, reason: str = "stopped") -> None:
        """End training after this step, with `history.stopped = reason`.

        Validation and `on_epoch_end` still follow, and the epoch is recorded.
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

    def enter(self, *, training: Pass | None, measuring: Pass | None) -> None:
        """For the loop: which pass trains, and which one `logs` come from."""
        self._training, self._measuring = training, measuring
        self.forget({})

    def forget(self, logs: dict[str, Any] | None = None) -> None:
        """For the loop: what was read before is old. `logs` are the new ones, None for later."""
        self._copy, self._logs = None, logs

    def fall_back(self, learner: Any) -> None:
        """For the loop: the device failed, and this learner is the last that there is."""
        self._training, self._learner, self._copy = None, learner, None
        self.step = int(learner.state.step)


class Callback:
    """Something that is told of a run. Override the hooks that you need.

    Hooks, each called with a [`eqxtrain.Run`][]: `on_train_begin`, `on_train_end`,
    `on_epoch_begin`, `on_epoch_end`, `on_train_batch_begin`, `on_train_batch_end`; the same for
    `test` (evaluation, also within `fit`) and `predict`; and `on_exception`.

    Class attributes:

    - `reads`: `"state"` if hooks look at `run.state` or `run.learner`, so that at step n they must
        see exactly step n; `"logs"` if they only look at `run.logs`.
    - `every`: how often the hooks of batches (or epochs) are called; None for each.

    !!! example

        ```python
        class StopWhenGood(et.Callback):
            def on_epoch_end(self, run):
                if run.logs["val_accuracy"] > 0.99:
                    run.stop("good enough")
        ```
    """

    reads: Literal["state", "logs"] = "state"
    every: Every | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise TypeError(
                    f"`{cls.__name__}.{name}` is no hook and would never be called. The hooks are "
                    f"{', '.join(HOOKS)}."
                )

    def on_train_begin(self, run: Run) -> None: ...
    def on_train_end(self, run: Run) -> None: ...
    def on_epoch_begin(self, run: Run) -> None: ...
    def on_epoch_end(self, run: Run) -> None: ...
    def on_train_batch_begin(self, run: Run) -> None: ...
    def on_train_batch_end(self, run: Run) -> None: ...
    def on_test_begin(self, run: Run) -> None: ...
    def on_test_end(self, run: Run) -> None: ...
    def on_test_batch_begin(self, run: Run) -> None: ...
    def on_test_batch_end(self, run: Run) -> None: ...
    def on_predict_begin(self, run: Run) -> None: ...
    def on_predict_end(self, run: Run) -> None: ...
    def on_predict_batch_begin(self, run: Run) -> None: ...
    def on_predict_batch_end(self, run: Run) -> None: ...
    def on_exception(self, run: Run) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What this callback must remember for a run to be resumed: plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class Callbacks:
    """Tells each callback of a list, in order. The user's own list is never changed."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                is_class = isinstance(callback, type)
                what = f"the class `{callback.__name__}`" if is_class else repr(callback)
                raise TypeError(
                    f"`callbacks` holds {what}; a callback is an instance of `eqxtrain.Callback`."
                )
            _check_declared(callback)
        self._callbacks = tuple(callbacks)
        self._for_hook = {
            hook: [callback for callback in callbacks if _has(callback, hook)] for hook in HOOKS
        }

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._callbacks)

    def tell(self, hook: str, run: Run) -> None:
        """Call one hook of every callback that has it and is due."""
        for callback in self._for_hook[hook]:
            if _is_due(callback.every, hook, run):
                run.reads = callback.reads if hook in BATCH_HOOKS else "state"
                try:
                    getattr(callback, hook)(run)
                finally:
                    run.reads = "state"


def _check_declared(callback: Callback) -> None:
    name = type(callback).__name__
    if callback.reads not in ("state", "logs"):
        raise ValueError(f'`{name}.reads` is "state" or "logs"; got {callback.reads!r}.')
    if not isinstance(callback.every, Every | None):
        raise TypeError(f"`{name}.every` is `Every(steps=...)` or None; got {callback.every!r}.")
    for hook in HOOKS:
        try:
            inspect.signature(getattr(callback, hook)).bind(None)
        except TypeError:
            raise TypeError(
                f"`{name}.{hook}` must take one argument, the run: `def {hook}(self, run)`; "
                "`run.epoch` and `run.logs` are on it."
            ) from None


def _has(callback: Callback, hook: str) -> bool:
    own = getattr(type(callback), hook) is not getattr(Callback, hook)
    return own or hook in vars(callback)


def _is_due(every: Every | None, hook: str, run: Run) -> bool:
    if every is None:
        return True
    if every.steps is not None and hook.startswith("on_train_batch"):
        after = run.step + hook.endswith("begin")
        return after % every.steps == 0
    if every.epochs is not None and hook.startswith("on_epoch"):
        return (run.epoch + 1) % every.epochs == 0
    return True
