"""How an exception leaves a run: with the learner, told of, ending in a sentence."""

import traceback
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, linear, same
from jax.core import Tracer
from jaxtyping import Array

import eqxtrain as et
from eqxtrain import _placement


class Failing(et.Callback):
    """Raises after some steps, and notes that it was told."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error, self.told = step, error, False

    def on_train_batch_end(self, run: et.Run) -> None:
        if run.step == self.step:
            raise self.error

    def on_exception(self, run: et.Run) -> None:
        self.told = run.exception is self.error


def test_an_exception_of_a_callback_carries_the_learner_of_the_last_step() -> None:
    x, y = data()
    options: dict[str, Any] = {"batch_size": 7, "verbose": 0}
    failing = Failing(5, ZeroDivisionError("mine"))
    with pytest.raises(ZeroDivisionError, match="mine") as raised:
        learner().fit(x, y, epochs=3, callbacks=failing, **options)
    carried: Any = raised.value
    assert failing.told and carried.history.epochs == 1
    assert int(carried.learner.state.step) == 5 and carried.learner.state.metrics == {}

    class Stop(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == 5:
                run.stop("five")

    stopped, history = learner().fit(x, y, epochs=3, callbacks=Stop(), **options)
    assert same(stopped, carried.learner) and history.stopped == "five"


def test_an_error_while_tracing_keeps_the_learner() -> None:
    class Breaks(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            if len(x) < 8:
                raise RuntimeError("short")
            return jnp.sum(model.bias), {}, state

    x, _ = data()
    batches = [(x[:8],), (x[8:16],), (x[16:],)]
    with pytest.raises(RuntimeError, match="short") as raised:
        Breaks(linear(), optax.sgd(0.1)).fit(batches, verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 2
    with pytest.raises(RuntimeError, match="short") as raised:  # arrays are known beforehand
        Breaks(linear(), optax.sgd(0.1)).fit(x, batch_size=8, verbose=0)
    assert int(vars(raised.value)["learner"].state.step) == 0
    carried.learner.predict(data()[0])


class Explodes(et.Learner[Any]):
    """The device fails in its fifth step."""

    def train_step(self, model: Any, state: Any, **rest: Any) -> Any:
        logs, model, state = super().train_step(model=model, state=state, **rest)
        bias = eqx.error_if(model.bias, state.step == 4, "exploded")
        return logs, eqx.tree_at(lambda m: m.bias, model, bias), state


@pytest.mark.parametrize("donate", [False, True])
def test_without_snapshots_nothing_is_copied_and_the_learner_that_was_given_is_left(
    donate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = _placement.owned_by_host

    def to_host(tree: Any) -> Any:
        assert "model" not in tree, "model and state were copied to the host"
        return original(tree)

    x, y = data()
    made = Explodes(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY).init()
    before = made.predict(x)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 7, "verbose": 0}
    options |= {"donate": True} if donate else {"snapshots": False}
    monkeypatch.setattr(_placement, "owned_by_host", to_host)
    with pytest.raises(Exception, match="exploded") as raised:
        made.fit(x, y, **options)
    carried: Any = raised.value
    note = "".join([str(carried), *getattr(carried, "__notes__", ())])
    assert carried.history.epochs == 1
    if donate:
        assert not hasattr(carried, "learner") and "only `.history` is left" in note
    else:
        assert int(carried.learner.state.step) == 0
        assert "is from before this `fit`" in note and "after step 0" in note
        assert np.array_equal(carried.learner.predict(x), before)


def test_a_failure_of_the_device_keeps_the_last_snapshot() -> None:
    x, y = data()
    made = Explodes(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    with pytest.raises(Exception, match="exploded") as raised:
        made.fit(x, y, epochs=3, batch_size=7, verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 3 and carried.history.epochs == 1
    assert "is from the beginning of the epoch, after step 3" in str(carried)
    expected, _ = made.fit(x, y, epochs=1, batch_size=7, verbose=0)
    assert same(carried.learner, expected)

    class Hears(et.Callback):
        position: Any = None

        def on_exception(self, run: et.Run) -> None:
            self.position = run.position

    told = Hears()
    with pytest.raises(Exception, match="exploded") as raised:
        made.fit(x, y, epochs=2, steps_per_epoch=3, batch_size=3, verbose=0, callbacks=told)
    carried = raised.value
    assert int(carried.learner.state.step) == 3
    assert carried.history.position["examples"] == 9  # that of the snapshot
    assert told.position == carried.history.position


class Checked(eqx.Module):
    """A model that refuses what is negative."""

    linear: eqx.nn.Linear

    def __call__(self, x: Array) -> Array:
        return self.linear(eqx.error_if(x, jnp.any(x < 0), "x is negative: take its square."))


@pytest.mark.parametrize("call", ["fit", "fused", "evaluate", "predict", "on_batch"])
def test_an_error_if_in_a_compiled_step_ends_in_its_own_sentence(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    x, y = np.abs(data(21)[0]), data(21)[1]
    x[15] = -1
    made = learner(Checked(linear()), metrics=None).init()
    options: dict[str, Any] = {"batch_size": 7, "shuffle": False, "verbose": 0}
    calls: dict[str, Any] = {
        "fit": lambda: made.fit(x, y, steps_per_call=1, **options),
        "fused": lambda: made.fit(x, y, steps_per_call=3, **options),
        "evaluate": lambda: made.evaluate(x, y, batch_size=7),
        "predict": lambda: made.predict(x, batch_size=7),
        "on_batch": lambda: made.train_on_batch(x[14:], y[14:]),
    }
    with pytest.raises(eqx.EquinoxRuntimeError) as raised:
        calls[call]()
    shown = "".join(traceback.format_exception(raised.value)).rstrip().splitlines()
    assert shown[-1] == "x is negative: take its square."
    assert shown[-2].endswith("`eager=True` shows which line it is on.")
    assert "filter_jit" not in str(raised.value) and caplog.records == []
    if call != "on_batch":
        carried: Any = raised.value
        assert same(carried.learner, made)


@pytest.mark.slow
def test_a_nan_that_jax_is_told_to_refuse_gets_a_sentence() -> None:
    x, y = data()
    x[15] = np.nan
    made = learner(metrics=None).init()
    with jax.debug_nans(True), pytest.raises(FloatingPointError) as raised:
        made.fit(x, y, batch_size=7, shuffle=False, verbose=0)
    assert str(raised.value).endswith("`eager=True` shows the operation that produced it.")
    assert same(vars(raised.value)["learner"], made)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match=r"nan. encountered in"):
        made.test_on_batch(x, y, eager=True)


@pytest.mark.slow
def test_an_error_if_in_validation_says_that_it_was_there() -> None:
    x, y = np.abs(data()[0]), data()[1]
    made = learner(Checked(linear()), metrics=None)
    with pytest.raises(eqx.EquinoxRuntimeError, match="take its square") as raised:
        made.fit(x, y, validation_data={"odd": (-x, y)}, verbose=0)
    text = str(raised.value)
    assert "This was in validation, for the logs `val_odd_...`" in text
    assert text.endswith("x is negative: take its square.")
    carried: Any = raised.value
    assert carried.history.epochs == 1 and int(carried.learner.state.step) == 1


@pytest.mark.slow
def test_what_is_wrong_with_validation_costs_no_epoch() -> None:
    class Named(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, image: Array, label: Array) -> Any:
            return CROSS_ENTROPY(jax.vmap(model)(image), label).mean(), {}, state

    x, y = data()
    batch = {"image": x, "label": y}
    made = Named(linear(), optax.sgd(0.1))
    with pytest.raises(TypeError, match="asks for `image`") as raised:
        made.fit(batch, validation_data=batch, verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 0
    assert "for the logs `val_image_...`" in "".join(carried.__notes__)
    made.fit(batch, validation_data=(batch,), verbose=0)


def test_a_failure_of_the_device_falls_back_on_a_learner_put_in_place() -> None:
    class Explodes(et.Learner[Any]):
        def train_step(self, model: Any, state: Any, **rest: Any) -> Any:
            logs, model, state = super().train_step(model=model, state=state, **rest)
            bias = eqx.error_if(model.bias, state.step == 102, "exploded")
            return logs, eqx.tree_at(lambda m: m.bias, model, bias), state

    class Restores(et.Callback):
        def __init__(self) -> None:
            self.step = -1

        def on_train_begin(self, run: et.Run) -> None:
            state = run.state.update(step=jnp.asarray(100, jnp.int32))
            run.replace(run.learner.replace(state=state))

        def on_exception(self, run: et.Run) -> None:
            self.step = run.step

    told = Restores()
    made = Explodes(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    with pytest.raises(Exception, match="exploded") as raised:
        made.fit(*data(), batch_size=7, callbacks=told, verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 100 == told.step


def test_a_sentence_is_the_last_thing_read() -> None:
    with pytest.raises(TypeError, match="there are no labels") as raised:
        learner().fit(data()[0], verbose=0)
    shown = "".join(traceback.format_exception(raised.value)).rstrip().splitlines()
    assert shown[-1].endswith("by name.")


def test_a_failing_on_exception_does_not_hide_the_error() -> None:
    class Bad(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            raise ZeroDivisionError("first")

        def on_exception(self, run: et.Run) -> None:
            raise RuntimeError("second")

    with pytest.raises(ZeroDivisionError, match="first") as raised:
        learner(linear()).fit(*data(), callbacks=Bad(), verbose=0)
    assert "on_exception` also failed" in raised.value.__notes__[-1]


def test_an_epoch_that_was_trained_whole_is_recorded_though_its_validation_fails() -> None:
    class Fails(et.Callback):
        def on_test_end(self, run: et.Run) -> None:
            raise OSError

    x, y = data()
    with pytest.raises(OSError) as raised:
        learner().fit(x, y, validation_data=(x, y), callbacks=Fails(), verbose=0)
    assert list(vars(raised.value)["history"]) == ["loss", "accuracy"]


def test_everybody_is_told_of_what_goes_wrong_before_the_first_batch() -> None:
    told: list[Any] = []

    class Hears(et.Callback):
        def on_exception(self, run: et.Run) -> None:
            told.append((type(run.exception), run.step, run.learner.state))

    def breaks() -> Iterator[Any]:
        raise LookupError
        yield

    made = learner()
    for run in (made.fit, made.evaluate, made.predict):
        with pytest.raises(LookupError):
            run(breaks, callbacks=Hears())
    assert told == [(LookupError, 0, None)] * 3


class Late(et.metrics.Metric):
    """A metric whose value can't be computed, once there is one."""

    total: Array = eqx.field(default_factory=lambda: jnp.zeros(()))

    def update(self, y_pred: Any) -> "Late":
        return Late(self.total + 1)

    def merge(self, other: "Late") -> "Late":
        return Late(self.total + other.total)

    def compute(self) -> Array:
        if not isinstance(self.total, Tracer) and self.total > 0:
            raise ArithmeticError("late")
        return self.total

    def reset(self) -> "Late":
        return Late()


@pytest.mark.slow
def test_an_epoch_keeps_its_other_numbers_though_a_metric_fails() -> None:
    x, y = data()
    options: dict[str, Any] = {"batch_size": 7, "verbose": 0, "eager": True}
    late = learner(metrics={"late": Late(), "rows": et.metrics.Gather()})
    with pytest.raises(ArithmeticError, match="late") as raised:
        late.fit(x, y, epochs=2, **options)
    history: et.History = vars(raised.value)["history"]
    assert history.epochs == len(history.timing.epochs) == 1
    assert history["loss"] == learner().fit(x, y, **options).history["loss"]
    assert list(history) == ["loss", "rows"] and history["rows"][0].shape == (21, 3)


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end", "on_test_batch_begin"])
def test_an_epoch_that_was_trained_whole_is_recorded_whoever_fails(hook: str) -> None:
    x, y = data()
    sets = {"a": (x, y), "b": (x[:14], y[:14])}

    class Fails(et.Callback):
        reads = "logs"

    last = {"on_epoch_end": 2, "on_train_batch_end": 4, "on_test_batch_begin": 9}[hook]
    told: list[int] = []

    def fails(self: Any, run: et.Run) -> None:
        told.append(run.step)
        if len(told) == last:
            raise ZeroDivisionError

    setattr(Fails, hook, fails)
    options: dict[str, Any] = {"batch_size": 7, "verbose": 0, "epochs": 2}
    options |= {"validation_data": sets, "steps_per_call": 3}
    with pytest.raises(ZeroDivisionError) as raised:
        learner().fit(x, y, callbacks=Fails(), **options)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 6
    assert carried.history.epochs == len(carried.history.timing.epochs) == 2
    whole = learner().fit(x, y, **options).history
    assert carried.history["loss"] == whole["loss"]
    for name, failing in {"val_a_loss": hook == "on_train_batch_end", "val_b_loss": True}.items():
        kept = 1 if failing and hook != "on_epoch_end" else 2
        assert carried.history[name][:kept] == whole[name][:kept]
        assert np.isnan(carried.history[name][kept:]).all()
