"""The contract of each step: what it may ask for and must return, and the wrapper that checks it.

Every step of a learner, default or overridden, is wrapped by `checked_step`. The wrapper calls it
by name, on a learner without its model and state, and checks what it returns.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import _request
from .._tree import instance
from ..metrics import _logs
from . import frozen_leaves, locate_error
from .state import LearnerState

T = TypeVar("T")

WITHHELD = ("model", "model_state", "state")
"""The fields that a learner lacks inside its steps."""


class Contract(NamedTuple):
    """What a step may ask for, and the names of what it returns."""

    names: frozenset[str]
    returns: tuple[str, ...]


CONTRACTS = {
    "pred_step": Contract(_request.PRED_NAMES, ("y_pred", "state")),
    "test_step": Contract(_request.TEST_NAMES, ("loss", "logs", "state")),
    "grad_step": Contract(_request.TEST_NAMES, ("loss", "logs", "state", "grads")),
    "train_step": Contract(_request.TEST_NAMES, ("logs", "model", "state")),
    "init_step": Contract(_request.INIT_NAMES, ("model", "state")),
    "states_step": Contract(_request.STATES_NAMES, ("state",)),
    "summary_step": Contract(_request.SUMMARY_NAMES, ("rows",)),
}


_ON_BATCHES = ("pred_step", "test_step", "grad_step", "train_step")


class WithheldError(AttributeError):
    """Raised when a step reads `self.model` or `self.state`."""


def withheld_message(learner: Any, name: str) -> str:
    """An error that teaches: what went wrong, why it matters, and how to write it instead."""
    cls = type(learner).__name__
    ask = "state" if name == "model_state" else name
    use = "state.model_state" if name == "model_state" else name
    return (
        f"`self.{name}` does not exist inside a step of `{cls}`. The {name.replace('_', ' ')} is "
        "passed to each step explicitly: a step that read it from `self` would see an old copy, "
        "whose gradient is zero. Ask for it by name:\n\n"
        f"    def test_step(self, {ask}, x, ...):      # not self.{name}\n"
        f"        ... {use} ...\n"
    )


def without_state(learner: T) -> T:
    """The learner as its steps see it: without the fields that are passed to them by name."""
    fields = vars(learner)
    if not any(name in fields for name in WITHHELD):
        return learner
    # Absent rather than None: a step that reads `self.model` must fail, not train nothing.
    return instance(type(learner), {n: v for n, v in fields.items() if n not in WITHHELD})


def checked_step(name: str, fn: Callable[..., Any], *, default: bool = False) -> Callable[..., Any]:
    """Hold the function `fn`, a method of a learner, to the contract of the step `name`.

    **Arguments:**

    - `default`: whether it is one of ours, which hand on all of their arguments.
    """
    if isinstance(fn, staticmethod | classmethod):
        raise TypeError(f"`{name}` must be a plain method, not a `{type(fn).__name__}`.")

    @functools.wraps(fn, updated=())
    def held_to_contract(self: Any, *args: Any, **keywords: Any) -> Any:
        who = f"{type(self).__name__}.{name}"
        if args:
            raise TypeError(
                f"`{who}` is called by name, but was given {len(args)} positional argument"
                f"{'s' * (len(args) > 1)}: write `self.{name}(model=model, ...)`. You may pass "
                "every name, whatever the step asks for."
            )
        available = _provide(name, keywords)
        _refuse_shadows(fn, available, who, name if default else None)
        arguments = _request.select(fn, available, who=who, skip=1)
        # An overridden `train_step` may forget what `trainable` freezes; the default one does not.
        may_thaw = name == "train_step" and not default and self.trainable is not None
        watching = (
            frozen_leaves.watching(self, available.get("model"))
            if may_thaw
            else contextlib.nullcontext()
        )
        with watching as watch:
            try:
                out = fn(without_state(self), **arguments)
            except Exception as error:
                if watch is not None and not watch.asked_trainable:
                    frozen_leaves.hint_at_partition(error, who)
                if name in _ON_BATCHES:
                    step = functools.partial(fn, without_state(self))
                    locate_error.locate(error, who, step, arguments)
                raise
            out = _CHECKS[name](out, who)
            if watch is not None:
                watch.returned = out[1]
        if name == "test_step" and default and self.loss is None:
            out[1].pop("loss", None)  # the nan that stands for it is not worth reporting
        returns = CONTRACTS[name].returns
        lost = len(returns) > 1 and out[returns.index("state")] is None
        if lost and available.get("state") is not None:
            raise TypeError(
                f"`{who}` returned None as its state: return the `state` that it was given, or an "
                "updated one."
            )
        return out

    return _mark(held_to_contract)


def checked_jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Hold a `jit_step` to what it must return."""

    @functools.wraps(fn)
    def returns_a_function(self: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = fn(self, function)
        if not callable(compiled):
            raise TypeError(
                f"`{type(self).__name__}.jit_step` returned a `{type(compiled).__name__}`: return "
                "the function that it was given, compiled, `return eqx.filter_jit(fn)`."
            )
        return compiled

    return _mark(returns_a_function)


def _mark(fn: Any) -> Callable[..., Any]:
    fn.is_held_to_contract = True
    return fn


def is_held_to_contract(fn: Any) -> bool:
    """Whether `checked_step` or `checked_jit` has wrapped this function."""
    return getattr(fn, "is_held_to_contract", False)


def _provide(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the step `name` may ask for: of our names, only those in its contract."""
    allowed = CONTRACTS[name].names
    defaults = {"initializing": False, "sample_weight": None, "class_weight": None, "mask": None}
    offered = {key: value for key, value in defaults.items() if key in allowed} | dict(arguments)
    # Any other name is a key of the batch, which every step may ask for.
    return {k: v for k, v in offered.items() if k in allowed or k not in _request.OUR_NAMES}


def _refuse_shadows(
    fn: Callable[..., Any], available: Mapping[str, Any], who: str, default: str | None
) -> None:
    """Refuse a key of the batch that our own name would silently shadow.

    **Arguments:**

    - `default`: the name of the step if it is one of ours. Those pass a mapping without an `x` to
        the model as it is, and so lose nothing.
    """
    batch = available.get("batch")
    if not isinstance(batch, Mapping) or (default is not None and "x" not in batch):
        return
    asked = _request.request(fn, skip=1).names if default is None else CONTRACTS[default].names
    ours = _request.OUR_NAMES - _request.FROM_BATCH
    shadows = sorted(str(key) for key in batch if key in ours and key in asked)
    if shadows and (default is not None or "batch" not in asked):
        name = shadows[0]
        raise TypeError(
            f"`{who}` asks for `{name}`, which is both the learner's own and a key of the batch. "
            "The learner's wins: to read the other, make your step ask for `batch`, and write "
            f'`batch["{name}"]`.'
        )


def _unpack(out: Any, name: str, who: str) -> tuple[Any, ...]:
    expected = CONTRACTS[name].returns
    if not isinstance(out, tuple) or len(out) != len(expected):
        got = (
            f"a tuple of {len(out)} ({', '.join(type(part).__name__ for part in out)})"
            if isinstance(out, tuple)
            else f"a `{type(out).__name__}`"
        )
        raise TypeError(
            f"`{who}` returned {got}: a `{name}` returns {len(expected)} values, "
            f"`return {', '.join(expected)}`."
        )
    return out


def _check_loss(loss: Any, who: str) -> Any:
    if not isinstance(loss, jax.Array):
        raise TypeError(
            f"`{who}` returned a loss that is a `{type(loss).__name__}`: return a scalar array."
        )
    if loss.ndim != 0:
        raise ValueError(
            f"`{who}` returned a loss of shape {loss.shape}, but a loss is a scalar: take its mean "
            "over the examples, `loss.mean()`."
        )
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        raise TypeError(
            f"`{who}` returned a loss of dtype {loss.dtype}, which has no gradient: return a "
            "floating-point scalar."
        )
    return loss


def _check_state(state: Any, who: str) -> Any:
    if state is not None and not isinstance(state, LearnerState):
        hint = (
            " It is the model's state: return `state.update(model_state=...)`."
            if isinstance(state, eqx.nn.State)
            else ""
        )
        raise TypeError(
            f"`{who}` returned a state that is a `{type(state).__name__}`, not a `LearnerState`."
            f"{hint}"
        )
    return state


def _with_loss(logs: Any, loss: Any, who: str) -> dict[str, Any]:
    logs = _logs.check_logs(logs, who=who)
    return logs if "loss" in logs else {"loss": loss, **logs}


def _check_pred(out: Any, who: str) -> Any:
    y_pred, state = _unpack(out, "pred_step", who)
    return y_pred, _check_state(state, who)


def _check_test(out: Any, who: str) -> Any:
    loss, logs, state = _unpack(out, "test_step", who)
    loss = _check_loss(loss, who)
    return loss, _with_loss(logs, loss, who), _check_state(state, who)


def _check_grad(out: Any, who: str) -> Any:
    loss, logs, state, grads = _unpack(out, "grad_step", who)
    loss = _check_loss(loss, who)
    return loss, _with_loss(logs, loss, who), _check_state(state, who), grads


def _check_train(out: Any, who: str) -> Any:
    logs, model, state = _unpack(out, "train_step", who)
    return _logs.check_logs(logs, who=who), model, _check_state(state, who)


def _check_init(out: Any, who: str) -> Any:
    model, state = _unpack(out, "init_step", who)
    if not isinstance(state, LearnerState):
        raise TypeError(
            f"`{who}` returned a state that is a `{type(state).__name__}`: make it with "
            "`self.states_step(model=model, model_state=model_state, key=key)`."
        )
    return model, state


def _check_states(out: Any, who: str) -> Any:
    if not isinstance(out, LearnerState):
        raise TypeError(
            f"`{who}` returned a `{type(out).__name__}`, but a `states_step` returns a "
            "`LearnerState`: start from "
            "`super().states_step(model=model, model_state=model_state, key=key)`."
        )
    return out


def _check_summary(out: Any, who: str) -> Any:
    if not isinstance(out, list):
        raise TypeError(f"`{who}` returned a `{type(out).__name__}`: return a list of rows.")
    return out


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "pred_step": _check_pred,
    "test_step": _check_test,
    "grad_step": _check_grad,
    "train_step": _check_train,
    "init_step": _check_init,
    "states_step": _check_states,
    "summary_step": _check_summary,
}
