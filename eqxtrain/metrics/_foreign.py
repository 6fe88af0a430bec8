"""Metrics of other libraries, wrapped as they are."""

from collections.abc import Collection
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._promotion import standard_promotion
from .._request import name_of, request, snake_case
from .._types import Self
from ._base import Metric
from ._masks import combine_weights, mask_weights

_OUR_NAMES_FOR = {
    "logits": "y_pred",
    "predictions": "y_pred",
    "preds": "y_pred",
    "values": "y_pred",
    "labels": "y_true",
    "targets": "y_true",
    "sample_weights": "mask",
    "weights": "mask",
}
"""Our names for the parameters of other libraries."""

_WEIGHT_NAMES = {"weights", "sample_weights"}


@final
class CluMetric(Metric):
    """A metric with `from_model_output`, `merge` and `compute`. Made by `from_clu`."""

    metric_class: Any = eqx.field(static=True)
    name: str = eqx.field(static=True)
    arguments: tuple[tuple[str, Any], ...] = eqx.field(default=(), static=True)
    value: Any = None
    seen: Bool[Array, ""] | Bool[np.ndarray, ""] = eqx.field(
        default_factory=lambda: np.zeros((), np.bool_)
    )

    def update(self, **available: Any) -> Self:
        with standard_promotion():
            new = self.replace(value=_as_arrays(self._made_of(available)), seen=jnp.ones((), bool))
        return new if self.value is None else self.merge(new)

    def merge(self, other: Any) -> Self:
        if self.value is None or other.value is None:
            return self if other.value is None else other
        seen, theirs = jnp.asarray(self.seen), jnp.asarray(other.seen)
        # In some libraries, a metric that has seen nothing is not the identity of `merge`, so such
        # a metric is left out.
        with standard_promotion():
            both = _as_arrays(self.value.merge(other.value))
            value = jax.tree.map(
                lambda both, a, b: jnp.where(seen & theirs, both, jnp.where(seen, a, b)),
                both,
                self.value,
                other.value,
            )
        return self.replace(value=value, seen=seen | theirs)

    def reset(self) -> Self:
        value = jax.tree.map(jnp.zeros_like, self.value)
        return self.replace(value=value, seen=jnp.zeros((), bool))

    def compute(self) -> Any:
        if self.value is None:
            return jnp.full((), jnp.nan, jnp.float32)
        with standard_promotion():
            return jax.tree.map(
                lambda v: jnp.where(self.seen, jnp.asarray(v).astype(jnp.float32), jnp.nan),
                self.value.compute(),
            )

    def _made_of(self, available: dict[str, Any]) -> Any:
        """The contribution of one batch, as an instance of their class."""
        make = self.metric_class.from_model_output
        asked = request(make)
        mask = available.get("mask")
        ours = {**available, **_without_padding(available)}
        offered = {name: ours[source] for name, source in _OUR_NAMES_FOR.items() if source in ours}
        handed_on = ("logits", "labels") if asked.everything else ()
        offered = {n: v for n, v in offered.items() if n in (*asked.names, *handed_on)} | ours
        for name, argument in self.arguments:
            if isinstance(argument, str) and argument not in ours:
                raise TypeError(
                    f"`{self.name}` was given `{name}={argument!r}`, which is not available. "
                    f"Available: {', '.join(sorted(ours))}."
                )
            offered[name] = ours[argument] if isinstance(argument, str) else argument
        weighing = _WEIGHT_NAMES & set(asked.names)
        for name in weighing:
            offered[name] = _weight(offered.get(name), available)
        if mask is not None and not weighing:
            self._check_mask(mask, asked.everything or "mask" in asked.names)
        missing = [name for name in asked.required if name not in offered]
        if missing:
            raise TypeError(
                f"`{self.name}` asks for {', '.join(f'`{name}`' for name in missing)}: say which "
                f'name that is here, `from_clu({self.name}, {missing[0]}="y_pred")`. Available: '
                f"{', '.join(sorted(available))}."
            )
        return make(**{n: v for n, v in offered.items() if asked.everything or n in asked.names})

    def _check_mask(self, mask: Any, taken: bool) -> None:
        if not taken:
            raise TypeError(
                f"`{self.name}` can't leave out padding: its `from_model_output` does not take "
                "`mask`, `weights` or `sample_weights`."
            )
        if jnp.asarray(mask).dtype != jnp.bool_:
            raise TypeError(
                f"`{self.name}` can't be weighted: its `from_model_output` takes a `mask`, but not "
                "`weights` or `sample_weights`."
            )


@final
class CluCollection(Metric):
    """Several metrics by name. Made by `from_clu` from a `clu.metrics.Collection`."""

    name: str = eqx.field(static=True)
    parts: dict[str, Any]

    def update(self, **available: Any) -> Self:
        return self.replace(parts={n: part.update(**available) for n, part in self.parts.items()})

    def compute(self) -> Any:
        return {name: part.compute() for name, part in self.parts.items()}


def _weight(sample_weight: Any, available: dict[str, Any]) -> Any:
    """The weights that a metric of another library asks for, in the shape of its labels."""
    mask = available.get("mask")
    if mask is None or sample_weight is None:
        return mask if sample_weight is None else sample_weight
    weight = mask if sample_weight is mask else combine_weights(sample_weight, mask)
    labels = available.get("y_true")
    return mask_weights(weight, jnp.shape(available["y_pred"] if labels is None else labels))


def _without_padding(available: dict[str, Any]) -> dict[str, Any]:
    """Predictions and labels with 0 for padding, which may be nan: theirs only multiply by 0."""
    mask = available.get("mask")
    if mask is None:
        return {}
    arrays = {n: available[n] for n in ("y_pred", "y_true") if hasattr(available.get(n), "shape")}
    return {name: _zero_padding(jnp.asarray(array), mask) for name, array in arrays.items()}


def _zero_padding(array: Array, mask: Any) -> Array:
    keep = mask_weights(mask, array.shape[: jnp.ndim(mask)]) != 0
    return jnp.where(keep.reshape(jnp.shape(mask) + (1,) * (array.ndim - jnp.ndim(mask))), array, 0)


def _as_arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def from_clu(
    metric_class: Any, *, name: str | None = None, **arguments: Any
) -> "CluMetric | CluCollection":
    """A metric of [clu](https://github.com/google/CommonLoopUtils) or metrax, or one like theirs.

    **Arguments:**

    - `metric_class`: a class with `from_model_output(...)`, `merge(other)` and `compute()` whose
        instances are pytrees of arrays; or a `clu.metrics.Collection` of such classes, each of
        which is logged under its name.
    - `name`: its name in the logs; by default that of the class.
    - `arguments`: for parameters of `from_model_output`, the name of what they receive
        (`logits="y_pred"`), or a constant (`from_logits=True`). By default, `logits`,
        `predictions` and `values` receive `y_pred`, `labels` and `targets` receive `y_true`, and
        `weights` and `sample_weights` receive the mask.

    Whether the result depends on how the data are split into batches is up to that metric. For
    example, metrax's `Perplexity` weighs batches by their number of rows, including padding.

    !!! example

        ```python
        metrics = {"perplexity": et.metrics.from_clu(metrax.Perplexity, from_logits=True)}
        ```
    """
    own = name or snake_case(name_of(metric_class) or "metric")
    if hasattr(metric_class, "single_from_model_output"):  # a collection
        members: dict[str, Any] = metric_class.__annotations__
        taken = {n: set(request(member.from_model_output).names) for n, member in members.items()}
        _check_arguments(arguments, set().union(*taken.values()))
        mine = {n: {a: v for a, v in arguments.items() if a in taken[n]} for n in members}
        parts = {n: from_clu(member, name=n, **mine[n]) for n, member in members.items()}
        return CluCollection(own, parts)
    if not hasattr(metric_class, "from_model_output"):
        raise TypeError(f"{metric_class!r} has no `from_model_output`, so it is not a clu metric.")
    asked = request(metric_class.from_model_output)
    if not asked.everything:
        _check_arguments(arguments, asked.names)
    return CluMetric(metric_class, own, tuple(sorted(arguments.items())))


def _check_arguments(arguments: Collection[str], taken: Collection[str]) -> None:
    unknown = [name for name in arguments if name not in taken]
    if unknown:
        raise TypeError(
            f"`{unknown[0]}` is not a parameter of `from_model_output`, which takes "
            f"{', '.join(sorted(taken))}."
        )
