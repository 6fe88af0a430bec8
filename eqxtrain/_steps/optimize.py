"""Which leaves are trained, and optax applied to those alone."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from .._identity.static_leaf import StaticLeaf
from .._promotion import standard_promotion
from .._tree import differences, is_inexact
from .._types import FilterSpec, Optimizer, PyTree, Transformation


class Prefix(NamedTuple):
    """A bool prefix of the model, hashable, so that it adds no leaves to a learner."""

    bools: tuple[bool, ...]
    treedef: Any


class Freeze(NamedTuple):
    """Everything is trained except what the functions `where` pick from the model."""

    where: tuple[StaticLeaf, ...]


def freeze(*where: Callable[[Any], Any]) -> FilterSpec:
    """A filter spec for `trainable=` that freezes parts of the model.

    **Arguments:**

    - `where`: functions from the model to one node of it, or to a tuple of nodes, as for
        `eqx.tree_at`.

    !!! example

        ```python
        learner = et.Learner(model, optax.adam(1e-3), loss=loss,
                             trainable=et.freeze(lambda m: m.layers[0]))
        ```
    """
    for function in where:
        if not callable(function):
            raise TypeError(
                "`freeze` takes functions that pick nodes from the model, such as "
                f"`lambda m: m.layers[0]`; got {function!r}."
            )
    return Freeze(tuple(map(StaticLeaf, where)))


def as_spec(spec: FilterSpec) -> Hashable:
    """The user's `trainable`, made hashable. A tree of bools becomes a `Prefix`."""
    if spec is None or isinstance(spec, Prefix | Freeze):
        return spec
    leaves, treedef = jax.tree.flatten(spec)
    if leaves and all(isinstance(leaf, bool) for leaf in leaves):
        return Prefix(tuple(leaves), treedef)
    if callable(spec):
        return spec
    raise TypeError(
        "`trainable` must be a function from a leaf to a bool, a tree of bools that is a prefix of "
        f"the model, or `et.freeze(...)`; got {spec!r}."
    )


def trainable_mask(spec: FilterSpec, model: PyTree) -> PyTree:
    """A tree of bools like `model`: which leaves are floating-point and trained by `spec`."""
    if spec is None:
        wanted: PyTree = jax.tree.map(lambda _: True, model)
    elif isinstance(spec, Freeze):
        wanted = _freeze_mask(model, spec.where)
    elif isinstance(spec, Prefix):
        wanted = _broadcast(jax.tree.unflatten(spec.treedef, spec.bools), model)
    else:
        wanted = jax.tree.map(lambda leaf: is_inexact(leaf) and bool(spec(leaf)), model)
    return jax.tree.map(lambda want, leaf: want and is_inexact(leaf), wanted, model)


def _freeze_mask(model: PyTree, where: tuple[StaticLeaf, ...]) -> PyTree:
    mask = jax.tree.map(lambda _: True, model)
    for function in where:
        try:
            mask = eqx.tree_at(
                function.value, mask, replace_fn=lambda node: jax.tree.map(lambda _: False, node)
            )
        except Exception as error:
            raise ValueError(
                f"`freeze` could not find what to freeze in a `{type(model).__name__}`: {error}"
            ) from error
    return mask


def _broadcast(prefix: PyTree, model: PyTree) -> PyTree:
    try:
        return jax.tree.broadcast(prefix, model)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`trainable` is not a prefix of the model (a `{type(model).__name__}`): {error}"
        ) from error


def partition(spec: FilterSpec, model: PyTree) -> tuple[PyTree, PyTree]:
    """Split the model into its trainable leaves and the rest, for `eqx.combine`."""
    return eqx.partition(model, trainable_mask(spec, model))


def as_optimizer(optimizer: Optimizer | None) -> Transformation:
    """The user's optimizer, with `optax.MultiSteps` turned into a gradient transformation.

    None stays None, for learners that are not trained or train in a `train_step` of their own. The
    annotation ignores that, so that all others need no check.
    """
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if optimizer is not None and not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"`optimizer` is {optimizer!r}: pass an optax transformation, `optax.adam(1e-3)`."
        )
    return cast(Transformation, optimizer)


def init(optimizer: optax.GradientTransformation | None, spec: FilterSpec, model: PyTree) -> PyTree:
    """The optimizer's state for the trainable leaves of `model`; None without an optimizer."""
    if optimizer is None:
        return None
    params, _ = partition(spec, model)
    with standard_promotion():
        return optimizer.init(params)


def update(
    optimizer: optax.GradientTransformation,
    spec: FilterSpec,
    *,
    model: PyTree,
    opt_state: PyTree,
    grads: PyTree,
    loss: Any,
    value_fn: Callable[[PyTree], Any],
) -> tuple[PyTree, PyTree, PyTree]:
    """One update.

    **Arguments:**

    - `grads`: as `eqx.filter_grad` gives them: None where there is none, complex ones not
        conjugated.
    - `loss`: for transformations that ask for the value (plateau, line searches).
    - `value_fn`: the loss as a function of the trainable leaves, for line searches.

    **Returns:** the model, the optimizer's state and the updates. Every leaf keeps its dtype.
    """
    params, rest = partition(spec, model)
    grads = _select_gradients(grads, params)
    if bad := differences(_outline(params), _outline(grads), "grads"):
        raise ValueError(
            "The gradients do not match the trainable leaves of the model: "
            + "; ".join(bad[:5])
            + ". Differentiate the leaves that `trainable` selects, or change `trainable`."
        )
    with standard_promotion():
        updates, new_state = optax.with_extra_args_support(optimizer).update(
            _conjugate(grads), opt_state, params, value=loss, grad=grads, value_fn=value_fn
        )
        params = optax.apply_updates(params, updates)
    return eqx.combine(params, rest), keep_dtypes(opt_state, new_state), updates


def _select_gradients(grads: PyTree, params: PyTree) -> PyTree:
    wanted = jax.tree.map(lambda leaf: leaf is not None, params, is_leaf=_is_none)
    try:
        return eqx.filter(grads, wanted)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The gradients are a `{type(grads).__name__}`, which does not have the structure of "
            "the model: return them from `grad_step` as `eqx.filter_grad` gives them."
        ) from error


def _conjugate(grads: PyTree) -> PyTree:
    """The directions of steepest ascent: JAX's gradients, with complex ones conjugated.

    optax leaves this to its caller. Its line searches, which compare `grad` with gradients that
    they compute themselves, take those as JAX gives them.
    """
    return jax.tree.map(
        lambda leaf: jnp.conj(leaf) if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else leaf,
        grads,
    )


def _outline(tree: PyTree) -> PyTree:
    """The shapes of the arrays in a tree, whatever their dtypes: gradients may differ there."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, "float32"), tree)


def keep_dtypes(old: PyTree, new: PyTree) -> PyTree:
    """`new` with the dtypes of `old`, where both have the same structure."""
    if jax.tree.structure(old) != jax.tree.structure(new):
        return new
    return jax.tree.map(
        lambda a, b: b.astype(a.dtype) if eqx.is_array(a) and eqx.is_array(b) else b, old, new
    )


def _is_none(leaf: Any) -> bool:
    return leaf is None
