"""A `train_step` of one's own that does not heed `trainable`, and what it changes nevertheless.

The helpers of a learner tell when they heed it. Of a step that used none of them, the leaves that
it returned as it was given them are proven unchanged while it is traced, at no cost. The values of
the others are compared by `fit`, after its first call and its first epoch.
"""

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .. import _placement, _tree
from .._warn import warn
from .optimize import trainable_mask


@dataclasses.dataclass
class _Watch:
    heeded: bool = False
    returned: PyTree = None


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)

_MOST = 16

_touched: weakref.WeakKeyDictionary[type, dict[Hashable, list[str]]] = weakref.WeakKeyDictionary()
"""For each class and `trainable`, the frozen leaves that its step may have changed, by path."""


def heed() -> None:
    """Note that the step under way has asked what is trainable."""
    watch = _watch.get()
    if watch is not None:
        watch.heeded = True


@contextlib.contextmanager
def watching(learner: Any, model: PyTree) -> Iterator[_Watch]:
    """Watch a `train_step` while it is traced, or run eagerly.

    **Returns:** where to put the model that it returns.
    """
    watch, outer = _Watch(), _watch.get()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)
        if outer is not None:  # it was called by another override
            outer.heeded = outer.heeded or watch.heeded
    touched = [] if watch.heeded else _touched_by(learner.trainable, model, watch.returned)
    by_spec = _touched.setdefault(type(learner), {})
    by_spec.pop(learner.trainable, None)
    by_spec[learner.trainable] = touched
    while len(by_spec) > _MOST:
        del by_spec[next(iter(by_spec))]


def _touched_by(spec: Hashable, before: PyTree, after: PyTree) -> list[str]:
    with contextlib.suppress(ValueError):  # of another model: there is nothing to go by
        old, new = _frozen(spec, before), dict(_tree.paths(after, "model"))
        return [path for path, leaf in old if new.get(path) is not leaf]
    return []


def _frozen(spec: Hashable, model: PyTree) -> list[tuple[str, Any]]:
    wanted = jax.tree.leaves(trainable_mask(spec, model))
    pairs = zip(_tree.paths(model, "model"), wanted, strict=True)
    return [pair for pair, want in pairs if _tree.is_inexact(pair[1]) and not want]


def may_change_yet(before: Any, current: Callable[[], Any]) -> bool:
    """Warn where a step that did not heed `trainable` has changed what that freezes.

    A first step may change nothing, if its learning rate is 0. So without a warning it is worth
    looking again.

    **Arguments:**

    - `before`: the learner before its first steps. What was donated can't be compared.
    - `current`: gives it after them.

    **Returns:** whether it may change something yet that it has not changed.
    """
    touched = _touched.get(type(before), {}).get(before.trainable, [])
    if not touched:
        return False
    old, new = dict(_tree.paths(before.model, "model")), dict(_tree.paths(current().model, "model"))
    same = lambda path: np.asarray(old[path]).tobytes() == np.asarray(new[path]).tobytes()
    known = [path for path in touched if path in new and not _is_gone(old.get(path))]
    changed = [path for path in known if not same(path)]
    if not changed:
        return bool(known)
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    named = ", ".join(f"`{path}`" for path in changed[:3])
    warn(
        f"`{type(before).__name__}.train_step` changes {named}{more}, which `trainable` freezes. "
        "In a `train_step` of your own, take the leaves to train from `params, rest = "
        "self.partition(model)`, differentiate with respect to `params`, and put the model "
        "together by `eqx.combine(params, rest)`; or call `self.grad_step` and "
        "`self.apply_gradients`, which do.",
    )
    return False


def _is_gone(leaf: Any) -> bool:
    return leaf is None or _placement.is_deleted(leaf)


def forget() -> None:
    """Forget what was watched, with the programs that were traced then."""
    _touched.clear()
