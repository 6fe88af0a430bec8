"""Ctrl-C: once to end a run cleanly, twice to end it at once."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import data, learner, library, same

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


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever becomes of the test, nothing goes on running: some of these would for ever."""
    try:
        yield
    finally:
        process.kill()


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
    with ended(process):
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "running"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "kept interrupted" in out and "Stopping after the current steps" in err


@pytest.mark.slow
def test_ctrl_c_while_the_data_wait_forever_ends_a_script_with_the_learner(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import threading, warnings
        import equinox as eqx, eqxtrain as et, jax.random as jr, numpy as np, optax
        from eqxtrain._data import prefetch

        prefetch._MAX_CLOSE_WAIT = 0.5
        x, y = np.ones((8, 4), np.float32), np.ones((8, 1), np.float32)

        def waits_forever():
            yield x, y
            yield x, y
            threading.Event().wait()

        class Tell(et.Callback):
            def on_train_batch_end(self, run):
                if run.step == 2:
                    print("waiting", flush=True)

        learner = et.Learner(eqx.nn.Linear(4, 1, key=jr.key(0)), optax.sgd(0.1), loss=optax.l2_loss)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                learner.fit(waits_forever, epochs=3, verbose=0, callbacks=Tell())
            except KeyboardInterrupt as error:
                print("kept", int(error.learner.state.step), error.history.stopped, flush=True)
        print(*[str(w.message) for w in said], flush=True)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with ended(process):
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "waiting"
        time.sleep(1)  # until the main thread waits
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


@pytest.mark.slow
def test_an_interrupt_while_the_first_batch_is_awaited_is_one_like_any_other() -> None:
    def slow() -> Iterator[Any]:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(0.6)
        yield data()

    made = learner()
    fitted, history = made.fit(slow, verbose=0, on_interrupt="return")
    assert fitted is made and (history.stopped, history.epochs) == ("interrupted", 0)
    with pytest.raises(KeyboardInterrupt, match="before the first step; this") as raised:
        made.fit(slow, verbose=0)
    assert vars(raised.value)["learner"] is made
    fitted, history = made.fit(*data(), validation_data=slow, verbose=0, on_interrupt="return")
    assert history.stopped == "interrupted" and history.epochs == 0
    with pytest.raises(KeyboardInterrupt):
        made.evaluate(slow)
    assert [t.name for t in threading.enumerate() if t.name.startswith("eqxtrain")] == []


def test_an_interrupt_while_the_data_are_looked_at_is_one_like_any_other() -> None:
    class Slow:
        """Examples of which the first takes long, as where a file is opened for it."""

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: Any) -> Any:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(5)

    made = learner()
    fitted, history = made.fit(Slow(), verbose=0, on_interrupt="return")
    assert fitted is made and (history.stopped, history.epochs) == ("interrupted", 0)
    with pytest.raises(KeyboardInterrupt, match="before the first step; this") as raised:
        made.fit(*data(), validation_data=Slow(), verbose=0)
    assert vars(raised.value)["learner"] is made and raised.value.__context__ is None


@pytest.mark.slow
def test_a_second_interrupt_carries_the_learner_wherever_it_comes() -> None:
    def slow() -> Iterator[Any]:
        for delay in (0.2, 0.5):
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(1)
        yield data()

    made = learner()
    with pytest.raises(KeyboardInterrupt) as raised:
        made.fit(slow, verbose=0, on_interrupt="return")
    assert vars(raised.value)["learner"] is made and vars(raised.value)["history"].epochs == 0
    while any(t.name.startswith("eqxtrain") for t in threading.enumerate()):
        time.sleep(0.05)  # its batch comes in the end


@pytest.mark.slow
def test_what_an_interrupt_leaves_can_go_on_to_the_same_bits() -> None:
    x, y = data()
    part, history = learner().fit(
        x, y, epochs=2, batch_size=4, callbacks=Interrupts(4), verbose=0, on_interrupt="return"
    )
    rest, _ = part.fit(x, y, batch_size=4, steps=8, position=history.position, verbose=0)
    assert same(rest, learner().fit(x, y, epochs=2, batch_size=4, verbose=0)[0])


def test_outside_the_main_thread_the_signal_is_left_alone() -> None:
    before, results = signal.getsignal(signal.SIGINT), []
    train = lambda: results.append(learner().fit(*data(), verbose=0))
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert results[0].history.epochs == 1 and signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    heard: list[int] = []
    old = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        _, history = learner().fit(*data(), batch_size=7, callbacks=Interrupts(2), verbose=0)
    finally:
        signal.signal(signal.SIGINT, old)
    assert heard == [signal.SIGINT] and history.stopped is None


CELLS = """
import time
import equinox as eqx, eqxtrain as et, jax.random as jr, numpy as np, optax

class Tell(et.Callback):
    ended = False
    def on_train_batch_end(self, run):
        if run.step == 10:
            print("running", flush=True)
    def on_train_end(self, run):
        self.ended = True

learner = et.Learner(eqx.nn.Linear(4, 1, key=jr.key(0)), optax.sgd(0.1), loss=optax.l2_loss)
x, y = np.ones((64, 4), np.float32), np.ones((64, 1), np.float32)
tell = Tell()
"""


@pytest.mark.slow
def test_ctrl_c_in_a_real_notebook_kernel_returns_the_learner() -> None:
    manager = library("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        said: list[str] = []

        def run(code: str, *, interrupt: bool = False) -> None:
            said.clear()

            def hear(message: Any) -> None:
                content = message["content"]
                said.append(str(content.get("text") or content.get("data") or ""))
                if interrupt and "running" in said[-1]:
                    kernel.interrupt_kernel()

            reply = client.execute_interactive(code, timeout=120, output_hook=hear)
            assert reply["content"]["status"] == "ok", reply["content"].get("traceback")

        run(CELLS)
        run("fitted, history = learner.fit(x, y, epochs=10**6, callbacks=tell)", interrupt=True)
        assert any("Interrupted in epoch" in text for text in said), said
        run("step = int(fitted.state.step); print(history.stopped, tell.ended, step >= 10)")
        assert "".join(said).split() == ["interrupted", "True", "True"]
        run("again, history = fitted.fit(x, y, epochs=2, verbose=0); print(history.stopped)")
        assert "".join(said).split() == ["None"]
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
