"""Runs on Weights & Biases."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._extras import optional
from ._describe import describe_end, describe_run
from ._every import Every
from ._media_logger import MediaLogger
from ._run import Run


class WandB(MediaLogger):
    """Logs a run to Weights & Biases.

    Needs `pip install 'eqxtrain[wandb]'`. What is measured goes by the names of the history, over
    `step`, beside the `epoch`; the learner's configuration and summary, the arguments of `fit` and
    the versions are the run's `config`, and how it ended, compiles included, is in its `summary` as
    `end`. If `wandb.init` was called before, that run is used, and left open.

    After `load_state_dict`, the same run goes on, by its id. W&B can't take rows back: those that
    came after the checkpoint stay, beside those of the resumed run, which are the same.

    **Arguments:**

    - `project`: where the run belongs.
    - `every`, `histogram_every`, `images`, `images_every`: as of
        [`eqxtrain.callbacks.TensorBoard`][].
    - `init`: other arguments of `wandb.init`, such as `name`, `group`, `id` or `mode="offline"`.

    **Attributes:**

    - `id`: the id of the run, once there is one.

    !!! example

        ```python
        learner.fit(x, y, epochs=10, callbacks=et.callbacks.WandB("digits", mode="offline"))
        ```
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        every: Every | None = None,
        histogram_every: Every | None = None,
        images: Callable[[Run], Mapping[str, Any]] | None = None,
        images_every: Every | None = None,
        **init: Any,
    ) -> None:
        self._wandb: Any = optional("wandb", "wandb", "WandB")
        super().__init__(
            every=every, histogram_every=histogram_every, images=images, images_every=images_every
        )
        self.project: str | None = project
        self.id: str | None = init.get("id")
        self._init: dict[str, Any] = init
        self._run: Any = None
        self._is_ours: bool = False

    def state_dict(self) -> dict[str, Any]:
        """The id of the run."""
        return {"id": self.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: the next `fit` goes on with that run."""
        self.id, self._resumes = state["id"], True

    def _begin(self, run: Run) -> None:
        self._run = self._wandb.run
        self._is_ours = self._run is None
        if self._is_ours:
            resumed = {"id": self.id, "resume": "allow"} if self._resumes else {}
            self._run = self._wandb.init(**{"project": self.project, **self._init, **resumed})
        self.id = self._run.id
        self._run.config.update(describe_run(run), allow_val_change=True)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def _end(self, run: Run) -> None:
        self._run.summary["end"] = describe_end(run)
        if self._is_ours:
            self._run.finish(exit_code=0 if run.exception is None else 1)
        self._run = None

    def _write_numbers(self, step: int, values: dict[str, int | float], run: Run) -> None:
        self._run.log({"step": step, "epoch": run.epoch, **values})

    def _write_histogram(self, name: str, values: np.ndarray, run: Run) -> None:
        histogram = self._wandb.Histogram(np_histogram=np.histogram(values, 64))
        self._run.log({"step": run.step, name: histogram})

    def _write_images(self, name: str, images: list[np.ndarray], run: Run) -> None:
        shown = [self._wandb.Image(image.squeeze()) for image in images]
        self._run.log({"step": run.step, name: shown})
