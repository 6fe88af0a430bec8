"""Frozen leaves that an overridden `train_step` changes because it ignores `trainable`.

A learner's helpers report when they heed `trainable`. For a step that used none of them, any leaf
that it returned as it was is proven unchanged while the step is traced, at no cost. `fit` compares
the values of the others, after its first call and its first epoch.
"""

import contextlib
import dataclasses
import traceback
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jaxtyping import PyTree

from .. import _placement, _tree
from .._warn import warn
from .optimize import trainable_mask


@dataclasses.dataclass
class _Watch:
    asked_trainable: bool = False
    returned: PyTree = None


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)

_MAX_SPECS = 16

_REMEDY = (
    "In a `train_step` of your own, split the model with `params, rest = self.partition(model)`, "
    "differentiate with respect to `params`, and rebuild it with `eqx.combine(params, rest)`; or "
    "call `self.grad_step` and `self.apply_gradients`, which do that for you."
)

_maybe_changed: weakref.WeakKeyDictionary[type, dict[Hashable, list[str]]] = (
    weakref.WeakKeyDictionary()
)
"""For each class and `trainable`, the paths of the frozen leaves that its step may change."""


def note_trainable_used() -> None:
    """Report that the current step has asked what is trainable."""
    watch = _watch.get()
    if watch is not None:
        watch.asked_trainable = True


@contextlib.contextmanager
def watching(learner: Any, model: PyTree) -> Iterator[_Watch]:
    """Watch a `train_step` while it is traced or run eagerly.

    **Returns:** where to put the model that it returns.
    """
    watch, outer = _Watch(), _watch.get()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)
        if outer is not None:  # another override called this one
            outer.asked_trainable = outer.asked_trainable or watch.asked_trainable
    spec, asked = learner.trainable, watch.asked_trainable
    touched = [] if asked else _maybe_changed_by(spec, model, watch.returned)
    by_spec = _maybe_changed.setdefault(type(learner), {})
    by_spec.pop(learner.trainable, None)
    by_spec[learner.trainable] = touched
    while len(by_spec) > _MAX_SPECS:
        del by_spec[next(iter(by_spec))]


def _maybe_changed_by(spec: Hashable, before: PyTree, after: PyTree) -> list[str]:
    with contextlib.suppress(ValueError):  # another model came back: nothing to compare
        old, new = _frozen(spec, before), dict(_tree.paths(after, "model"))
        return [path for path, leaf in old if new.get(path) is not leaf]
    return []


def _frozen(spec: Hashable, model: PyTree) -> list[tuple[str, Any]]:
    wanted = jax.tree.leaves(trainable_mask(spec, model))
    pairs = zip(_tree.paths(model, "model"), wanted, strict=True)
    return [pair for pair, want in pairs if _tree.is_inexact(pair[1]) and not want]


def warn_of_frozen_changes(before: Any, current: Callable[[], Any]) -> bool:
    """Warn if a step that ignored `trainable` has changed a frozen leaf.

    A first step may change nothing, if its learning rate is 0. So without a warning, it is worth
    looking again later.

    **Arguments:**

    - `before`: the learner before its first steps. Leaves that were donated can't be compared.
    - `current`: returns the learner after them.

    **Returns:** whether the step may still change a leaf that it has not changed so far.
    """
    touched = _maybe_changed.get(type(before), {}).get(before.trainable, [])
    if not touched:
        return False
    old, new = dict(_tree.paths(before.model, "model")), dict(_tree.paths(current().model, "model"))
    known = [path for path in touched if path in new and not _is_gone(old.get(path))]
    before_and_after = _placement.fetch([(old[path], new[path]) for path in known])
    changed = [
        path
        for path, (a, b) in zip(known, before_and_after, strict=True)
        if a.tobytes() != b.tobytes()
    ]
    if not changed:
        return bool(known)
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    named = ", ".join(f"`{path}`" for path in changed[:3])
    warn(
        f"`{type(before).__name__}.train_step` changes {named}{more}, which `trainable` freezes. "
        f"{_REMEDY}"
    )
    return False


def hint_at_partition(error: Exception, who: str) -> None:
    """Explain an error of optax in a step that gave it leaves that it does not train."""
    if isinstance(error, TypeError | ValueError) and _passed_through_optax(error):
        error.add_note(
            f"The optimizer failed, and `{who}` had not asked what `trainable` freezes: the "
            f"optimizer's state has no entries for frozen leaves. {_REMEDY}"
        )


def _passed_through_optax(error: Exception) -> bool:
    modules = (f.f_globals.get("__name__", "") for f, _ in traceback.walk_tb(error.__traceback__))
    return any(module.partition(".")[0] == "optax" for module in modules)


def copy_frozen(learner: Any) -> Any:
    """The learner, with frozen leaves that a step may change copied to the host.

    For runs that donate: `warn_of_frozen_changes` can't compare leaves that are gone.
    """
    touched = set(_maybe_changed.get(type(learner), {}).get(learner.trainable, ()))
    if not touched:
        return learner
    named = _tree.paths(learner.model, "model")
    leaves = [_placement.owned_by_host(leaf) if path in touched else leaf for path, leaf in named]
    model = jax.tree.unflatten(jax.tree.structure(learner.model), leaves)
    return _tree.with_fields(learner, model=model)


def _is_gone(leaf: Any) -> bool:
    return leaf is None or _placement.is_deleted(leaf)


def forget() -> None:
    """Forget what was watched, when the programs that were traced meanwhile are dropped."""
    _maybe_changed.clear()
