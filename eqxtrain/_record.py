"""The record of compiles: which, why, how long; and a limit to them."""

import collections
import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager

import equinox as eqx
import jax
from jaxtyping import PyTree

from . import _tree


@dataclasses.dataclass(frozen=True)
class Compilation:
    """The record of one compile.

    **Arguments:**

    - `step`: which step's program.
    - `reason`: `"first"`, or what changed since the last one of this step, by path.
    - `signature`: the arrays that the program takes, by path: `{"batch[0]": "float32[32,4]"}`.
    - `trace`, `lower`, `compile`: seconds in your code, in JAX's translation, in the compiler.
    """

    step: str
    reason: str
    signature: Mapping[str, str] = dataclasses.field(repr=False)
    trace: float
    lower: float
    compile: float

    @property
    def seconds(self) -> float:
        """How long it took in all."""
        return self.trace + self.lower + self.compile


@dataclasses.dataclass
class _Limit:
    most: int
    seen: list[Compilation] = dataclasses.field(default_factory=list)


SAME = "no longer cached"
"""The reason for a compile of what is like something that was compiled before."""

_last_seen: dict[Hashable, collections.deque[dict[str, PyTree]]] = {}
_limits: list[_Limit] = []


@contextmanager
def max_compiles(most: int) -> Iterator[list[Compilation]]:
    """Within it, the compile after `most` of them raises an error that says what each was for.

    For tests: `with et.max_compiles(0): learner.fit(...)`. It counts the programs of steps, for
    `fit`, `evaluate`, `predict` and their `..._on_batch`.

    **Returns:** the list of the compiles so far.

    **Raises:** `RuntimeError` at the compile that is one too many.
    """
    whole = isinstance(most, int) and not isinstance(most, bool)
    if not whole or most < 0:
        raise ValueError(f"`max_compiles` takes a whole number, 0 or more; got {most!r}.")
    limit = _Limit(most)
    _limits.append(limit)
    try:
        yield limit.seen
    finally:
        _limits.remove(limit)


def why(step: str, owner: type, trees: Mapping[str, PyTree]) -> str:
    """Why `step` of learners of the class `owner` must be compiled: what changed, by path.

    It is how `trees` differ from the most similar ones of the last few compiles.
    """
    new = {name: _shapes_of(tree) for name, tree in trees.items()}
    changes = [
        [line for name in new for line in _tree.differences(old[name], new[name], name)]
        for old in _last_seen.get((step, owner), ())
    ]
    nearest = min(changes, key=len, default=None)
    return "first" if nearest is None else "; ".join(nearest[:3]) or SAME


def check_limits(step: str, reason: str) -> None:
    """Refuse a compile that is one too many."""
    for limit in _limits:
        if len(limit.seen) >= limit.most:
            listed = [f"{c.step} ({c.reason})" for c in limit.seen] + [f"{step} ({reason})"]
            raise RuntimeError(
                f"This is compile number {len(listed)} within `max_compiles({limit.most})`: "
                + "; ".join(listed)
                + ". Keep shapes, dtypes and static values the same, or allow one more."
            )


def note(compilation: Compilation, owner: type, trees: Mapping[str, PyTree]) -> None:
    """Remember a compile, and count it for whoever limits them."""
    earlier = _last_seen.setdefault((compilation.step, owner), collections.deque(maxlen=8))
    earlier.append({name: _shapes_of(tree) for name, tree in trees.items()})
    for limit in _limits:
        limit.seen.append(compilation)


def signature(trees: Mapping[str, PyTree]) -> dict[str, str]:
    """The arrays of trees, by path."""
    return {
        path: _tree.describe(leaf)
        for name, tree in trees.items()
        for path, leaf in _tree.paths(tree, name)
        if _tree.is_array(leaf)
    }


def forget() -> None:
    """Forget what was compiled."""
    _last_seen.clear()


def _shapes_of(tree: PyTree) -> PyTree:
    def shape(leaf: PyTree) -> PyTree:
        if not eqx.is_array(leaf):
            return leaf
        weak = bool(getattr(leaf, "weak_type", False))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=weak)

    return jax.tree.map(shape, tree)
