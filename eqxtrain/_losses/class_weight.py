"""`class_weight`: from what the user passes to a weight for each label."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._placement import as_numpy


def class_weights(table: Any, y_true: Any, y_pred: Any) -> Array:
    """The weight of the class of each label.

    **Arguments:**

    - `table`: one weight per class. Classes beyond its end weigh 1.
    - `y_true`: labels, as class indices or one-hot (then of the shape of `y_pred`).
    """
    if y_true is None or not hasattr(y_true, "shape"):
        raise ValueError(
            "`class_weight` needs `y_true` to be one array of labels: for several outputs, make "
            "the loss ask for `class_weight` by name."
        )
    labels = jnp.asarray(y_true)
    if labels.ndim > 1 and labels.shape[-1] > 1 and labels.shape == np.shape(y_pred):
        labels = jnp.argmax(labels, axis=-1)
    elif not jnp.issubdtype(labels.dtype, jnp.integer):
        labels = jnp.round(labels.astype(jnp.float32)).astype(jnp.int32)
    table = jnp.asarray(table)
    classes = np.shape(y_pred)[-1] if np.ndim(y_pred) == labels.ndim + 1 else None
    if classes is not None and 1 < classes < len(table):
        raise ValueError(
            f"`class_weight` has a weight for the class {len(table) - 1}, but there are {classes} "
            f"classes, 0 to {classes - 1}: drop the weights beyond those."
        )
    inside = (labels >= 0) & (labels < len(table))
    return jnp.where(inside, table[jnp.where(inside, labels, 0)], jnp.ones((), table.dtype))


def class_weight_table(class_weight: Any, y: Any = None) -> np.ndarray | None:
    """The user's `class_weight`, a dict or an array, as a table of one weight per class.

    **Arguments:**

    - `y`: the labels that it is for, as the user gave them.

    **Raises:** `ValueError` if the keys of a dict are not class indices, or the labels not classes.
    """
    if class_weight is None:
        return None
    _check_classes(y)
    if isinstance(class_weight, Mapping):
        try:
            indices = [int(key) for key in class_weight]
            exact = all(isinstance(k, str) or int(k) == k for k in class_weight)
        except (TypeError, ValueError):
            indices, exact = [], False
        if not indices and exact:
            return None
        if not exact or min(indices) < 0:
            raise ValueError(
                "The keys of `class_weight` must be class indices, 0, 1, ...; got "
                f"{list(class_weight)!r}."
            )
        table = np.ones(max(indices) + 1, np.float32)
        table[indices] = _numbers(list(class_weight.values()))
        return table
    table = _numbers(class_weight)
    if table.ndim != 1:
        raise ValueError(
            f"`class_weight` must hold one weight per class; got an array of shape {table.shape}."
        )
    return table


def _check_classes(y: Any) -> None:
    """Refuse labels that are not classes, if classes have weights.

    **Arguments:**

    - `y`: all labels, as the user gave them: indices, or one-hot, or 0 and 1.
    """
    if not hasattr(y, "dtype") or y.dtype.kind != "f":
        return
    labels = as_numpy(y)
    rows = labels.ndim > 1 and labels.shape[-1] > 1
    is_class = np.isclose(labels.sum(-1), 1) if rows else labels == np.round(labels)
    if not np.all(is_class):
        raise ValueError(
            "`class_weight` weighs examples by the class of their label, but `y` holds numbers "
            "that aren't classes: pass labels as integers or one-hot, or use `sample_weight`."
        )


def _numbers(values: Any) -> np.ndarray:
    numbers = as_numpy(values)
    if numbers.dtype.kind not in "biuf" or not np.all(np.isfinite(numbers) & (numbers >= 0)):
        raise ValueError(
            f"`class_weight` holds {values!r}, which aren't weights: give numbers >= 0, "
            "`{0: 1.0, 1: 5.0}`, or an array of one weight per class."
        )
    return numbers.astype(np.float32)
