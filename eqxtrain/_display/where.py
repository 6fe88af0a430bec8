"""Who watches: which sink shows the progress of this process."""

import os
import sys
from typing import Any, Literal

from .._extras import optional
from .sinks import Cell, Lines, PassLines, Sink, Terminal

Verbose = Literal[1, 2, "auto", "plot"]
"""What people ask to see; for nothing at all, nobody asks."""


def choose_sink(verbose: Verbose) -> Sink:
    """The sink for standard output as it is now."""
    if verbose == 2:
        return PassLines(sys.stdout)
    if in_notebook():
        return Cell(kept_lines=1) if verbose == "plot" else Cell()
    stream: Any = sys.stdout
    is_terminal = getattr(stream, "isatty", bool)()
    is_dumb = os.environ.get("TERM") in ("dumb", "unknown")
    return Terminal(stream) if is_terminal and not is_dumb else Lines(stream)


def check_can_plot() -> None:
    """Refuse to plot where a plot could not be seen, or not be drawn."""
    if not in_notebook():
        raise ValueError(
            '`verbose="plot"` draws the curves in a notebook, and this is none: choose another '
            '`verbose`, and call `history.plot().savefig("curves.png")` after `fit`.'
        )
    optional("matplotlib", "plot", 'fit(..., verbose="plot")')


def in_notebook() -> bool:
    """Whether what is displayed goes to a notebook, by the class of IPython's shell.

    Spyder's shell has a kernel as well, but shows no HTML.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return False
    in_colab = type(shell).__module__.startswith("google.colab")
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    return type(shell).__name__ == "ZMQInteractiveShell" or in_colab or on_databricks
