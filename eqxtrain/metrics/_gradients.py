"""Metrics of training steps: norms of gradients and updates, and the learning rate.

Each step has one norm, so by default the result is the mean over the steps of a pass, and depends
on the batch size. A metric that asks for `grads` sees them as `grad_step` returned them: those of
complex leaves are not conjugated.
"""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .._tree import is_inexact
from .._types import PyTree, Self
from ._base import Metric
from ._compensated import CompensatedSum
from ._gather import Last
from ._mode_metric import ModeMetric
from ._modes import check_modes


def _norm(leaves: list[Any]) -> Float[Array, ""]:
    # `optax.tree.norm` squares in the dtype of each leaf, where float16 overflows at 256; of leaves
    # that are float32 already it is the same number, but takes twice as long to trace.
    squares = [jnp.square(jnp.abs(leaf).astype(jnp.float32)) for leaf in leaves]
    return jnp.sqrt(optax.tree.sum(squares))


def _layers(tree: PyTree) -> dict[str, list[Any]]:
    """The floating-point arrays of a tree, by the path of the layer that holds them."""
    layers: dict[str, list[Any]] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if is_inexact(leaf):
            layers.setdefault(_layer(path), []).append(leaf)
    return layers


def _layer(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path[:-1]).lstrip(".") or "model"


class _TreeNorm(ModeMetric):
    """The Euclidean norm of a tree like the model, as a whole or for each layer."""

    per_layer: bool = eqx.field(default=False, static=True, kw_only=True)

    def __check_init__(self) -> None:
        if not isinstance(self.mode, dict):
            check_modes(type(self).__name__, (self.mode,))

    def _updated(self, tree: PyTree) -> Self:
        layers = _layers(tree)
        if self.per_layer:
            norms: Any = {path: _norm(leaves) for path, leaves in layers.items()}
        else:
            norms = _norm([leaf for leaves in layers.values() for leaf in leaves])
        return self.accumulated(norms, lambda mode, norm: mode.update(y_pred=norm))


@final
class GradientNorm(_TreeNorm):
    """The Euclidean norm of the gradients of a step, as `grad_step` returned them.

    **Arguments:**

    - `mode`: how steps are summarised, by default as their `Mean()`. `Modes(Mean(), Max())` gives
        several values.
    - `per_layer`: whether each layer has its own norm, logged under the layer's path,
        `gradient_norm/layers[0]`.
    """

    def update(self, grads: PyTree) -> Self:
        return self._updated(grads)


@final
class UpdateNorm(_TreeNorm):
    """The Euclidean norm of what the optimizer adds to the model in a step.

    **Arguments:**

    - `mode`: how steps are summarised, by default as their `Mean()`. `Modes(Mean(), Max())` gives
        several values.
    - `per_layer`: whether each layer has its own norm, logged under the layer's path,
        `update_norm/layers[0]`.
    """

    def update(self, updates: PyTree) -> Self:
        return self._updated(updates)


@final
class UpdateRatio(ModeMetric):
    """The norm of what the optimizer adds to the weights, as a fraction of the weights' own norm.

    About 1e-3 is common; much more shakes the weights, and much less hardly trains them. What is
    not trained counts for nothing.

    **Arguments:**

    - `mode`: how steps are summarised, by default as their `Mean()`.
    - `per_layer`: whether each layer has its own ratio, logged under the layer's path,
        `update_ratio/layers[0]`.
    """

    per_layer: bool = eqx.field(default=False, static=True, kw_only=True)

    def __check_init__(self) -> None:
        if not isinstance(self.mode, dict):
            check_modes(type(self).__name__, (self.mode,))

    def update(self, updates: PyTree, model: PyTree) -> Self:
        at = dict(jax.tree.leaves_with_path(model))  # the model also has leaves without an update
        pairs = [(path, (at[path], leaf)) for path, leaf in jax.tree.leaves_with_path(updates)]
        layers: dict[str, list[Any]] = {} if self.per_layer else {"": []}
        for path, pair in pairs:
            layers.setdefault(_layer(path) if self.per_layer else "", []).append(pair)
        ratios: Any = {layer: self._ratio(pairs) for layer, pairs in layers.items()}
        ratios = ratios if self.per_layer else ratios[""]
        return self.accumulated(ratios, lambda mode, ratio: mode.update(y_pred=ratio))

    @staticmethod
    def _ratio(pairs: list[tuple[Any, Any]]) -> Any:
        weights, updates = ([pair[i] for pair in pairs] for i in (0, 1))
        norm = _norm(weights)
        return _norm(updates) / jnp.where(norm == 0, 1, norm)


@final
class DeadUnits(Metric):
    """The fraction of units that had no gradient in any step of the pass, for each layer.

    A unit is a row of a weight with two axes or more: an output of an `eqx.nn.Linear` or a channel
    of an `eqx.nn.Conv`. A `relu` that is never positive has no gradient, and never recovers. The
    rows of an embedding have none if their tokens did not occur.

    The layers are logged under their paths, `dead_units/layers[0]`.
    """

    largest: Any = None
    steps: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    def update(self, grads: PyTree) -> Self:
        largest: dict[str, Any] = {}
        for path, leaves in _layers(grads).items():
            rows = [jnp.abs(a).max(axis=tuple(range(1, a.ndim))) for a in leaves if a.ndim > 1]
            if rows:
                largest[path] = jnp.concatenate([row.astype(jnp.float32) for row in rows])
        one = CompensatedSum.of(jnp.ones(()))
        return self.replace(largest=largest, steps=self.steps.merge(one))

    def merge(self, other: Any) -> Self:
        pairs = [self.largest, other.largest]
        known = [largest for largest in pairs if largest is not None]
        largest = jax.tree.map(jnp.maximum, *known) if len(known) == 2 else [*known, None][0]
        return self.replace(largest=largest, steps=self.steps.merge(other.steps))

    def reset(self) -> Self:
        zeros = jax.tree.map(jnp.zeros_like, self.largest)
        return self.replace(largest=zeros, steps=self.steps.reset())

    def compute(self) -> Any:
        if self.largest is None:
            return jnp.full((), jnp.nan)
        has_seen = self.steps.total() > 0

        def fraction(largest: Any) -> Any:
            return jnp.where(has_seen, jnp.mean((largest == 0).astype(jnp.float32)), jnp.nan)

        return {path: fraction(rows) for path, rows in self.largest.items()}


@final
class LearningRate(ModeMetric):
    """The learning rate that the optimizer used, whether it is a number or follows a schedule.

    The rate is what the update is scaled by: it includes a schedule, an injected hyperparameter
    that a callback has set, the step of a line search, and the factor of
    `optax.contrib.reduce_on_plateau`. With `optax.multi_transform`, each label has its own,
    `learning_rate/head`.

    **Arguments:**

    - `schedule`: what the rate is, for optimizers that it can't be read from: a number, or a
        function of the step.
    - `mode`: how steps are summarised, by default as their `Last()`.

    !!! example

        ```python
        et.Learner(model, optax.adam(schedule), loss=loss, metrics=[et.metrics.LearningRate()])
        ```
    """

    schedule: Any = eqx.field(default=None, static=True)
    mode: Any = eqx.field(default_factory=Last, kw_only=True)

    def __check_init__(self) -> None:
        if not isinstance(self.mode, dict):
            check_modes(type(self).__name__, (self.mode,))
        is_number = isinstance(self.schedule, int | float) and not isinstance(self.schedule, bool)
        if not (self.schedule is None or is_number or callable(self.schedule)):
            raise TypeError(
                "`LearningRate(schedule)` must be a number, or a function of the step such as "
                f"`optax.cosine_decay_schedule(1e-3, 1000)`; got {self.schedule!r}."
            )

    def asking_function(self) -> Callable[..., Any]:
        return _asks_for_rate if self.schedule is None else _asks_for_step

    def update(self, *, learning_rate: Any = None, state: Any = None) -> Self:
        rate = self.schedule if self.schedule is not None else learning_rate
        rate = rate(state.step) if callable(rate) else rate
        return self.accumulated(rate, lambda mode, new: mode.update(y_pred=jnp.asarray(new)))


# Both ask for something that is there only where the update happens.
def _asks_for_rate(learning_rate: Any) -> None: ...


def _asks_for_step(updates: Any, state: Any) -> None: ...
