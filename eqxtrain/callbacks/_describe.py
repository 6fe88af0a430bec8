"""What a run is, as plain data: for the files that loggers write."""

import dataclasses
import functools
import importlib.metadata
import platform
import re
from typing import Any

import jax

from ._run import Run

_LIBRARIES = ("eqxtrain", "equinox", "jax", "jaxlib", "optax", "numpy")


def describe_run(run: Run) -> dict[str, Any]:
    """The learner's configuration and summary, the arguments of `fit`, and the versions.

    All of it is strings and numbers. What is not a number or a string is told by its `repr`.
    """
    learner = run.learner
    configuration = {
        field.name: _plain(getattr(learner, field.name))
        for field in dataclasses.fields(learner)
        if field.name not in ("model", "model_state", "state", "is_initialised")
    }
    devices = jax.devices()
    return {
        "learner": type(learner).__qualname__,
        "model": type(learner.model).__qualname__,
        "configuration": configuration,
        "params": dict(run.params),
        "step": run.step,
        "summary": str(learner.summary()),
        "versions": dict(_versions()),
        "devices": [devices[0].device_kind, len(devices)],
    }


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return (*libraries.items(), ("python", platform.python_version()))


def describe_end(run: Run) -> dict[str, Any]:
    """How a run ended: why, after which step, and what was compiled meanwhile."""
    history = run.history
    return {
        "epochs": history.epochs,
        "step": run.step,
        "stopped": history.stopped if run.exception is None else repr(run.exception),
        "seconds": sum(history.timing.epochs),
        "compilations": [
            {"step": c.step, "reason": c.reason, "seconds": round(c.seconds, 3)}
            for c in history.timing.compilations
        ],
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return [_plain(part) for part in value]
    name = getattr(value, "__qualname__", None)
    text = name if isinstance(name, str) else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)  # addresses, which differ from run to run
