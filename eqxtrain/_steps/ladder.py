"""The ladder of steps, with a default for each rung."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from .. import _request
from .._keys import Stream, key_data
from .._losses import loss as _loss
from .._naming import unique
from .._request import UPDATE_NAMES
from .._types import FilterSpec, Logs, M, Measures, PyTree, Transformation
from ..metrics import _collection
from . import averages as _averages, frozen_leaves, optimize as _optimize, summary as _summary
from .contract import (
    CONTRACTS,
    WITHHELD,
    WithheldError,
    checked_jit,
    checked_step,
    is_held_to_contract,
    withheld_message,
)
from .forward import call_over_batch
from .learning_rate import learning_rate
from .misnamed import refuse_misnamed
from .state import LearnerState

if TYPE_CHECKING:
    from .._types import called_by_name


def _pred_step(
    self: Any, model: Any, x: PyTree, state: Any = None, key: Any = None, training: bool = False
) -> tuple[PyTree, Any]:
    model_state = None if state is None else state.model_state
    y_pred, model_state = call_over_batch(
        model, x, model_state=model_state, key=key, training=training
    )
    if state is None or model_state is None:
        return y_pred, state
    return y_pred, state.update(model_state=model_state)


def _test_step(self: Any, **available: Any) -> tuple[Array, Logs, Any]:
    y_pred, state = self.pred_step(**available)
    available |= {"y_pred": y_pred, "state": state}
    if self.loss is None and self.metrics is not None and not available.get("training", True):
        return *_measure(self, available), state  # only `fit` needs a loss
    return *self.measure(**available), state


def _measure(self: Any, available: dict[str, Any]) -> tuple[Array, Logs]:
    """The loss and the logs of predictions; without a loss, nan and the metrics."""
    available = {k: v for k, v in available.items() if k != "y_true" or v is not None}
    available = {"sample_weight": None, "class_weight": None, "mask": None} | available
    loss, parts, seen = jnp.full((), jnp.nan), dict[str, Any](), available
    if self.loss is not None:
        loss, parts = _loss.compute_losses(self.loss, available)
        seen = available | {"loss": loss}
    seen = jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, seen
    )
    metrics = [
        (name, metric)
        for name, metric in _collection.named_metrics(self.metrics)
        if not _collection.asks_for(metric, UPDATE_NAMES)
    ]
    taken = {"loss", *parts} | _loss.reserved_names(self.loss)
    return loss, parts | _collection.measure_metrics(metrics, seen, taken=taken)


def _grad_step(self: Any, model: Any, **available: Any) -> tuple[Array, Logs, Any, PyTree]:
    params, rest = self.partition(model)

    def loss_of(params: PyTree) -> tuple[Array, tuple[Logs, Any]]:
        loss, logs, state = self.test_step(model=eqx.combine(params, rest), **available)
        return loss, (logs, state)

    (loss, (logs, state)), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(params)
    return loss, logs, state, grads


def _train_step(self: Any, **available: Any) -> tuple[Logs, Any, Any]:
    loss, logs, state, grads = self.grad_step(**available)
    available |= {"state": state, "grads": grads, "loss": loss}
    new_logs, model, state = self.apply_gradients(**available)
    return logs | {unique(name, logs): log for name, log in new_logs.items()}, model, state


def _init_step(
    self: Any, model: Any, model_state: Any, key: PRNGKeyArray
) -> tuple[Any, LearnerState]:
    return model, self.states_step(model=model, model_state=model_state, key=key)


def _states_step(self: Any, model: Any, key: PRNGKeyArray, model_state: Any = None) -> LearnerState:
    return LearnerState(
        opt_state=_optimize.init(self.optimizer, self.trainable, model),
        averages=_averages.init(self.ema, self.trainable, model),
        model_state=model_state,
        key=key_data(jax.random.fold_in(key, int(Stream.STATE))),
    )


def _summary_step(self: Any, model: Any, state: Any = None, **available: Any) -> list[_summary.Row]:
    return _summary.rows(self.pred_step, self.trainable, model, state, available)


def enforce_contracts(learner_class: Any) -> None:
    """Hold every step of a class to its contract, even one from a mixin or set later."""
    for name in CONTRACTS:
        if is_held_to_contract(getattr(learner_class, name)):
            continue
        fn = inspect.getattr_static(learner_class, name)
        if not is_held_to_contract(fn):
            setattr(learner_class, name, checked_step(name, fn))
    fn = inspect.getattr_static(learner_class, "jit_step")
    if fn is not AbstractLearner.jit_step and not is_held_to_contract(fn):
        learner_class.jit_step = checked_jit(fn)


class AbstractLearner(eqx.Module, Generic[M]):
    """The steps of a learner, without the loops that call them.

    You can override each step on its own. A step asks by name for the arguments that it needs, and
    the steps that call it go on working. It mutates nothing, but returns what it changes.

    | step | returns | default |
    |---|---|---|
    | `pred_step` | `(y_pred, state)` | calls the model over the batch |
    | `test_step` | `(loss, logs, state)` | `pred_step`, then `measure` |
    | `grad_step` | `(loss, logs, state, grads)` | the gradient of `test_step` |
    | `train_step` | `(logs, model, state)` | `grad_step`, then `apply_gradients` |
    | `init_step` | `(model, state)` | `self.model`, and `states_step` |
    | `states_step` | `LearnerState` | the default fields |
    | `summary_step` | the rows of the summary | shapes through `pred_step` |
    | `jit_step` | a compiled function | `eqx.filter_jit`, donating |

    They may ask for `model`, `state`, `x`, `batch`, `key` and `training`, and for the keys of a
    mapping batch; `test_step`, `grad_step` and `train_step` also for `y_true`, `sample_weight`,
    `class_weight` and `mask`.
    """

    model: eqx.AbstractVar[M]
    optimizer: eqx.AbstractVar[Transformation]
    loss: eqx.AbstractVar[Measures | None]
    metrics: eqx.AbstractVar[Measures | None]
    trainable: eqx.AbstractVar[FilterSpec]
    ema: eqx.AbstractVar[_averages.Averaging]
    is_initialised: eqx.AbstractVar[bool]
    model_state: eqx.AbstractVar[eqx.nn.State | None]
    state: eqx.AbstractVar[LearnerState | None]

    # Type checkers accept any signature as an override of a step, check what it returns, and refuse
    # positional calls: see `_types.Step`. States are `Any`, so that a subclass of `LearnerState`
    # keeps its fields.
    if TYPE_CHECKING:

        @called_by_name
        def pred_step(self, **available: Any) -> tuple[PyTree, Any]: ...
        @called_by_name
        def test_step(self, **available: Any) -> tuple[Array, Logs, Any]: ...
        @called_by_name
        def grad_step(self, **available: Any) -> tuple[Array, Logs, Any, PyTree]: ...
        @called_by_name
        def train_step(self, **available: Any) -> tuple[Logs, Any, Any]: ...
        @called_by_name
        def init_step(self, **available: Any) -> tuple[Any, Any]: ...
        @called_by_name
        def states_step(self, **available: Any) -> LearnerState: ...
        @called_by_name
        def summary_step(self, **available: Any) -> list[_summary.Row]: ...

    else:
        pred_step = checked_step("pred_step", _pred_step, default=True)
        test_step = checked_step("test_step", _test_step, default=True)
        grad_step = checked_step("grad_step", _grad_step, default=True)
        train_step = checked_step("train_step", _train_step, default=True)
        init_step = checked_step("init_step", _init_step, default=True)
        states_step = checked_step("states_step", _states_step, default=True)
        summary_step = checked_step("summary_step", _summary_step, default=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        enforce_contracts(cls)
        names = _request.OUR_NAMES | {"fn"}
        refuse_misnamed(cls, AbstractLearner, (*CONTRACTS, "jit_step"), names)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in WITHHELD:
                raise WithheldError(withheld_message(self, name))
            raise AttributeError(f"`{type(self).__name__}` has no attribute `{name}`.")

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except dataclasses.FrozenInstanceError:
                raise dataclasses.FrozenInstanceError(
                    f"`{type(self).__name__}.{name}` can't be assigned: a learner is immutable. "
                    f"Make a new one, `learner = learner.replace({name}=...)`; inside a step, "
                    "return what changes."
                ) from None

    def jit_step(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of the engine. Override this to compile differently, or not at all.

        **Arguments:**

        - `fn`: a pure function of lists of arrays. All but its first argument may be donated.
        """
        return eqx.filter_jit(fn, donate="all-except-first")

    @final
    def measure(self, *, y_pred: PyTree, **available: Any) -> tuple[Array, Logs]:
        """Apply the configured losses and metrics to predictions.

        **Arguments:**

        - `y_pred`: the predictions, batch axis first.
        - `available`: everything that the losses and metrics may ask for by name: `y_true`, `x`,
            `model`, `state`, `sample_weight`, `class_weight`, `mask`, ...

        **Returns:** the loss, a scalar, and the logs: the parts of the loss, and the metrics.
        """
        if self.loss is None:
            raise TypeError(
                f"`{type(self).__name__}` has no loss: pass one, "
                "`Learner(model, optimizer, loss=optax.squared_error)`, or override `test_step`. "
                "(Without a loss, `evaluate` measures the `metrics`.)"
            )
        return _measure(self, available | {"y_pred": y_pred})

    @final
    def partition(self, model: PyTree) -> tuple[PyTree, PyTree]:
        """Split a model into its trainable leaves and the rest, with None in the other places.

        Use it in a `train_step` or `grad_step` that takes gradients itself: gradients with respect
        to `params` leave out what `trainable` freezes.

        **Returns:** `(params, rest)`, for `eqx.combine(params, rest)`.

        !!! example

            ```python
            def grad_step(self, model, state, x):
                params, rest = self.partition(model)

                def loss_of(params):
                    return energy(eqx.combine(params, rest), x)

                loss, grads = eqx.filter_value_and_grad(loss_of)(params)
                return loss, {}, state, grads
            ```
        """
        frozen_leaves.note_trainable_used()
        return _optimize.partition(self.trainable, model)

    @final
    def apply_gradients(
        self, *, model: Any, state: Any, grads: PyTree, loss: Any = None, **available: Any
    ) -> tuple[Logs, Any, Any]:
        """Take one step of the optimizer on the trainable leaves.

        **Arguments:**

        - `grads`: as `eqx.filter_grad` returns them. Those of frozen leaves are ignored. Those of
            complex leaves are conjugated here, so don't conjugate them yourself.
        - `loss`: passed to optimizers that ask for it, such as `optax.contrib.reduce_on_plateau`.
        - `available`: the arguments that `test_step` asks for. Optimizers that do a line search,
            such as `optax.lbfgs`, call it again.

        **Returns:** the logs of the metrics that ask for `grads`, `updates` or `learning_rate`;
        the model; the state.
        """
        if self.optimizer is None:
            raise TypeError(
                f"`{type(self).__name__}` has no optimizer: pass one, "
                "`Learner(model, optax.adam(1e-3), ...)`, or override `train_step`."
            )
        _, rest = self.partition(model)
        # A copy, since an `eqx.nn.State` can be used only once when run eagerly.
        fresh = jax.tree.map(lambda leaf: leaf, state)

        def value_fn(params: PyTree) -> Array:
            arguments = available | {"model": eqx.combine(params, rest), "state": fresh}
            try:
                return self.test_step(**arguments)[0]
            except TypeError as error:
                error.add_note(
                    "The optimizer does a line search, and so calls `test_step` again: pass "
                    "`apply_gradients` what that asks for, `x=x, y_true=y_true, key=key`."
                )
                raise

        new_model, opt_state, updates = _optimize.update(
            self.optimizer,
            self.trainable,
            model=model,
            opt_state=state.opt_state,
            grads=grads,
            loss=loss,
            value_fn=value_fn,
        )
        metrics = [
            (name, metric)
            for name, metric in _collection.named_metrics(self.metrics)
            if _collection.asks_for(metric, UPDATE_NAMES)
        ]
        seen = available | {"model": model, "state": state, "grads": grads}
        seen |= {"updates": updates, "loss": loss}
        if any(_collection.asks_for(metric, {"learning_rate"}) for _, metric in metrics):
            seen["learning_rate"] = learning_rate(self.optimizer, state.opt_state, opt_state)
        logs = _collection.measure_metrics(metrics, seen)
        return (
            logs,
            new_model,
            self.update_averages(model=new_model, state=state.update(opt_state=opt_state)),
        )

    @final
    def update_averages(self, *, model: Any, state: Any) -> Any:
        """Add the weights after an update to the average, if there is one.

        `apply_gradients` calls this. So does `fit`, once, after a `train_step` that has not: you
        need it only in a step that calls the optimizer itself, several times.

        **Arguments:**

        - `model`, `state`: those after the update.

        **Returns:** the state.
        """
        if state.averages is None:
            return state
        averages = _averages.update(
            self.ema,
            state.averages,
            self.trainable,
            model=model,
            opt_state=state.opt_state,
            step=state.step,
        )
        return state.update(averages=averages)
