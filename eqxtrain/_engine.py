"""One pass of a step over batches: fold, merge, emit.

`fit`, `evaluate` and `predict` all stand on `Pass`. It knows no epochs and no callbacks.
"""

import collections
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from . import _compile, _tree
from ._fold import STEPS, Y_PRED, Carry, Kept, Kind, fold, program_of
from ._identity import bindings, is_fixed, methods
from ._protocol import withhold
from ._steps import hold_steps
from .metrics import _logs

_IN_FLIGHT = 2
"""How many calls may be under way before the next one waits."""


def _is_identity(jit: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
    """Whether `jit_step` compiles nothing, so that steps run as plain Python."""
    probe: Callable[..., Any] = lambda kept, carry, metrics: None
    return jit(probe) is probe


def _refuse_unhashable(**trees: PyTree) -> None:
    """Refuse leaves whose changes a compiled program would not see."""
    for root, tree in trees.items():
        changeable = lambda leaf: not _tree.is_array(leaf) and not is_fixed(leaf)
        if where := _tree.first(changeable, tree, root):
            raise TypeError(
                f"`{where}` can't be hashed, so a change of it would not be seen by the compiled "
                "step: make it an `eqx.Module` or a frozen dataclass, or hold arrays in it."
            )


class _Compiled(NamedTuple):
    program: _compile.Program
    empty: dict[str, Any] | None = None


class Pass:
    """One pass of a step over batches.

    **Arguments:**

    - `learner`: an initialised learner, whose arrays are read and never donated.
    - `kind`: which step: `train_step`, `test_step` or `pred_step`.
    - `eager`: run every step without compiling it.
    """

    def __init__(
        self,
        learner: Any,
        kind: Kind,
        *,
        class_weight: Any = None,
        eager: bool = False,
    ) -> None:
        self.kind: Kind = kind
        self.compilations: list[_compile.Compilation] = []
        self._eager = eager or jax.config.jax_disable_jit or _is_identity(learner.jit_step)  # pyright: ignore[reportAttributeAccessIssue]
        self._class_weight = None if class_weight is None else jnp.asarray(class_weight)
        self._in_flight: collections.deque[Any] = collections.deque()
        self._fetched: list[list[PyTree]] = []
        self._metrics, self._metrics_static = _tree.split({})
        self._programs: dict[Any, _Compiled] = {}
        self.adopt(learner)

    def adopt(self, learner: Any) -> None:
        """Begin, or go on, from this learner. The accumulators of the pass stay as they are.

        What will be donated is copied, even a state that `init` has just made: an optimizer may
        put arrays of the user's into it (`optax.inject_hyperparams` does).
        """
        model, state = learner.model, learner.state
        hold_steps(type(learner))
        self._learner = _tree.with_fields(learner, model=None, state=None)
        config = _tree.canonical(withhold(learner))
        if not self._eager:
            _refuse_unhashable(learner=config, model=model, state=state)
        threaded = state.update(metrics={})
        if self.kind == "train":
            self._kept = Kept(config, None, None, self._class_weight, None)
            threaded_model = _tree.copy(model)
        else:
            fixed = eqx.nn.inference_mode(model)
            self._kept = Kept(config, fixed, state.opt_state, self._class_weight, None)
            threaded, threaded_model = threaded.update(opt_state=None), None
        carry = Carry(threaded_model, _tree.copy(threaded), position=jnp.zeros((), jnp.int32))
        kinds = [type(learner), *_tree.module_types(model)]
        self._code = tuple((fn, bindings(fn)) for kind in kinds for fn in methods(kind))
        self._kept_leaves, _ = _tree.split(self._kept)
        self._carry, self._carry_static = _tree.split(_tree.canonical(carry))
        self._programs.clear()

    def __call__(self, batch: Any) -> None:
        """Run the step on one batch. Returns while the device still works.

        At most two calls are in flight; the third waits for the first.
        """
        if self._eager:
            batch = jax.tree.map(jnp.asarray, batch)
        program = self._program_for(batch)
        leaves = self._kept_leaves + jax.tree.leaves(batch)
        while len(self._in_flight) >= _IN_FLIGHT:
            self._finish_one()
        self._carry, self._metrics, emitted = program(leaves, self._carry, self._metrics)
        self._carry_static, self._metrics_static, static = program.out
        self._in_flight.append((emitted, static))

    def prepare(self, batch: Any) -> None:
        """Compile the program for batches like this one, without running it."""
        if not self._eager:
            self._program_for(batch)

    def _program_for(self, batch: Any) -> _compile.Program:
        signature = (
            jax.tree.structure(batch),
            tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)),
            self._metrics_static if self._eager else None,
        )
        if signature not in self._programs:
            built = self._programs[signature] = self._build(batch)
            if built.empty is not None and self._metrics_static.leaves:
                _logs.check_same(self._metrics_static.merge(self._metrics), built.empty)
        found = self._programs[signature]
        if found.empty is not None and not self._metrics_static.leaves:
            self._metrics, self._metrics_static = _tree.split(_tree.copy(found.empty))
        return found.program

    def _build(self, batch: Any) -> _Compiled:
        kept = self._kept._replace(batch=batch)
        carry = self._carry_static.merge(self._carry)
        metrics = self._metrics_static.merge(self._metrics)
        if self._eager:
            program = _compile.Program(
                program_of(self.kind, fold), (kept, carry, metrics), jit=lambda fn: fn
            )
            return _Compiled(program)
        began = time.perf_counter()
        key = (self.kind, self._code, _compile.key_of(kept, carry))
        made, new = _compile.cached(key, lambda: self._compile(kept, carry))
        if new:
            model = carry.model if self.kind == "train" else kept.model
            trees = {"learner": kept.learner, "model": model, "state": carry.state, "batch": batch}
            trees |= {"opt_state": kept.opt_state, "class_weight": kept.class_weight}
            step = STEPS[self.kind]
            self.compilations.append(_compile.record(step, type(self._learner), began, **trees))
        return made

    def _compile(self, kept: Kept, carry: Carry) -> _Compiled:
        step = _compile.TracedOnce(fold)
        shapes = step.shapes(self.kind, kept, carry).logs
        empty = _logs.begin(shapes)
        if not _tree.same_bits(empty, _logs.begin(shapes, fill=1)):
            # its metrics are configured by arrays, which `reset` keeps: take them as they are
            begin = lambda kept, carry: _logs.begin(step(self.kind, kept, carry).logs)
            empty = _compile.compiled(begin, kept, carry)
        program = _compile.Program(
            program_of(self.kind, step), (kept, carry, empty), jit=kept.learner.jit_step
        )
        return _Compiled(program, _tree.to_host(empty))

    def _finish_one(self) -> None:
        leaves, static = self._in_flight.popleft()
        jax.block_until_ready(leaves[0])
        _, emitted = static.merge(leaves)
        if emitted:
            self._fetched.append(jax.device_get(emitted))

    def _finish_all(self) -> None:
        while self._in_flight:
            self._finish_one()

    def wait(self) -> None:
        """Wait for the calls in flight, and for what went wrong in them."""
        self._finish_all()
        jax.block_until_ready(self._carry)

    @property
    def intact(self) -> bool:
        """Whether model and state can still be read: false after the device failed in a call."""
        try:
            self.wait()
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
        """The learner of now, without accumulators, in buffers that the next call takes away."""
        carry: Carry = self._carry_static.merge(self._carry)
        state = carry.state
        if self.kind == "train":
            return _tree.with_fields(self._learner, model=carry.model, state=state)
        state = state.update(opt_state=self._kept.opt_state)
        return _tree.with_fields(self._learner, model=self._kept.model, state=state)

    def logs(self, *, whole: bool = True) -> dict[str, Any]:
        """What was measured so far, computed and fetched; waits for the device.

        **Arguments:**

        - `whole`: whether the pass is over. What is gathered is joined only then.
        """
        metrics: Mapping[str, Any] = self._metrics_static.merge(self._metrics)
        if not whole:
            metrics = {n: m for n, m in metrics.items() if not _logs.has_gather(m)}
        if self._eager or any(map(_logs.has_gather, metrics.values())):
            metrics = self._with_emitted(metrics)
            values = _logs.compute(metrics)
        else:
            values = _compile.compiled(_logs.compute, dict(metrics))
        result = _logs.as_result(jax.device_get(values))
        if whole:
            _logs.warn(metrics)
        return result

    def outputs(self) -> PyTree:
        """Of a `predict` pass: what the step gave, one row an example, as NumPy arrays."""
        metrics = self._with_emitted(self._metrics_static.merge(self._metrics))
        return jax.tree.map(np.asarray, metrics[Y_PRED].compute())

    def _with_emitted(self, metrics: PyTree) -> PyTree:
        self._finish_all()
        if not self._fetched:
            return metrics
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *self._fetched)
        return _logs.put_back(metrics, joined)
