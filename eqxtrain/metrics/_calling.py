"""Calling functions of predictions and labels: losses and metrics."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from typing import Any

import jax
import numpy as np

from .._request import call, is_by_name, request


def call_on_predictions(
    fn: Callable[..., Any],
    available: Mapping[str, Any],
    *,
    names: Set[str],
    role: str,
    who: str,
) -> Any:
    """Call a loss or a metric: by name if it asks for one of ours, else as `fn(y_pred, y_true)`.

    **Arguments:**

    - `names`: our names. A function that asks for one of them is called by name.
    - `role`, `who`: what it is, "loss" or "metric", and its name, for errors.

    **Raises:** `TypeError` when it mixes our names with unknown ones, or when there are no labels.
    """
    if is_by_name(fn, names | available.keys()):
        unknown = [n for n in request(fn).required if n not in available and n not in names]
        if unknown:
            listed = ", ".join(f"`{n}`" for n in unknown)
            raise TypeError(
                f"The {role} `{who}` asks for some of our names and for {listed}, which is not one "
                f"of them. It is called either by name or as `{who}(y_pred, y_true)`, not half and "
                "half: rename the parameter, or give it a default. Available: "
                f"{', '.join(sorted(available))}."
            )
        return refuse_broadcast(
            functools.partial(call, fn, available, who=who), available, f"The {role} `{who}`"
        )
    if "y_true" not in available:
        raise TypeError(
            f"The {role} `{who}` is called as `{who}(y_pred, y_true)`, but there are no labels: "
            "pass `y`, or make it ask for `y_pred` (and `x`) by name."
        )
    y_pred, y_true = available["y_pred"], available["y_true"]
    try:
        inspect.signature(fn).bind(y_pred, y_true)
    except TypeError as error:
        raise TypeError(
            f"The {role} `{who}` can't be called as `{who}(y_pred, y_true)`: {error}. Make it take "
            "those two, or ask for what it needs by our names (`y_pred`, `x`, ...)."
        ) from None
    except ValueError:  # no signature to read
        pass
    with hint_at_outputs(y_pred, f"the {role} `{who}`", y_true):
        return refuse_broadcast(lambda: fn(y_pred, y_true), available, f"The {role} `{who}`")


def refuse_broadcast(fn: Callable[[], Any], available: Mapping[str, Any], who: str) -> Any:
    """Call `fn`, but refuse to let it broadcast `(n, 1)` against `(n,)` into `(n, n)`."""
    shapes: list[tuple[int, ...]] = [
        tuple(getattr(available.get(name), "shape", ())) for name in ("y_pred", "y_true")
    ]
    short, long = sorted(shapes, key=len)
    if not short or long != (*short, 1):
        return fn()
    try:
        with jax.numpy_rank_promotion("raise"):
            return fn()
    except ValueError as error:
        if any(f"{a} {b}" in str(error) for a, b in (shapes, shapes[::-1])):
            raise ValueError(
                f"{who} would broadcast `y_pred` of shape {shapes[0]} against `y_true` of shape "
                f"{shapes[1]}, comparing each example with the labels of all: give both the same "
                "shape, `y[:, None]` or `y_pred[:, 0]`."
            ) from None
    return fn()  # the ranks of other arrays differ, which the user's settings may allow


def refuse_pairs(shape: tuple[int, ...], available: Mapping[str, Any], who: str) -> None:
    """Refuse values for pairs of examples, `(n, n)`, which labels of shape `(n, 1)` may cause."""
    rows = shape[0]
    if len(shape) < 2 or rows < 2 or shape[1] != rows:
        return
    data = [available.get(name) for name in ("x", "y_pred", "y_true", "sample_weight")]
    if any(rows in np.shape(leaf)[1:] for leaf in jax.tree.leaves(data)):
        return  # an axis of the data just happens to have this size
    raise ValueError(
        f"{who} returned values of shape {shape} for {rows} examples, one for each pair of them, "
        "as when labels of shape (n, 1) broadcast against predictions of shape (n,): give both the "
        "same shape. If pairs are intended, average over the second axis, `.mean(axis=1)`."
    )


class UnlabelledError(TypeError):
    """Raised when the labels of a metric's output are None, so that it can't be measured."""


@contextlib.contextmanager
def hint_at_outputs(y_pred: Any, who: str, y_true: Any = None) -> Iterator[None]:
    """If the predictions are not a single array, make errors say how to pick one."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UnlabelledError):
            raise
        if hasattr(y_pred, "dtype"):
            if y_true is None or hasattr(y_true, "dtype"):
                raise
            raise TypeError(
                f"The labels are a `{type(y_true).__name__}`, which {who} could not take whole: "
                "pass one array, or ask for `y_true` and pick a part."
            ) from error
        parts = sorted(y_pred) if isinstance(y_pred, Mapping) else f"{len(y_pred)} parts"
        raise TypeError(
            f"The predictions are a `{type(y_pred).__name__}` with {parts}, which {who} could not "
            "take whole. The key of a loss or metric is only its name in the logs: to pick an "
            "output, write `et.Loss(fn, on=...)` or `et.metrics.On(metric, ...)`, or a function "
            "that asks for `y_pred` and `y_true`."
        ) from error


def needs_labels(fn: Callable[..., Any], names: Collection[str]) -> bool:
    """Whether a loss or a metric requires `y_true`, by name or by position."""
    return not is_by_name(fn, names) or "y_true" in request(fn).required


def pick(available: Mapping[str, Any], on: Any, *, who: str) -> dict[str, Any]:
    """The parts of predictions, labels and weights that a loss or a metric is on.

    Labels and weights without parts belong to all of them.

    **Arguments:**

    - `on`: a key, or a sequence of keys to follow.
    - `who`: the subject of errors, such as "The loss `a`".

    **Raises:** `KeyError` where there is no such part.
    """
    picked = {"y_pred": _pick_path(available.get("y_pred"), on, "y_pred", who)}
    for name in ("y_true", "sample_weight"):
        if isinstance(available.get(name), Mapping | tuple | list):
            picked[name] = _pick_path(available[name], on, name, who)
    return picked


def _pick_path(tree: Any, on: Any, what: str, who: str) -> Any:
    for key in (on,) if isinstance(on, str | int) else on:
        if tree is None:
            return None
        try:
            tree = _pick_member(tree, key)
        except (KeyError, IndexError, TypeError, AttributeError):
            known = f"; it has {sorted(tree)}" if isinstance(tree, Mapping) else ""
            raise KeyError(f"{who} is on {key!r}, which `{what}` lacks{known}.") from None
    return tree


def _pick_member(tree: Any, key: str | int) -> Any:
    """A part by its key, index or attribute. An array has no parts: its rows are examples."""
    if isinstance(key, str) and not isinstance(tree, Mapping):
        return getattr(tree, key)
    if hasattr(tree, "dtype"):
        raise TypeError
    return tree[key]
