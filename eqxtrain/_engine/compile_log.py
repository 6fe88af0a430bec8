"""The record of compiles: which, why, how long; and a limit to them."""

import collections
import dataclasses
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .._check import whole_number
from .recompile_reason import Account, differences


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
    begun: list[str] = dataclasses.field(default_factory=list)
    seen: list[Compilation] = dataclasses.field(default_factory=list)


SAME = "no longer cached"
"""The reason for a compile of what is like something that was compiled before."""

_last_seen: weakref.WeakKeyDictionary[type, dict[str, collections.deque[Account]]]
_last_seen = weakref.WeakKeyDictionary()
_limits: list[_Limit] = []


@contextmanager
def max_compiles(most: int) -> Iterator[list[Compilation]]:
    """Within it, the compile after `most` of them raises an error that says what each was for.

    For tests: `with et.max_compiles(0): learner.fit(...)`. It counts the programs of steps, for
    `fit`, `evaluate`, `predict` and their `..._on_batch`.

    **Returns:** the list of the compiles so far.

    **Raises:** `RuntimeError` at the compile that is one too many.
    """
    limit = _Limit(whole_number("max_compiles(most)", most, at_least=0))
    _limits.append(limit)
    try:
        yield limit.seen
    finally:
        _limits.remove(limit)


def begin(step: str, owner: type, seen: Account) -> str:
    """Note that `step` of learners of the class `owner` is compiled, and for which reason.

    The reason is how this differs from the most similar one of the last few compiles.

    **Raises:** `RuntimeError` where that is one too many.
    """
    earlier = _last_seen.setdefault(owner, {}).setdefault(step, collections.deque(maxlen=8))
    changes = [list(differences(old, seen)) for old in list(earlier)]
    nearest = min(changes, key=len, default=None)
    reason = "first" if nearest is None else "; ".join(nearest[:3]) or SAME
    for limit in _limits:
        if len(limit.begun) >= limit.most:
            listed = [*limit.begun, f"{step} ({reason})"]
            raise RuntimeError(
                f"This is compile number {len(listed)} within `max_compiles({limit.most})`: "
                + "; ".join(listed)
                + ". Keep shapes, dtypes and static values the same, or allow one more."
            )
    for limit in _limits:
        limit.begun.append(f"{step} ({reason})")
    earlier.append(seen)
    return reason


def end(compilation: Compilation) -> None:
    """Note that a compile is over, for whoever limits them."""
    for limit in _limits:
        if len(limit.seen) < len(limit.begun):
            limit.seen.append(compilation)


def clear() -> None:
    """Forget what was compiled."""
    _last_seen.clear()
