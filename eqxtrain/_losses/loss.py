"""Losses: functions, containers of functions, and their total."""

from collections.abc import Callable, Mapping
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._naming import named_leaves, unique
from .._request import LOSS_NAMES, is_by_name, request
from ..metrics import Metric
from ..metrics._calling import call_on_predictions, needs_labels, pick
from .labels import check_labels
from .reduction import ReducedLoss, Reduction, reduce_loss, shield_gradients

Key = str | int

_REDUCTIONS = ("mean", "sum", "mean_with_sample_weight")


@final
class Loss(eqx.Module):
    """A loss function with options.

    **Arguments:**

    - `fn`: `fn(y_pred, y_true)` in optax's convention, or a function that asks for what it needs by
        name (`x`, `y_true`, `y_pred`, `model`, `state`, `sample_weight`, `mask`, ...). It returns
        per-example values (trailing axes are averaged), a scalar, or a dict of named parts.
    - `weight`: its factor in the total. The loss is logged without this factor.
    - `on`: a key, or a sequence of keys to follow, that picks a part of `y_pred`, and of `y_true`
        and `sample_weight` where these have parts. If the labels of that part are None, the loss is
        left out.
    - `reduction`: over the batch, with m the mask, w the sample and c the class weights:
        `"mean"`, the mean over examples, `Σ(m·w·c·ℓ) / Σm`; `"sum"`, `Σ(m·w·c·ℓ)`, over trailing
        axes too; or `"mean_with_sample_weight"`, `Σ(m·w·c·ℓ) / Σ(m·w·c)`. The value logged for a
        pass is what one batch of all its examples would give.
    - `name`: the name that it is logged under; by default that of the function.
    - `check_labels`: whether compiled steps look for labels that aren't classes, in optax's losses
        of integer labels. They then wait for the device at each step. With `eager=True`, labels
        are always checked.
    """

    fn: Callable[..., Any]
    weight: float = eqx.field(default=1.0, kw_only=True)
    on: Key | tuple[Key, ...] | None = eqx.field(default=None, kw_only=True)
    reduction: Reduction = eqx.field(default="mean", kw_only=True)
    name: str | None = eqx.field(default=None, kw_only=True)
    check_labels: bool = eqx.field(default=False, kw_only=True)

    def __check_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"`Loss` takes a function, not {self.fn!r}: `Loss(optax.l2_loss)`.")
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"`Loss(name={self.name!r})` is not a string: pass one, or None.")
        if self.name == "":
            raise ValueError(
                "`Loss(name='')` is empty: pass a name, or None for the function's own."
            )
        if isinstance(self.weight, str) or np.ndim(self.weight) != 0:
            raise TypeError(
                f"`Loss(weight={self.weight!r})` is not a number: pass one, such as 0.5."
            )
        if self.reduction in (None, "none"):
            raise ValueError(
                f"`Loss(reduction={self.reduction!r})` would leave a loss for each example, but a "
                "gradient needs a single number: choose `'mean'` or `'sum'`, and log the values "
                "with a metric, `et.metrics.from_function(fn, et.metrics.Gather())`."
            )
        if self.reduction not in _REDUCTIONS:
            raise ValueError(
                f"`Loss(reduction={self.reduction!r})` is not valid: choose one of "
                f"{', '.join(map(repr, _REDUCTIONS))}."
            )


@final
class TotalLoss(Metric):
    """The weighted sum of losses that are not all means over examples.

    **Arguments:**

    - `parts`: the loss of the pass for each of them.
    - `factors`: their weights in the sum.
    """

    parts: tuple[Metric, ...]
    factors: tuple[Any, ...]

    def compute(self) -> Float[Array, ""]:
        pairs = zip(self.factors, self.parts, strict=True)
        return jnp.sum(jnp.stack([factor * part.compute() for factor, part in pairs]))


def check_losses(container: Any) -> None:
    """Refuse what is not a loss."""
    members = [m for _, m in named_leaves(container, default="loss", is_leaf=_is_loss)]
    for member in members:
        if not _is_loss(member) and not callable(member):
            raise TypeError(
                f"`loss` holds {member!r}, which is not a function: pass one such as "
                "`optax.squared_error`, or `lambda y_pred, y_true: ...`."
            )
    if container is not None and not members:
        raise ValueError(f"`loss` is {container!r}, which holds no loss: pass one, or None.")


def compute_losses(
    container: Any, available: Mapping[str, Any]
) -> tuple[Float[Array, ""], dict[str, Array | Metric]]:
    """The total loss of a batch, and its parts to log.

    The total is the weighted sum of the parts. A single plain function is the total, and has no
    parts. If some part is not a mean over examples, then neither is the total, so its value for a
    pass is logged, too.
    """
    total: Any = 0.0
    found: list[tuple[Loss, ReducedLoss]] = []
    parts: dict[str, Array | Metric] = {}
    for name, path, loss in _named_losses(container):
        for part, reduced in _compute_loss(loss, name, available).items():
            total = total + loss.weight * reduced.value
            found.append((loss, reduced))
            if path is None and part is None:
                continue
            log = reduced.value if loss.reduction == "mean" else reduced.contribution
            pieces = (piece for piece in (path, part) if piece is not None)
            parts[unique("/".join(pieces), {"loss", *parts})] = log
    if not any(_looks_at_data(loss.fn, available) for loss, _ in found) and reserved_names(
        container
    ):
        raise ValueError(
            "There is nothing to minimise: every loss is on an output whose labels are None. Pass "
            "labels for at least one of them."
        )
    if any(loss.reduction != "mean" for loss, _ in found):
        factors = tuple(loss.weight for loss, _ in found)
        parts["loss"] = TotalLoss(tuple(reduced.contribution for _, reduced in found), factors)
    return jnp.asarray(total), parts


def _named_losses(container: Any) -> list[tuple[str, str | None, Loss]]:
    """The losses of a container: the name of each, the path that it is logged under, and the loss.

    Paths are made unique before any loss is left out, so that they are the same in every pass. A
    single function has no path, since it is logged as the total.
    """
    found: list[tuple[str, str | None, Loss]] = []
    taken = {"loss"}
    for name, member in named_leaves(container, default="loss", is_leaf=_is_loss):
        path = None if container is member and not _is_loss(member) else unique(name, taken)
        taken |= {path} if path else set()
        found.append((name, path, member if _is_loss(member) else Loss(member)))
    return found


def reserved_names(container: Any) -> set[str]:
    """The names of losses that may be left out. Nothing else may take them then."""
    return {path for _, path, loss in _named_losses(container) if path and loss.on is not None}


def _is_loss(node: Any) -> bool:
    return isinstance(node, Loss)


def _compute_loss(
    loss: Loss, name: str, available: Mapping[str, Any]
) -> dict[str | None, ReducedLoss]:
    """The parts of one loss; none if it is on an output without labels."""
    if loss.on is not None:
        available = dict(available) | pick(available, loss.on, who=f"The loss `{name}`")
        if available.get("y_true", 0) is None:
            del available["y_true"]
            if needs_labels(loss.fn, LOSS_NAMES | available.keys()):
                return {}
    available = check_labels(loss.fn, name, available, compiled=loss.check_labels)
    shield = shield_gradients(loss.fn, available)
    value = call_on_predictions(loss.fn, shield, names=LOSS_NAMES, role="loss", who=name)
    parts = value if isinstance(value, Mapping) else {None: value}
    return {
        part: reduce_loss(loss.fn, name, ell, available, loss.reduction)
        for part, ell in parts.items()
    }


def _looks_at_data(fn: Callable[..., Any], available: Mapping[str, Any]) -> bool:
    by_name = is_by_name(fn, LOSS_NAMES | available.keys())
    return not by_name or bool({"y_pred", "y_true"} & set(request(fn).names))
