"""The event files that TensorBoard reads."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._extras import optional
from ._describe import describe_end, describe_run
from ._every import Every
from ._media_logger import MediaLogger
from ._run import Run

_WHO = ("tensorboard", "TensorBoard")


class TensorBoard(MediaLogger):
    """Writes curves, histograms and images for TensorBoard.

    Needs `pip install 'eqxtrain[tensorboard]'`. The curves of training are in the folder `train`,
    those of validation in `validation` (and `validation/<name>` for named sets), under the same
    names, so that TensorBoard draws `loss` and `val_loss` in one plot, over the steps. Beside them
    stand the learner's configuration and summary, versions and compiles as texts, and what the tab
    for hyperparameters shows.

    Give each run a folder of its own. A run that goes on from step *n* in the folder of another
    takes the place of what that one wrote after step *n*, and so does a resumed run.

    **Arguments:**

    - `log_dir`: the folder; `tensorboard --logdir` shows it.
    - `every`: how often numbers are written: after each epoch by default. `Every(steps=n)` also
        writes what the epoch has measured so far, as Keras's `update_freq` does, and
        `Every(epochs=n)` writes after every so many epochs alone.
    - `histogram_every`: how often histograms of the model's arrays are written; None for never.
    - `images`: a function of the run that returns images by their names: an array `(height, width)`
        or with channels, or a batch of such; a figure of matplotlib's, which is closed then; or a
        list of either. Values are from 0 to 255 in `uint8`, else from 0 to 1.
    - `images_every`: how often that is called: after each epoch by default.
    - `hyperparameters`: numbers, strings and bools to compare runs by, in addition to the fields of
        the learner and the arguments of `fit`.

    !!! example

        ```python
        board = et.callbacks.TensorBoard(
            "logs/first",
            every=et.Every(steps=100),
            histogram_every=et.Every(epochs=1),
            images=lambda run: {"samples": run.learner.predict(x[:8])},
        )
        learner.fit(x, y, epochs=10, validation_split=0.1, callbacks=board)
        ```
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        *,
        every: Every | None = None,
        histogram_every: Every | None = None,
        images: Callable[[Run], Mapping[str, Any]] | None = None,
        images_every: Every | None = None,
        hyperparameters: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        optional("tensorboardX", *_WHO)
        super().__init__(
            every=every, histogram_every=histogram_every, images=images, images_every=images_every
        )
        self.log_dir: Path = Path(log_dir)
        self.hyperparameters: dict[str, Any] = dict(hyperparameters or {})
        self._files: dict[str, _EventFile] = {}
        self._step: int = 0
        self._began_at: int = 0

    def state_dict(self) -> dict[str, Any]:
        """The last step that it has written."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: the next `fit` replaces what came after that step."""
        self._step, self._resumes = state["step"], True

    def _begin(self, run: Run) -> None:
        if not self._resumes:
            self._step = run.step
        self._files, self._began_at = {}, self._step
        description = describe_run(run)
        file = self._file(".")
        file.write_text("summary", description.pop("summary"), run.step)
        file.write_text("run", json.dumps(description, indent=2), run.step)
        values = _flat(description["configuration"]) | _flat(description["params"])
        curves = [self._curve(name, run) for name in run.directions]
        file.write_hyperparameters(values | self.hyperparameters, curves)
        file.flush()

    def _end(self, run: Run) -> None:
        file = self._file(".")
        file.write_text("end", json.dumps(describe_end(run), indent=2), run.step)
        for file in self._files.values():
            file.close()
        self._files = {}

    def _write_numbers(self, step: int, values: dict[str, int | float], run: Run) -> None:
        for name, value in values.items():
            folder, tag = self._curve(name, run)
            self._file(folder).write_summary("scalar", tag, value, step=step)
        self._step = max(self._step, step)

    def _write_histogram(self, name: str, values: np.ndarray, run: Run) -> None:
        self._file("train").write_summary("histogram", name, values, 64, step=run.step)

    def _write_images(self, name: str, images: list[np.ndarray], run: Run) -> None:
        for i, image in enumerate(images):
            tag = name if len(images) == 1 else f"{name}/{i}"
            self._file("train").write_summary("image", tag, image, 1, "HWC", step=run.step)

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def _curve(self, name: str, run: Run) -> tuple[str, str]:
        """The folder and the name of a curve. Those of one log have the same name."""
        prefixes = [p for p in run.validation_prefixes if name.startswith(p)]
        if not prefixes:
            return "train", name
        prefix = max(prefixes, key=len)
        folder = "/".join(filter(None, ("validation", prefix.removeprefix("val_").rstrip("_"))))
        return folder, name.removeprefix(prefix)

    def _file(self, folder: str) -> "_EventFile":
        if folder not in self._files:
            self._files[folder] = _EventFile(self.log_dir / folder, replaces_after=self._began_at)
        return self._files[folder]


class _EventFile:
    """One file of events. What is written is on the disk after `flush`.

    `tensorboardX.SummaryWriter` would write in a thread, whose queue `flush` does not empty, and
    would overwrite a file of the same second.

    **Arguments:**

    - `replaces_after`: TensorBoard drops what earlier files of the folder have after this step.
    """

    def __init__(self, folder: Path, *, replaces_after: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._summary: Any = optional("tensorboardX.summary", *_WHO)
        self._proto: Any = optional("tensorboardX.proto.event_pb2", *_WHO)
        writer: Any = optional("tensorboardX.event_file_writer", *_WHO)
        count = len(list(folder.glob("events.*")))  # TensorBoard reads them by name
        self._writer: Any = writer.EventsWriter(str(folder / "events"), f".{count:04}")
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(replaces_after + 1, session_log=start)

    def write_summary(self, kind: str, tag: str, *values: Any, step: int) -> None:
        """Write what tensorboardX's function of this name makes of some values."""
        self._write(step, summary=getattr(self._summary, kind)(tag, *values))

    def write_text(self, tag: str, text: str, step: int) -> None:
        """Write a text as it stands; TensorBoard would take it for Markdown."""
        self.write_summary("text", tag, f"```\n{text}\n```", step=step)

    def write_hyperparameters(
        self, values: Mapping[str, Any], curves: list[tuple[str, str]]
    ) -> None:
        """Write what the tab for hyperparameters shows.

        **Arguments:**

        - `curves`: the folder and the name of each curve to compare runs by.
        """
        api: Any = optional("tensorboardX.proto.api_pb2", *_WHO)
        plugin: Any = optional("tensorboardX.proto.plugin_hparams_pb2", *_WHO)
        experiment, *rest = self._summary.hparams(dict(values), {})
        content = experiment.value[0].metadata.plugin_data
        data = plugin.HParamsPluginData.FromString(content.content)
        names = [api.MetricName(group=folder, tag=tag) for folder, tag in curves]
        data.experiment.metric_infos.extend(api.MetricInfo(name=name) for name in names)
        content.content = data.SerializeToString()
        for summary in (experiment, *rest):
            self._write(0, summary=summary)

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._proto.Event(wall_time=time.time(), step=step, **what))
        self._is_flushed = False

    def flush(self) -> None:
        if not self._is_flushed:  # it asks the disk to, which may take a while
            self._writer.flush()
            self._is_flushed = True

    def close(self) -> None:
        self._writer.close()


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Plain data as one dict, with names such as `loss/0`."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    flat: dict[str, Any] = {}
    for key, part in parts:
        path = f"{name}{key}"
        flat |= _flat(part, f"{path}/") if isinstance(part, dict | list) else {path: part}
    return flat
