"""Calling by name: the names that we provide, and calling a function with what it asks for."""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter
from typing import Any, NamedTuple

PRED_NAMES = frozenset({"model", "state", "x", "batch", "key", "training", "initializing"})
TEST_NAMES = PRED_NAMES | {"y_true", "sample_weight", "class_weight", "mask"}
INIT_NAMES = TEST_NAMES - {"state", "training", "mask"} | {"model_state"}
STATES_NAMES = frozenset({"model", "model_state", "key", "initializing"})
SUMMARY_NAMES = frozenset({"model", "state", "x", "batch", "key", "initializing"})
LOSS_NAMES = TEST_NAMES | {"y_pred"}
UPDATE_NAMES = frozenset({"grads", "updates", "learning_rate"})
METRIC_NAMES = LOSS_NAMES | {"loss"} | UPDATE_NAMES
OUR_NAMES = METRIC_NAMES | INIT_NAMES

FROM_BATCH = frozenset({"x", "y_true", "sample_weight"})
"""The names that a mapping batch may fill with keys of its own."""


class Request(NamedTuple):
    """What a function asks for: required and optional names, and whether it takes everything."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    everything: bool
    positional_only: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.required + self.optional


def request(fn: Callable[..., Any], *, skip: int = 0) -> Request:
    """Read the signature of `fn`, leaving out its first `skip` parameters."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())[skip:]
    except (TypeError, ValueError):  # some builtins have no signature to read
        return Request((), (), everything=False)
    if isinstance(fn, functools.partial):  # it does not ask for what it binds
        parameters = [p for p in parameters if p.name not in fn.keywords]
    named = [
        p for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    ]
    return Request(
        required=tuple(p.name for p in named if p.default is Parameter.empty),
        optional=tuple(p.name for p in named if p.default is not Parameter.empty),
        everything=any(p.kind is Parameter.VAR_KEYWORD for p in parameters),
        positional_only=tuple(
            p.name
            for p in parameters
            if p.kind is Parameter.POSITIONAL_ONLY and p.default is Parameter.empty
        ),
    )


_NAMES_ELSEWHERE = {
    "rng": "key", "prng_key": "key", "random_key": "key", "subkey": "key",
    "y": "y_true", "labels": "y_true", "label": "y_true", "targets": "y_true", "target": "y_true",
    "preds": "y_pred", "logits": "y_pred", "output": "y_pred", "outputs": "y_pred",
    "weight": "sample_weight", "weights": "sample_weight", "gradients": "grads", "params": "model",
}  # fmt: skip
"""What people call the things that our names stand for."""


def missing_message(who: str, missing: Collection[str], available: Mapping[str, Any]) -> str:
    """The error for names that nobody provides."""
    asked = ", ".join(f"`{name}`" for name in sorted(missing))
    text = f"`{who}` asks for {asked}, which nobody provides here."
    for name in sorted(missing):
        if ours := _NAMES_ELSEWHERE.get(name):
            text += f" `{name}` is `{ours}` here."
    if "y_true" in missing and "y_true" not in available:
        text += " There are no labels: pass `y`, or give `y_true` a default."
    if who.endswith("init_step") and "x" in missing:
        text += " Pass one batch: `learner.init(x, y)`."
    if "y_pred" in missing and "grads" in available:
        text += (
            " A metric that asks for `grads` or `updates` is measured after the step, without "
            "predictions."
        )
    if "sample_weight" in missing:
        text += " Pass `sample_weight=None` if there are no weights."
    return text + f" Available: {', '.join(sorted(available))}."


def select(
    fn: Callable[..., Any], available: Mapping[str, Any], *, who: str, skip: int = 0
) -> dict[str, Any]:
    """Pick the arguments that `fn` asks for from `available`.

    **Raises:** `TypeError` if a required one is missing; it lists the available names.
    """
    asked = request(fn, skip=skip)
    if asked.positional_only:
        names = ", ".join(f"`{name}`" for name in asked.positional_only)
        raise TypeError(
            f"`{who}` is called by name, but has positional-only parameters ({names}): drop the "
            "`/`."
        )
    missing = [name for name in asked.required if name not in available]
    if missing:
        raise TypeError(missing_message(who, missing, available))
    if asked.everything:
        return dict(available)
    return {name: available[name] for name in asked.names if name in available}


def call(fn: Callable[..., Any], available: Mapping[str, Any], *, who: str) -> Any:
    """Call `fn` by name with what it asks for."""
    return fn(**select(fn, available, who=who))


def is_by_name(fn: Callable[..., Any], names: Collection[str]) -> bool:
    """Whether `fn` is called by name, since a required parameter is one of `names`.

    Otherwise it is called by position, `fn(y_pred, y_true)`, as optax's losses are.
    """
    return any(name in names for name in request(fn).required)


def name_of(fn: Any) -> str | None:
    """The name of a function or object: its `name`, `__name__` or class; None for a lambda.

    An object that has no `name`, but wraps a function `fn`, has that function's name.
    """
    own_name = getattr(fn, "name", None)
    if isinstance(own_name, str):
        return own_name
    if isinstance(fn, functools.partial):
        return name_of(fn.func)
    if callable(getattr(fn, "fn", None)):
        return name_of(fn.fn)
    name = getattr(fn, "__name__", None) or snake_case(type(fn).__name__)
    return None if name == "<lambda>" else name


def snake_case(name: str) -> str:
    """`MeanSquaredError` → `mean_squared_error`, `TopKAccuracy` → `top_k_accuracy`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).strip("_").lower()
