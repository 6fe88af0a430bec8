"""How an exception leaves a run: with the learner, after `on_exception`, in plain words."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax

from .._history import Fitted, History
from .._steps.locate_error import is_ours
from .exception_payload import attach
from .interrupt import in_ipython
from .run_control import RunControl

L = TypeVar("L")


def end_interrupted_run(
    on_interrupt: Literal["return", "raise"] | None, learner: L, history: History, where: str
) -> Fitted[L]:
    """How `fit` ends after Ctrl-C: returns the learner, or raises with it."""
    history.stopped = "interrupted"
    text = f"Interrupted {where}"
    if (on_interrupt or ("return" if in_ipython() else "raise")) == "return":
        print(f"{text}; returning the learner as of that step.")
        return Fitted(learner, history)
    error = KeyboardInterrupt(f"{text}; this exception carries `.learner` and `.history`.")
    attach(error, learner=learner, history=history)
    raise error


@contextmanager
def handle_exceptions(control: RunControl, rescue: Callable[[], Any]) -> Iterator[None]:
    """Attach the learner and the history to an exception, and call `on_exception`."""
    try:
        with translate_errors():
            yield
    except BaseException as error:
        control.exception = error
        carried: dict[str, Any] = {"history": control.history}
        try:
            carried["learner"] = rescue()
        except Exception as second:  # the first error is the one to raise
            error.add_note(f"The learner could not be rescued: {second!r}")
        attach(error, **carried)
        for callback in control.callbacks:
            try:
                callback.on_exception(control.run)
            except Exception as second:
                error.add_note(f"`{type(callback).__name__}.on_exception` also failed: {second!r}")
        control.exception = None  # a reference cycle: its traceback holds the run, and so the data
        raise


_ERROR_IF_REPORT = re.compile(
    r"EquinoxRuntimeError: (.*?)\n+-{9,}\nAn error occurred during the runtime", re.DOTALL
)
"""How the device reports an `eqx.error_if`, in the middle of a traceback."""

_FROM_DEVICE = (jax.errors.JaxRuntimeError, ValueError)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Make an error end in its own message, whatever JAX wraps around it."""

    def is_news(record: logging.LogRecord) -> bool:
        # A new function for each context: they nest, and a logger has each filter only once.
        return not _reports_error_if(record)

    logger = logging.getLogger(jax.pure_callback.__module__)
    logger.addFilter(is_news)
    try:
        yield
    except BaseException as error:
        _end_in_our_sentence(error)
        plain = _in_plain_words(error)
        if plain is None:
            raise
        # Notes, such as the validation set that it was in, come first: the last line is the user's.
        notes = "".join(f"{note}\n" for note in getattr(error, "__notes__", ()))
        plain.args = (f"{notes}{plain}",)
        raise plain.with_traceback(error.__traceback__) from None
    finally:
        logger.removeFilter(is_news)


def _in_plain_words(error: BaseException) -> Exception | None:
    """What to raise instead of an error as compiled programs report it, if it needs translating.

    `eqx.filter_jit` and `jax.jit` would translate it, but we call programs without them.
    """
    match = _ERROR_IF_REPORT.search(str(error)) if isinstance(error, _FROM_DEVICE) else None
    if match is not None:
        return eqx.EquinoxRuntimeError(
            "An `eqx.error_if` check failed in a compiled step; `eager=True` shows which line it "
            f"is on.\n{match[1]}"
        )
    if type(error).__name__ == "InternalFloatingPointError":  # it has no public name
        return FloatingPointError(
            "A compiled step produced nan or inf, which `jax_debug_nans` or `jax_debug_infs` turns "
            "into an error; `eager=True` shows the operation that produced it."
        )
    return None


def _reports_error_if(record: logging.LogRecord) -> bool:
    """Whether JAX logs the exception behind an `eqx.error_if`, which is raised as well."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is not None and kind.__name__.endswith("EquinoxRuntimeError")


@contextmanager
def note_on_error(note: str) -> Iterator[None]:
    """Add a note that says where an exception came from."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _end_in_our_sentence(error: BaseException) -> None:
    """Put JAX's note about hidden frames first, or drop it: readers look at the last line."""
    notes: list[str] = getattr(error, "__notes__", [])
    if notes:
        jax_notes = [note for note in notes if "JAX has removed" in note]
        others = [note for note in notes if note not in jax_notes]
        error.__notes__ = others if is_ours(error) else jax_notes + others
