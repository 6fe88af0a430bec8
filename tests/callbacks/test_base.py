"""`Callback`: its hooks, and what a callback declares."""

from typing import Any

import optax
import pytest
from helpers import CROSS_ENTROPY, Tape, counting, data, learner, linear

import eqxtrain as et
from eqxtrain.metrics import _logs


@pytest.mark.usefixtures("unchecked")
def test_misspelt_hooks_and_things_that_are_no_callbacks_get_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"`Typo.on_epoch_ends` is not a hook"):
        type("Typo", (et.Callback,), {"on_epoch_ends": lambda self, run: None})
    for wrong, message in ((Tape, "the class `Tape`"), (print, "built-in function print")):
        with pytest.raises(TypeError, match=message):
            learner().fit(*data(), callbacks=[wrong], verbose=0)  # pyright: ignore[reportArgumentType]
    given: Any = Tape
    with pytest.raises(TypeError, match=r"the class `Tape`; .* an instance, `Tape\(\.\.\.\)`\."):
        learner().fit(*data(), callbacks=given, verbose=0)
    given = lambda run: None
    with pytest.raises(TypeError, match=r"contains <function .*: subclass it"):
        learner().fit(*data(), callbacks=given, verbose=0)


ACCURACY = et.metrics.Accuracy()
HIDDEN = _logs.HIDDEN + "norm"


class UpdateSize(et.Callback):
    reads = "logs"

    def __init__(self) -> None:
        self.metrics = {"update": et.metrics.UpdateNorm(), HIDDEN: et.metrics.GradientNorm()}
        self.hidden: list[float] = []

    def on_train_batch_end(self, run: et.Run) -> None:
        for shown in (run.logs, run.recent_logs, run.directions):
            assert HIDDEN not in shown
        self.hidden.append(run._hidden_logs[HIDDEN])


class LooksAtItsMetrics(et.Learner[Any]):
    def test_step(self, **available: Any) -> Any:
        assert isinstance(self.metrics, dict) and "accuracy" in self.metrics
        return super().test_step(**available)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("metrics", [None, ACCURACY, [ACCURACY], {"accuracy": ACCURACY}])
def test_a_callback_measures_in_the_step_and_leaves_the_learner_as_it_is(
    metrics: Any, eager: bool
) -> None:
    x, y = data(16)
    own = {"loss", *(["accuracy"] if metrics is not None else [])}
    callback, options = UpdateSize(), {"batch_size": 8, "verbose": 0, "eager": eager}
    made, history = learner(metrics=metrics).fit(
        x, y, validation_data=(x, y), callbacks=callback, **options
    )
    assert set(history) == own | {"update"} | {f"val_{name}" for name in own}
    assert set(made.evaluate(x, y)) == own
    measured = learner(metrics={"update": et.metrics.UpdateNorm()}).fit(x, y, **options).history
    assert history["update"] == pytest.approx(measured["update"])
    gradient = learner(metrics=et.metrics.GradientNorm()).fit(x, y, **options).history
    assert callback.hidden[-1] == pytest.approx(gradient["gradient_norm"][0])


def test_a_step_may_look_at_a_dict_of_metrics() -> None:
    made = LooksAtItsMetrics(
        linear(), optax.sgd(0.1), loss=CROSS_ENTROPY, metrics={"accuracy": et.metrics.Accuracy()}
    )
    _, history = made.fit(*data(8), verbose=0, callbacks=UpdateSize())
    assert set(history) == {"loss", "accuracy", "update"}


def test_a_name_that_the_learner_has_as_well_is_told_apart() -> None:
    made = learner(metrics={"update": et.metrics.Accuracy()})
    _, history = made.fit(*data(8), verbose=0, callbacks=UpdateSize())
    assert len([name for name in history if name.startswith("update")]) == 2


def test_a_second_run_with_such_a_callback_traces_nothing() -> None:
    made, traces = counting()
    made.fit(*data(8), verbose=0, callbacks=UpdateSize())
    count = len(traces)
    made.fit(*data(8), verbose=0, callbacks=UpdateSize())
    assert len(traces) == count
