"""How an exception leaves a run: it carries the learner, it is told of, it ends in a sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ._carried import carry
from .callbacks import Run
from .callbacks._base import Callbacks


@contextmanager
def telling_of_exceptions(
    run: Run, callbacks: Callbacks, rescue: Callable[[], Any]
) -> Iterator[None]:
    """Let an exception carry the learner and the history, and tell the callbacks of it."""
    try:
        yield
    except BaseException as error:
        run.exception = error
        _end_in_our_sentence(error)
        carried: dict[str, Any] = {"history": run.history}
        try:
            carried["learner"] = rescue()
        except Exception as second:  # what went wrong first is what people must see
            error.add_note(f"The learner could not be rescued: {second!r}")
        carry(error, **carried)
        if "filter_jit" in str(error):
            error.add_note("Run again with `eager=True` to see the line of the step that raised.")
        for callback in callbacks:
            try:
                callback.on_exception(run)
            except Exception as second:
                error.add_note(f"`{type(callback).__name__}.on_exception` failed too: {second!r}")
        run.exception = None  # its traceback holds the run, and so would the data be held
        raise


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Let an exception say where it came from."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _end_in_our_sentence(error: BaseException) -> None:
    """Drop JAX's note on its frames from an error of ours, whose last line is what people read."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    if module.startswith(f"{__package__}.") and hasattr(error, "__notes__"):
        error.__notes__ = [note for note in error.__notes__ if "JAX has removed" not in note]
