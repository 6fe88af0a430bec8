"""How fast training is."""

import math
from collections.abc import Callable
from typing import Any, Literal

from .._check import check_real_number, is_whole
from ._base import Callback
from ._run import Run


class Throughput(Callback):
    """Adds to the logs of each epoch how fast its training steps were.

    It waits for nothing. Compiles and validations don't count: they are left out of all rates.
    Callbacks that stand behind it in the list see its numbers, so put it before the loggers.

    | log | |
    |---|---|
    | `steps_per_second`, `examples_per_second` | padding is no example |
    | `tokens_per_second` | with `tokens` |
    | `flops_per_second` | operations, as `Learner.forecast` counts them; nan with `eager=True` |
    | `mfu` | the share of `peak_flops` that these are, with `peak_flops` |
    | `data_wait` | the share of the time in which the device waited for data, 0 to 1 |
    | `compile_seconds` | how long training stood still for tracing and compiling |

    **Arguments:**

    - `tokens`: how many tokens an example has, or a function of the run that returns how many the
        epoch had, such as `lambda run: run.logs["tokens"]` for a metric of that name.
    - `peak_flops`: how many operations a second the devices can do at most, for `mfu` (model FLOPs
        utilisation).

    !!! example

        ```python
        speed = et.callbacks.Throughput(tokens=1024)
        learner, history = learner.fit(x, y, epochs=3, callbacks=speed)
        print(history["tokens_per_second"])
        ```
    """

    reads: Literal["state", "logs"] = "logs"
    times_device: bool = True

    def __init__(
        self,
        *,
        tokens: int | Callable[[Run], Any] | None = None,
        peak_flops: float | None = None,
    ) -> None:
        if not (tokens is None or callable(tokens) or (is_whole(tokens) and tokens > 0)):
            raise ValueError(
                "`Throughput(tokens)` must be how many tokens an example has, or a function of the "
                f"run that counts those of an epoch; got {tokens!r}."
            )
        if peak_flops is not None:
            check_real_number("Throughput(peak_flops)", peak_flops, at_least=1)
        self.tokens: int | Callable[[Run], Any] | None = tokens
        self.peak_flops: float | None = peak_flops
        names = ("steps_per_second", "examples_per_second", "flops_per_second")
        names += ("data_wait", "compile_seconds")
        names += () if tokens is None else ("tokens_per_second",)
        self.adds: tuple[str, ...] | None = names + (() if peak_flops is None else ("mfu",))

    def on_epoch_end(self, run: Run) -> None:
        timing, logs = run.timing, run.logs
        seconds = timing.seconds or math.nan  # nan where the epoch had no steps
        logs["steps_per_second"] = timing.steps / seconds
        logs["examples_per_second"] = timing.examples / seconds
        if self.tokens is not None:
            logs["tokens_per_second"] = self._count_tokens(run) / seconds
        logs["flops_per_second"] = timing.flops / seconds
        if self.peak_flops is not None:
            logs["mfu"] = timing.flops / seconds / self.peak_flops
        logs["data_wait"] = (timing.idle or 0.0) / seconds
        logs["compile_seconds"] = timing.compile_wait

    def _count_tokens(self, run: Run) -> float:
        if callable(self.tokens):
            return float(self.tokens(run))
        assert self.tokens is not None
        return float(self.tokens * run.timing.examples)
