"""Losses: functions, containers of them, and how they are reduced to one number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._naming import named_leaves, unique
from ._request import LOSS_NAMES, Request, call_on_predictions, is_by_name, request
from .metrics._base import examples, real_rows

Key = str | int


@final
class Loss(eqx.Module):
    """A loss function with what refines it.

    **Arguments:**

    - `fn`: `fn(y_pred, y_true)` in optax's convention, or a function that asks for what it needs by
        name (`x`, `y_true`, `y_pred`, `model`, `state`, `sample_weight`, `mask`, ...). It returns
        per-example values (trailing axes are averaged), a scalar, or a dict of named parts.
    - `weight`: its factor in the total. It is logged without it.
    - `on`: a key, or several one after the other, that pick a part of both `y_pred` and `y_true`.
    - `reduction`: `"mean"`, the mean over real examples, `Σ(m·w·c·ℓ) / Σm`.
    - `name`: what it is logged as; by default the function's own name.
    """

    fn: Callable[..., Any]
    weight: float = eqx.field(default=1.0, kw_only=True)
    on: Key | tuple[Key, ...] | None = eqx.field(default=None, kw_only=True)
    reduction: Literal["mean"] = eqx.field(default="mean", kw_only=True)
    name: str | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"`Loss` takes a function, not {self.fn!r}: `Loss(optax.l2_loss)`.")
        if isinstance(self.weight, str) or np.ndim(self.weight) != 0:
            raise TypeError(f"`Loss(weight={self.weight!r})` is no number: give its factor, 0.5.")
        if self.reduction != "mean":
            raise ValueError(
                f"`Loss(reduction={self.reduction!r})` is not known: losses are means over "
                "examples, so that no split of the data changes them. Use `weight=` to scale one."
            )


def check(container: Any) -> None:
    """Refuse what is no loss, with a sentence."""
    members = [m for _, m in named_leaves(container, default="loss", is_leaf=_is_loss)]
    for member in members:
        if not _is_loss(member) and not callable(member):
            raise TypeError(
                f"`loss` holds {member!r}, which is no function: give one such as "
                "`optax.squared_error`, or `lambda y_pred, y_true: ...`."
            )
    if container is not None and not members:
        raise ValueError(f"`loss` is {container!r}, which holds no loss: give one, or None.")


def measure(
    container: Any, available: Mapping[str, Any]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The total loss of a batch, and its parts as scalars to log.

    The total is the weighted sum of the parts. A single plain function has no parts: it is the
    total.
    """
    total: Any = 0.0
    parts: dict[str, Array] = {}
    for name, member in named_leaves(container, default="loss", is_leaf=_is_loss):
        loss = member if _is_loss(member) else Loss(member)
        alone = container is member
        for part, value in _evaluate(loss, name, available).items():
            total = total + loss.weight * value
            if alone and part is None and not _is_loss(member):
                continue
            path = "/".join(piece for piece in (None if alone and part else name, part) if piece)
            parts[unique(path, {"loss", *parts})] = value
    return jnp.asarray(total), parts


def _is_loss(node: Any) -> bool:
    return isinstance(node, Loss)


def _evaluate(
    loss: Loss, name: str, available: Mapping[str, Any]
) -> dict[str | None, Float[Array, ""]]:
    if loss.on is not None:
        available = dict(available) | {
            key: _pick(available[key], loss.on, key, name)
            for key in ("y_pred", "y_true")
            if available.get(key) is not None
        }
    value = call_on_predictions(loss.fn, available, names=LOSS_NAMES, kind="loss", who=name)
    parts = value if isinstance(value, Mapping) else {None: value}
    return {part: _reduce(loss.fn, name, ell, available) for part, ell in parts.items()}


def _pick(tree: Any, on: Key | Sequence[Key], what: str, name: str) -> Any:
    for key in (on,) if isinstance(on, str | int) else on:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            known = f"; it has {sorted(tree)}" if isinstance(tree, Mapping) else ""
            raise KeyError(
                f"The loss `{name}` is on {key!r}, which `{what}` lacks{known}."
            ) from None
    return tree


def _reduce(
    fn: Callable[..., Any], name: str, value: Any, available: Mapping[str, Any]
) -> Float[Array, ""]:
    """One part of a loss as a scalar: `Σ(m·w·c·ℓ) / Σm` over the factors it did not ask for."""
    if value is None or isinstance(value, tuple | list):
        raise TypeError(
            f"The loss `{name}` returned a `{type(value).__name__}`: return an array of one value "
            "an example, a scalar, or a dict of named parts."
        )
    value = jnp.asarray(value)
    if value.dtype != jnp.float64:  # sums of half precision lose their digits
        value = value.astype(jnp.float32)
    by_name = is_by_name(fn, LOSS_NAMES | available.keys())
    asked = request(fn) if by_name else Request((), (), everything=False)
    factors = {"mask", "sample_weight", "class_weight"}
    applies = factors if asked.everything else factors & set(asked.names)
    present = {n for n in factors if available.get(n) is not None}
    ours = present - applies
    if value.ndim == 0:
        if ours and (not by_name or {"y_pred", "y_true"} & set(asked.names)):
            names = " and ".join(f"`{n}`" for n in sorted(ours))
            raise ValueError(
                f"The loss `{name}` returned a scalar, so {names} can't be applied to its "
                f"examples: return one value an example, or let it ask for {names} by name."
            )
        return value
    count = examples(available)
    if value.shape[0] != count:
        raise ValueError(
            f"The loss `{name}` returned an array of shape {value.shape} for a batch of {count} "
            "examples: return one value an example (the batch axis first), or a scalar."
        )
    if "sample_weight" in ours:
        value = _times(value, available["sample_weight"], "sample_weight", name)
    if "class_weight" in ours:
        classes = class_weights(
            available["class_weight"], available.get("y_true"), available["y_pred"]
        )
        value = _times(value, classes, "class_weight", name)
    if value.ndim > 1:
        value = jnp.mean(value, axis=tuple(range(1, value.ndim)))
    if "mask" not in present:
        return jnp.mean(value)
    real = real_rows(available["mask"], count)
    if "mask" in ours:
        value = jnp.where(real, value, 0)
    return jnp.sum(value) / jnp.maximum(jnp.sum(real.astype(value.dtype)), 1)


def _times(value: Array, weight: Any, what: str, name: str) -> Array:
    weight = jnp.asarray(weight).astype(value.dtype)
    if weight.ndim == value.ndim + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight.ndim > value.ndim or value.shape[: weight.ndim] != weight.shape:
        raise ValueError(
            f"`{what}` has the shape {weight.shape}, but the loss `{name}` has values of shape "
            f"{value.shape}: give one weight an example, or one for each value."
        )
    return value * weight.reshape(weight.shape + (1,) * (value.ndim - weight.ndim))


def class_weights(table: Any, y_true: Any, y_pred: Any) -> Array:
    """The weight of each label's class.

    **Arguments:**

    - `table`: one weight a class. Classes beyond its end weigh 1.
    - `y_true`: labels, as class indices or one-hot (then of the shape of `y_pred`).
    """
    if y_true is None or not hasattr(y_true, "shape"):
        raise ValueError(
            "`class_weight` needs `y_true` to be one array of labels; for several outputs, let the "
            "loss ask for `class_weight` by name."
        )
    labels = jnp.asarray(y_true)
    if labels.ndim > 1 and labels.shape[-1] > 1 and labels.shape == np.shape(y_pred):
        labels = jnp.argmax(labels, axis=-1)
    elif not jnp.issubdtype(labels.dtype, jnp.integer):
        labels = jnp.round(labels.astype(jnp.float32)).astype(jnp.int32)
    table = jnp.asarray(table)
    inside = (labels >= 0) & (labels < len(table))
    return jnp.where(inside, table[jnp.where(inside, labels, 0)], jnp.ones((), table.dtype))


def class_weight_table(class_weight: Any) -> np.ndarray | None:
    """`class_weight` as given by people, a dict or an array, as a table of one weight a class.

    **Raises:** `ValueError` when the keys of a dict are not class indices.
    """
    if class_weight is None:
        return None
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
                f"The keys of `class_weight` are class indices, 0, 1, ...; got "
                f"{list(class_weight)!r}."
            )
        table = np.ones(max(indices) + 1, np.float32)
        table[indices] = _numbers(list(class_weight.values()))
        return table
    table = _numbers(class_weight)
    if table.ndim != 1:
        raise ValueError(
            f"`class_weight` is one weight a class; got an array of shape {table.shape}."
        )
    return table


def _numbers(values: Any) -> np.ndarray:
    given = np.asarray(values)
    if given.dtype.kind not in "biuf" or not np.all(np.isfinite(given) & (given >= 0)):
        raise ValueError(
            f"`class_weight` holds {values!r}, which are no weights: give numbers of 0 or more, "
            "`{0: 1.0, 1: 5.0}`, or an array of one weight a class."
        )
    return given.astype(np.float32)
