"""`Callback`: the hooks, and what a callback declares."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from ..metrics._base import Metric
from ._every import Every
from ._run import Run

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


class Callback:
    """Watches a run, and can change it. Override the hooks that you need.

    Each hook is called with a [`eqxtrain.Run`][]. Training has `on_train_begin`, `on_train_end`,
    `on_epoch_begin`, `on_epoch_end`, `on_train_batch_begin` and `on_train_batch_end`. Evaluation,
    also within `fit`, has `on_test_begin`, `on_test_end`, `on_test_batch_begin` and
    `on_test_batch_end`; prediction has the same with `predict`. `on_exception` is for all of them.

    **Class attributes:**

    - `reads`: `"state"` if the batch hooks look at `run.state` or `run.learner`, which then
        are exactly those after that step; `"logs"` if they look at `run.logs` alone, which is
        faster.
    - `every`: how often batch hooks (or epoch hooks) are called; None for each time.
    - `metrics`: measured in each training step beside those of the learner, by the names under
        which `run.logs` has them. (A name that the learner has as well gets a number.)
    - `monitor`: the log that the callback follows, which `fit` looks for before it trains.
    - `adds`: the names that `on_epoch_end` adds to `run.logs`; None if it may add any.
    - `times_device`: whether `run.timing.idle` is to be measured, which takes a thread.

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
    metrics: Mapping[str, Metric] = MappingProxyType({})
    monitor: str | None = None
    adds: tuple[str, ...] | None = None
    times_device: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise TypeError(
                    f"`{cls.__name__}.{name}` is not a hook, so nothing would ever call it. "
                    f"The hooks are {', '.join(HOOKS)}."
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

    _once_a_call: bool = False
    """For those of `reads = "logs"`: whether the end hooks of batches are called only once for each
    call of the device, after its last step."""

    def _has_hook(self, hook: str) -> bool:
        """Whether a hook is to be called at all: by default, whether it is overridden."""
        own = getattr(type(self), hook) is not getattr(Callback, hook)
        return own or hook in vars(self)

    def state_dict(self) -> dict[str, Any]:
        """What this callback must remember to continue in another process, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
