"""The schedule of `fit`: epochs, validation, interruption, callbacks."""

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import PyTree

from . import _tree, data
from ._drive import Driver
from ._engine import Options, Pass
from ._exceptions import noting, telling_of_exceptions
from ._fold import Kind
from ._history import Fitted, History
from ._initialise import ready
from ._interrupt import Interrupt, in_ipython
from ._naming import unique
from .callbacks import Run
from .callbacks._base import Callbacks

L = TypeVar("L")


def fit(
    learner: L,
    source: data.Source,
    *,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    validation: Mapping[str, data.Source],
    class_weight: Any,
    callbacks: Callbacks,
    on_interrupt: Literal["return", "raise"] | None,
    options: Options,
    donate: bool,
    params: Mapping[str, Any],
) -> Fitted[L]:
    """Train for some epochs. The arguments are those of `Learner.fit`, checked."""
    run = Run(learner, History(), {"epochs": epochs, "steps": source.steps(batch_size), **params})
    training = Pass(learner, "train", class_weight=class_weight, options=options, donate=donate)
    training.compilations = run.history.timing.compilations
    with Interrupt() as interrupt:
        loop = _Fit(
            run,
            training,
            interrupt,
            callbacks,
            source,
            validation,
            batch_size,
            shuffle,
            options,
            not donate,
        )
        with telling_of_exceptions(run, callbacks, loop.rescue):
            run.enter(training=training, measuring=training)
            if epochs > 0:
                loop.prepare_validation()
            loop.tell("on_train_begin")
            for epoch in range(epochs):
                if run.stopped is not None or interrupt.asked:
                    break
                loop.epoch(epoch)
            training.wait()
            run.history.stopped = "interrupted" if interrupt.asked else run.stopped
            loop.tell("on_train_end")
    learner = training.learner
    if interrupt.asked:  # asked for once the handler is gone, so that none is missed
        run.history.stopped = "interrupted"
        _report_interruption(on_interrupt, learner, run)
    return Fitted(learner, run.history)


@dataclasses.dataclass
class _Fit:
    """The run of one `fit`: what `epoch` needs, and what is rescued when it fails."""

    _run: Run
    _training: Pass
    _interrupt: Interrupt
    _callbacks: Callbacks
    _source: data.Source
    _validation: Mapping[str, data.Source]
    _batch_size: int
    _shuffle: bool
    _options: Options
    _keep_snapshots: bool

    def __post_init__(self) -> None:
        self._key = np.asarray(self._run.learner.state.key)
        self._snapshot: Any = self._run.learner
        self._driver = Driver(
            self._run, self._callbacks, settle=self._settle, halted=self._is_halted
        )

    def rescue(self) -> Any:
        """The learner of the last step, or of the last snapshot if the device lost that."""
        if self._training.intact:
            learner = self._training.learner
            self._run.step = int(learner.state.step)  # those told of the logs may be behind
            return learner
        if not self._keep_snapshots:
            raise RuntimeError("with `donate=True` no snapshot is kept for when the device fails")
        self._run.fall_back(self._snapshot)
        return self._snapshot

    def _is_halted(self) -> bool:
        return self._run.stopped is not None or self._interrupt.asked

    def _demand(self, pass_: Pass) -> data.Demand:
        return data.Demand(pass_.capacity, lambda: not self._interrupt.asked)

    def _take_snapshot(self) -> None:
        if not self._keep_snapshots:
            return
        learner = self._training.learner
        held = {"model": learner.model, "state": learner.state}
        self._snapshot = _tree.with_fields(learner, **_tree.to_host(held))

    def tell(self, hook: str) -> None:
        """Call a hook, and take over the learner that a callback may have put in place."""
        self._callbacks.tell(hook, self._run)
        self._settle()

    def _settle(self) -> None:
        run = self._run
        if run.replacement is not None:
            learner, run.replacement = ready(run.replacement, None, "train"), None
            self._training.adopt(learner)
            self._take_snapshot()
            run.step = int(learner.state.step)
            self._key = np.asarray(learner.state.key)
            run.forget()

    def epoch(self, epoch: int) -> None:
        """One epoch: a pass over the training data, validation, and the record of both."""
        run, training = self._run, self._training
        began = time.perf_counter()
        if epoch > 0:
            self._take_snapshot()
        run.epoch = epoch
        run.enter(training=training, measuring=training)
        self.tell("on_epoch_begin")
        if run.stopped is not None:
            return
        self._train()
        if self._interrupt.asked:
            return
        result = training.logs()
        training.begin()
        for prefix, source in self._validation.items():
            measured = self._validate(prefix, source)
            for name, value in measured.items():
                result[unique(prefix + name, result)] = value
            if self._interrupt.asked:  # the epoch was trained whole
                run.history.append(result)
                return
        run.enter(training=training, measuring=None)
        run.forget(result)
        self.tell("on_epoch_end")
        run.history.append(result)
        run.history.timing.epochs.append(time.perf_counter() - began)

    def _train(self) -> None:
        order = functools.partial(data.order, self._key, self._run.step)
        demand = self._demand(self._training)
        with closing(
            self._source.stacks(self._batch_size, demand, order if self._shuffle else None)
        ) as stacks:
            self._driver.over(self._training, stacks)

    def prepare_validation(self) -> None:
        """Compile validation before training, so that what is wrong with it costs no epoch."""
        for prefix, source in self._validation.items():
            with noting(_where(prefix)):
                capacity = 1 if source.is_short(self._batch_size) else None
                self._testing().prepare(source.first(self._batch_size), capacity)

    def _validate(self, prefix: str, source: data.Source) -> dict[str, Any]:
        testing = self._testing()
        self._run.enter(training=self._training, measuring=testing)
        with noting(_where(prefix)):
            halted = lambda: self._interrupt.asked
            stacks = source.stacks(self._batch_size, self._demand(testing))
            return _pass_over(self._run, self._callbacks, testing, stacks, halted)

    def _testing(self) -> Pass:
        testing = Pass(self._training.learner, "test", options=self._options)
        testing.compilations = self._run.history.timing.compilations
        return testing


def _where(prefix: str) -> str:
    text = f"This was in validation, for the logs `{prefix}...`."
    if prefix != "val_":
        text += (
            " `validation_data={...}` are named sets; a mapping of arrays is wrapped, "
            "`validation_data=(mapping,)`."
        )
    return text


def evaluate(
    learner: Any,
    source: data.Source,
    *,
    batch_size: int,
    class_weight: Any,
    callbacks: Callbacks,
    options: Options,
    params: Mapping[str, Any],
) -> dict[str, Any]:
    """One pass of `test_step`. The arguments are those of `Learner.evaluate`, checked."""
    run = Run(learner, History(), {"steps": source.steps(batch_size), **params})
    testing = Pass(learner, "test", class_weight=class_weight, options=options)
    with telling_of_exceptions(run, callbacks, lambda: learner):
        run.enter(training=None, measuring=testing)
        stacks = source.stacks(batch_size, data.Demand(testing.capacity))
        return _pass_over(run, callbacks, testing, stacks)


def predict(
    learner: Any,
    source: data.Source,
    *,
    batch_size: int,
    callbacks: Callbacks,
    options: Options,
    params: Mapping[str, Any],
) -> PyTree:
    """One pass of `pred_step`. The arguments are those of `Learner.predict`, checked."""
    run = Run(learner, History(), {"steps": source.steps(batch_size), **params})
    predicting = Pass(learner, "predict", options=options)
    with telling_of_exceptions(run, callbacks, lambda: learner):
        run.enter(training=None, measuring=None)
        stacks = source.stacks(batch_size, data.Demand(predicting.capacity))
        _pass_over(run, callbacks, predicting, stacks)
        return predicting.outputs()


def _pass_over(
    run: Run,
    callbacks: Callbacks,
    pass_: Pass,
    stacks: Generator[data.Stack, None, None],
    halted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """A pass that changes no learner, told to the callbacks."""
    kind: Kind = pass_.kind
    measures = kind == "test"
    callbacks.tell(f"on_{kind}_begin", run)
    with closing(stacks):
        Driver(run, callbacks, halted=halted).over(pass_, stacks)
    if halted():
        return {}
    result = pass_.logs() if measures else {}
    run.forget(result)
    callbacks.tell(f"on_{kind}_end", run)
    return dict(result)


def _report_interruption(
    on_interrupt: Literal["return", "raise"] | None, learner: Any, run: Run
) -> None:
    where = f"Interrupted in epoch {run.epoch + 1}, after step {run.step}"
    if (on_interrupt or ("return" if in_ipython() else "raise")) == "return":
        print(f"{where}: this is the learner of that step.")
        return
    error = KeyboardInterrupt(f"{where}; this exception carries `.learner` and `.history`.")
    error.learner = learner  # pyright: ignore[reportAttributeAccessIssue]
    error.history = run.history  # pyright: ignore[reportAttributeAccessIssue]
    raise error
