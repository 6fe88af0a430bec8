"""Values of metrics that can draw themselves: to NumPy, they are arrays like all others."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._figure import new_figure

_READABLE = 20
"""So many classes have room for their numbers in a matrix, or for their names in a legend."""

_LUMINANCE = np.array([0.299, 0.587, 0.114])


class Picture(np.ndarray):
    """An array with a `plot`. What is taken or computed from it is a plain array."""

    def __getitem__(self, index: Any) -> Any:
        return self.view(np.ndarray)[index]

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else array

    def __repr__(self) -> str:
        return repr(self.view(np.ndarray))

    def plot(self, class_names: Sequence[str] | None = None, *, ax: Any = None) -> Any:
        """Draw it. Needs matplotlib, `pip install 'eqxtrain[plot]'`, but no pyplot and no display.

        **Arguments:**

        - `class_names`: by default, the indices of the classes.
        - `ax`: a matplotlib axis to draw on; None for a figure of its own.

        **Returns:** the `matplotlib.figure.Figure`, which notebooks display.
        """
        axis = new_figure("plot()", 5.0, 4.2).add_subplot() if ax is None else ax
        self._draw(axis, self._names(class_names))
        return axis.get_figure(root=True)

    @property
    @abc.abstractmethod
    def _num_classes(self) -> int | None:
        """How many classes it shows; None where it shows something of all."""

    @abc.abstractmethod
    def _draw(self, axis: Any, names: list[str]) -> None: ...

    def _names(self, class_names: Sequence[str] | None) -> list[str]:
        count = self._num_classes
        if class_names is None:
            return [str(i) for i in range(count or 0)]
        if len(class_names) != (count or 0):
            shows = "no classes" if count is None else f"{count} classes"
            raise ValueError(
                f"`plot` was given {len(class_names)} `class_names`, but the picture shows {shows}."
            )
        return [str(name) for name in class_names]


class Matrix(Picture):
    """A confusion matrix: rows are true, columns predicted classes."""

    @property
    def _num_classes(self) -> int | None:
        return len(self)

    def _draw(self, axis: Any, names: list[str]) -> None:
        image = axis.imshow(self.view(np.ndarray), cmap="Blues", vmin=0)
        axis.figure.colorbar(image, ax=axis)
        axis.set(xlabel="predicted class", ylabel="true class")
        if len(names) > _READABLE:
            return
        is_long = max(map(len, names)) > 3
        axis.set_xticks(range(len(names)), names, rotation=45 if is_long else 0)
        axis.set_yticks(range(len(names)), names)
        digits = 0 if np.all(self == np.round(self)) else 2
        for (row, column), value in np.ndenumerate(self):
            is_light = image.cmap(image.norm(value))[:3] @ _LUMINANCE > 0.5
            style = {"color": "black" if is_light else "white", "ha": "center", "va": "center"}
            axis.text(column, row, f"{value:.{digits}f}", **style)


class _Curves(Picture):
    """Three rows that belong together, of `(points,)` or, with several classes, each of them."""

    @property
    def _num_classes(self) -> int | None:
        return self.shape[1] if self.ndim > 2 else None


class ROC(_Curves):
    """Rows of false positive rates, of true positive rates, and of the thresholds they are at."""

    def _draw(self, axis: Any, names: list[str]) -> None:
        fpr, tpr, _ = self
        areas = np.trapezoid(tpr, fpr, axis=-1)
        _draw_curves(axis, names, fpr, tpr, "AUC", areas)
        axis.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="chance")
        _finish(axis, names, "false positive rate", "true positive rate")


class PrecisionRecall(_Curves):
    """Rows of precisions, of recalls, and of the thresholds they are at."""

    def _draw(self, axis: Any, names: list[str]) -> None:
        precision, recall, _ = self
        areas = -np.sum(np.diff(recall, axis=-1) * precision[..., :-1], axis=-1)
        _draw_curves(axis, names, recall, precision, "AP", areas, drawstyle="steps-post")
        _finish(axis, names, "recall", "precision")


class Calibration(_Curves):
    """Rows of how often bins are right, of their mean confidence, and of their share of all."""

    def _draw(self, axis: Any, names: list[str]) -> None:
        true, predicted, share = self
        bins, seen = len(share), share > 0
        centres = (np.arange(bins) + 0.5) / bins
        axis.bar(centres, share, 1 / bins, color="gray", alpha=0.3, label="share of all")
        axis.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="perfect")
        error = np.sum(share[seen] * np.abs(true - predicted)[seen])
        axis.plot(predicted[seen], true[seen], marker="o", label=f"ECE {error:.3f}")
        _finish(axis, names, "predicted probability", "observed frequency")


def _draw_curves(
    axis: Any,
    names: list[str],
    x: np.ndarray,
    y: np.ndarray,
    measure: str,
    areas: Any,
    **style: Any,
) -> None:
    """Draw a curve for each class that has one, with its area."""
    each = zip(names or [""], *map(np.atleast_2d, (x, y)), np.atleast_1d(areas), strict=True)
    for name, xs, ys, area in each:
        if np.isfinite(area):
            axis.plot(xs, ys, label=f"{name} {measure} {area:.3f}".lstrip(), **style)


def _finish(axis: Any, names: list[str], x_label: str, y_label: str) -> None:
    limits = (-0.03, 1.03)
    axis.set(xlabel=x_label, ylabel=y_label, xlim=limits, ylim=limits, aspect="equal")
    axis.grid(alpha=0.3)
    if len(names) <= _READABLE:
        axis.legend(fontsize="small")
