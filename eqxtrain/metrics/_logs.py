"""Logs as a monoid: what steps report is accumulated, merged and computed here."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import filterfalse
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._naming import unique
from .._placement import as_numpy, strip_weak_type
from .._tree import differences, is_typed_key, shape_structs
from .._types import PyTree
from .._warn import warn
from ._base import Direction, Metric, direction_of, unwrapped
from ._compensated import CompensatedSum, merge_sums
from ._gather import Gather
from ._modes import Mean
from ._monoid import Monoid

HIDDEN = "__callback/"
"""What the names of logs begin with that a callback measures for itself."""


def check_logs(logs: Any, *, who: str) -> dict[str, Any]:
    """Refuse logs that can't be accumulated."""
    if not isinstance(logs, dict):
        raise TypeError(
            f"`{who}` returned logs that are a `{type(logs).__name__}`: logs are a dict from names "
            "to scalar arrays or metrics, such as `{'accuracy': accuracy}`."
        )
    for name, value in logs.items():
        if not isinstance(name, str):
            raise TypeError(
                f"`{who}` logs under the key {name!r}, which is not a string: rename it."
            )
        if not name:
            raise ValueError(f"`{who}` logs under the empty name `''`: give {value!r} a name.")
        if isinstance(value, Metric):
            continue
        if isinstance(value, Mapping):
            raise TypeError(
                f"`{who}` logs `{name}` as a dict, but logs don't nest: join the names, "
                f"`{{'{name}/...': ...}}`."
            )
        if is_typed_key(value):
            raise TypeError(f"`{who}` logs `{name}`, which is a random key: log a number.")
        if not isinstance(value, jax.Array):
            raise TypeError(
                f"`{who}` logs `{name}` as a `{type(value).__name__}` ({value!r}), which would "
                "keep the value that it had when the step was traced: log an array, "
                "`jnp.asarray(...)`, or report constants from a callback."
            )
        if value.ndim != 0:
            raise ValueError(
                f"`{who}` logs `{name}` with shape {value.shape}. A bare array must be a "
                f"scalar, the mean over the batch: log `{name}.mean()`, or choose how to reduce "
                f"it, `et.metrics.Mean.of({name})` or `et.metrics.Gather.of({name})`."
            )
    return logs


def contributions(logs: Mapping[str, Any], weight: Any) -> dict[str, Metric]:
    """Logs as metrics: a bare scalar stands for its mean over `weight` examples."""
    return {
        name: value if isinstance(value, Metric) else Mean.of(value, weight)
        for name, value in logs.items()
    }


def empty_accumulators(logs: Mapping[str, Any], *, fill: int = 0) -> dict[str, Metric]:
    """Empty accumulators for logs of this structure. Shapes may stand for arrays.

    **Arguments:**

    - `fill`: the value that arrays have where only their shapes are given. A metric that is
        configured by an array (rather than accumulating in it) needs the array itself.
    """

    def as_array(leaf: Any) -> Any:
        return jnp.full(leaf.shape, fill, leaf.dtype) if _is_shape(leaf) else leaf

    empty = {
        name: jax.tree.map(as_array, value).reset() if isinstance(value, Metric) else Mean().reset()
        for name, value in logs.items()
    }
    # A weak type here would turn strong with the first merge, and so compile the step twice.
    return jax.tree.map(lambda leaf: strip_weak_type(leaf) if _has_shape(leaf) else leaf, empty)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _has_shape(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def merge(metrics: Mapping[str, Metric], new: Mapping[str, Metric]) -> dict[str, Metric]:
    """Accumulators with one more contribution."""
    check_same_structure(metrics, new)
    # Most metrics are scalar sums. One vector of all of them is merged in a few kernels, where
    # merging each by itself would launch several per metric and step.
    summed = [name for name in metrics if sums_of(metrics[name]) and sums_of(new[name])]
    mine = [part for name in summed for part in sums_of(metrics[name])]
    theirs = [part for name in summed for part in sums_of(new[name])]
    merged = iter(merge_sums(mine, theirs))
    return {
        name: jax.tree.map(
            lambda node: next(merged) if _is_sum(node) else node, new[name], is_leaf=_is_sum
        )
        if name in summed
        else metrics[name].merge(new[name])
        for name in metrics
    }


def _is_sum(node: Any) -> bool:
    return isinstance(node, CompensatedSum)


def sums_of(metric: Any) -> list[CompensatedSum]:
    """The sums that a metric consists of, if merging them merges the metric; else none."""
    if isinstance(metric, CompensatedSum):
        return [metric]
    if not isinstance(metric, Monoid) or type(metric).merge is not Monoid.merge:
        return []  # its own `merge` may do anything

    def is_part(node: Any) -> bool:
        return isinstance(node, Monoid) and node is not metric

    found: list[CompensatedSum] = []
    for part in filter(is_part, jax.tree.leaves(metric, is_leaf=is_part)):
        sums = sums_of(part)
        if not sums:
            return []
        found += sums
    return found


def check_same_structure(metrics: Mapping[str, Metric], new: Mapping[str, Metric]) -> None:
    """Refuse logs whose names or structure changed within a pass."""
    gone, extra = sorted(metrics.keys() - new.keys()), sorted(new.keys() - metrics.keys())
    changes = [f"`{name}` is gone" for name in gone] + [f"`{name}` is new" for name in extra]
    old, now = (shape_structs(extract_gathers(dict(logs))[0]) for logs in (metrics, new))
    if not changes and jax.tree.structure(old) == jax.tree.structure(now):
        # A scan turns Python numbers in its carry into arrays, so only arrays are compared.
        old = jax.tree.map(lambda a, b: a if _has_shape(a) and _has_shape(b) else b, old, now)
    changes = changes or differences(old, now, "logs")
    if changes:
        raise ValueError(
            "Logs must have the same structure at every step of a pass, but "
            + ", ".join(changes[:5])
            + ": log nan at steps that have no value."
        )


def is_gather(node: Any) -> bool:
    """Whether it is a `Gather`, whose values leave the device after each call."""
    return isinstance(node, Gather)


def extract_gathers(metrics: PyTree) -> tuple[PyTree, list[Gather]]:
    """Take every `Gather` out of accumulators, leaving an empty one in its place.

    What they hold grows with the data, so it can't be part of a carry of fixed shape.
    """
    nodes = [node for node in jax.tree.leaves(metrics, is_leaf=is_gather) if is_gather(node)]
    emptied = jax.tree.map(
        lambda node: node.reset() if is_gather(node) else node, metrics, is_leaf=is_gather
    )
    return emptied, nodes


def concatenate_gathers(emitted: Sequence[Sequence[Gather]]) -> list[Gather]:
    """Concatenate the `Gather`s of all calls on the host."""

    def join(path: Any, *parts: Any) -> np.ndarray:
        shapes = list(dict.fromkeys(part.shape[1:] for part in parts))
        if len(shapes) > 1:
            raise ValueError(
                f"Predicted or gathered rows have the shape {shapes[0]} in one batch and "
                f"{shapes[1]} in another, so they can't be joined: pad them to one shape."
            )
        return np.concatenate(parts)

    return jax.tree.map_with_path(join, *emitted)


def restore_gathers(metrics: PyTree, emitted: Sequence[Gather]) -> PyTree:
    """Undo `extract_gathers`."""
    remaining = iter(emitted)
    return jax.tree.map(
        lambda node: next(remaining) if is_gather(node) else node, metrics, is_leaf=is_gather
    )


def drop_masked_rows(metrics: PyTree, mask: Any) -> PyTree:
    """Make every `Gather` drop the rows that are padding, unless it has a mask already."""
    if mask is None:
        return metrics

    def with_mask(node: Any) -> Any:
        if not is_gather(node) or node.kept is not None:
            return node
        # Only where there is a row per example: a step may gather anything else as well.
        rows = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(node.values)}
        return Gather(node.values, mask) if rows == {mask.shape} else node

    return jax.tree.map(with_mask, metrics, is_leaf=is_gather)


def without_gathers(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The accumulators whose values can be computed on the device."""
    return {name: metric for name, metric in metrics.items() if not has_gather(metric)}


def has_gather(metric: Metric) -> bool:
    """Whether any part of `metric` is a `Gather`."""
    return any(map(is_gather, jax.tree.leaves(metric, is_leaf=is_gather)))


def compute(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The value of every accumulator; those with several values give each a name."""
    values: dict[str, Any] = {}
    for name, metric in metrics.items():
        try:
            results = metric.results(name)
        except Exception as error:
            error.add_note(f"This was raised while computing the metric `{name}`.")
            raise
        for path, value in results.items():
            values[path if path == name else unique(path, {*values, *metrics})] = value
    return values


def directions(metrics: Mapping[str, Metric]) -> dict[str, Direction | None]:
    """The names of all values, and which of them are best, as far as that is known.

    Names that end in `loss` are of losses.
    """
    found: dict[str, Direction | None] = {}
    for name in filterfalse(is_hidden, _ordered(metrics)):
        metric = metrics[name]
        direction = direction_of(metric) or ("min" if name.endswith("loss") else None)
        found |= dict.fromkeys(_result_names(name, metric), direction)
    return found


def _result_names(name: str, metric: Metric) -> list[str]:
    """The names of a metric's values, found without computing them if possible."""
    empty = metric.reset()
    try:
        if has_gather(empty):  # which is computed on the host
            return list(empty.results(name))
        return list(eqx.filter_eval_shape(empty.results, name))
    except Exception:  # `compute` will raise it where the value is needed
        return [name]


def computable(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The results of those accumulators whose `compute` does not raise."""
    result: dict[str, Any] = {}
    for name, metric in metrics.items():
        with contextlib.suppress(Exception):
            result |= as_result(compute({name: metric}), array_classes({name: metric}))
    return result


ArrayClasses = Mapping[str, type[np.ndarray]]
"""The classes of those arrays that are of another one than NumPy's own, by the names of metrics."""


def array_classes(metrics: Mapping[str, Metric]) -> ArrayClasses:
    """Which class the metrics give to their arrays."""
    found = {name: unwrapped(metric).array_class for name, metric in metrics.items()}
    return {name: cls for name, cls in found.items() if cls is not np.ndarray}


def as_result(values: Mapping[str, Any], classes: ArrayClasses) -> dict[str, Any]:
    """Values as floats, or as NumPy arrays if they are not scalars, with `loss` first."""

    def convert(name: str, value: Any) -> Any:
        array = as_numpy(value)
        return float(array) if array.ndim == 0 else array.view(classes.get(name, np.ndarray))

    return {
        name: jax.tree.map(functools.partial(convert, name), values[name])
        for name in _ordered(values)
    }


def as_rows(values: Mapping[str, Any], classes: ArrayClasses) -> dict[str, Callable[[int], Any]]:
    """Values with a row for each step, as functions of the row that return what `as_result` does.

    Scalars are converted all at once.
    """

    def picker(name: str) -> Callable[[int], Any]:
        value = values[name]
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind != "c":
            return value.astype(float).tolist().__getitem__
        pick = lambda row: {name: jax.tree.map(lambda leaf: leaf[row], value)}
        return lambda row: as_result(pick(row), classes)[name]

    return {name: picker(name) for name in _ordered(values)}


def _ordered(values: Mapping[str, Any]) -> list[str]:
    return sorted(values, key=lambda name: (name != "loss", name))


def take_hidden(result: dict[str, Any]) -> dict[str, Any]:
    """Take out of a result what is for callbacks alone."""
    return {name: result.pop(name) for name in list(result) if is_hidden(name)}


def is_hidden(name: str) -> bool:
    """Whether it is the name of something that is for a callback alone."""
    return name.startswith(HIDDEN)


def emit_warnings(metrics: Mapping[str, Metric]) -> None:
    """Emit each metric's warning, at the end of a pass."""
    for name, metric in metrics.items():
        warning = metric.warning()
        if warning:
            warn(f"`{name}` {warning}.")
