"""Find where in a model a step failed, by running the step once more on shapes.

JAX says what is wrong with two shapes, but not where in the model they met. Nothing is watched
until something fails, so a step that works pays nothing.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._tree import describe, is_array
from .module_calls import shapes_of, watch_calls, wrap_modules

_START = "Where it failed: "

_NOT_BATCH = ("model", "state", "key", "training", "initializing", "class_weight")


class _Call(NamedTuple):
    """A call of a part of the model that raised, with shapes in place of its arrays."""

    error: Exception | None
    path: str
    part: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def locate(
    error: Exception, who: str, step: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    """Add a note to an error that says which part of the model raised it, and for which shapes.

    **Arguments:**

    - `who`: the name of the step, for the note.
    - `step`, `arguments`: the step, and the arguments that it was called with.
    """
    notes = getattr(error, "__notes__", [])
    if is_ours(error) or any(note.startswith(_START) for note in notes):
        return
    calls = _failing_calls(error, step, arguments)
    if calls is None:  # the error depends on values, or on something that has changed
        return
    hidden = (*_NOT_BATCH, "batch") if "x" in arguments else _NOT_BATCH
    batch = {name: value for name, value in arguments.items() if name not in hidden}
    text = f"`{who}`" + (f" with {met}." if (met := _list_arrays(batch.items())) else ".")
    if calls:
        text = f"{_describe_call(calls[0])}, in {text}{_remedy(error, calls[0], calls[-1], batch)}"
    error.__notes__ = [_START + text, *notes]


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised in this package, and so explains itself."""
    return (_origin(error)[0] or "").startswith("eqxtrain.")


def _origin(error: BaseException) -> tuple[str | None, int]:
    """The module and the line where an error was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return None, 0
    return traceback.tb_frame.f_globals.get("__name__"), traceback.tb_lineno


def _failing_calls(
    error: Exception, step: Callable[..., Any], arguments: Mapping[str, Any]
) -> list[_Call] | None:
    """The calls that the error passed through, innermost first; None if it does not recur."""
    failed: list[_Call] = []

    def call(path: str, part: Any, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            failed.append(_Call(error, path, *_to_shapes((part, args, kwargs))))
            raise

    def again(arguments: dict[str, Any]) -> None:
        with watch_calls(call):
            step(**arguments | {"model": wrap_modules(arguments.get("model"), "model")})

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes_of(again, dict(arguments))
    except Exception as met:
        alike = str(met) == str(error) or _origin(met) == _origin(error)
        if type(met) is type(error) and alike:
            return [call._replace(error=None) for call in failed if call.error is met]
    finally:
        failed.clear()  # the tracebacks refer to this frame, and would keep the data alive
    return None


def _to_shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array(leaf) else leaf, tree
    )


def _describe_call(call: _Call) -> str:
    own = _list_arrays((name, value) for name, value in vars(call.part).items() if is_array(value))
    of = f", with {own}," if own else ""
    return (
        f"`{call.path}: {type(call.part).__name__}`{of} was called with {_describe_arguments(call)}"
    )


def _describe_arguments(call: _Call) -> str:
    try:
        bound = inspect.signature(call.part).bind(*call.args, **call.kwargs).arguments
    except TypeError:  # the call itself was wrong
        bound = {f"argument {i}": value for i, value in enumerate(call.args)} | call.kwargs
    return (
        _list_arrays((name, value) for name, value in bound.items() if name != "key") or "no array"
    )


def _list_arrays(named: Iterable[tuple[str, Any]]) -> str:
    """The arrays among some values, in words: `x` float32[32,4] and `y` int32[32]."""
    told = [f"`{name}` {_describe_value(value)}" for name, value in named if _has_shape(value)][:4]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def _has_shape(value: Any) -> bool:
    """Whether it is an array, or a plain container of a few."""
    if isinstance(value, tuple | list | dict):
        leaves = jax.tree.leaves(value, is_leaf=lambda node: isinstance(node, eqx.Module))
        return 0 < len(leaves) <= 4 and all(map(is_array, leaves))
    return is_array(value)


def _describe_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_describe_value(value[key])}" for key in value) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(_describe_value, value)) + ")"
    return describe(value)


def _remedy(error: Exception, inner: _Call, outer: _Call, batch: Mapping[str, Any]) -> str:
    """What to do about the most common mistakes; empty for others."""
    part = inner.part
    name = getattr(part, "axis_name", None)
    if _fits_mapped(outer, batch):
        return (
            f" `{outer.path}` takes one example, but was given the batch: map it over the batch, "
            f"`jax.vmap({outer.path}, ...)`."
        )
    if isinstance(error, NameError) and name is not None:
        return (
            f" Its `axis_name` is {name!r}, but the default `pred_step` maps the model over the "
            'axis "batch": build it with `axis_name="batch"`, or map the model over that name in '
            "a `pred_step` of your own."
        )
    if isinstance(part, eqx.nn.Conv | eqx.nn.ConvTranspose) and inner.args:
        shape = list(getattr(inner.args[0], "shape", ()))
        images = len(shape) == part.num_spatial_dims + 1
        if images and shape[-1] == part.in_channels != shape[0]:
            return (
                " Equinox's convolutions take the channels first, but here they come last: move "
                f"them, `jnp.moveaxis(x, -1, {-len(shape)})`."
            )
    return ""


def _fits_mapped(call: _Call, batch: Mapping[str, Any]) -> bool:
    """Whether a call that failed would work if it were mapped over the batch."""
    rows = {leaf.shape[:1] for leaf in jax.tree.leaves(batch) if is_array(leaf) and leaf.ndim}
    inputs = (call.args, call.kwargs)
    first = {leaf.shape[:1] for leaf in jax.tree.leaves(call.args[:1]) if is_array(leaf)}
    if () in first or not first & rows:
        return False
    axes = jax.tree.map(
        lambda leaf: 0 if is_array(leaf) and leaf.shape[:1] in first else None, inputs
    )

    def one_example(part: Any, inputs: Any) -> Any:
        args, kwargs = inputs
        return part(*args, **kwargs)

    try:
        mapped = eqx.filter_vmap(one_example, in_axes=(None, axes), axis_name="batch")
        shapes_of(mapped, call.part, inputs)
    except Exception:
        return False
    return True
