"""One pass of a step over batches: fold, merge, emit.

`fit`, `evaluate` and `predict` all stand on `Pass`. It knows no epochs and no callbacks.
"""

import collections
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from . import _compile, _tree, data
from ._protocol import withhold
from ._state import LearnerState, Stream, step_key
from .metrics import _logs

Kind = Literal["train", "test", "predict"]

_STREAMS = {"train": Stream.TRAIN, "test": Stream.TEST, "predict": Stream.PREDICT}
_STEPS = {"train": "train_step", "test": "test_step", "predict": "pred_step"}
_IN_FLIGHT = 2

_Y_PRED = "y_pred"


class Carry(NamedTuple):
    """What a program takes in and gives back, donated: all that a step may change.

    **Arguments:**

    - `model`: in training; in other passes it is only read, and None here.
    - `state`: without its metrics; outside training also without the optimizer's state.
    - `position`: of the batch since the step last advanced.
    """

    model: PyTree
    state: LearnerState
    position: jax.Array


class Kept(NamedTuple):
    """What a program only reads."""

    learner: Any
    model: PyTree
    opt_state: PyTree
    class_weight: Any
    batch: data._batch.Batch


class Folded(NamedTuple):
    """What one call of a step comes to."""

    carry: Carry
    logs: dict[str, Any]
    emitted: list[PyTree]


def _fold(kind: Kind, kept: Kept, carry: Carry) -> Folded:
    """One step on one batch, as a pure function of trees."""
    training = kind == "train"
    names = data.named(kept.batch) | {
        "model": carry.model if training else kept.model,
        "state": carry.state if training else carry.state.update(opt_state=kept.opt_state),
        "class_weight": kept.class_weight,
        "training": training,
    }
    position = None if training else carry.position
    names["key"] = step_key(carry.state.key, _STREAMS[kind], carry.state.step, position)
    out = getattr(kept.learner, _STEPS[kind])(**names)
    logs: dict[str, Any] = {}
    emitted: list[PyTree] = []
    model = None
    if kind == "train":
        logs, model, state = out
    elif kind == "test":
        _, logs, state = out
    else:
        y_pred, state = out
        logs = {_Y_PRED: _logs.Gather.of(y_pred)}
    state = _checked(state, kept, carry, kind).update(metrics={})
    if training:
        state = state.update(step=carry.state.step + 1)
    else:
        state = state.update(opt_state=None, step=carry.state.step)
    contributed = _logs.contributions(logs, data.size(kept.batch))
    accumulated, emitted = _logs.take_out(contributed)
    _check_emitted(accumulated, emitted, data.size(kept.batch))
    new = Carry(model, state, carry.position if training else carry.position + 1)
    _check_carry(carry, new, who=f"{type(kept.learner).__name__}.{_STEPS[kind]}")
    return Folded(new, accumulated, emitted)


def _checked(state: Any, kept: Kept, carry: Carry, kind: Kind) -> LearnerState:
    if state is None:
        raise TypeError(
            f"`{type(kept.learner).__name__}.{_STEPS[kind]}` returned None as its state: return "
            "the `state` that it was given, or an updated one."
        )
    return state


def _check_carry(old: Carry, new: Carry, *, who: str) -> None:
    """Refuse a step that changes the structure of what it threads."""
    for name in ("model", "state"):
        before, after = getattr(old, name), getattr(new, name)
        if name == "state" and type(before) is not type(after):
            raise TypeError(
                f"`{who}` was given a `{type(before).__name__}` as state and returned a "
                f"`{type(after).__name__}`: return `state.update(...)`."
            )
        changes = _tree.differences(_tree.shapes(before), _tree.shapes(after), name)
        if changes:
            raise TypeError(
                f"`{who}` changed the structure of the {name}, which must stay the same from step "
                "to step: " + "; ".join(changes[:5]) + ". Keep shapes and dtypes (`.astype`), and "
                "hold what changes in arrays, not in Python numbers."
            )


def _check_emitted(accumulated: PyTree, emitted: list[PyTree], rows: int) -> None:
    for values in emitted:
        for path, leaf in _tree.paths(values, _Y_PRED if _Y_PRED in accumulated else "Gather"):
            if _tree.is_array(leaf) and (leaf.ndim == 0 or leaf.shape[0] != rows):
                raise ValueError(
                    f"`{path}` has the shape {leaf.shape} for a batch of {rows} examples: what is "
                    "gathered has one row an example, the batch axis first."
                )


def _merged(
    kind: Kind, step: Callable[[Kind, Kept, Carry], Folded]
) -> Callable[..., tuple[PyTree, ...]]:
    """The whole program: a step, and its logs merged into the accumulators."""

    def program(kept: Kept, carry: Carry, metrics: dict[str, Any]) -> tuple[PyTree, ...]:
        folded = step(kind, kept, carry)
        metrics = _logs.merge(metrics or _logs.begin(folded.logs), folded.logs)
        done = jnp.zeros((), jnp.int32)  # not donated on: its arrival tells that the call is over
        return folded.carry, metrics, (done, folded.emitted)

    return program


def _is_identity(jit: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
    """Whether `jit_step` compiles nothing, so that steps run as plain Python."""
    probe: Callable[..., Any] = lambda: None
    return jit(probe) is probe


class _Compiled(NamedTuple):
    program: _compile.Program
    empty: dict[str, Any] | None = None
    empty_static: _tree.Static | None = None


class Pass:
    """One pass of a step over batches.

    **Arguments:**

    - `learner`: an initialised learner, whose arrays are read and never donated.
    - `kind`: which step: `train_step`, `test_step` or `pred_step`.
    - `owned`: whether `learner`'s model and state are the caller's to give away, so that nothing
        need be copied.
    - `eager`: run every step without compiling it.
    """

    def __init__(
        self,
        learner: Any,
        kind: Kind,
        *,
        class_weight: Any = None,
        eager: bool = False,
        owned: bool = False,
    ) -> None:
        self.kind: Kind = kind
        self.compilations: list[_compile.Compilation] = []
        self._eager = eager or _is_identity(learner.jit_step)
        self._class_weight = None if class_weight is None else jnp.asarray(class_weight)
        self._in_flight: collections.deque[Any] = collections.deque()
        self._fetched: list[list[PyTree]] = []
        self._local: dict[Any, _Compiled] = {}
        self.adopt(learner, owned=owned)

    def adopt(self, learner: Any, *, owned: bool = False) -> None:
        """Begin anew, or go on, from this learner. Accumulators in its state are taken over."""
        model, state = learner.model, learner.state
        self._learner = _tree.with_fields(learner, model=None, state=None)
        config = _tree.canonical(withhold(learner))
        own: Callable[[PyTree], PyTree] = (lambda tree: tree) if owned else _tree.copy
        index = jnp.zeros((), jnp.int32)
        if self.kind == "train":
            self._kept = Kept(config, None, None, self._class_weight, None)
            carry = Carry(own(model), own(state.update(metrics={})), index)
        else:
            fixed = eqx.nn.inference_mode(model)
            self._kept = Kept(config, fixed, state.opt_state, self._class_weight, None)
            carry = Carry(None, _tree.copy(state.update(opt_state=None, metrics={})), index)
        self._kept_leaves, _ = _tree.split(self._kept)
        self._carry, self._carry_static = _tree.split(_tree.canonical(carry))
        self._metrics, self._metrics_static = _tree.split(own(state.metrics))
        self._local.clear()

    def __call__(self, batch: Any) -> None:
        """Run the step on one batch. Returns while the device still works.

        At most two calls are in flight; the third waits for the first.
        """
        program = self._program_for(batch)
        leaves = self._kept_leaves + jax.tree.leaves(batch)
        while len(self._in_flight) >= _IN_FLIGHT:
            self._finish_one()
        self._carry, self._metrics, emitted = program(leaves, self._carry, self._metrics)
        self._carry_static, self._metrics_static, static = program.out
        self._in_flight.append((emitted, static))

    def _program_for(self, batch: Any) -> _compile.Program:
        signature = (
            jax.tree.structure(batch),
            tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)),
            self._metrics_static if self._eager else None,
        )
        if signature not in self._local:
            self._local[signature] = self._build(batch)
        found = self._local[signature]
        if found.empty is not None:
            if not self._metrics_static.leaves:
                self._metrics, self._metrics_static = _tree.split(_tree.copy(found.empty))
            if found.empty_static != self._metrics_static:
                _logs.check_same(self._metrics_static.merge(self._metrics), found.empty)
        return found.program

    def _build(self, batch: Any) -> _Compiled:
        kept = self._kept._replace(batch=batch)
        carry = self._carry_static.merge(self._carry)
        metrics = self._metrics_static.merge(self._metrics)
        if self._eager:
            program = _compile.Program(
                _merged(self.kind, _fold), (kept, carry, metrics), jit=lambda fn: fn
            )
            return _Compiled(program)
        began = time.perf_counter()
        key = (self.kind, _compile.key_of(kept, carry))
        made, new = _compile.cached(key, lambda: self._compile(kept, carry))
        if new:
            model = carry.model if self.kind == "train" else kept.model
            trees = {"learner": kept.learner, "batch": batch, "model": model, "state": carry.state}
            step = _STEPS[self.kind]
            self.compilations.append(_compile.record(step, type(self._learner), began, **trees))
        return made

    def _compile(self, kept: Kept, carry: Carry) -> _Compiled:
        step = _compile.TracedOnce(_fold)
        empty = _logs.begin(step.shapes(self.kind, kept, carry).logs)
        program = _compile.Program(
            _merged(self.kind, step), (kept, carry, empty), jit=kept.learner.jit_step
        )
        return _Compiled(program, _tree.to_host(empty), _tree.split(empty)[1])

    def _finish_one(self) -> None:
        leaves, static = self._in_flight.popleft()
        jax.block_until_ready(leaves[0])
        _, emitted = static.merge(leaves)
        if emitted:
            self._fetched.append(jax.device_get(emitted))

    def _finish_all(self) -> None:
        while self._in_flight:
            self._finish_one()

    @property
    def intact(self) -> bool:
        """Whether model and state can still be read: false after the device failed in a call."""
        try:
            self._finish_all()
            jax.block_until_ready(self._carry)
        except Exception:
            return False
        return not any(leaf.is_deleted() for leaf in self._carry)

    def begin(self) -> None:
        """Empty the accumulators, for another pass over data."""
        self._finish_all()
        self._metrics, self._metrics_static = _tree.split({})
        self._fetched.clear()

    @property
    def learner(self) -> Any:
        """The learner of now, in buffers that the next call takes away."""
        carry: Carry = self._carry_static.merge(self._carry)
        state = carry.state.update(metrics=self._metrics_static.merge(self._metrics))
        if self.kind == "train":
            return _tree.with_fields(self._learner, model=carry.model, state=state)
        state = state.update(opt_state=self._kept.opt_state)
        return _tree.with_fields(self._learner, model=self._kept.model, state=state)

    def logs(self) -> dict[str, Any]:
        """What was measured so far, computed and fetched; waits for the device."""
        metrics: Mapping[str, Any] = self._metrics_static.merge(self._metrics)
        if self._eager or any(map(_logs.has_gather, metrics.values())):
            values = _logs.compute(self._with_emitted(metrics))
        else:
            values = _compile.compiled(_logs.compute, dict(metrics))
        return _logs.as_result(jax.device_get(values))

    def outputs(self) -> PyTree:
        """Of a `predict` pass: what the step gave, one row an example, as NumPy arrays."""
        metrics = self._with_emitted(self._metrics_static.merge(self._metrics))
        return jax.tree.map(np.asarray, metrics[_Y_PRED].values)

    def _with_emitted(self, metrics: PyTree) -> PyTree:
        self._finish_all()
        if not self._fetched:
            return metrics
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *self._fetched)
        return _logs.put_back(metrics, joined)
