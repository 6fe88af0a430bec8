"""A trace of some steps, and how much memory the device had in use."""

import os
import sys
from pathlib import Path
from typing import Literal

import jax

from .._check import is_whole
from .._format import num_bytes
from .._warn import warn
from ._base import Callback
from ._every import Every
from ._run import Run

_NEVER = Every(steps=sys.maxsize)


class Profiler(Callback):
    """Records a trace of some steps with JAX's profiler, to see what host and device do in them.

    It waits for the device before the first of them and after the last, so that the trace has just
    these. Open `perfetto_trace.json.gz`, in a folder `plugins/profile/<time>` of `log_dir`, with
    <https://ui.perfetto.dev>; or `tensorboard --logdir <log_dir>`, with the plugin
    `tensorboard-plugin-profile`. Exceptions and Ctrl-C end the trace.

    **Arguments:**

    - `log_dir`: the folder; it is made.
    - `steps`: the first and the last step of the trace, counted from 1 in this call of `fit`. The
        first steps of a run are slower than the others.

    **Attributes:**

    - `peak_memory`: the most bytes that a device had in use, from the start of the process to the
        end of the trace; None where the platform does not tell, as on CPU.

    !!! example

        ```python
        profiler = et.callbacks.Profiler("trace", steps=(20, 25))
        learner.fit(x, y, callbacks=profiler)
        print(profiler)  # where the trace is, and the peak of the memory
        ```
    """

    reads: Literal["state", "logs"] = "state"
    adds: tuple[str, ...] | None = ()

    def __init__(
        self, log_dir: str | os.PathLike[str] = "logs", *, steps: tuple[int, int] = (10, 20)
    ) -> None:
        if len(steps) != 2 or not all(map(is_whole, steps)) or not 1 <= steps[0] <= steps[1]:
            raise ValueError(
                "`Profiler(steps)` must be the first and the last step of the trace, such as "
                f"(10, 20), counted from 1; got {steps!r}."
            )
        self.log_dir: Path = Path(log_dir)
        self.steps: tuple[int, int] = steps
        self.peak_memory: int | None = None
        self.every: Every | None = _NEVER
        self._last: int = 0
        self._is_tracing: bool = False
        self._has_trace: bool = False

    def on_train_begin(self, run: Run) -> None:
        self._has_trace = False
        first, self._last = (run.step + step for step in self.steps)
        if first == run.step + 1:
            self._start()
        else:
            # Due at the end of the step before, and not earlier: the next multiple of its number.
            self.every = Every(steps=first - 1)

    def on_train_batch_end(self, run: Run) -> None:
        _ = run.logs  # waits for the device
        if not self._is_tracing:
            self._start()
        elif run.step >= self._last:
            self._stop()

    def on_train_end(self, run: Run) -> None:
        self._stop()
        if not self._has_trace:
            warn(
                f"`Profiler(steps={self.steps})` has recorded nothing, because `fit` ended before "
                f"its step {self.steps[0]}: choose earlier steps, or train for longer."
            )

    def on_exception(self, run: Run) -> None:
        self._stop()

    def _start(self) -> None:
        try:
            jax.profiler.start_trace(str(self.log_dir), create_perfetto_trace=True)
        except RuntimeError as error:
            raise RuntimeError(
                "`Profiler` can't begin its trace: JAX records one at a time, and another one is "
                "under way. End that one first, with `jax.profiler.stop_trace()`."
            ) from error
        self._is_tracing, self.every = True, Every(steps=self._last)

    def _stop(self) -> None:
        self.every = _NEVER
        if not self._is_tracing:
            return
        self._is_tracing, self._has_trace = False, True
        jax.profiler.stop_trace()
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        peaks = [device["peak_bytes_in_use"] for device in stats if "peak_bytes_in_use" in device]
        self.peak_memory = max(peaks, default=None)

    def __repr__(self) -> str:
        first, last = self.steps
        if not self._has_trace:
            return f"Profiler(steps {first} to {last}; nothing is recorded yet)"
        memory = f"the platform {jax.default_backend()!r} does not tell the peak of its memory"
        if self.peak_memory is not None:
            memory = f"at most {num_bytes(self.peak_memory)} of a device's memory were in use"
        return f"Profiler(steps {first} to {last}, recorded in {self.log_dir}; {memory})"
