"""What people give as data, told apart and made sources of batches."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from ._arrays import ArraySource, array_source
from ._iterables import IterableSource, is_batches

Source = ArraySource | IterableSource


def as_source(x: PyTree, y: PyTree = None, sample_weight: PyTree = None) -> Source:
    """Data as people give it, checked, as a source of batches.

    **Arguments:**

    - `x`, `y`, `sample_weight`: arrays (NumPy, JAX, torch, anything with `__array__`), or nested
        tuples, lists and dicts of them, all of one length. Or `x` alone: an iterable of batches,
        or a function that makes one for each pass.

    **Raises:** `TypeError` for what is no data, `ValueError` for lengths that differ, no examples,
    or arrays without a batch axis.
    """
    if not is_batches(x):
        return array_source(x, y, sample_weight)
    for name, given in {"y": y, "sample_weight": sample_weight}.items():
        if given is not None:
            raise TypeError(
                f"`x` is an iterable of batches, and `{name}` was given beside it: let it give "
                "batches `(x, y)` or `(x, y, sample_weight)`; or collect its arrays, "
                "`np.stack(list(...))`."
            )
    return IterableSource(x)


def named_sets(validation_data: Any) -> dict[str, Source]:
    """Validation data as sources by the prefix of their logs.

    **Arguments:**

    - `validation_data`: `(x,)`, `(x, y)`, `(x, y, sample_weight)`, an array or an iterable of
        batches, logged as `val_...`; or a dict of them, logged as `val_<name>_...`.
    """
    if isinstance(validation_data, Mapping):
        if not validation_data:
            raise ValueError("`validation_data` is an empty dict: give it sets, or None.")
        return {
            f"val_{name}_": _validation(data, f"validation_data[{name!r}]")
            for name, data in validation_data.items()
        }
    return {"val_": _validation(validation_data, "validation_data")}


def _validation(data: Any, name: str) -> Source:
    parts = tuple(data) if isinstance(data, tuple | list) and not is_batches(data) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{name}` is `(x,)`, `(x, y)` or `(x, y, sample_weight)`; got {len(parts)} parts."
        )
    try:
        source = as_source(*parts)
    except (TypeError, ValueError) as error:
        hint = (
            " (A dict of arrays is taken as named sets; wrap it, `validation_data=(mapping,)`.)"
            if "[" in name
            else ""
        )
        raise type(error)(f"In `{name}`: {error}{hint}") from None
    return source
