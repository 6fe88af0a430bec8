"""`Callback`, and how often it is called (`Every`)."""

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from .._check import whole_number
from .._engine.step import StepKind
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

_OF_KERAS = ("epoch", "batch", "logs")
"""What the first argument of a hook is called in Keras, where it is no run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """How often something happens: every so many steps, or epochs.

    `Every(steps=100)` means after steps 100, 200, ... of the learner's life, and `Every(epochs=2)`
    after the second, fourth, ... epoch of a call of `fit`.
    """

    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                "`Every` takes one of its two, `Every(steps=100)` or `Every(epochs=1)`; "
                f"got steps={self.steps}, epochs={self.epochs}."
            )
        name = "epochs" if self.steps is None else "steps"
        number = whole_number(f"Every({name})", getattr(self, name), at_least=1)
        object.__setattr__(self, name, number)


class Callback:
    """Watches a run, and can change it. Override the hooks that you need.

    Each hook is called with a [`eqxtrain.Run`][]. Training has `on_train_begin`, `on_train_end`,
    `on_epoch_begin`, `on_epoch_end`, `on_train_batch_begin` and `on_train_batch_end`. Evaluation,
    also within `fit`, has `on_test_begin`, `on_test_end`, `on_test_batch_begin` and
    `on_test_batch_end`; prediction has the same with `predict`. `on_exception` is for all of them.

    **Class attributes:**

    - `reads`: `"state"` if the hooks of batches look at `run.state` or `run.learner`, which then
        are exactly those after that step; `"logs"` if they look at `run.logs` alone, which is
        faster.
    - `every`: how often the hooks of batches (or epochs) are called; None for each time.

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

    def state_dict(self) -> dict[str, Any]:
        """What this callback must remember to continue in another process, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Callbacks:
    """Calls each callback of a list, in order. The user's own list is never changed."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(_not_one(callback))
            _check_declared(callback)
        self._callbacks = tuple(callbacks)
        self._for_hook = {
            hook: [callback for callback in callbacks if _has(callback, hook)] for hook in HOOKS
        }

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._callbacks)

    def tell(self, hook: str, run: Run, *, reads: Literal["state", "logs"] | None = None) -> None:
        """Call one hook of every callback that has it and is due.

        **Arguments:**

        - `reads`: only of those that declare this; None for all.
        """
        for callback in self._for_hook[hook]:
            asked = reads in (None, callback.reads)
            if asked and _is_due(callback.every, hook, run.step, run.epoch):
                run.reads = callback.reads if hook in BATCH_HOOKS else "state"
                try:
                    getattr(callback, hook)(run)
                finally:
                    run.reads = "state"

    def listen(self, kind: StepKind) -> bool:
        """Whether any callback has hooks for the batches of such a pass."""
        return any(self._for_hook[f"on_{kind}_batch_{moment}"] for moment in ("begin", "end"))

    def steps_until_cut(self, kind: StepKind, step: int, most: int) -> int:
        """How many steps may be run at once from `step` on, `most` at most.

        A callback that reads the state must be called right before and after the steps that it is
        due at.
        """
        begin, end = (
            [c for c in self._for_hook[f"on_{kind}_batch_{moment}"] if c.reads == "state"]
            for moment in ("begin", "end")
        )
        if not begin and not end:
            return most
        for n in range(1, most):
            ends = any(_is_due(c.every, f"on_{kind}_batch_end", step + n, 0) for c in end)
            begins = any(_is_due(c.every, f"on_{kind}_batch_begin", step + n, 0) for c in begin)
            if ends or begins:
                return n
        return most


def _not_one(given: Any) -> str:
    """What to say of something that is no callback."""
    is_class = isinstance(given, type)
    what = f"the class `{given.__name__}`" if is_class else repr(given)
    remedy = "derive a class from it, with the hooks that you need"
    if is_class and issubclass(given, Callback):
        remedy = f"make one, `{given.__name__}(...)`"
    return f"`callbacks` holds {what}; a callback is an instance of `eqxtrain.Callback`: {remedy}."


def _check_declared(callback: Callback) -> None:
    name = type(callback).__name__
    if callback.reads not in ("state", "logs"):
        raise ValueError(f'`{name}.reads` is "state" or "logs"; got {callback.reads!r}.')
    if not isinstance(callback.every, Every | None):
        raise TypeError(f"`{name}.every` is `Every(steps=...)` or None; got {callback.every!r}.")
    for hook in HOOKS:
        signature = inspect.signature(getattr(callback, hook))
        try:
            signature.bind(None)
            wrong = next(iter(signature.parameters), "run") in _OF_KERAS
        except TypeError:
            wrong = True
        if wrong:
            raise TypeError(
                f"`{name}.{hook}` must take one argument, the run: `def {hook}(self, run)`, not "
                f"{signature}; `run.epoch`, `run.step` and `run.logs` are on it."
            )


def _has(callback: Callback, hook: str) -> bool:
    own = getattr(type(callback), hook) is not getattr(Callback, hook)
    return own or hook in vars(callback)


def _is_due(every: Every | None, hook: str, step: int, epoch: int) -> bool:
    if every is None:
        return True
    if every.steps is not None and hook.startswith("on_train_batch"):
        return (step + hook.endswith("begin")) % every.steps == 0
    if every.epochs is not None and hook.startswith("on_epoch"):
        return (epoch + 1) % every.epochs == 0
    return True
