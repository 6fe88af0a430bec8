"""Making the state of a learner, and keeping it in step with what is replaced."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from .. import _placement, _tree
from .._check import check_fields
from .._keys import key_data
from .._types import PyTree
from . import averages as _averages
from .ladder import AbstractLearner
from .partial_load import report_partial_load
from .state import LearnerState, at_rest

L = TypeVar("L", bound=AbstractLearner[Any])


def initialise(
    learner: L, names: Mapping[str, Any], *, key: PRNGKeyArray | None = None, starts: bool = True
) -> L:
    """Give a learner its state, and whatever else its `init_step` makes.

    **Arguments:**

    - `names`: one batch, by the names that a step may ask for; empty without a batch.
    - `key`: `jax.random.key(0)` by default.
    - `starts`: whether it is to be trained.
    """
    report_partial_load(learner, starts=starts)
    state, model_state = learner.state, learner.model_state
    if state is not None and state.model_state is not None and model_state is None:
        raise ValueError(
            "`init` would lose the `model_state` that was trained. To start anew with it, "
            "`learner.replace(state=None, model_state=learner.state.model_state).init()`; to "
            "start from the beginning, build the learner again."
        )
    key = jax.random.key(0) if key is None else key
    key_data(key)  # refuses a batch of keys, and keys that can't be stored, before they are used
    available = _placement.put_each_once(dict(names))
    available |= {"model": learner.model, "model_state": model_state, "key": key}
    model, state = learner.init_step(**available)
    state = _with_averages(learner, model, state)
    model, state = (
        _placement.copy_tied(_placement.as_jax_arrays(model), root="model"),
        _placement.as_jax_arrays(state),
    )
    _check_new(learner, model, state)
    held = {"model": model, "state": at_rest(state), "model_state": None, "is_initialised": True}
    return _tree.with_fields(learner, **held)


def _with_averages(learner: AbstractLearner[Any], model: PyTree, state: Any) -> Any:
    """The state with averages, if the learner wants them and its own `states_step` made none."""
    if getattr(state, "averages", None) is not None or learner.ema is None:
        return state
    return state.update(averages=_averages.init(learner.ema, learner.trainable, model))


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

    def is_index(node: Any) -> bool:
        return isinstance(node, eqx.nn.StateIndex)

    leaves = jax.tree.leaves_with_path(model, is_leaf=is_index)
    return [
        ("model" + jax.tree_util.keystr(path[:-1]), leaf) for path, leaf in leaves if is_index(leaf)
    ]


def check_model_state(model: PyTree, model_state: eqx.nn.State | None) -> None:
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


def replace_fields(learner: L, changes: dict[str, Any]) -> L:
    """The learner with some fields changed, its state kept in step with them."""
    names = [field.name for field in dataclasses.fields(learner) if field.init]
    check_fields(type(learner), changes, names)
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
    if "model" in changes or ("ema" in changes and new.ema != learner.ema):
        fresh = _averages.init(new.ema, new.trainable, new.model)
        state = state.update(averages=fresh)
    return _tree.with_fields(new, state=at_rest(state))


def _kept_in_step(old: L, new: L, state: LearnerState) -> LearnerState:
    """`state` with those fields made anew that the `states_step` of `new` makes differently."""

    def made_by(learner: L) -> LearnerState:
        key = jax.random.wrap_key_data(state.key)
        made = learner.states_step(model=learner.model, model_state=state.model_state, key=key)
        return _with_averages(learner, learner.model, made)

    before, after = (eqx.filter_eval_shape(made_by, learner) for learner in (old, new))
    fields = [f.name for f in dataclasses.fields(after)]
    changed = [
        name
        for name in fields
        if name not in ("key", "step", "metrics", "model_state", "opt_state_checksum")
        and _tree.differences(
            _tree.shape_structs(getattr(before, name, None)),
            _tree.shape_structs(getattr(after, name)),
        )
    ]
    if not changed:
        return state
    fresh = _placement.as_jax_arrays(made_by(new))
    return state.update(**{name: getattr(fresh, name) for name in changed})
