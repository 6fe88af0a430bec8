"""The user's data as a source of batches, whatever form they come in."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax

from .._types import PyTree
from .arrays import array_source
from .coerce import is_lazy_column, is_sparse
from .cursor import is_indexed
from .iterables import IterableSource
from .map_dataset import ExampleSource, has_examples
from .source import Source


def as_source(x: PyTree, y: PyTree = None, sample_weight: PyTree = None) -> Source:
    """The user's data, checked, as a source of batches.

    **Arguments:**

    - `x`, `y`, `sample_weight`: arrays (NumPy, JAX, torch, pandas, sparse ones of SciPy, anything
        with `__array__`), or nested tuples, lists and dicts of them, all of one length. Or `x`
        alone: a dataset of examples; or an iterable of batches, or a function that makes one for
        each pass.

    **Raises:** `TypeError` for what is not data, `ValueError` for lengths that differ, no examples,
    or arrays without a batch axis.
    """
    if isinstance(x, type):
        raise TypeError(f"`x` is the class `{x.__name__}`: pass an instance.")
    if _is_array_like(x):
        return array_source(x, y, sample_weight)
    is_examples = has_examples(x)
    if not is_examples and not _gives_batches(x):
        return array_source(x, y, sample_weight)  # it says what is wrong
    for name, value in {"y": y, "sample_weight": sample_weight}.items():
        if value is not None:
            what = "a dataset of examples" if is_examples else "an iterable of batches"
            one = "examples" if is_examples else "batches"
            raise TypeError(
                f"`x` is {what}, so `{name}` can't be passed beside it: make it yield {one} "
                "`(x, y)` or `(x, y, sample_weight)`, or collect its arrays, "
                "`np.stack(list(...))`."
            )
    return ExampleSource(x) if is_examples else IterableSource(x)


def _is_array_like(x: Any) -> bool:
    """Whether `x` is an array or a container of arrays."""
    if isinstance(x, list):
        return not x or not all(isinstance(item, tuple | Mapping) for item in x)
    if isinstance(x, tuple | Mapping | str | bytes) or hasattr(x, "__array__"):
        return True
    return is_sparse(x) or is_lazy_column(x)


def _gives_batches(x: Any) -> bool:
    is_node = not jax.tree_util.all_leaves([x])  # a container that JAX knows, such as a module
    return hasattr(x, "__iter__") or is_indexed(x) or (_makes_batches(x) and not is_node)


def _makes_batches(x: Any) -> bool:
    """Whether `x` is a function without arguments, to be called at the start of each pass."""
    if not callable(x):
        return False
    try:
        signature = inspect.signature(x)
    except ValueError:  # a C function, which has no signature to read
        return True
    try:
        signature.bind()
    except TypeError:
        raise TypeError(
            f"The function that was passed as data takes arguments, {signature}, but is called "
            "without any at the start of each pass: bind them (`functools.partial`, or a "
            "`lambda`), and return an iterable of batches."
        ) from None
    return True


def named_sets(validation_data: Any) -> dict[str, Source]:
    """Validation data as a dict from the prefix of their logs to a source.

    **Arguments:**

    - `validation_data`: `(x,)`, `(x, y)`, `(x, y, sample_weight)`, an array, a dataset or an
        iterable of batches, logged as `val_...`; or a dict of them, logged as `val_<name>_...`.
    """
    if isinstance(validation_data, Mapping):
        if not validation_data:
            raise ValueError(
                "`validation_data` is an empty dict: name at least one set, or pass None."
            )
        if "" in validation_data:
            raise ValueError("A set in `validation_data` has the empty name `''`: give it a name.")
        return {
            f"val_{name}_": _validation(data, f"validation_data[{name!r}]")
            for name, data in validation_data.items()
        }
    return {"val_": _validation(validation_data, "validation_data")}


def _validation(data: Any, name: str) -> Source:
    wrapped = isinstance(data, tuple | list) and _is_array_like(data)
    parts = tuple(data) if wrapped else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{name}` must be `(x,)`, `(x, y)` or `(x, y, sample_weight)`; got {len(parts)} parts."
        )
    try:
        source = as_source(*parts)
    except (TypeError, ValueError) as error:
        hint = (
            " (A dict of arrays is read as named sets: wrap it, `validation_data=(mapping,)`.)"
            if "[" in name
            else ""
        )
        raise type(error)(f"In `{name}`: {error}{hint}") from None
    return source
