"""Ctrl-C: once to end a run cleanly, twice to end it at once."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import data, learner

import eqxtrain as et


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
    assert "kept interrupted" in out and "Stopping after the steps under way" in err


@pytest.mark.slow
def test_ctrl_c_while_the_data_wait_forever_ends_a_script_with_the_learner(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import threading, warnings
        import equinox as eqx, eqxtrain as et, jax.random as jr, numpy as np, optax
        from eqxtrain.data import _prefetch

        _prefetch._PATIENCE = 0.5
        x, y = np.ones((8, 4), np.float32), np.ones((8, 1), np.float32)

        def waits_forever():
            yield x, y
            yield x, y
            print("waiting", flush=True)
            threading.Event().wait()

        learner = et.Learner(eqx.nn.Linear(4, 1, key=jr.key(0)), optax.sgd(0.1), loss=optax.l2_loss)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                learner.fit(waits_forever, epochs=3, verbose=0)
            except KeyboardInterrupt as error:
                print("kept", int(error.learner.state.step), error.history.stopped, flush=True)
        print(*[str(w.message) for w in said], flush=True)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "waiting"
    time.sleep(1)  # until the main thread waits too
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "kept 2 interrupted" in out and "`eqxtrain-data` is left behind" in out


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
