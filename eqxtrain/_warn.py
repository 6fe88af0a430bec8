"""Warnings that point at the user's line, however deep in the package they are raised."""

import sys
import warnings


def warn(text: str) -> None:
    """Issue a warning at the line of the first caller outside this package."""
    frame, level = sys._getframe(1), 3
    while frame.f_back is not None and _is_skipped(frame.f_back.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def _is_skipped(module: str) -> bool:
    return module.split(".")[0] in (__package__, "jaxtyping", "beartype", "equinox", "contextlib")
