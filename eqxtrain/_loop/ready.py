"""Make a learner ready for a pass: initialise it, and check that it fits its data."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

import equinox as eqx

from .. import _data as data, _placement, _tree
from .._engine.cache import matching_states, trace_key
from .._identity.tokens import ByIdentity
from .._request import Request, request
from .._steps import averages as _averages, optimize as _optimize
from .._steps.contract import without_state
from .._steps.init import check_model_state, initialise, overrides
from .._steps.ladder import AbstractLearner
from .._types import PyTree, StepKind
from .._warn import warn

L = TypeVar("L", bound=AbstractLearner[Any])

Padding = Literal["none", "possible", "some"]
"""Whether rows are padding; `"possible"` if `remainder="pad"` allows it, but no batch needs it."""


def ensure_ready(
    learner: L,
    batch: PyTree,
    kind: StepKind,
    *,
    weights: Sequence[str] = (),
    padding: Padding = "none",
) -> L:
    """An initialised learner, checked for what a pass of this kind needs.

    **Arguments:**

    - `weights`: which of `sample_weight` and `class_weight` the user passed; steps should use them.
    - `padding`: whether rows of the batches may be padding.
    """
    name = type(learner).__name__
    in_batch = isinstance(batch, Mapping) and "sample_weight" in batch
    _warn_of_lost_weights(learner, kind, {*weights, *(["sample_weight"] if in_batch else [])})
    own_updates = overrides(learner, "train_step")
    if kind == "train" and learner.optimizer is None and not own_updates:
        raise TypeError(
            f"`{name}` has no optimizer, which `fit` needs: pass one, "
            f"`{name}(model, optax.adam(1e-3), ...)`, or override `train_step`."
        )
    if where := _tree.find_path(_placement.is_deleted, learner.model, "model"):
        raise ValueError(
            f"`{where}` of this learner was donated, by `fit(..., donate=True)` or by a step that "
            "you ran yourself: use the learner that `fit` returned instead."
        )
    if where := _tree.find_path(_placement.is_deleted, without_state(learner), "learner"):
        raise ValueError(
            f"`{where}` was deleted and no longer has values: give the learner another array with "
            "`learner.replace(...)`."
        )
    ready = learner
    if learner.state is None:
        names = {} if batch is None else data.step_arguments(batch)
        ready = initialise(learner, names, starts=kind == "train")
    assert ready.state is not None
    if padding != "none":
        _check_padded(ready, kind, padding)
    check_model_state(ready.model, ready.state.model_state)
    checked = kind == "train" and not own_updates and not _makes_own_states(ready)
    if checked and (bad := _state_mismatches_cached(ready)):
        raise ValueError(
            "The `state` of this learner belongs to another model, optimizer or `trainable`: "
            + "; ".join(bad[:5])
            + ". Change a learner with `learner.replace(...)`, which keeps its state consistent, "
            "or make a new state with `.init()`."
        )
    return ready


_LADDER = {"train": ("test_step", "grad_step", "train_step"), "test": ("test_step",), "predict": ()}
"""The steps of each kind of pass that see weights and padding."""


def _request_of(learner: AbstractLearner[Any], step: str) -> Request:
    """What a step of the learner asks for."""
    return request(inspect.unwrap(getattr(type(learner), step)), skip=1)


def _warn_of_lost_weights(
    learner: AbstractLearner[Any], kind: StepKind, weights: Collection[str]
) -> None:
    for step in _LADDER[kind]:
        if overrides(learner, step):
            requested = _request_of(learner, step)
            for weight in weights:
                if not requested.everything and not {weight, "batch"} & set(requested.names):
                    warn(
                        f"`{type(learner).__name__}.{step}` does not ask for `{weight}`, so it is "
                        "ignored: ask for it, and pass it on to `self.measure`.",
                    )


def _check_padded(learner: AbstractLearner[Any], kind: StepKind, padding: Padding) -> None:
    """Refuse steps that would treat padding as data, and warn if BatchNorm does."""
    name = type(learner).__name__
    for step in _LADDER[kind]:
        if not overrides(learner, step):
            continue
        requested = _request_of(learner, step)
        if not requested.everything and "mask" not in requested.names:
            raise TypeError(
                f'With `remainder="pad"` some rows are padding, but `{name}.{step}` does not ask '
                "for `mask`, which is false for them: ask for it and pass it on to "
                '`self.measure(..., mask=mask)`, or use `remainder="keep"`.'
            )
    assert learner.state is not None
    if kind == "train" and padding == "some" and learner.state.model_state is not None:
        warn(
            f'With `remainder="pad"` the model of `{name}` sees the padding too, which enters '
            "the batch statistics in its `model_state` (those of BatchNorm): choose a `batch_size` "
            'that divides the data, or use `remainder="keep"`.',
        )


def _makes_own_states(learner: AbstractLearner[Any]) -> bool:
    return overrides(learner, "states_step") or overrides(learner, "init_step")


def _state_mismatches_cached(learner: AbstractLearner[Any]) -> list[str]:
    """Look for mismatches, unless a learner like this one was found to have none."""
    assert learner.state is not None
    state = learner.state
    leaves, static = _tree.partition_leaves((learner.model, state.opt_state, state.averages))
    parts = (ByIdentity(learner.optimizer), ByIdentity(learner.trainable), ByIdentity(learner.ema))
    key = ("state matches", parts, trace_key(leaves, static.treedef))
    if matching_states.lookup(key):
        return []
    mismatches = state_mismatches(learner)
    if not mismatches:
        matching_states.store(key, True)
    return mismatches


def state_mismatches(learner: AbstractLearner[Any]) -> list[str]:
    """Where the optimizer's state, or the average, differs from a fresh one, by path.

    It compares shapes, and applies only to learners whose state the default steps create.
    """
    assert learner.state is not None
    spec, model = learner.trainable, learner.model
    expected = {
        "opt_state": eqx.filter_eval_shape(_optimize.init, learner.optimizer, spec, model),
        "averages": eqx.filter_eval_shape(_averages.init, learner.ema, spec, model),
    }
    return [
        difference
        for name, tree in expected.items()
        for difference in _tree.differences(
            _tree.shape_structs(tree),
            _tree.shape_structs(getattr(learner.state, name)),
            f"state.{name}",
        )
    ]
