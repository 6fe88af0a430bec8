"""Metrics of other libraries, carried as they are."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._request import name_of, request, snake_case
from .._types import Self
from ._base import Metric

_OURS = {
    "logits": "y_pred",
    "predictions": "y_pred",
    "preds": "y_pred",
    "values": "y_pred",
    "labels": "y_true",
    "targets": "y_true",
    "sample_weights": "mask",
    "weights": "mask",
}
"""What the parameters of other libraries are called here."""


@final
class CluMetric(Metric):
    """A metric with `from_model_output`, `merge` and `compute`. Made by `from_clu`."""

    kind: Any = eqx.field(static=True)
    name: str = eqx.field(static=True)
    arguments: tuple[tuple[str, Any], ...] = eqx.field(default=(), static=True)
    value: Any = None
    seen: Bool[Array, ""] | Bool[np.ndarray, ""] = eqx.field(
        default_factory=lambda: np.zeros((), np.bool_)
    )

    def update(self, **available: Any) -> Self:
        make = _maker(self.kind)
        asked = request(make)
        offered = {name: available[ours] for name, ours in _OURS.items() if ours in available}
        offered = offered | available
        for name, given in self.arguments:
            offered[name] = available[given] if isinstance(given, str) else given
        mask = available.get("mask")
        if offered.get("sample_weights") is not None:
            weight = jnp.asarray(mask).astype(jnp.float32)
            offered |= {n: weight for n in ("sample_weights", "weights") if offered[n] is mask}
        takes = {"mask", "sample_weights", "weights"} & set(asked.names)
        if mask is not None and not takes and not asked.everything:
            raise TypeError(
                f"`{self.name}` can't leave out padding: its `from_model_output` takes no `mask`, "
                "`weights` or `sample_weights`."
            )
        missing = [f"`{name}`" for name in asked.required if name not in offered]
        if missing:
            raise TypeError(
                f"`{self.name}` asks for {', '.join(missing)}. Say what that is here, "
                f'`from_clu({self.name}, {missing[0].strip("`")}="y_pred")`. Available: '
                f"{', '.join(sorted(available))}."
            )
        given = {n: v for n, v in offered.items() if asked.everything or n in asked.names}
        new = self.replace(value=_arrays(make(**given)), seen=jnp.ones((), bool))
        return new if self.value is None else self.merge(new)

    def merge(self, other: Self) -> Self:
        if self.value is None or other.value is None:
            return self if other.value is None else other
        merged = _arrays(self.value.merge(other.value))
        seen, theirs = jnp.asarray(self.seen), jnp.asarray(other.seen)
        # what has seen nothing is no identity in every library, so it is left out
        choose = lambda both, a, b: jnp.where(
            seen & theirs, jnp.asarray(both).astype(a.dtype), jnp.where(seen, a, b.astype(a.dtype))
        )
        value = jax.tree.map(choose, merged, self.value, other.value)
        return self.replace(value=value, seen=seen | theirs)

    def reset(self) -> Self:
        value = jax.tree.map(jnp.zeros_like, self.value)
        return self.replace(value=value, seen=jnp.zeros((), bool))

    def compute(self) -> Any:
        if self.value is None:
            return jnp.full((), jnp.nan, jnp.float32)
        to_nan = lambda v: jnp.where(self.seen, jnp.asarray(v).astype(jnp.float32), jnp.nan)
        return jax.tree.map(to_nan, self.value.compute())


def _maker(kind: Any) -> Any:
    """What makes a contribution; a `clu.metrics.Collection` has another name for it."""
    collection = getattr(kind, "single_from_model_output", None)
    return getattr(kind, "from_model_output", collection)


def _arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def from_clu(kind: Any, *, name: str | None = None, **arguments: Any) -> CluMetric:
    """A metric of [clu](https://github.com/google/CommonLoopUtils) or metrax, or made like theirs.

    **Arguments:**

    - `kind`: a class with `from_model_output(...)`, `merge(other)` and `compute()` that is a
        pytree of arrays. It is carried in the state of the pass as it is.
    - `name`: what it goes by; by default the name of the class.
    - `arguments`: what is handed to which parameter of `from_model_output`: one of our names
        (`logits="y_pred"`), or a constant (`from_logits=True`). `logits`, `predictions`, `values`
        are `y_pred` by themselves, `labels` and `targets` `y_true`, and `weights` and
        `sample_weights` the mask.

    !!! example

        ```python
        metrics = {"perplexity": et.metrics.from_clu(metrax.Perplexity, from_logits=True)}
        ```
    """
    if _maker(kind) is None:
        raise TypeError(f"{kind!r} has no `from_model_output`, so it is no metric as clu's are.")
    own = name or snake_case(name_of(kind) or "metric")
    return CluMetric(kind, own, tuple(sorted(arguments.items())))
