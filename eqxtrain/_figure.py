"""Figures of matplotlib: made without pyplot, so without a display, and freed like any object."""

import functools
import io
from typing import Any

from ._extras import optional


def new_figure(who: str, width: float, height: float) -> Any:
    """An empty `matplotlib.figure.Figure` that a notebook displays.

    **Arguments:**

    - `who`: what needs it, for the error if matplotlib is missing.
    - `width`, `height`: in inches.
    """
    optional("matplotlib", "plot", who)
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> type:
    figure: Any = optional("matplotlib.figure", "plot", "figure")

    class Figure(figure.Figure):
        """IPython learns of matplotlib's own figures only once pyplot is imported."""

        def _repr_png_(self) -> bytes:
            image = io.BytesIO()
            self.savefig(image, format="png")
            return image.getvalue()

    return Figure
