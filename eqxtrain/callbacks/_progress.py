"""The progress of a run, for whoever watches.

The bar is drawn by hand: `rich.progress` takes 1.2 ms for an update that takes 0.1 ms here, and
shows nothing in a notebook without `ipywidgets`.
"""

import threading
import time
from typing import Literal, final, get_args

from .._display import text
from .._display.line import fit
from .._display.meter import Meter
from .._display.plot import Plot
from .._display.sinks import Sink
from .._display.ticker import Ticker
from .._display.where import Verbose, check_can_plot, choose_sink
from .._engine import compile_log
from .._engine.compile import seconds_spent
from ._base import Callback
from ._run import Run


@final
class Progress(Callback):
    """Shows how a run is going: `fit` adds one unless `verbose=0`.

    Each epoch has a line with its numbers, how long it took, and how fast it went. A live line
    below shows the epoch under way, a compile that it waits for, and its validation. Showing it
    never waits for the device.

    **Arguments:**

    - `verbose`: 1 or `"auto"` for a live line in a terminal or a notebook, and elsewhere for plain
        lines; 2 for one line per epoch. `"plot"`, in a notebook, for the curves of training and
        validation, redrawn after each epoch, with the last line above.
    """

    reads: Literal["state", "logs"] = "logs"
    adds: tuple[str, ...] | None = ()
    _once_a_call = True

    def __init__(self, verbose: Verbose = "auto") -> None:
        if verbose not in get_args(Verbose):
            raise ValueError(
                f'`Progress(verbose)` must be 1, 2, "auto" or "plot"; got {verbose!r}.'
            )
        if verbose == "plot":
            check_can_plot()
        self._verbose: Verbose = verbose
        self._plot: Plot | None = None
        self._sink: Sink | None = None
        self._ticker: Ticker | None = None
        self._thread: int = 0
        self._passes: tuple[text.Pass, ...] = ()  # the last one is shown; validation is in an epoch
        self._looks_at: float = 0.0
        self._validated: float = 0.0
        self._compiled_before: float = 0.0

    # Training.

    def on_train_begin(self, run: Run) -> None:
        self._open()
        self._plot = Plot() if self._verbose == "plot" else None

    def on_epoch_begin(self, run: Run) -> None:
        self._draw_curves(run)
        epoch, epochs = run.epoch + 1, run.params["epochs"]
        number = f"{epoch}" if epochs is None else f"{epoch}/{epochs}"
        self._compiled_before = seconds_spent()
        self._begin(run, (f"Epoch {number}", number))

    def on_train_batch_end(self, run: Run) -> None:
        self._count(run)

    def on_epoch_end(self, run: Run) -> None:
        self._end(run)

    def on_train_end(self, run: Run) -> None:
        self._close()
        self._draw_curves(run, is_last=True)

    def on_exception(self, run: Run) -> None:
        self._close()
        self._draw_curves(run, is_last=True)

    # Evaluation, perhaps within training, and prediction.

    def on_test_begin(self, run: Run) -> None:
        if self._passes:
            self._begin(run, self._passes[0].title, "validating")
        else:
            self._begin_alone(run, "Evaluating")

    def on_test_batch_end(self, run: Run) -> None:
        self._count(run)

    def on_test_end(self, run: Run) -> None:
        if len(self._passes) > 1:
            *outer, validation = self._passes
            self._passes = tuple(outer)
            self._validated += validation.meter.work(*self._times())
        else:
            self._end(run)
            self._close()

    def on_predict_begin(self, run: Run) -> None:
        self._begin_alone(run, "Predicting")

    def on_predict_batch_end(self, run: Run) -> None:
        self._count(run)

    def on_predict_end(self, run: Run) -> None:
        self._end(run)
        self._close()

    # What they have in common.

    def _open(self) -> None:
        self._close()
        self._thread, self._validated = threading.get_ident(), 0.0
        self._sink = choose_sink(self._verbose)
        self._sink.open()
        if self._sink.is_live:
            self._ticker = Ticker(self._update, self._sink.redraws_every)

    def _begin_alone(self, run: Run, name: str) -> None:
        self._open()
        self._compiled_before = seconds_spent()
        self._begin(run, (name, name))

    def _begin(self, run: Run, title: tuple[str, str], part: str = "") -> None:
        now, left_out = self._times()
        meter, batch_size = Meter(now, left_out), run.params["batch_size"]
        begun = text.Pass(title, meter, run.steps_of_pass, batch_size, part)
        self._passes = (*self._passes, begun)
        if self._sink is not None:
            self._looks_at = now + self._sink.looks_every
            self._update()

    def _times(self) -> tuple[float, float]:
        """The time, and how much of it went into other things than the steps of the epoch."""
        return time.monotonic(), seconds_spent() + self._validated

    def _count(self, run: Run) -> None:
        current = self._passes[-1]
        current.steps += run._steps_of_call
        if time.monotonic() >= self._looks_at:
            self._look(run, current)

    def _look(self, run: Run, current: text.Pass) -> None:
        """Look at the numbers that have arrived, for the next redraw."""
        now, left_out = self._times()
        current.meter.mark(now, left_out, current.steps)
        current.logs = text.as_text(run.recent_logs)
        if self._sink is not None:
            self._looks_at = now + self._sink.looks_every
            if self._ticker is None:
                self._update()

    def _draw_curves(self, run: Run, *, is_last: bool = False) -> None:
        if self._plot is not None:
            self._plot.show(run.history.plot, run.history.epochs, is_last=is_last)
        if is_last:
            self._plot = None

    def _update(self) -> None:
        if self._sink is not None:
            self._sink.update(self._live_line)

    def _live_line(self, width: int | None) -> str | None:
        passes = self._passes
        if not passes:
            return None
        waits = [wait for wait in compile_log.waiting() if wait.thread == self._thread]
        compiling = (waits[-1].step, waits[-1].seconds) if waits else None
        return fit(text.under_way(passes[-1], time.monotonic(), compiling), width)

    def _end(self, run: Run) -> None:
        current = self._passes[-1]
        self._passes = ()  # first of all, so that the ticker draws it no more
        if current.steps and self._sink is not None:
            if run.timing.steps == current.steps:  # known to the example, the last batch included
                current.batch_size = run.timing.examples / run.timing.steps
            current.logs = text.as_text(run.logs)
            compiling = seconds_spent() - self._compiled_before
            pieces = text.done(current, *self._times(), compiling)
            self._sink.line(lambda width: fit(pieces, width))

    def _close(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
        if self._sink is not None:
            self._sink.close()
        self._ticker, self._sink, self._passes = None, None, ()
