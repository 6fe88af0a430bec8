"""A pass over data that recomputes the statistics of BatchNorm."""

from contextlib import closing
from typing import Any, TypeVar

import jax
from jaxtyping import Array, Float

from .. import _data as data, _tree
from .._engine.runner import StepRunner
from .._engine.step import Outcome, Step
from .._keys import Stream
from .._steps.batch_statistics import (
    batch_norms,
    get_statistics,
    set_statistics,
    without_statistics,
)
from .._steps.ladder import AbstractLearner
from ..metrics._base import Metric
from ..metrics._compensated import CompensatedSum
from .inputs import PassInputs
from .rescue import translate_errors

L = TypeVar("L", bound=AbstractLearner[Any])


class _RowMean(Metric):
    """The mean of arrays over the batches, each weighted by its number of rows."""

    sum: CompensatedSum
    rows: CompensatedSum

    def update(self, **available: Any) -> Any:
        raise NotImplementedError

    def compute(self) -> Float[Array, "..."]:
        return self.sum.total() / self.rows.total()


def _statistics_of_batch(learner: Any, names: dict[str, Any]) -> Outcome:
    model, state = names["model"], names["state"]
    # A copy, since an `eqx.nn.State` can be used only once when run eagerly.
    model_state = jax.tree.map(lambda leaf: leaf, state.model_state)
    empty = without_statistics(model, model_state)
    _, new = learner.pred_step(**names | {"state": state.update(model_state=empty)})
    rows = float(data.num_rows(names["batch"]))
    leaves = jax.tree.leaves(get_statistics(model, new.model_state))
    weight = CompensatedSum.of(jax.numpy.full((), rows))
    logs = {str(i): _RowMean(CompensatedSum.of(rows * a), weight) for i, a in enumerate(leaves)}
    return logs, model, state


# It threads the model as training does, since outside of it layers are in inference mode.
_RECOMPUTE = Step("recompute_statistics", _statistics_of_batch, Stream.TEST, "test", trains=True)


def recompute_statistics(learner: L, inputs: PassInputs, steps: int | None) -> L:
    """The arguments are those of `Learner.recompute_statistics`, checked."""
    if not batch_norms(learner.model):
        raise ValueError(
            f"The model of this learner, a `{type(learner.model).__name__}`, has no "
            "`eqx.nn.BatchNorm` layer, so there are no statistics to recompute."
        )
    with (
        translate_errors(),
        inputs.source.open_reader(inputs.batching, max_batches=steps) as reader,
    ):
        learner = inputs.ready(learner, reader.peek(), "predict")
        runner = StepRunner(learner, _RECOMPUTE, options=inputs.options)
        with closing(reader.stacks(runner.plan_stack, steps)) as stacks:
            for stack in stacks:
                runner.load(stack)
                runner.run_first(stack.num_batches)
                reader.consume(stack.num_batches)
        means = runner.accumulators.compute_logs()
    state: Any = learner.state
    structure = jax.tree.structure(get_statistics(learner.model, state.model_state))
    statistics = jax.tree.unflatten(structure, [means[str(i)] for i in range(len(means))])
    copied = jax.tree.map(lambda leaf: leaf, state.model_state)
    model_state = set_statistics(learner.model, copied, statistics)
    return _tree.with_fields(learner, state=state.update(model_state=model_state))
