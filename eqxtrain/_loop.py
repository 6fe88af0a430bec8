"""The schedule of `fit`: epochs, validation, interruption, callbacks."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import PyTree

from . import _tree, data
from ._engine import Pass
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
    source: data.ArraySource,
    *,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    validation: Mapping[str, data.ArraySource],
    class_weight: Any,
    callbacks: Callbacks,
    on_interrupt: Literal["return", "raise"] | None,
    eager: bool,
    params: Mapping[str, Any],
) -> Fitted[L]:
    """Train for some epochs. The arguments are those of `Learner.fit`, checked."""
    run = Run(learner, History(), {"epochs": epochs, "steps": source.steps(batch_size), **params})
    training = Pass(learner, "train", class_weight=class_weight, eager=eager)
    training.compilations = run.history.timing.compilations
    with Interrupt() as interrupt:
        loop = _Fit(
            run, training, interrupt, callbacks, source, validation, batch_size, shuffle, eager
        )
        with telling_of_exceptions(run, callbacks, loop.rescue):
            run.enter(training=training, measuring=training)
            if epochs > 0 and not eager:
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
    _source: data.ArraySource
    _validation: Mapping[str, data.ArraySource]
    _batch_size: int
    _shuffle: bool
    _eager: bool

    def __post_init__(self) -> None:
        self._key = np.asarray(self._run.learner.state.key)
        self._snapshot: Any = self._run.learner

    def rescue(self) -> Any:
        """The learner of the last step, or of the last snapshot if the device lost that."""
        if self._training.intact:
            return self._training.learner
        self._run.fall_back(self._snapshot)
        return self._snapshot

    def _take_snapshot(self) -> None:
        learner = self._training.learner
        held = {"model": learner.model, "state": learner.state}
        self._snapshot = _tree.with_fields(learner, **_tree.to_host(held))

    def tell(self, hook: str) -> None:
        """Call a hook, and take over the learner that a callback may have put in place."""
        run = self._run
        self._callbacks.tell(hook, run)
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
        run = self._run
        length = len(self._source)
        order = data.order(self._key, run.step, length) if self._shuffle else None
        for batch in self._source.batches(self._batch_size, order):
            run.forget({})
            self.tell("on_train_batch_begin")
            self._training(batch)
            run.step += 1
            run.forget()
            self.tell("on_train_batch_end")
            if run.stopped is not None or self._interrupt.asked:
                return

    def prepare_validation(self) -> None:
        """Compile validation before training, so that what is wrong with it costs no epoch."""
        for prefix, source in self._validation.items():
            with noting(_where(prefix)):
                self._testing().prepare(source.take(slice(self._batch_size)))

    def _validate(self, prefix: str, source: data.ArraySource) -> dict[str, Any]:
        testing = self._testing()
        self._run.enter(training=self._training, measuring=testing)
        with noting(_where(prefix)):
            return _pass_over(
                self._run, self._callbacks, testing, source, self._batch_size, self._interrupt
            )

    def _testing(self) -> Pass:
        testing = Pass(self._training.learner, "test", eager=self._eager)
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
    source: data.ArraySource,
    *,
    batch_size: int,
    class_weight: Any,
    callbacks: Callbacks,
    eager: bool,
    params: Mapping[str, Any],
) -> dict[str, Any]:
    """One pass of `test_step`. The arguments are those of `Learner.evaluate`, checked."""
    run = Run(learner, History(), {"steps": source.steps(batch_size), **params})
    testing = Pass(learner, "test", class_weight=class_weight, eager=eager)
    with telling_of_exceptions(run, callbacks, lambda: learner):
        run.enter(training=None, measuring=testing)
        return _pass_over(run, callbacks, testing, source, batch_size)


def predict(
    learner: Any,
    source: data.ArraySource,
    *,
    batch_size: int,
    callbacks: Callbacks,
    eager: bool,
    params: Mapping[str, Any],
) -> PyTree:
    """One pass of `pred_step`. The arguments are those of `Learner.predict`, checked."""
    run = Run(learner, History(), {"steps": source.steps(batch_size), **params})
    predicting = Pass(learner, "predict", eager=eager)
    with telling_of_exceptions(run, callbacks, lambda: learner):
        run.enter(training=None, measuring=None)
        _pass_over(run, callbacks, predicting, source, batch_size)
        return predicting.outputs()


def _pass_over(
    run: Run,
    callbacks: Callbacks,
    pass_: Pass,
    source: data.ArraySource,
    batch_size: int,
    interrupt: Interrupt | None = None,
) -> dict[str, Any]:
    """A pass that changes no learner, told to the callbacks."""
    kind: Kind = pass_.kind
    measures = kind == "test"
    callbacks.tell(f"on_{kind}_begin", run)
    for batch in source.batches(batch_size):
        run.forget({})
        callbacks.tell(f"on_{kind}_batch_begin", run)
        pass_(batch)
        run.forget(None if measures else {})
        callbacks.tell(f"on_{kind}_batch_end", run)
        if interrupt is not None and interrupt.asked:
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
