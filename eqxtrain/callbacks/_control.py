"""Callbacks that steer a run: stop it, go back to its best, change the learning rate."""

import datetime
import inspect
import math
import time
from collections.abc import Callable
from typing import Any, Literal

from .._check import check_real_number, whole_number
from .._placement import fetch, put
from .._steps.hyperparams import injected, with_injected
from .._tree import partition_leaves, with_fields
from ._base import HOOKS, Callback
from ._every import Every
from ._monitor import Mode, Monitor
from ._run import Run

_LEARNING_RATE = "learning_rate"


class EarlyStopping(Monitor):
    """Stops training once a log has stopped improving. Arguments and defaults are Keras's.

    **Arguments:**

    - `monitor`: which log.
    - `min_delta`: an improvement by less does not count.
    - `patience`: after how many epochs without an improvement training ends.
    - `mode`: whether `"min"` or `"max"` is best; `"auto"` asks the metric.
    - `baseline`: a value that has to be reached: epochs that don't beat it count as without an
        improvement.
    - `restore_best_weights`: whether to return the model of the best epoch, its `model_state`, and
        the averages of `ema`.
        The optimizer's state, the key and the step stay those of the last one.
    - `start_from_epoch`: the epochs before this one (from 0) are not looked at.

    **Attributes:**

    - `best`, `best_epoch`: the best value, and its epoch, from 0.
    - `stopped_epoch`: the epoch that training ended after; None if it did not end early.

    !!! example

        ```python
        learner.fit(
            x, y, epochs=100, validation_split=0.1,
            callbacks=et.callbacks.EarlyStopping(patience=3, restore_best_weights=True),
        )
        ```
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        min_delta: float = 0.0,
        patience: int = 0,
        mode: Mode = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode=mode, min_delta=min_delta)
        self.patience: int = whole_number("EarlyStopping(patience)", patience, at_least=0)
        if baseline is not None:
            check_real_number("EarlyStopping(baseline)", baseline)
        self.baseline: float | None = baseline
        self.restore_best_weights: bool = restore_best_weights
        self.start_from_epoch: int = whole_number(
            "EarlyStopping(start_from_epoch)", start_from_epoch, at_least=0
        )
        self._resumes: bool = False
        self._forget()

    def _forget(self) -> None:
        self.wait: int = 0
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._best_weights: list[Any] | None = None  # their arrays

    def on_train_begin(self, run: Run) -> None:
        if not self._resumes:
            self._forget()
        self._resumes = False

    def on_epoch_end(self, run: Run) -> None:
        if run.epoch < self.start_from_epoch:
            return
        value = self.measured(run)
        if value is None:
            return
        self.wait += 1
        if self.is_better(value, self.best):
            self.best, self.best_epoch = value, run.epoch
            self._keep_weights(run)
            if self.baseline is None or self.is_better(value, self.baseline):
                self.wait = 0
            return
        if self._best_weights is None:  # only nan so far, and better than nothing
            self._keep_weights(run)
        if self.wait >= self.patience and run.epoch > 0:
            self.stopped_epoch = run.epoch
            epochs = "epoch" if self.wait == 1 else "epochs"
            run.stop(f"`{self.monitor}` has not improved for {self.wait} {epochs}")

    def on_train_end(self, run: Run) -> None:
        if self._best_weights is not None:
            learner = run.learner
            _, static = partition_leaves(_weights(learner))
            best: dict[str, Any] = static.merge(put(self._best_weights))
            state = learner.state.update(model_state=best["model_state"], averages=best["averages"])
            run.replace(with_fields(learner, model=best["model"], state=state))

    def _keep_weights(self, run: Run) -> None:
        if self.restore_best_weights:
            self._best_weights, _ = partition_leaves(_weights(run.learner))

    def state_dict(self) -> dict[str, Any]:
        """How long it has waited, the best value and its epoch, and the best weights as arrays."""
        names = ("wait", "best", "best_epoch", "stopped_epoch")
        weights = None if self._best_weights is None else fetch(self._best_weights)
        return {name: getattr(self, name) for name in names} | {"weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: the next `fit` goes on from there."""
        self.wait, self.best = state["wait"], state["best"]
        self.best_epoch, self.stopped_epoch = state["best_epoch"], state["stopped_epoch"]
        self._best_weights, self._resumes = state["weights"], True


def _weights(learner: Any) -> dict[str, Any]:
    state = learner.state
    return {"model": learner.model, "model_state": state.model_state, "averages": state.averages}


class _RateCallback(Callback):
    """Sets the learning rate of an optimizer that keeps it as an array."""

    adds: tuple[str, ...] | None = (_LEARNING_RATE,)

    def _rate(self, run: Run) -> float:
        rates = injected(run.state.opt_state, _LEARNING_RATE)
        if not rates:
            raise ValueError(
                f"`{type(self).__name__}` found no learning rate that it could set: keep it as an "
                "array in the optimizer's state, "
                "`optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)`."
            )
        return float(rates[0])

    def _change_rate(self, run: Run, change: Callable[[Any], Any]) -> None:
        learner = run.learner
        opt_state = with_injected(learner.state.opt_state, _LEARNING_RATE, change)
        run.replace(learner.replace(state=learner.state.update(opt_state=opt_state)))


class ReduceLROnPlateau(Monitor, _RateCallback):
    """Lowers the learning rate once a log has stopped improving. Arguments are Keras's.

    The optimizer keeps its rate as an array, `optax.inject_hyperparams(optax.adam)(learning_rate=
    1e-3)`, wherever in the optimizer that stands; changing it compiles nothing. With several, all
    are multiplied. The rate of each epoch goes into the logs as `learning_rate`.

    **Arguments:**

    - `monitor`, `mode`, `min_delta`: as of `EarlyStopping`.
    - `factor`: what the rate is multiplied by.
    - `patience`: after how many epochs without an improvement.
    - `cooldown`: for how many epochs after that nothing is counted.
    - `min_lr`: the lowest rate.
    """

    adds: tuple[str, ...] | None = (_LEARNING_RATE,)

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 10,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode=mode, min_delta=min_delta)
        check_real_number("ReduceLROnPlateau(factor)", factor, at_least=0, at_most=1)
        if factor == 1:
            raise ValueError("`ReduceLROnPlateau(factor)` must be below 1; got 1.")
        check_real_number("ReduceLROnPlateau(min_lr)", min_lr, at_least=0)
        self.factor: float = float(factor)
        self.min_lr: float = float(min_lr)
        self.patience: int = whole_number("ReduceLROnPlateau(patience)", patience, at_least=0)
        self.cooldown: int = whole_number("ReduceLROnPlateau(cooldown)", cooldown, at_least=0)
        self._resumes: bool = False
        self._forget()

    def _forget(self) -> None:
        self.wait: int = 0
        self.cooldown_left: int = 0
        self.best: float | None = None

    def on_train_begin(self, run: Run) -> None:
        self._rate(run)  # an error now, rather than after `patience` epochs
        if not self._resumes:
            self._forget()
        self._resumes = False

    def on_epoch_end(self, run: Run) -> None:
        rate = run.logs[_LEARNING_RATE] = self._rate(run)
        value = self.measured(run)
        if value is None:
            return
        if self.cooldown_left > 0:
            self.cooldown_left, self.wait = self.cooldown_left - 1, 0
        if self.is_better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_left == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                lowest = self.min_lr
                self._change_rate(run, lambda old: (old * self.factor).clip(lowest))
                self.cooldown_left, self.wait = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        """How long it has waited, and the best value."""
        return {name: getattr(self, name) for name in ("wait", "cooldown_left", "best")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: the next `fit` goes on from there."""
        self.wait, self.cooldown_left, self.best = (
            state[name] for name in ("wait", "cooldown_left", "best")
        )
        self._resumes = True


class LearningRateScheduler(_RateCallback):
    """Sets the learning rate at the beginning of each epoch. As Keras's.

    For a schedule that is known beforehand, an optax schedule of the step needs no callback. The
    rate of each epoch goes into the logs as `learning_rate`.

    **Arguments:**

    - `schedule`: a function of the epoch (from 0), or of the epoch and the present rate, that
        returns the rate. Where several rates are injected, it is called for each of them.
    """

    def __init__(self, schedule: Callable[..., Any]) -> None:
        if not callable(schedule):
            raise TypeError(
                f"`LearningRateScheduler(schedule)` must be a function of the epoch; got "
                f"{schedule!r}."
            )
        self.schedule: Callable[..., Any] = schedule
        self._takes_rate: bool = len(inspect.signature(schedule).parameters) > 1

    def on_epoch_begin(self, run: Run) -> None:
        self._rate(run)  # refuses an optimizer without one
        self._change_rate(run, lambda old: self._scheduled(run.epoch, float(fetch(old))))

    def _scheduled(self, epoch: int, old: float) -> float:
        new = self.schedule(epoch, old) if self._takes_rate else self.schedule(epoch)
        try:
            rate = float(new)
        except (TypeError, ValueError):
            rate = math.nan
        if not math.isfinite(rate):
            raise ValueError(
                f"The schedule of `LearningRateScheduler` returned {new!r} for epoch {epoch}: it "
                "must return the learning rate, a finite number."
            )
        return rate

    def on_epoch_end(self, run: Run) -> None:
        run.logs[_LEARNING_RATE] = self._rate(run)


class Timeout(Callback):
    """Stops training when its time is up, as the time limit of a batch queue demands.

    It looks at the clock after each call of the device, without waiting for the device.

    **Arguments:**

    - `seconds`: how long training may take, from the beginning of `fit`.
    - `until`: or a time at which it ends: a `datetime.datetime`, or a `datetime.time` or `"HH:MM"`
        of today, or of tomorrow if that has passed.
    """

    reads: Literal["state", "logs"] = "logs"
    adds: tuple[str, ...] | None = ()

    def __init__(
        self,
        seconds: float | None = None,
        *,
        until: datetime.datetime | datetime.time | str | None = None,
    ) -> None:
        if (seconds is None) == (until is None):
            raise ValueError(
                "`Timeout` takes either `seconds` or `until`, as in `Timeout(3600)` or "
                '`Timeout(until="07:30")`.'
            )
        if seconds is not None:
            check_real_number("Timeout(seconds)", seconds, at_least=0)
        self.seconds: float | None = seconds
        self.until: datetime.datetime | datetime.time | None = (
            _as_time(until) if isinstance(until, str) else until
        )
        self._deadline: float = float("inf")

    def on_train_begin(self, run: Run) -> None:
        seconds = self.seconds if self.until is None else _seconds_until(self.until)
        assert seconds is not None
        self._deadline = time.monotonic() + seconds

    def on_train_batch_end(self, run: Run) -> None:
        if time.monotonic() >= self._deadline and run.stopped is None:
            run.stop("the time is up")

    def on_epoch_end(self, run: Run) -> None:
        self.on_train_batch_end(run)


def _as_time(text: str) -> datetime.time:
    try:
        return datetime.time.fromisoformat(text.zfill(5))  # "7:30" as well
    except ValueError:
        raise ValueError(
            f'`Timeout(until)` must be a time such as "07:30"; got {text!r}.'
        ) from None


def _seconds_until(end: datetime.datetime | datetime.time) -> float:
    now = datetime.datetime.now(end.tzinfo)
    if isinstance(end, datetime.time):
        end = datetime.datetime.combine(now.date(), end)
        end += datetime.timedelta(days=end <= now)
    return max((end - now).total_seconds(), 0.0)


class Lambda(Callback):
    """A callback made of functions: `Lambda(on_epoch_end=lambda run: print(run.logs))`.

    **Arguments:**

    - `hooks`: functions of a `Run`, by the names of the hooks.
    - `reads`, `every`: as of [`eqxtrain.Callback`][].
    """

    def __init__(
        self,
        *,
        reads: Literal["state", "logs"] = "state",
        every: Every | None = None,
        **hooks: Callable[[Run], Any],
    ) -> None:
        self.reads: Literal["state", "logs"] = reads
        self.every: Every | None = every
        for name, hook in hooks.items():
            if name not in HOOKS:
                raise TypeError(
                    f"`Lambda({name}=...)` is not a hook. The hooks are {', '.join(HOOKS)}."
                )
            setattr(self, name, hook)
