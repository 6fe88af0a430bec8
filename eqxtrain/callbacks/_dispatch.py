"""Which callbacks are called for a hook, and when."""

import difflib
import inspect
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

from .._types import StepKind
from ..metrics._base import Metric
from ._base import BATCH_HOOKS, HOOKS, Callback
from ._every import Every
from ._run import Control

_KERAS_ARGUMENTS = ("epoch", "batch", "logs")
"""The first arguments of Keras hooks. One that has them was written for Keras, not for us."""


class Callbacks:
    """Calls each callback of a list, in order. The user's own list is never changed."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(_not_a_callback(callback))
            _check_declarations(callback)
        self._callbacks = tuple(callbacks)
        self._for_hook = {
            hook: [callback for callback in callbacks if callback._has_hook(hook)] for hook in HOOKS
        }

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._callbacks)

    def call_hook(
        self, hook: str, control: Control, *, reads: Literal["state", "logs"] | None = None
    ) -> None:
        """Call one hook of every callback that has it and is due.

        **Arguments:**

        - `reads`: call only the callbacks that declare this, and hear of each step; None for all.
        """
        for callback in self._for_hook[hook]:
            if reads is not None and (reads != callback.reads or callback._once_a_call):
                continue
            every = callback.every
            if every is None or _is_due(every, hook, control.step, control.epoch):
                control.reads = callback.reads if hook in BATCH_HOOKS else "state"
                try:
                    getattr(callback, hook)(control.run)
                finally:
                    control.reads = "state"

    def metrics(self) -> dict[str, Metric]:
        """What the callbacks have measured in training steps.

        **Raises:** `ValueError` if two of them use one name.
        """
        found: dict[str, Metric] = {}
        for callback in self._callbacks:
            for name, metric in callback.metrics.items():
                if name in found:
                    raise ValueError(
                        f"Two callbacks measure `{name}`, the second being a "
                        f"`{type(callback).__name__}`: give one of them another name, or leave it "
                        "out."
                    )
                found[name] = metric
        return found

    def check_monitors(self, control: Control) -> None:
        """Refuse a callback that follows what nobody measures, as far as that is known."""
        monitors = [(i, c) for i, c in enumerate(self._callbacks) if c.monitor is not None]
        measured = control.directions if monitors else {}
        for i, callback in monitors if measured else ():
            before = [c.adds for c in self._callbacks[:i] if c._has_hook("on_epoch_end")]
            added = {name for names in before for name in names or ()}
            if None not in before and callback.monitor not in {*measured, *added}:
                raise ValueError(not_measured(callback, measured))

    def has_hook(self, hook: str, *, reads: Literal["state", "logs"]) -> bool:
        """Whether any callback that declares `reads` has this hook."""
        return any(callback.reads == reads for callback in self._for_hook[hook])

    def hears_each_step(self, kind: StepKind) -> bool:
        """Whether any callback has to hear of each step of a call in such a pass."""
        hooks = (f"on_{kind}_batch_{moment}" for moment in ("begin", "end"))
        return any(not c._once_a_call for hook in hooks for c in self._for_hook[hook])

    def has_batch_hooks(self, kind: StepKind) -> bool:
        """Whether any callback has batch hooks for this kind of pass."""
        return any(self._for_hook[f"on_{kind}_batch_{moment}"] for moment in ("begin", "end"))

    @property
    def times_device(self) -> bool:
        """Whether any callback wants to know when the device has nothing to do."""
        return any(callback.times_device for callback in self._callbacks)

    def steps_until_hook(self, kind: StepKind, step: int, max_steps: int) -> int:
        """How many steps after `step` one call may run, `max_steps` at most.

        A callback that reads the state is called right before or after the steps that it is due
        at, so a call must end there.
        """
        begin, end = (
            [c for c in self._for_hook[f"on_{kind}_batch_{moment}"] if c.reads == "state"]
            for moment in ("begin", "end")
        )
        if not begin and not end:
            return max_steps
        for n in range(1, max_steps):
            ends = any(_is_due(c.every, f"on_{kind}_batch_end", step + n, 0) for c in end)
            begins = any(_is_due(c.every, f"on_{kind}_batch_begin", step + n, 0) for c in begin)
            if ends or begins:
                return n
        return max_steps


def not_measured(callback: Callback, measured: Collection[str]) -> str:
    """Say that a run does not measure what a callback follows."""
    name = str(callback.monitor)
    remedy = ""
    if name.startswith("val_") and not any(n.startswith("val_") for n in measured):
        remedy = " For those of validation, pass `validation_data` or `validation_split` to `fit`."
    elif close := difflib.get_close_matches(name, measured, n=1):
        remedy = f" Did you mean `{close[0]}`?"
    return (
        f"`{type(callback).__name__}(monitor={name!r})` follows what this run does not measure. It "
        f"measures {', '.join(f'`{n}`' for n in measured)}.{remedy}"
    )


def _not_a_callback(value: Any) -> str:
    """Say what is wrong with something that is not a callback."""
    is_class = isinstance(value, type)
    what = f"the class `{value.__name__}`" if is_class else repr(value)
    remedy = "subclass it and override the hooks that you need"
    if is_class and issubclass(value, Callback):
        remedy = f"create an instance, `{value.__name__}(...)`"
    return (
        f"`callbacks` contains {what}; a callback is an instance of `eqxtrain.Callback`: {remedy}."
    )


def _check_declarations(callback: Callback) -> None:
    name = type(callback).__name__
    if callback.reads not in ("state", "logs"):
        raise ValueError(f'`{name}.reads` must be "state" or "logs"; got {callback.reads!r}.')
    if not isinstance(callback.every, Every | None):
        raise TypeError(
            f"`{name}.every` must be `Every(steps=...)` or None; got {callback.every!r}."
        )
    for metric_name, metric in callback.metrics.items():
        if not isinstance(metric, Metric):
            raise TypeError(
                f"`{name}.metrics[{metric_name!r}]` must be a metric; got {metric!r}. Wrap a "
                "function, `et.metrics.from_function(fn)`."
            )
    for hook in HOOKS:
        signature = inspect.signature(getattr(callback, hook))
        try:
            signature.bind(None)
            wrong = next(iter(signature.parameters), "run") in _KERAS_ARGUMENTS
        except TypeError:
            wrong = True
        if wrong:
            raise TypeError(
                f"`{name}.{hook}` must take one argument, the run: `def {hook}(self, run)`, not "
                f"{signature}; `run.epoch`, `run.step` and `run.logs` are on it."
            )


def _is_due(every: Every | None, hook: str, step: int, epoch: int) -> bool:
    if every is None:
        return True
    if every.steps is not None and hook.startswith("on_train_batch"):
        return (step + hook.endswith("begin")) % every.steps == 0
    if every.epochs is not None and hook.startswith("on_epoch"):
        return (epoch + 1) % every.epochs == 0
    return True
