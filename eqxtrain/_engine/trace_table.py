"""Finds the traced step for a learner and a batch: in the cache, if tracing would repeat it."""

from collections.abc import Callable, Hashable
from typing import Any

import jax

from .. import _data as data
from .._identity.survey import Survey
from .cache import step_cache
from .programs import Jit, TracedStep
from .step import Carry, Consts, Step

Arguments = Callable[[data.Batch], tuple[Consts, Carry]]
"""Returns what a step is called with on a batch, or on the shapes of one."""


class TraceTable:
    """The traced steps of one learner, by the shapes of their batches.

    **Arguments:**

    - `survey`: what tracing would read besides arrays.
    - `arrays`: the key of the arrays that the step is called with, without the batch.
    """

    def __init__(self, step: Step, survey: Survey, jit: Jit, arrays: Hashable) -> None:
        self._step = step
        self._survey = survey
        self._jit = jit
        self._key = (step.name, step.kind, step.stream, survey.key, arrays)
        self._by_shapes: dict[Hashable, TracedStep] = {}

    def find(self, shapes: data.Batch, arguments: Arguments, keep_alive: list[Any]) -> TracedStep:
        """Find the traced step for batches of these shapes, tracing it if necessary.

        **Arguments:**

        - `keep_alive`: gets what the caches would drop too early.
        """
        leaves, structure = jax.tree.flatten(shapes)
        signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in self._by_shapes:
            self._by_shapes[signature] = self._find_or_trace(
                shapes, signature, arguments, keep_alive
            )
        return self._by_shapes[signature]

    def _find_or_trace(
        self,
        shapes: data.Batch,
        signature: Hashable,
        arguments: Arguments,
        keep_alive: list[Any],
    ) -> TracedStep:
        def trace() -> TracedStep:
            return TracedStep(self._step, *arguments(shapes), self._jit, self._survey)

        batch = Survey(batch=shapes)
        if self._survey.is_whole and batch.is_whole:
            return step_cache.get_or_build((self._key, signature, batch.key), trace)
        # Something can't be compared, so trace again. If the result does what an earlier trace did,
        # the programs are shared; the earlier one must live until then, since it holds them.
        traced = trace()
        key = ("traced", traced.form)
        keep_alive.append(step_cache.lookup(key))
        return step_cache.store(key, traced)
