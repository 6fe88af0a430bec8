"""The curves of a run, drawn anew while it goes on."""

import io
import time
from collections.abc import Callable
from typing import Any

from .sinks import Output

_REDRAWS_EVERY = 1.0
_SHARE = 0.1
"""Which part of a run's time may go into drawing."""


class Plot:
    """One output of a notebook's cell with a figure, redrawn in its place once a second at most."""

    def __init__(self) -> None:
        self._output = Output()
        self._due_at = 0.0
        self._epochs = 0

    def show(self, draw: Callable[[], Any], epochs: int, *, is_last: bool = False) -> None:
        """Redraw the figure if there is something new, and if it is time to.

        **Arguments:**

        - `draw`: returns a `matplotlib.figure.Figure` of so many epochs.
        - `is_last`: whether this is the end, for which it is always time.
        """
        began = time.monotonic()
        if epochs > self._epochs and (is_last or began >= self._due_at):
            image = io.BytesIO()
            draw().savefig(image, format="png")
            alternative = f"The curves after epoch {epochs}"
            self._output.show({"image/png": image.getvalue(), "text/plain": alternative})
            ended = time.monotonic()
            self._due_at = ended + max(_REDRAWS_EVERY, (ended - began) / _SHARE)
            self._epochs = epochs
