"""Making the state of a learner, and telling whether one belongs to it."""

import dataclasses
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from .. import _data as data, _tree
from .._check import known_fields
from .._engine import compile as _compile
from .._engine.step import StepKind
from .._identity.tokens import ByIdentity
from .._request import request
from .._steps import optimize as _optimize
from .._steps.contract import without_state
from .._steps.ladder import AbstractLearner
from .._steps.state import LearnerState, at_rest, key_data
from .._types import PyTree
from .._warn import warn
from .partial_load import tell_what_is_missing

L = TypeVar("L", bound=AbstractLearner[Any])

Padding = Literal["none", "none yet", "some"]
"""Whether rows may be padding; `"none yet"` where they may by what was asked for, but none are."""


def initialised(
    learner: L, batch: PyTree, *, key: PRNGKeyArray | None = None, starts: bool = True
) -> L:
    """The learner with its state, and whatever else its `init_step` makes.

    **Arguments:**

    - `batch`: one batch, or None.
    - `key`: `jax.random.key(0)` by default.
    - `starts`: whether it is to be trained.
    """
    tell_what_is_missing(learner, starts=starts)
    state, model_state = learner.state, learner.model_state
    if state is not None and state.model_state is not None and model_state is None:
        raise ValueError(
            "`init` would lose the `model_state` that was trained. To start anew with it, "
            "`learner.replace(state=None, model_state=learner.state.model_state).init()`; to "
            "start from the beginning, build the learner again."
        )
    key = jax.random.key(0) if key is None else key
    key_data(key)  # refuses a batch of keys, and keys that can't be stored, before they are used
    names = {} if batch is None else data.step_arguments(jax.tree.map(jnp.asarray, batch))
    names |= {"model": learner.model, "model_state": model_state, "key": key}
    model, state = learner.init_step(**names)
    model, state = (
        _tree.copy_tied(_tree.as_jax_arrays(model), root="model"),
        _tree.as_jax_arrays(state),
    )
    _check_new(learner, model, state)
    held = {"model": model, "state": at_rest(state), "model_state": None, "is_initialised": True}
    return _tree.with_fields(learner, **held)


def _check_new(learner: AbstractLearner[Any], model: PyTree, state: LearnerState) -> None:
    if model is None and not overrides(learner, "init_step"):
        raise ValueError(
            f"`{type(learner).__name__}` has no model: give one, or override `init_step` to "
            "build it."
        )
    if state.model_state is None and (found := _state_indices(model)):
        raise ValueError(
            f"`{found[0][0]}` is stateful, but there is no `model_state`: build the model with "
            "`model, model_state = eqx.nn.make_with_state(Model)(...)` and give both, "
            "`Learner(model, optimizer, model_state=model_state)`; an overridden `init_step` "
            "passes it on to `self.states_step(..., model_state=model_state)`."
        )
    for tree, root in ((state, "state"), (model, "model")):
        if where := _tree.find_path(_tree.is_typed_key, tree, root):
            raise TypeError(
                f"`{where}` is a typed random key, which `eqx.tree_serialise_leaves` can't "
                "save: store `jax.random.key_data(key)`, and wrap it where it is used."
            )


def _state_indices(model: PyTree) -> list[tuple[str, eqx.nn.StateIndex[Any]]]:
    """Where the stateful layers of `model` look up their states, with their paths."""
    is_index = lambda node: isinstance(node, eqx.nn.StateIndex)
    leaves = jax.tree.leaves_with_path(model, is_leaf=is_index)
    return [
        ("model" + jax.tree_util.keystr(path[:-1]), leaf) for path, leaf in leaves if is_index(leaf)
    ]


def _check_model_state(model: PyTree, model_state: eqx.nn.State | None) -> None:
    """Refuse a model state that lacks what the stateful layers of `model` look up."""
    for where, index in _state_indices(model):
        try:
            if model_state is not None:
                model_state.get(index)
                continue
        except KeyError:
            pass
        raise ValueError(
            f"The `state` of this learner belongs to another model: it holds no `model_state` for "
            f"`{where}`. Change both together, `learner.replace(model=model, "
            "model_state=model_state)`, or make a new state with `.init()`."
        )


def overrides(learner: AbstractLearner[Any], step: str) -> bool:
    """Whether the class of `learner` has a step of its own."""
    return getattr(type(learner), step) is not getattr(AbstractLearner, step)


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

    - `weights`: which of `sample_weight` and `class_weight` are given, and must not be lost.
    - `padding`: whether rows of the batches may be padding, with a mask to tell.
    """
    name = type(learner).__name__
    in_batch = isinstance(batch, Mapping) and "sample_weight" in batch
    _warn_of_lost_weights(learner, kind, {*weights, *(["sample_weight"] if in_batch else [])})
    own_updates = overrides(learner, "train_step")
    if kind == "train" and learner.optimizer is None and not own_updates:
        raise TypeError(
            f"`{name}` has no optimizer to fit with: give one, "
            f"`{name}(model, optax.adam(1e-3), ...)`, or override `train_step`."
        )
    gone = lambda leaf: isinstance(leaf, jax.Array) and leaf.is_deleted()
    if where := _tree.find_path(gone, learner.model, "model"):
        raise ValueError(
            f"`{where}` of this learner was given away, by `fit(..., donate=True)` or by a step of "
            "your own: go on with the learner that `fit` returned."
        )
    if where := _tree.find_path(gone, without_state(learner), "learner"):
        raise ValueError(
            f"`{where}` was deleted, so it has no values any more: give the learner another array, "
            "`learner.replace(...)`."
        )
    made = learner
    if learner.state is None:
        made = initialised(learner, batch, starts=kind == "train")
    assert made.state is not None
    if padding != "none":
        _check_padded(made, kind, padding)
    _check_model_state(made.model, made.state.model_state)
    checked = kind == "train" and not own_updates and not _makes_own_states(made)
    if checked and (bad := _state_mismatches_cached(made)):
        raise ValueError(
            "The `state` of this learner belongs to another model, optimizer or `trainable`: "
            + "; ".join(bad[:5])
            + ". Change a learner with `learner.replace(...)`, which keeps its state in step, "
            "or make a new state with `.init()`."
        )
    return made


def _warn_of_lost_weights(
    learner: AbstractLearner[Any], kind: StepKind, weights: Collection[str]
) -> None:
    for step in ("test_step", *(("grad_step", "train_step") if kind == "train" else ())):
        if overrides(learner, step):
            asked = request(inspect.unwrap(getattr(type(learner), step)), skip=1)
            for weight in weights:
                if not asked.everything and not {weight, "batch"} & set(asked.names):
                    warn(
                        f"`{type(learner).__name__}.{step}` does not ask for `{weight}`, so it is "
                        "ignored: ask for it, and hand it on to `self.measure`.",
                    )


_LADDER = {"train": ("test_step", "grad_step", "train_step"), "test": ("test_step",), "predict": ()}
"""The steps of a pass that may look at rows which are padding."""


def _check_padded(learner: AbstractLearner[Any], kind: StepKind, padding: Padding) -> None:
    """Refuse steps that would take padding for data, and tell of what can't leave it out."""
    name = type(learner).__name__
    for step in _LADDER[kind]:
        if not overrides(learner, step):
            continue
        asked = request(inspect.unwrap(getattr(type(learner), step)), skip=1)
        if not asked.everything and "mask" not in asked.names:
            raise TypeError(
                f'With `remainder="pad"` some rows are padding, but `{name}.{step}` does not ask '
                "for `mask`, which is false for them: ask for it and hand it on to "
                "`self.measure(..., mask=mask)`, or keep the remainder as it is, "
                '`remainder="keep"`.'
            )
    assert learner.state is not None
    if kind == "train" and padding == "some" and learner.state.model_state is not None:
        warn(
            f'With `remainder="pad"` the model of `{name}` sees padding, which enters what its '
            "`model_state` keeps of a batch (the statistics of BatchNorm): choose a `batch_size` "
            'that divides the data, or `remainder="keep"`.',
        )


def _makes_own_states(learner: AbstractLearner[Any]) -> bool:
    return overrides(learner, "states_step") or overrides(learner, "init_step")


def _state_mismatches_cached(learner: AbstractLearner[Any]) -> list[str]:
    """What `foreign` says; remembered for learners like one that was right."""
    assert learner.state is not None
    leaves, static = _tree.partition_leaves((learner.model, learner.state.opt_state))
    parts = (ByIdentity(learner.optimizer), ByIdentity(learner.trainable))
    key = ("foreign", parts, _compile.key_of(leaves, static.treedef))
    if _compile.kept(key):
        return []
    found = state_mismatches(learner)
    if not found:
        _compile.keep(key, True)
    return found


def state_mismatches(learner: AbstractLearner[Any]) -> list[str]:
    """Where the optimizer's state differs from one made for this learner, by path.

    From shapes alone. Only for learners whose state the default steps make.
    """
    assert learner.state is not None
    expected = eqx.filter_eval_shape(
        _optimize.init, learner.optimizer, learner.trainable, learner.model
    )
    given = learner.state.opt_state
    return _tree.differences(
        _tree.shape_structs(expected), _tree.shape_structs(given), "state.opt_state"
    )


def replaced(learner: L, changes: dict[str, Any]) -> L:
    """The learner with some fields changed, its state kept in step with them."""
    names = [field.name for field in dataclasses.fields(learner) if field.init]
    known_fields(type(learner), changes, names)
    new = dataclasses.replace(learner, **changes)
    if "state" in changes:
        return new
    if new.state is None:  # it may have been loaded so
        return _tree.with_fields(new, is_initialised=learner.is_initialised)
    state = new.state
    if changes.get("model_state") is not None:  # an initialised learner holds it in its state
        state = state.update(model_state=changes["model_state"])
    new = _tree.with_fields(new, state=state, model_state=None)
    if changes.keys() - {"model_state"}:
        state = _kept_in_step(learner, new, state)
    return _tree.with_fields(new, state=at_rest(state))


def _kept_in_step(old: L, new: L, state: LearnerState) -> LearnerState:
    """`state` with those fields made anew that the `states_step` of `new` makes differently."""

    def made_by(learner: L) -> LearnerState:
        key = jax.random.wrap_key_data(state.key)
        return learner.states_step(model=learner.model, model_state=state.model_state, key=key)

    before, after = (eqx.filter_eval_shape(made_by, learner) for learner in (old, new))
    fields = [f.name for f in dataclasses.fields(after)]
    changed = [
        name
        for name in fields
        if name not in ("key", "step", "metrics", "model_state", "opt_state_leaves")
        and _tree.differences(
            _tree.shape_structs(getattr(before, name, None)),
            _tree.shape_structs(getattr(after, name)),
        )
    ]
    if not changed:
        return state
    fresh = _tree.as_jax_arrays(made_by(new))
    return state.update(**{name: getattr(fresh, name) for name in changed})
