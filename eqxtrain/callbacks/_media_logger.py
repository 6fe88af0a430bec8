"""`MediaLogger`: loggers that show curves, histograms of the weights, and images."""

import abc
import importlib
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import equinox as eqx
import numpy as np

from .. import _tree
from .._placement import as_numpy, fetch
from ._every import Every
from ._logger import Logger, numbers
from ._run import Run

_EACH_EPOCH = Every(epochs=1)
_CHANNELS = (1, 3, 4)


class MediaLogger(Logger):
    """A logger that can show histograms of the weights, and images.

    **Arguments:**

    - `every`: how often numbers are written: by default after each epoch.
    - `histogram_every`: how often histograms of the model's arrays are written; None for never.
    - `images`: a function of the run that returns images by their names: an array `(height, width)`
        or with channels, or a batch of such; a figure of matplotlib's, which is closed then; or a
        list of either. Values are from 0 to 255 in `uint8`, else from 0 to 1.
    - `images_every`: how often that is called: by default after each epoch.
    """

    def __init__(
        self,
        *,
        every: Every | None,
        histogram_every: Every | None,
        images: Callable[[Run], Mapping[str, Any]] | None,
        images_every: Every | None,
    ) -> None:
        self._numbers_every: Every = every or _EACH_EPOCH
        self._histograms_every: Every | None = histogram_every
        self._images: Callable[[Run], Mapping[str, Any]] | None = images
        self._images_every: Every | None = (images_every or _EACH_EPOCH) if images else None
        looks = [e for e in (self._histograms_every, self._images_every) if e is not None]
        if any(e.steps for e in looks):
            self.reads: Literal["state", "logs"] = "state"
        # The hook is called whenever something may be due; what is due, we decide.
        steps = [e.steps for e in (self._numbers_every, *looks) if e.steps]
        super().__init__(Every(steps=math.gcd(*steps)) if steps else None)
        self._num_validations: int = 0
        self._written: tuple[int, set[str]] = (0, set())

    def on_train_begin(self, run: Run) -> None:
        self._num_validations = len(run.history.validations)
        self._written = (run.step, set())
        super().on_train_begin(run)

    def on_train_batch_end(self, run: Run) -> None:
        self._write_validations(run)
        self._write_due(run, lambda every: every.steps is not None and run.step % every.steps == 0)

    def on_epoch_end(self, run: Run) -> None:
        self._write_validations(run)
        within = self._numbers_every.steps is not None

        def is_due(every: Every) -> bool:
            at_end = every.epochs is not None and (run.epoch + 1) % every.epochs == 0
            return at_end or (within and every is self._numbers_every)

        self._write_due(run, is_due)

    def _write_due(self, run: Run, is_due: Callable[[Every], bool]) -> None:
        if is_due(self._numbers_every):
            self._write(run)
        if self._histograms_every is not None and is_due(self._histograms_every):
            for name, values in _weights(run.learner.model):
                self._write_histogram(name, values, run)
        if self._images is not None and self._images_every and is_due(self._images_every):
            for name, value in self._images(run).items():
                self._write_images(name, _as_images(name, value), run)
        self._flush()

    def _write(self, run: Run) -> None:
        values = numbers(run.logs)
        last = run.history.validations[-1:]
        if last and last[0]["step"] != run.step:  # written at its own step
            values = {name: value for name, value in values.items() if name not in last[0]}
        self._write_new(run.step, values, run)

    def _write_validations(self, run: Run) -> None:
        """Write the validations since the last time, each at its own step."""
        validations = run.history.validations
        for record in validations[self._num_validations :]:
            values = {n: v for n, v in numbers(record).items() if n not in ("epoch", "step")}
            self._write_new(record["step"], values, run)
        self._num_validations = len(validations)

    def _write_new(self, step: int, values: dict[str, int | float], run: Run) -> None:
        """Write numbers, except for those that this step has already."""
        names = self._written[1] if self._written[0] == step else set[str]()
        new = {name: value for name, value in values.items() if name not in names}
        self._written = (step, names | set(new))
        if new:
            self._write_numbers(step, new, run)

    @abc.abstractmethod
    def _write_numbers(self, step: int, values: dict[str, int | float], run: Run) -> None: ...

    @abc.abstractmethod
    def _write_histogram(self, name: str, values: np.ndarray, run: Run) -> None:
        """Write finite numbers as a histogram."""

    @abc.abstractmethod
    def _write_images(self, name: str, images: list[np.ndarray], run: Run) -> None:
        """Write images `(height, width, channels)`, with values from 0 to 255."""

    def _flush(self) -> None:
        """See to it that what was written survives a crash."""


def _weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The finite numbers of each array of a model, by paths such as `weights/layers/0/bias`."""
    arrays = fetch(eqx.filter(model, _tree.is_inexact))
    for path, array in _tree.paths(arrays):
        parts = [part for part in re.split(r"[\[\].'\"]+", path) if part]
        values = np.abs(array) if np.iscomplexobj(array) else array
        values = values.astype(np.float64).ravel()
        finite = values[np.isfinite(values)]
        if finite.size:
            yield "/".join(["weights", *parts]), finite


def _as_images(name: str, value: Any) -> list[np.ndarray]:
    """Images as a user gives them, as arrays `(height, width, channels)` of `uint8`."""
    if isinstance(value, list | tuple):
        return [image for part in value for image in _as_images(name, part)]
    if hasattr(value, "savefig"):
        return [_draw(value)]
    array = as_numpy(value)
    if array.ndim == 4:
        return [image for part in array for image in _as_images(name, part)]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[-1] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in _CHANNELS:
        raise ValueError(
            f"`images` returned {name!r} with the shape {array.shape}. An image is `(height, "
            "width)`, or has 1, 3 or 4 channels as its first or its last axis; a batch of them has "
            "one more axis in front, and four in all."
        )
    if array.dtype != np.uint8:
        array = (np.clip(array.astype(np.float32), 0, 1) * 255).round().astype(np.uint8)
    return [array]


def _draw(figure: Any) -> np.ndarray:
    """A figure of matplotlib's as an image."""
    agg: Any = importlib.import_module("matplotlib.backends.backend_agg")
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    image = as_numpy(canvas.buffer_rgba())[..., :3].copy()
    if "matplotlib.pyplot" in sys.modules:  # which keeps the figures that it made
        sys.modules["matplotlib.pyplot"].close(figure)
    return image
