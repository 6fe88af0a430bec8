"""The record of compiles: which, why and how long; and a limit on them."""

import collections
import dataclasses
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from .._check import whole_number
from .recompile_reason import Dependencies, reasons


@dataclasses.dataclass(frozen=True)
class Compilation:
    """The record of one compile.

    **Arguments:**

    - `step`: the step whose program it is.
    - `reason`: `"first"`, or what has changed since an earlier compile of this step, by path.
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
    max_compiles: int
    started: list[str] = dataclasses.field(default_factory=list)
    finished: list[Compilation] = dataclasses.field(default_factory=list)


SAME = "no longer cached"
"""The reason if nothing differs from an earlier compile, whose program was dropped since."""

_recent: weakref.WeakKeyDictionary[type, dict[str, collections.deque[Dependencies]]]
_recent = weakref.WeakKeyDictionary()
_limits: list[_Limit] = []


@contextmanager
def max_compiles(most: int) -> Iterator[list[Compilation]]:
    """Inside it, more than `most` compiles raise an error that gives the reason for each.

    For tests: `with et.max_compiles(0): learner.fit(...)`. It counts the programs of steps, for
    `fit`, `evaluate`, `predict` and their `..._on_batch`.

    **Returns:** the list of the compiles so far.

    **Raises:** `RuntimeError` at the first compile beyond `most`.
    """
    limit = _Limit(whole_number("max_compiles(most)", most, at_least=0))
    _limits.append(limit)
    try:
        yield limit.finished
    finally:
        _limits.remove(limit)


def record_start(step: str, owner: type, read: Dependencies) -> str:
    """Record that `step` of a learner of class `owner` is about to be compiled; returns the reason.

    The reason is how `read` differs from that of the most similar of the last few compiles.

    **Raises:** `RuntimeError` if this compile exceeds a limit.
    """
    earlier = _earlier(step, owner)
    changes = [list(reasons(old, read)) for old in list(earlier)]
    nearest = min(changes, key=len, default=None)
    reason = "first" if nearest is None else "; ".join(nearest[:3]) or SAME
    for limit in _limits:
        if len(limit.started) >= limit.max_compiles:
            listed = [*limit.started, f"{step} ({reason})"]
            raise RuntimeError(
                f"This is compile number {len(listed)} within "
                f"`max_compiles({limit.max_compiles})`: "
                + "; ".join(listed)
                + ". Keep shapes, dtypes and static values the same, or allow one more."
            )
    for limit in _limits:
        limit.started.append(f"{step} ({reason})")
    earlier.append(read)
    return reason


def record_shared(step: str, owner: type, read: Dependencies) -> None:
    """Record what a step depends on whose program was there already, for later reasons."""
    _earlier(step, owner).append(read)


def _earlier(step: str, owner: type) -> collections.deque[Dependencies]:
    """What the last programs of a step depended on.

    Several, since a run that alternates between two shapes has two "last" ones.
    """
    return _recent.setdefault(owner, {}).setdefault(step, collections.deque(maxlen=8))


def record_end(compilation: Compilation) -> None:
    """Record that a compile has finished, for the lists that `max_compiles` yields."""
    for limit in _limits:
        if len(limit.finished) < len(limit.started):
            limit.finished.append(compilation)


class Wait(NamedTuple):
    """A thread that waits for a step to be traced or compiled.

    **Arguments:**

    - `seconds`: for how long it has waited.
    - `thread`: its `threading.get_ident()`.
    """

    step: str
    seconds: float
    thread: int


_waits: list[tuple[str, float, int]] = []  # the step, when the wait began, and the thread


@contextmanager
def waiting_for(step: str) -> Iterator[None]:
    """While inside, the thread waits for this step to be traced or compiled."""
    wait = (step, time.perf_counter(), threading.get_ident())
    _waits.append(wait)
    try:
        yield
    finally:
        _waits.remove(wait)


def waiting() -> list[Wait]:
    """What threads wait for in this moment. Any thread may ask."""
    now = time.perf_counter()
    return [Wait(step, now - began, thread) for step, began, thread in list(_waits)]


def clear() -> None:
    """Forget all earlier compiles."""
    _recent.clear()
