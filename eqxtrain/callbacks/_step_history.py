"""A callback that records single steps."""

from typing import Literal, final

from ._base import Callback
from ._every import Every
from ._run import Run


@final
class StepHistory(Callback):
    """Records the logs after single steps in `history.step_logs`.

    The numbers are those of `run.logs`: the mean of the epoch so far, as in Keras, rather than that
    of the one step. Arrays are left out. Each record waits for the device, so a record of every
    step makes short steps slower.

    **Arguments:**

    - `every`: `Every(steps=n)`; by default, each step.

    !!! example

        ```python
        steps = et.callbacks.StepHistory(et.Every(steps=10))
        learner, history = learner.fit(x, y, epochs=3, callbacks=steps)
        history.to_pandas(per="step")
        history.plot(per="step")
        ```
    """

    reads: Literal["state", "logs"] = "logs"
    adds: tuple[str, ...] | None = ()

    def __init__(self, every: Every | None = None) -> None:
        if every is not None and every.steps is None:
            raise ValueError(
                f"`StepHistory(every)` must be `Every(steps=...)`, since the history has each "
                f"epoch in any case; got {every}."
            )
        self.every: Every | None = every

    def on_train_batch_end(self, run: Run) -> None:
        numbers = {n: float(v) for n, v in run.logs.items() if isinstance(v, int | float)}
        run.history.step_logs.append({"epoch": run.epoch, "step": run.step, **numbers})
