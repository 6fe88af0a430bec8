"""Calling a model over a batch: by Equinox's convention, an unbatched model under `vmap`."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from .._types import PyTree
from .._warn import warn

AXIS_NAME = "batch"
"""The name of the mapped axis, over which BatchNorm reduces."""


def call_over_batch(
    model: Any,
    x: PyTree,
    *,
    model_state: eqx.nn.State | None = None,
    key: PRNGKeyArray | None = None,
    training: bool = False,
) -> tuple[PyTree, eqx.nn.State | None]:
    """Call an unbatched model on every example of `x`.

    **Arguments:**

    - `x`: the inputs, batch axis first. A tuple or list gives positional arguments, a dict gives
        keyword arguments, and anything else (even a named tuple) gives one argument.
    - `model_state`: passed as `model(x, state) -> (y, state)`, with `axis_name="batch"`.
    - `key`: split into one key per example, if the model has a parameter `key`.
    - `training`: whether to warn of a model that takes its key under another name.

    **Returns:** the outputs, batch axis first, and the model's new state.
    """
    if not callable(model):
        raise TypeError(
            f"The model is a `{type(model).__name__}`, which can't be called: define `__call__`, "
            "or override `pred_step`."
        )
    names = _parameters(model)
    _look_for_other_keys(model, x, names, training)
    keys = jax.random.split(key, _batch_size(x)) if key is not None and "key" in names else None

    def one_example(x: PyTree, key: PRNGKeyArray | None, state: Any) -> tuple[PyTree, Any]:
        return _call(model, names, x, key, state)

    try:
        return eqx.filter_vmap(
            one_example,
            in_axes=(eqx.if_array(0), 0, None),
            out_axes=(eqx.if_array(0), None),
            axis_name=AXIS_NAME,
        )(x, keys, model_state)
    except Exception as error:
        if _fits_unmapped(model, names, x, key, model_state):
            raise TypeError(
                f"The model (a `{type(model).__name__}`) does not take a single example, but takes "
                "the whole batch. By Equinox's convention, models are unbatched, and the default "
                "`pred_step` maps them over the batch. Either write the model for one example, or "
                "override\n\n    def pred_step(self, model, state, x):\n"
                "        return model(x), state\n\n"
                "(Or did you pass a single example instead of a batch?)"
            ) from error
        hint = _hint_at_key(model, names, error) if keys is None else None
        if isinstance(error, TypeError):
            hint = hint or _hint_at_inputs(x)
        if hint is not None:
            error.add_note(hint)
        raise


_OTHER_KEYS = (
    "rng", "rngs", "rng_key", "prng", "prng_key", "random_key", "dropout_key", "dropout_rng",
)  # fmt: skip
"""The names that models of other libraries give their random key."""


def _look_for_other_keys(
    model: Callable[..., Any], x: PyTree, names: Mapping[str, inspect.Parameter], training: bool
) -> None:
    """Refuse a model that requires a key under another name; warn of one that accepts it."""
    positional = len(x) if type(x) in (tuple, list) else 1
    inputs = x if isinstance(x, Mapping) else list(names)[:positional]
    for name in () if "key" in names else _OTHER_KEYS:
        if name in names and name not in inputs:
            text = (
                f"`{_call_name(model)}` names its random key `{name}`, but the default `pred_step` "
                "passes it as `key`"
            )
            remedy = f"rename it, or call `model(x, {name}=key)` in a `pred_step` of your own."
            if names[name].default is inspect.Parameter.empty:
                raise TypeError(f"{text}: {remedy}")
            if training:
                warn(f"{text}, so the model runs without one: {remedy}")


_LACKS_KEY = re.compile(r"requires? a key|argument.*'key'|PRNG key")
"""How layers say that they lack their random key."""


def _hint_at_key(
    model: Callable[..., Any], names: Mapping[str, inspect.Parameter], error: Exception
) -> str | None:
    """A hint for a model with a layer that lacks its key."""
    lacks = isinstance(error, RuntimeError | TypeError) and _LACKS_KEY.search(str(error))
    if not lacks or any(name in names for name in _OTHER_KEYS):
        return None
    return (
        f"`{_call_name(model)}` has no parameter `key`, so it is called without one: write "
        "`def __call__(self, x, *, key=None)`, and pass it on to the layers that need one."
    )


def _call_name(model: Callable[..., Any]) -> str:
    return getattr(model, "__name__", f"{type(model).__name__}.__call__")


def _hint_at_inputs(x: PyTree) -> str | None:
    if type(x) in (tuple, list):
        return (
            f"`x` is a {type(x).__name__} of {len(x)}, so the model was called with {len(x)} "
            "arguments. Pass labels separately, `fit(x, y)`, or in a batch, `(x, y)`."
        )
    if isinstance(x, Mapping):
        keys = ", ".join(f"`{key}`" for key in x)
        return (
            f"`x` is a mapping, so the model was called with the keyword arguments {keys}. If the "
            "mapping holds labels too, name the inputs `x` and the labels `y_true` "
            "(`dataset.rename_columns(...)`), or ask for its keys in a step of your own."
        )
    return None


def _parameters(model: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(model).parameters
    except (TypeError, ValueError):
        return {}


def _batch_size(x: PyTree) -> int:
    return next(np.shape(leaf)[0] for leaf in jax.tree.leaves(x) if np.ndim(leaf) > 0)


def _call(
    model: Callable[..., Any], names: Collection[str], x: PyTree, key: Any, state: Any
) -> tuple[PyTree, Any]:
    inputs = tuple(x) if type(x) in (tuple, list) else () if isinstance(x, Mapping) else (x,)
    by_name = dict(x) if isinstance(x, Mapping) else {}
    if key is not None:
        by_name["key"] = key
    if state is None:
        return model(*inputs, **by_name), None
    if "state" in names:
        return model(*inputs, state=state, **by_name)
    return model(*inputs, state, **by_name)


def _fits_unmapped(
    model: Callable[..., Any], names: Collection[str], x: PyTree, key: Any, state: Any
) -> bool:
    """Whether the model accepts the whole batch, tried on shapes alone."""
    try:
        keys = key if "key" in names else None
        eqx.filter_eval_shape(lambda x, k, s: _call(model, names, x, k, s), x, keys, state)
    except Exception:
        return False
    return True
