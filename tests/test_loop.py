"""`fit`: its laws, its numbers against loops by hand, interruption and failure."""

import os
import signal
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, data, learner, linear, normed, same
from jax.core import Tracer
from jaxtyping import Array

import eqxtrain as et


def dropped(**fields: Any) -> et.Learner[Any]:
    return learner(Dropped(jr.key(0)), **fields)


@pytest.mark.parametrize("make", [dropped, normed])
def test_fitting_twice_for_two_epochs_equals_fitting_once_for_four(make: Any) -> None:
    x, y = data(21)
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0}
    whole, history = make().fit(x, y, epochs=4, **options)
    half, first = make().fit(x, y, epochs=2, **options)
    again, second = half.fit(x, y, epochs=2, **options)
    assert same(whole, again)
    for name in history:
        assert history[name] == first[name] + second[name]


def test_a_second_fit_sees_a_new_order_and_a_rerun_the_same() -> None:
    class Orders(et.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_end(self, run: et.Run) -> None:
            self.seen.append(run.logs["first"])

    class Reports(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.sum(model.bias), {"first": et.metrics.Last.of(x[0, 0])}, state

    x = np.arange(40, dtype=np.float32).reshape(10, 4)

    def orders(key: int, fits: int) -> list[float]:
        told = Orders()
        made = Reports(linear(), optax.sgd(0.0)).init(key=jr.key(key))
        for _ in range(fits):
            made, _ = made.fit(x, batch_size=1, verbose=0, callbacks=told)
        return told.seen

    twice = orders(0, fits=2)
    assert sorted(twice[:10]) == sorted(x[:, 0]) == sorted(twice[10:])
    assert twice[:10] != twice[10:]
    assert orders(0, fits=1) == twice[:10] != orders(1, fits=1)


def test_the_numbers_are_those_of_a_loop_by_hand() -> None:
    x, y = data(21)
    fitted, history = learner(optimizer=optax.sgd(0.1)).fit(
        x, y, epochs=2, batch_size=8, shuffle=False, verbose=0
    )
    weight, bias = np.asarray(linear().weight, np.float64), np.asarray(linear().bias, np.float64)
    for epoch in range(2):
        total, right = 0.0, 0
        for start in range(0, 21, 8):
            a, b = x[start : start + 8], y[start : start + 8]
            logits = a @ weight.T + bias
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            total += -np.log(p[np.arange(len(b)), b]).sum()
            right += (logits.argmax(1) == b).sum()
            grad = (p - np.eye(3)[b]) / len(b)
            weight, bias = weight - 0.1 * grad.T @ a, bias - 0.1 * grad.sum(0)
        assert history["loss"][epoch] == pytest.approx(total / 21, rel=1e-5)
        assert history["accuracy"][epoch] == pytest.approx(right / 21, rel=1e-6)
    assert np.asarray(fitted.model.weight) == pytest.approx(weight, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 8, 21, 100])
def test_no_split_into_batches_changes_what_is_evaluated(batch_size: int) -> None:
    x, y = data(21)
    whole = learner().evaluate(x, y, batch_size=21)
    assert learner().evaluate(x, y, batch_size=batch_size) == pytest.approx(whole, rel=1e-5)


def test_weights_count_in_the_loss_and_not_in_the_metrics() -> None:
    x, y = data(21)
    w = np.linspace(0, 2, 21).astype(np.float32)
    result = learner().evaluate(x, y, sample_weight=w, batch_size=8)
    losses = CROSS_ENTROPY(jax.vmap(linear())(jnp.asarray(x)), jnp.asarray(y))
    assert result["loss"] == pytest.approx(float(np.mean(np.asarray(losses) * w)), rel=1e-5)
    assert result["accuracy"] == learner().evaluate(x, y)["accuracy"]


def test_class_weights_count_in_training_and_not_in_validation() -> None:
    x, y = data(21)
    weights = {0: 5.0, 2: 0.5}
    table = np.asarray([5.0, 1.0, 0.5])[y]
    losses = np.asarray(CROSS_ENTROPY(jax.vmap(linear())(jnp.asarray(x)), jnp.asarray(y)))
    made = learner(optimizer=optax.sgd(0.0))
    for given in (weights, [5.0, 1.0, 0.5]):
        _, history = made.fit(x, y, class_weight=given, validation_data=(x, y), verbose=0)
        assert history["loss"][0] == pytest.approx(np.mean(table * losses), rel=1e-5)
        assert history["val_loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)
    weighted = made.evaluate(x, y, class_weight=weights)
    assert weighted["loss"] == pytest.approx(np.mean(table * losses), rel=1e-5)


def test_validation_is_what_evaluate_gives() -> None:
    x, y = data(21)
    fitted, history = dropped().fit(x, y, validation_data=(x[:5], y[:5]), verbose=0)
    expected = fitted.evaluate(x[:5], y[:5])
    assert {name: history[f"val_{name}"][0] for name in expected} == expected


def test_the_split_takes_the_last_fraction_before_shuffling() -> None:
    x, y = data(21)
    by_split, split = learner().fit(x, y, validation_split=0.3, verbose=0)
    by_hand, hand = learner().fit(x[:14], y[:14], validation_data=(x[14:], y[14:]), verbose=0)
    assert same(by_split, by_hand) and dict(split) == dict(hand)


def test_named_validation_sets_have_their_own_names() -> None:
    x, y = data(21)
    sets = {"near": (x, y), "far": (x[:4], y[:4], np.ones(4, np.float32))}
    _, history = learner().fit(x, y, validation_data=sets, verbose=0)
    assert {"val_near_loss", "val_far_accuracy"} <= set(history)


def test_history_has_nan_where_nothing_was_measured() -> None:
    class Once(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            if run.epoch == 1:
                run.logs["extra"] = 3.0

    _, history = learner().fit(*data(), epochs=3, callbacks=Once(), verbose=0)
    assert np.isnan(history["extra"][0]) and history["extra"][1] == 3.0
    assert np.isnan(history["extra"][2])


def test_nan_in_the_inputs_is_not_an_error() -> None:
    x, y = data()
    _, history = learner().fit(np.full_like(x, np.nan), y, verbose=0)
    assert np.isnan(history["loss"][0])


def test_eager_runs_plain_python_with_the_same_numbers() -> None:
    values: list[Any] = []

    class Looks(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            loss = CROSS_ENTROPY(jax.vmap(model)(x), y_true).mean()
            if not isinstance(x, Tracer):
                values.append(float(x[0, 0]))
            return loss, {"rows": et.metrics.Gather.of(x[:, 0])}, state

    x, y = data()
    made = Looks(linear(), optax.sgd(0.1))
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}
    compiled, history = made.fit(x, y, **options)
    assert not values
    eager, other = made.fit(x, y, eager=True, **options)
    assert values == [float(x[0, 0]), float(x[8, 0]), float(x[16, 0])]
    assert other["loss"] == pytest.approx(history["loss"], rel=1e-5)
    assert np.array_equal(other["rows"][0], history["rows"][0])
    assert eqx.tree_equal(eager.model, compiled.model, rtol=1e-5)
    assert made.evaluate(x, y, eager=True)["loss"] == pytest.approx(made.evaluate(x, y)["loss"])
    assert np.allclose(made.predict(x, eager=True), made.predict(x), rtol=1e-5)


def test_what_is_gathered_comes_in_order_and_once() -> None:
    x, y = data()
    made = learner(metrics=[et.metrics.Gather(), et.metrics.Accuracy()])
    result = made.evaluate(x, y, batch_size=4)
    assert np.array_equal(result["gather"], made.predict(x, batch_size=4))
    assert isinstance(result["accuracy"], float)
    _, history = made.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert [column.shape for column in history["gather"]] == [(21, 3), (21, 3)]


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

    with pytest.raises(RuntimeError, match="short") as raised:
        Breaks(linear(), optax.sgd(0.1)).fit(data()[0], batch_size=8, shuffle=False, verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 2
    carried.learner.predict(data()[0])


def test_a_failure_of_the_device_keeps_the_last_snapshot() -> None:
    class Explodes(et.Learner[Any]):
        def train_step(self, model: Any, state: Any, **rest: Any) -> Any:
            logs, model, state = super().train_step(model=model, state=state, **rest)
            bias = eqx.error_if(model.bias, state.step == 4, "exploded")
            return logs, eqx.tree_at(lambda m: m.bias, model, bias), state

    x, y = data()
    made = Explodes(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    with pytest.raises(Exception, match="exploded") as raised:
        made.fit(x, y, epochs=3, batch_size=7, verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 3 and carried.history.epochs == 1
    expected, _ = made.fit(x, y, epochs=1, batch_size=7, verbose=0)
    assert same(carried.learner, expected)


class Interrupts(et.Callback):
    """Sends Ctrl-C to this process after some steps."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times, self.ended = step, times, False

    def on_train_batch_end(self, run: et.Run) -> None:
        if run.step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)

    def on_train_end(self, run: et.Run) -> None:
        self.ended = True


def test_an_interrupt_returns_the_learner_of_the_exact_step() -> None:
    told = Interrupts(5)
    fitted, history = learner().fit(
        *data(), epochs=3, batch_size=7, callbacks=told, verbose=0, on_interrupt="return"
    )
    assert history.stopped == "interrupted" and history.epochs == 1 and told.ended
    assert fitted.state is not None and int(fitted.state.step) == 5
    assert fitted.state.metrics == {}


def test_an_interrupt_in_a_script_raises_with_the_learner() -> None:
    with pytest.raises(KeyboardInterrupt, match=r"carries `\.learner`") as raised:
        learner().fit(*data(), batch_size=7, callbacks=Interrupts(2), verbose=0)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 2 and carried.history.stopped == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_raises_at_once_and_still_carries_the_learner() -> None:
    told = Interrupts(2, times=2)
    with pytest.raises(KeyboardInterrupt) as raised:
        learner().fit(*data(), batch_size=7, callbacks=told, verbose=0, on_interrupt="return")
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 2 and not told.ended


@pytest.mark.slow
def test_ctrl_c_on_a_real_script_ends_it_with_the_learner(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import equinox as eqx, eqxtrain as et, jax.random as jr, numpy as np, optax

        class Tell(et.Callback):
            def on_train_batch_end(self, run):
                if run.step == 10:
                    print("running", flush=True)

        learner = et.Learner(eqx.nn.Linear(4, 1, key=jr.key(0)), optax.sgd(0.1), loss=optax.l2_loss)
        x, y = np.ones((64, 4), np.float32), np.ones((64, 1), np.float32)
        try:
            learner.fit(x, y, epochs=10**6, verbose=0, callbacks=Tell())
        except KeyboardInterrupt as error:
            step = int(error.learner.state.step)
            print("kept", step >= 10 and error.history.stopped, flush=True)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "running"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "kept interrupted" in out and "Stopping after this step" in err


def test_zero_epochs_change_nothing() -> None:
    made = learner().init()
    fitted, history = made.fit(*data(), epochs=0, verbose=0)
    assert same(fitted, made) and history.epochs == 0
    with pytest.raises(ValueError, match="`epochs`"):
        made.fit(*data(), epochs=-1)


@pytest.mark.usefixtures("unchecked")
def test_verbose_that_is_none_of_the_known_gets_a_sentence() -> None:
    wrong: Any = 7
    with pytest.raises(ValueError, match='0, 1, 2 or "auto"'):
        learner().fit(*data(), verbose=wrong)


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


def test_an_interrupt_in_validation_keeps_the_trained_epoch() -> None:
    class InTest(et.Callback):
        def on_test_batch_end(self, run: et.Run) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    x, y = data()
    fitted, history = learner().fit(
        x, y, validation_data=(x, y), callbacks=InTest(), verbose=0, on_interrupt="return"
    )
    assert history.epochs == 1 and history.stopped == "interrupted"
    assert fitted.state is not None and int(fitted.state.step) == 1


def test_an_interrupt_at_the_very_end_is_reported() -> None:
    class AtEnd(et.Callback):
        def on_train_end(self, run: et.Run) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    _, history = learner().fit(*data(), callbacks=AtEnd(), verbose=0, on_interrupt="return")
    assert history.stopped == "interrupted" and history.epochs == 1


def test_a_sentence_is_the_last_thing_read() -> None:
    with pytest.raises(TypeError, match="there are no labels") as raised:
        learner().fit(data()[0], verbose=0)
    shown = "".join(traceback.format_exception(raised.value)).rstrip().splitlines()
    assert shown[-1].endswith("by those names.")
