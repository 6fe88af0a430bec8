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
from jaxtyping import Array

import eqxtrain as et
from eqxtrain import _tree


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
    original = _tree.to_host

    def to_host(tree: Any) -> Any:
        assert "model" not in tree, "model and state were copied to the host"
        return original(tree)

    x, y = data()
    made = Explodes(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY).init()
    before = made.predict(x)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 7, "verbose": 0}
    options |= {"donate": True} if donate else {"snapshots": False}
    monkeypatch.setattr(_tree, "to_host", to_host)
    with pytest.raises(Exception, match="exploded") as raised:
        made.fit(x, y, **options)
    carried: Any = raised.value
    note = "".join(carried.__notes__)
    assert carried.history.epochs == 1
    if donate:
        assert not hasattr(carried, "learner") and "only `.history` is there" in note
    else:
        assert int(carried.learner.state.step) == 0
        assert "is the one of before this `fit`" in note and "after step 0" in note
        assert np.array_equal(carried.learner.predict(x), before)


def test_a_failure_of_the_device_keeps_the_last_snapshot() -> None:
    x, y = data()
    made = Explodes(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    with pytest.raises(Exception, match="exploded") as raised:
        made.fit(x, y, epochs=3, batch_size=7, verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 3 and carried.history.epochs == 1
    assert "is the one of the beginning of the epoch, after step 3" in "".join(carried.__notes__)
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
    assert shown[-1].endswith("by those names.")


def test_a_failing_on_exception_does_not_hide_the_error() -> None:
    class Bad(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            raise ZeroDivisionError("first")

        def on_exception(self, run: et.Run) -> None:
            raise RuntimeError("second")

    with pytest.raises(ZeroDivisionError, match="first") as raised:
        learner(linear()).fit(*data(), callbacks=Bad(), verbose=0)
    assert "on_exception` failed too" in raised.value.__notes__[-1]


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
