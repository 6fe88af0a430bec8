"""What people watch: in terminals, files and notebooks, while a run goes on and when it ends."""

import base64
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import CROSS_ENTROPY, Tape, data, learner, linear
from notebooks import notebook
from screens import Screen, screen

import eqxtrain as et
from eqxtrain import _placement
from eqxtrain._display.sinks import Lines, Terminal
from eqxtrain._format import number
from eqxtrain.callbacks import Progress


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[Screen]:
    """A terminal that shows everything at once, and has standard output and standard error."""
    with screen(columns) as opened, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", opened.stream)
        patch.setattr(sys, "stderr", opened.stream)
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(Terminal, "looks_every", 0.0)
        patch.setattr(Terminal, "redraws_every", 0.005)
        yield opened


class Hook(et.Callback):
    """Calls a function with the run, in some hooks."""

    reads = "logs"

    def __init__(self, **hooks: Callable[[et.Run], None]) -> None:
        for name, hook in hooks.items():
            setattr(self, name, hook)


def is_shown(shown: Screen, text: str) -> None:
    """Wait until a text is in the live line."""
    shown.wait_until(lambda lines: bool(lines) and text in lines[-1])


# Terminals.


@pytest.mark.slow
@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_terminal_has_a_line_for_each_epoch_and_the_live_one_beneath(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    live: list[str] = []

    def looks(run: et.Run) -> None:
        epoch = f"{run.epoch + 1}/3"
        is_shown(shown, epoch)
        *done, line = shown.lines()
        assert [f"{i + 1}/3" in text for i, text in enumerate(done)] == [True] * run.epoch
        live.append(line)

    x, y = data()
    with terminal(monkeypatch, columns) as shown:
        _, history = learner().fit(
            x, y, epochs=3, batch_size=7, validation_data=(x, y),
            callbacks=Hook(on_train_batch_end=looks),
        )  # fmt: skip
        lines = shown.lines()
        assert len(lines) == 3 and shown.cursor() == (3, 0, True)
        for i, line in enumerate(lines):
            assert re.match(rf"(Epoch )?{i + 1}/3  ", line)
            assert f"loss: {number(history['loss'][i])}" in line
        if columns == 200:
            assert f"val_accuracy: {number(history['val_accuracy'][2])}" in lines[2]
            assert re.search(r"examples/s  loss: .*  accuracy: .*  val_loss: ", lines[2])
        assert len(live) == 9 and not shown.wraps()
        assert "\x1b" not in shown.written
        assert all(len(shot) <= 4 for shot in shown.shots)


def test_the_bar_grows_and_shows_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[str] = []

    def looks(run: et.Run) -> None:
        if run.step:
            is_shown(shown, f"{run.step}/8")
            bars.append(shown.lines()[-1])
        while run.step == 7 and not run.recent_logs:
            time.sleep(0.001)

    def numbers(run: et.Run) -> None:
        is_shown(shown, "loss: ")
        is_shown(shown, "accuracy: ")

    with terminal(monkeypatch, 120) as shown:
        learner().fit(
            *data(24), batch_size=3, steps_per_call=1,
            callbacks=Hook(on_train_batch_begin=looks, on_epoch_end=numbers),
        )  # fmt: skip
    filled = [line.count("━") for line in bars]
    assert filled == [20 * step // 8 for step in range(1, 8)]


def test_a_terminal_may_be_resized_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {2: 30, 4: 100, 6: 20, 8: 60}

    def resizes(run: et.Run) -> None:
        if columns := sizes.get(run.step):
            assert bar._sink is not None
            with bar._sink._lock:  # what was written for another width would be cut, or wrap
                shown.resize(columns)
        is_shown(shown, "1/2" if run.epoch == 0 else "2/2")
        assert len(shown.lines()) == run.epoch + 1

    bar = Progress()
    with terminal(monkeypatch, 80) as shown:
        callbacks = [Hook(on_train_batch_begin=resizes), bar]
        learner().fit(*data(20), epochs=2, batch_size=4, callbacks=callbacks, verbose=0)
        assert [line[:10] for line in shown.lines()] == ["Epoch 1/2 ", "Epoch 2/2 "]


def test_validation_is_nested_in_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def looks(run: et.Run) -> None:
        is_shown(shown, "validating")
        seen.append(shown.lines()[-1])

    x, y = data(21)
    with terminal(monkeypatch, 200) as shown:
        learner().fit(
            x, y, epochs=2, batch_size=7, validation_data=(x[:10], y[:10]), validation_steps=1,
            callbacks=Hook(on_test_batch_end=looks),
        )  # fmt: skip
        assert len(seen) == 2 and len(shown.lines()) == 2
    assert re.match(r"Epoch 1/2  validating  ╺+  0/1  0s", seen[0])


@pytest.mark.slow
def test_validation_between_two_steps_gives_way_to_the_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = data(24)
    with terminal(monkeypatch, 200) as shown:
        learner().fit(
            x, y, batch_size=3, validation_data=(x, y), validation_freq=et.Every(steps=3),
            steps_per_call=1, callbacks=Hook(
                on_train_batch_begin=lambda run: is_shown(shown, f"{run.step}/8"),
                on_test_batch_end=lambda run: is_shown(shown, "validating"),
            ),
        )  # fmt: skip
        assert re.match(r"Epoch 1/1  8/8 .* val_accuracy: \S+$", shown.lines()[0])


@pytest.mark.parametrize("columns", [20, 80])
def test_evaluate_and_predict_have_a_bar_of_their_own(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data(21)
    made = learner().init()
    with terminal(monkeypatch, columns) as shown:
        seen = Hook(
            on_test_batch_end=lambda run: is_shown(shown, "Evaluating"),
            on_predict_batch_end=lambda run: is_shown(shown, "Predicting"),
        )
        logs = made.evaluate(x, y, batch_size=7, verbose=1, callbacks=seen)
        made.predict(x, batch_size=7, verbose=1, callbacks=seen)
        first, second = shown.lines()
        assert number(logs["loss"]) in first and second.startswith("Predicting")
        assert columns == 20 or re.match(r"Predicting  3/3  \S+ ", second)
        assert shown.cursor() == (2, 0, True) and not shown.wraps()


def test_a_compile_is_shown_while_it_lasts_and_then_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lowered:
        def __init__(self, lowered: Any) -> None:
            self._lowered = lowered

        def compile(self) -> Any:
            takes_long = re.compile(r"compiling train_step, (0\.[2-9]|[1-9]\.)")
            shown.wait_until(lambda lines: any(map(takes_long.search, lines[-1:])))
            seen.append(shown.lines()[-1])
            return self._lowered.compile()

    class Compiles(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            jitted = jax.jit(fn, donate_argnums=(1, 2))

            class Jitted:
                def lower(self, *args: Any) -> Lowered:
                    return Lowered(jitted.lower(*args))

                def __call__(self, *args: Any) -> Any:
                    return jitted(*args)

            return Jitted()

    seen: list[str] = []
    with terminal(monkeypatch, 200) as shown:
        made = Compiles(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
        made.fit(*data(21), batch_size=7, epochs=2)
        lines = shown.lines()
    assert [line[:10] for line in seen] == ["Epoch 1/2 "]
    assert re.search(r" 0/3  compiling train_step, \S+s$", seen[0])
    assert re.search(r"  \S+ \(\S+s compiling\)  ", lines[0]) and "compil" not in lines[1]


def test_what_others_print_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    def prints(run: et.Run) -> None:
        is_shown(shown, "Epoch 1/1")
        print(f"step {run.step}")

    with terminal(monkeypatch, 80) as shown:
        learner().fit(*data(21), batch_size=7, callbacks=Hook(on_train_batch_end=prints))
        *printed, last = shown.lines()
    assert printed == ["step 1", "step 2", "step 3"] and last.startswith("Epoch 1/1")


@pytest.mark.slow
def test_a_pass_within_a_run_has_its_line_above_the_run_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluates(run: et.Run) -> None:
        is_shown(shown, "Epoch 1/1")
        run.learner.evaluate(*data(), verbose=1, callbacks=within)

    within = Hook(on_test_batch_end=lambda run: is_shown(shown, "Evaluating"))
    with terminal(monkeypatch, 80) as shown:
        learner().fit(*data(21), callbacks=Hook(on_epoch_end=evaluates))
        assert [line[:10] for line in shown.lines()] == ["Evaluating", "Epoch 1/1 "]
        assert_is_over(shown)


# How a run ends.


def test_an_exception_leaves_the_terminal_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: et.Run) -> None:
        is_shown(shown, "Epoch 1/1")
        if run.step == 2:
            raise OSError("the disk is full")

    with terminal(monkeypatch, 80) as shown:
        with pytest.raises(OSError, match="the disk is full"):
            learner().fit(
                *data(21), batch_size=7, steps_per_call=1, callbacks=Hook(on_train_batch_end=fails)
            )
        assert_is_over(shown)
        assert len(shown.lines()) == 1 and shown.lines()[0].startswith("Epoch 1/1")


@pytest.mark.skipif(sys.platform == "win32", reason="`os.kill` ends the process there")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_the_terminal_in_order(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupts(run: et.Run) -> None:
        is_shown(shown, "Epoch 1/9")
        if run.step == 2:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    with terminal(monkeypatch, 80) as shown:
        with pytest.raises(KeyboardInterrupt):
            learner().fit(
                *data(21), epochs=9, batch_size=7, steps_per_call=1,
                callbacks=Hook(on_train_batch_end=interrupts),
            )  # fmt: skip
        assert_is_over(shown)
        assert shown.lines()[1].startswith("Stopping after the current steps")


def assert_is_over(shown: Screen) -> None:
    """The last line is ended, the streams are as before, and nobody draws any more."""
    row, column, is_visible = shown.cursor()
    assert (row, column, is_visible) == (len(shown.lines()), 0, True)
    assert sys.stdout is shown.stream and sys.stderr is shown.stream
    assert not any(thread.name == "progress" for thread in threading.enumerate())


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_epoch_end"])
def test_it_ends_wherever_a_run_fails(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: et.Run) -> None:
        raise OSError("the disk is full")

    with terminal(monkeypatch, 80) as shown:
        for callbacks in ([Hook(**{hook: fails})], [Progress(), Hook(**{hook: fails})]):
            verbose = 0 if len(callbacks) == 2 else "auto"
            with pytest.raises(OSError, match="the disk is full"):
                learner().fit(*data(21), batch_size=7, callbacks=callbacks, verbose=verbose)
            assert_is_over(shown)


def test_an_epoch_without_steps_has_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    stops = Hook(on_epoch_begin=lambda run: run.stop() if run.epoch == 1 else None)
    learner().fit(*data(21), epochs=3, callbacks=stops)
    assert len(capsys.readouterr().out.splitlines()) == 1


# What it costs.


@pytest.mark.slow
def test_its_hooks_wait_for_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Works(et.Learner[Any]):
        def train_step(self, **available: Any) -> Any:
            logs, model, state = super().train_step(**available)
            work = jax.lax.fori_loop(0, 200, lambda i, m: jnp.tanh(m @ m), jnp.eye(300))
            return {**logs, "work": work[0, 0]}, model, state

    ended: list[bool] = []
    count = Progress._count

    def counted(self: Progress, run: et.Run) -> None:
        control: Any = run._control
        count(self, run)
        ended.append(_placement.is_ready(control._runner.accumulators.leaves))

    monkeypatch.setattr(Progress, "_count", counted)
    with terminal(monkeypatch, 80):
        made = Works(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
        made.fit(*data(16), batch_size=4, steps_per_call=1)
    assert len(ended) == 4 and not all(ended)  # had it waited, all would have


def test_it_fetches_nothing_that_has_not_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    fetch = _placement.fetch
    monkeypatch.setattr(_placement, "is_ready", lambda tree: False)
    count, counts = Progress._count, []

    def counted(self: Progress, run: et.Run) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_placement, "fetch", lambda tree: fetched.append(tree) or fetch(tree))
            patch.setattr(_placement, "wait", fetched.append)
            count(self, run)
        counts.append(1)

    monkeypatch.setattr(Progress, "_count", counted)
    x, y = data(21)
    with terminal(monkeypatch, 80):
        options: dict[str, Any] = {"batch_size": 7, "steps_per_call": 1}
        made, _ = learner().fit(x, y, validation_data=(x, y), **options)
        made.predict(x, verbose=1, **options)
    assert len(counts) == 9 and fetched == []


# Elsewhere.


@pytest.mark.parametrize("verbose", [2, "auto", 1])
def test_where_nothing_can_be_overwritten_there_is_one_line_an_epoch(
    verbose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data()
    path = tmp_path / "out.txt"
    with path.open("w", encoding="utf-8") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        _, history = learner().fit(
            x, y, epochs=2, batch_size=7, validation_data=(x, y), verbose=verbose
        )
    written = path.read_bytes().decode()
    assert "\r" not in written and "\x1b" not in written and written.endswith("\n")
    lines = written.splitlines()
    assert len(lines) == 2
    for i, line in enumerate(lines):
        numbers = "  ".join(f"{name}: {number(column[i])}" for name, column in history.items())
        speed = r"\S+( \(\S+ compiling\))?  \S+ examples/s"
        assert re.fullmatch(rf"Epoch {i + 1}/2  3/3  {speed}  {re.escape(numbers)}", line)


def test_a_long_epoch_has_lines_in_between(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "looks_every", 0.0)
    monkeypatch.setattr(Lines, "redraws_every", 0.0)
    learner().fit(*data(), batch_size=7, verbose=1, steps_per_call=1)
    lines = capsys.readouterr().out.splitlines()
    assert [re.findall(r"\d/3", line)[0] for line in lines] == ["0/3", "1/3", "2/3", "3/3", "3/3"]


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = learner().fit(*data(), verbose=0)
    made.evaluate(*data())
    made.predict(data()[0])
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_evaluate_and_predict_show_a_line_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    made = learner().init()
    logs = made.evaluate(*data(), batch_size=7, verbose=2)
    made.predict(data()[0], batch_size=7, verbose=2)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Evaluating  3/3  ")
    assert first.endswith(f"loss: {number(logs['loss'])}  accuracy: {number(logs['accuracy'])}")
    assert re.fullmatch(r"Predicting  3/3  \S+( \(.* compiling\))?  \S+ examples/s", second)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_verbose_is_refused() -> None:
    wrong: Any = "loud"
    with pytest.raises(ValueError, match='must be 0, 1, 2, "auto" or "plot"; got'):
        learner().fit(*data(), verbose=wrong)
    with pytest.raises(ValueError, match='must be 1, 2, "auto" or "plot"; got'):
        Progress(wrong)


def test_a_plot_outside_of_a_notebook_is_refused_before_the_first_step() -> None:
    hooks = Tape()
    with pytest.raises(ValueError, match="draws the curves in a notebook, and this is none"):
        learner().fit(*data(), verbose="plot", callbacks=hooks)
    assert hooks.hooks == []


# Notebooks.

SETUP = """
import sys
import equinox as eqx, eqxtrain as et, jax.random as jr, numpy as np, optax
rng = np.random.default_rng(0)
x, y = rng.normal(size=(21, 4)).astype(np.float32), rng.integers(0, 3, 21)
learner = et.Learner(
    eqx.nn.Linear(4, 3, key=jr.key(0)), optax.sgd(0.1), metrics=et.metrics.Accuracy(),
    loss=optax.softmax_cross_entropy_with_integer_labels,
)
class Stops(et.Callback):
    def on_epoch_begin(self, run):
        if run.epoch == 2:
            raise OSError("the disk is full")
"""


@pytest.mark.slow
def test_a_notebook_is_saved_with_one_calm_output() -> None:
    with notebook() as book:
        assert book.run(SETUP) == []

        fit = "_, h = learner.fit(x, y, epochs=200, batch_size=7, validation_data=(x, y))"
        (output,) = book.run(fit)
        kinds = list(book.messages)
        lines = output["data"]["text/plain"].splitlines()
        assert lines[0] == "(170 earlier lines)" and len(lines) == 31
        numbers = book.run('print(format(h["loss"][-1], ".4f"), "ipywidgets" in sys.modules)')
        loss, has_widgets = numbers[0]["text"].split()
        assert re.match(r"Epoch 200/200  3/3  .* examples/s  loss: ", lines[-1])
        assert f"loss: {loss}" in lines[-1] and has_widgets == "False"
        assert "val_accuracy: " in lines[-1]
        assert "".join(lines[-1:]) in output["data"]["text/html"]
        # One output, replaced now and then: not for each epoch, and never cleared.
        assert kinds[0] == "display_data" and set(kinds[1:]) == {"update_display_data"}
        assert len(kinds) < 100

        (output,) = book.run("_ = learner.init().predict(x, verbose=1)")
        assert output["data"]["text/plain"].startswith("Predicting  1/1  ")

        plot = 'fitted = learner.fit(x, y, epochs=3, validation_data=(x, y), verbose="plot")'
        line, curves = book.run(plot)
        assert line["data"]["text/plain"].startswith("Epoch 3/3  ")
        assert len(line["data"]["text/plain"].splitlines()) == 1
        assert is_png(curves) and curves["data"]["text/plain"] == "The curves after epoch 3"
        assert book.messages.count("display_data") == 2

        fails = 'learner.fit(x, y, epochs=3, verbose="plot", callbacks=Stops())'
        line, curves, error = book.run(fails)
        assert line["data"]["text/plain"].startswith("Epoch 2/3  ")
        assert is_png(curves) and curves["data"]["text/plain"] == "The curves after epoch 2"
        assert error["output_type"] == "error" and error["ename"] == "OSError"


def is_png(output: dict[str, Any]) -> bool:
    return base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG\r\n")
