"""One step on one batch, as a pure function of trees."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .. import _data as data, _tree
from .._keys import Stream, step_key
from .._steps import averages
from .._steps.state import LearnerState
from .._types import StepKind
from ..metrics import _logs
from ..metrics._base import Metric
from ..metrics._collection import with_added

Y_PRED = "y_pred"

Outcome = tuple[dict[str, Any], PyTree, LearnerState]
"""What a step comes to: its logs, the model (None unless the step trains), and the state."""


class Step(NamedTuple):
    """A step that a runner can run: one of the learner's, or an evaluation of your own.

    **Arguments:**

    - `name`: what errors and the record of compiles call it.
    - `call`: takes a learner and, by name, all that a step may ask for.
    - `stream`: the stream that its random keys come from.
    - `kind`: which hooks of callbacks hear of it.
    - `trains`: whether it threads the model. If not, it reads the model, in inference mode, and the
        optimizer's state.
    - `predicts`: whether its result is what it emits, as `Y_PRED`, and not what it measures.
    """

    name: str
    call: Callable[[Any, dict[str, Any]], Outcome]
    stream: Stream
    kind: StepKind
    trains: bool = False
    predicts: bool = False

    def qualified_name(self, learner: Any) -> str:
        """The step in an error: `MyLearner.train_step`."""
        return f"{type(learner).__name__}.{self.name}"


def _train(
    learner: Any, names: dict[str, Any], added: tuple[tuple[str, Metric], ...] = ()
) -> Outcome:
    if added:
        learner = _tree.with_fields(learner, metrics=with_added(learner.metrics, dict(added)))
    with averages.watching() as updated:
        logs, model, state = learner.train_step(**names)
    if not updated and getattr(state, "averages", None) is not None:
        # It has called the optimizer itself.
        state = learner.update_averages(model=model, state=state)
    return logs, model, state


def _test(learner: Any, names: dict[str, Any]) -> Outcome:
    _, logs, state = learner.test_step(**names)
    return logs, None, state


def _predict(learner: Any, names: dict[str, Any]) -> Outcome:
    y_pred, state = learner.pred_step(**names)
    return {Y_PRED: _logs.Gather(y_pred)}, None, state


TRAIN = Step("train_step", _train, Stream.TRAIN, "train", trains=True)
TEST = Step("test_step", _test, Stream.TEST, "test")
PREDICT = Step("pred_step", _predict, Stream.PREDICT, "predict", predicts=True)
STEPS: dict[StepKind, Step] = {step.kind: step for step in (TRAIN, TEST, PREDICT)}


OF_TRAINING = ("opt_state", "averages")
"""The fields of the state that only training changes. Other passes read them."""


def training_step(added: Mapping[str, Metric]) -> Step:
    """The training step that measures some metrics beside those of the learner."""
    call = functools.partial(_train, added=tuple(added.items()))
    return TRAIN._replace(call=call) if added else TRAIN


class Carry(NamedTuple):
    """What a program takes in and gives back, donated: all that a step may change.

    **Arguments:**

    - `model`: None where the step does not train.
    - `state`: without its metrics; without what is `OF_TRAINING` where the step does not train.
    - `batch_index`: that of the batch in a test or predict pass, which is folded into its key; 0
        in training.
    """

    model: PyTree
    state: LearnerState
    batch_index: jax.Array


class Consts(NamedTuple):
    """What a program only reads.

    **Arguments:**

    - `held`: the fields of the state that only training changes, unless it trains.
    - `batch`: one batch; in a program, a stack of them.
    """

    learner: Any
    model: PyTree
    held: dict[str, PyTree]
    class_weight: Any
    batch: data.Batch


class StepOutput(NamedTuple):
    """What one call of a step comes to: what it threads, logs as accumulators, and emissions."""

    carry: Carry
    logs: dict[str, Any]
    emitted: list[PyTree]


def arguments_of(step: Step, consts: Consts, carry: Carry) -> dict[str, Any]:
    """All that a step may ask for, by name."""
    state = carry.state
    return data.step_arguments(consts.batch) | {
        "model": carry.model if step.trains else consts.model,
        "state": state.update(**consts.held),
        "class_weight": consts.class_weight,
        "training": step.trains,
        # Training steps differ by their number; in a pass that trains nothing, batches do.
        "key": step_key(
            state.key, step.stream, state.step, None if step.trains else carry.batch_index
        ),
    }


def run_step(step: Step, consts: Consts, carry: Carry) -> StepOutput:
    """Run a step on one batch, as a pure function of trees."""
    state, rows = carry.state, data.num_rows(consts.batch)
    names = arguments_of(step, consts, carry)
    logs, model, new_state = step.call(consts.learner, names)
    new_state = new_state.update(metrics={}, step=state.step + int(step.trains))
    if not step.trains:
        new_state = _tree.with_fields(new_state, **dict.fromkeys(consts.held))
    mask = names.get("mask")
    real_rows = rows if mask is None else jnp.sum(mask.astype(jnp.float32))
    contributed = _logs.contributions(logs, real_rows)
    _check_gathered(contributed, rows)
    accumulated, emitted = _logs.extract_gathers(_logs.drop_masked_rows(contributed, mask))
    new = Carry(model, new_state, carry.batch_index if step.trains else carry.batch_index + 1)
    _check_carry(carry, new, who=step.qualified_name(consts.learner))
    return StepOutput(new, accumulated, emitted)


def _check_carry(old: Carry, new: Carry, *, who: str) -> None:
    """Refuse a step that changes the structure of what it threads."""
    for name in ("model", "state"):
        before, after = getattr(old, name), getattr(new, name)
        if name == "state" and type(before) is not type(after):
            raise TypeError(
                f"`{who}` was given a `{type(before).__name__}` as state and returned a "
                f"`{type(after).__name__}`: return `state.update(...)`."
            )
        changes = _tree.differences(_tree.shape_structs(before), _tree.shape_structs(after), name)
        if changes:
            raise TypeError(
                f"`{who}` changed the structure of the {name}, which must stay the same from step "
                "to step: " + "; ".join(changes[:5]) + ". Keep shapes and dtypes (`.astype`), and "
                "hold what changes in arrays, not in Python numbers."
            )


def _check_gathered(logs: dict[str, Any], rows: int) -> None:
    for name, metric in logs.items():
        # Only a `Gather` of its own needs one row per example: a metric may gather one per token.
        values = [metric.values] if _logs.is_gather(metric) else []
        leaves = [pair for tree in values for pair in _tree.paths(tree, name)]
        if values and not leaves:
            raise TypeError(f"`{name}` holds no array: there is nothing to predict or to gather.")
        for path, leaf in leaves:
            if _tree.is_typed_key(leaf) or not _tree.is_array(leaf):
                what = "a random key" if _tree.is_typed_key(leaf) else f"{leaf!r}"
                raise TypeError(
                    f"`{path}` is {what}, not an array of numbers: predictions and gathered "
                    "values must be arrays with one row per example, or trees of them."
                )
            if leaf.ndim == 0 or leaf.shape[0] != rows:
                raise ValueError(
                    f"`{path}` has shape {leaf.shape} for a batch of {rows} examples: predictions "
                    "and gathered values must have one row per example, along their first axis."
                )
