"""`TerminateOnNaN`: stops at a loss or gradient that is not finite, and finds out why."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from .._check import whole_number
from .._placement import fetch
from .._tree import is_inexact, paths
from .._types import Self
from .._warn import warn
from ..metrics._base import Metric
from ._base import Callback
from ._run import HIDDEN, Replay, Run

_FLAG = HIDDEN + "nonfinite"
_NEVER = np.iinfo(np.int32).max
_SHOWN = 5

_NOT_BATCH = ("model", "state", "key", "training", "class_weight")


class _FirstNonFinite(Metric):
    """The first step with a loss or gradient of nan or inf, and the last that was looked at.

    Steps are told by how many came before them.
    """

    first: Int32[Array, ""] | Any = eqx.field(default_factory=lambda: np.full((), _NEVER, np.int32))
    last: Int32[Array, ""] | Any = eqx.field(default_factory=lambda: np.full((), -1, np.int32))

    def update(self, grads: Any, state: Any, loss: Any = None) -> Self:
        leaves = [leaf for leaf in jax.tree.leaves((grads, loss)) if is_inexact(leaf)]
        is_bad = jnp.zeros((), bool)
        for leaf in leaves:
            is_bad |= ~jnp.all(jnp.isfinite(leaf))
        return self.merge(type(self)(jnp.where(is_bad, state.step, _NEVER), state.step))

    def merge(self, other: Any) -> Self:
        first, last = jnp.minimum(self.first, other.first), jnp.maximum(self.last, other.last)
        return self.replace(first=first, last=last)

    def reset(self) -> Self:
        return type(self)()

    def compute(self) -> Any:
        return {"first": self.first, "last": self.last}


@final
class TerminateOnNaN(Callback):
    """Stops training when a loss or gradient is nan or infinite, and explains where it came from.

    The device keeps a flag, at which the host looks once it has arrived, so that no step waits for
    it. Then the first bad step is gone back to (see `Run.replay`) and run once more, operation by
    operation, to find the leaves of the gradient that are not finite, and the examples that made
    them so. A warning tells.

    The model that `fit` returns is that of the last step, so most of it may be nan. The model from
    before the bad step is in `replay.learner`.

    The flag is part of the program of the training step, so numbers may differ in rounding from a
    run without it. A `train_step` of your own that leaves out the logs of `apply_gradients` is
    watched by its loss alone, and not gone back to.

    **Arguments:**

    - `max_delay`: after how many steps at the latest the flag is looked at, even if that means to
        wait. A call of the device that is under way is always finished.

    **Attributes:**

    - `step`: how many training steps the learner had taken before the bad one; None if there was
        none, or if only the loss was watched.
    - `message`: what was found out.
    - `replay`: the learner before the step, and what the step was called with; None if it could
        not be gone back to.

    !!! example

        ```python
        watch = et.callbacks.TerminateOnNaN()
        learner.fit(x, y, epochs=10, callbacks=watch)
        if watch.replay is not None:
            watch.replay.learner.train_step(**watch.replay.arguments)
        ```
    """

    reads: Literal["state", "logs"] = "logs"
    adds: tuple[str, ...] | None = ()
    _once_a_call = True
    metrics: Mapping[str, Metric] = {_FLAG: _FirstNonFinite()}

    def __init__(self, *, max_delay: int = 100) -> None:
        self.max_delay: int = whole_number("TerminateOnNaN(max_delay)", max_delay, at_least=1)
        self.step: int | None = None
        self.message: str | None = None
        self.replay: Replay | None = None
        self._looked_at = 0

    def on_train_begin(self, run: Run) -> None:
        self.step = self.message = self.replay = None
        self._looked_at = run.step

    def on_train_batch_end(self, run: Run) -> None:
        if self.message is not None:
            return
        if run.step - self._looked_at >= self.max_delay:
            self._looked_at = run.step
            _ = run.logs  # waits for them
        self._look(run)

    def on_epoch_end(self, run: Run) -> None:
        self._look(run)

    def _look(self, run: Run) -> None:
        if self.message is not None:
            return
        logs = run.recent_logs  # before the flag, which may be newer then, but not older
        flag = run._hidden_logs
        first, last = flag.get(f"{_FLAG}/first"), flag.get(f"{_FLAG}/last")
        if first is None or last is None:
            if not np.all(np.isfinite(logs.get("loss", 0.0))):
                loss = logs["loss"]
                self._stop(run, f"The loss is {loss} by step {run.step} of the learner's life.")
            return
        self._looked_at = max(self._looked_at, int(last) + 1)
        if first < _NEVER:
            self._explain(run, int(first))

    def _explain(self, run: Run, step: int) -> None:
        self.step = step
        text = (
            f"Step {step + 1} of the learner's life, in epoch {run.epoch + 1}, is the first whose "
            "loss or gradient is not finite."
        )
        try:
            self.replay = run.replay(step)
            text += _diagnose(self.replay)
        except Exception as error:  # whatever it is, the run has to end as announced
            text += f" It could not be looked into: {error}"
        self._stop(run, text)

    def _stop(self, run: Run, text: str) -> None:
        self.message = text
        warn(text)
        where = f"by step {run.step}" if self.step is None else f"in step {self.step + 1}"
        run.stop(f"not finite {where}")


def _diagnose(replay: Replay) -> str:
    """What is not finite in a step, as sentences that each begin with a space."""
    learner, arguments = replay.learner, replay.arguments
    batch = {k: v for k, v in arguments.items() if k not in _NOT_BATCH}
    shown = {k: v for k, v in batch.items() if "x" not in batch or k != "batch"}
    text = ""
    if bad := _not_finite(arguments["model"], "model"):
        text += f" Before it, {_listed(bad)} not finite."
    if bad := [name for k, v in shown.items() for name in _not_finite(v, k)]:
        text += f" In its batch, {_listed(bad)} not finite."
    loss, _, _, grads = learner.grad_step(**arguments)
    text += f" Its loss is {float(loss):.6g}."
    if bad := _not_finite(grads, "grads"):
        text += f" Of its gradient, {_listed(bad)} not finite."
    # With batch statistics an example alone has none, and nan weights make all examples bad.
    if arguments["state"].model_state is None and not _not_finite(arguments["model"], "model"):
        text += _guilty_examples(replay, batch)
    return text


def _guilty_examples(replay: Replay, batch: Mapping[str, Any]) -> str:
    rows = max(np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch))[0]

    def is_bad(chosen: Sequence[int]) -> bool:
        index = np.array(chosen)
        part = jax.tree.map(lambda a: a[index] if np.shape(a)[:1] == (rows,) else a, dict(batch))
        try:
            loss, _, _, grads = replay.learner.grad_step(**replay.arguments | part)
        except Exception:  # it needs whole batches
            return False
        return bool(_not_finite(loss, "loss") or _not_finite(grads, "grads"))

    found = _search(is_bad, list(range(rows)))
    if not found:
        return " None of its examples alone makes it so."
    numbers = _numbers(found if replay.rows is None else [int(replay.rows[i]) for i in found])
    where = f"{_plural('row', found)} {numbers} of " + ("it" if replay.rows is None else "the data")
    return f" What makes it so: {where}."


def _search(is_bad: Callable[[Sequence[int]], bool], rows: list[int]) -> list[int]:
    """The examples that are bad alone, by halves."""
    if not rows or not is_bad(rows):
        return []
    if len(rows) == 1:
        return rows
    half = len(rows) // 2
    found = _search(is_bad, rows[:half])
    return found if len(found) > _SHOWN else found + _search(is_bad, rows[half:])


def _not_finite(tree: Any, root: str) -> list[str]:
    """The paths of the arrays in a tree that hold nan or inf."""
    leaves = [(path, leaf) for path, leaf in paths(tree, root) if is_inexact(leaf)]
    return [path for path, leaf in leaves if not np.all(np.isfinite(fetch(leaf)))]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{shown}{more} {'are' if len(names) > 1 else 'is'}"


def _numbers(numbers: Sequence[int]) -> str:
    more = ", ..." if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def _plural(noun: str, things: Sequence[Any]) -> str:
    return noun if len(things) == 1 else f"{noun}s"
