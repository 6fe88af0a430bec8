"""What a step of training does: the norms of its gradients and updates.

They are of steps, so they are means over the steps of a pass, and depend on the batch size. What
asks for `grads` sees them as `grad_step` returned them: those of complex leaves are not conjugated.
"""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .._tree import is_inexact
from .._types import PyTree, Self
from ._base import Metric
from ._function import fold, merged, results_of, values_of
from ._modes import Mean, check_modes


def _norm(leaves: list[Any]) -> Float[Array, ""]:
    # `optax.tree.norm` squares in the dtype of each leaf, where float16 overflows at 256; of leaves
    # that are float32 already it is the same number, but takes twice as long to trace.
    squares = [jnp.square(jnp.abs(leaf).astype(jnp.float32)) for leaf in leaves]
    return jnp.sqrt(optax.tree.sum(squares))


def _layers(tree: PyTree) -> dict[str, list[Any]]:
    """The floating arrays of a tree by the path of the layer that holds them."""
    layers: dict[str, list[Any]] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if is_inexact(leaf):
            layer = jax.tree_util.keystr(path[:-1]).lstrip(".")
            layers.setdefault(layer or "model", []).append(leaf)
    return layers


class _TreeNorm(Metric):
    """The Euclidean norm of a tree of the model's structure, whole or layer by layer."""

    per_layer: bool = eqx.field(default=False, static=True, kw_only=True)
    mode: Any = eqx.field(default_factory=Mean, kw_only=True)

    def __check_init__(self) -> None:
        if not isinstance(self.mode, dict):
            check_modes(type(self).__name__, (self.mode,))

    def merge(self, other: Any) -> Self:
        return self.replace(mode=merged(self.mode, other.mode))

    def compute(self) -> Any:
        return values_of(self.mode)

    def results(self, name: str) -> dict[str, Any]:
        return results_of(self.mode, name)

    def _updated(self, tree: PyTree) -> Self:
        layers = _layers(tree)
        if self.per_layer:
            norms: Any = {path: _norm(leaves) for path, leaves in layers.items()}
        else:
            norms = _norm([leaf for leaves in layers.values() for leaf in leaves])
        take = lambda mode, norm: mode.update(y_pred=norm)
        return self.replace(mode=fold(self.mode, norms, take))


@final
class GradientNorm(_TreeNorm):
    """The Euclidean norm of the gradients of a step, as they come from `grad_step`.

    **Arguments:**

    - `per_layer`: whether each layer has its own, logged under its path, `gradient_norm/layers[0]`.
    - `mode`: how steps are summarised, by default as their `Mean()`. `Modes(Mean(), Max())` gives
        several values.
    """

    def update(self, grads: PyTree) -> Self:
        return self._updated(grads)


@final
class UpdateNorm(_TreeNorm):
    """The Euclidean norm of what the optimizer adds to the model in a step.

    **Arguments:**

    - `per_layer`: whether each layer has its own, logged under its path, `update_norm/layers[0]`.
    - `mode`: how steps are summarised, by default as their `Mean()`. `Modes(Mean(), Max())` gives
        several values.
    """

    def update(self, updates: PyTree) -> Self:
        return self._updated(updates)
