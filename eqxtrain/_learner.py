"""`Learner`: a model, an optimizer and the steps, with `fit`, `evaluate` and `predict`."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray

from . import _data as data, _tree
from ._data import Position, Remainder
from ._engine.call_plan import StepsPerCall
from ._history import Fitted
from ._loop import (
    evaluate as evaluation,
    fit as fitting,
    forecast as forecasting,
    inputs,
    recompute as recomputing,
)
from ._loop.forecast import Forecast
from ._loop.inputs import OnInterrupt, ValidationWeights, Verbose
from ._loop.schedule import Frequency, make_schedule
from ._losses import loss as _loss
from ._steps import averages as _averages, optimize as _optimize
from ._steps.init import initialise, replace_fields
from ._steps.ladder import AbstractLearner
from ._steps.state import LearnerState, at_rest, check_states
from ._steps.summary import Summary, summarise
from ._types import FilterSpec, M, Measures, PyTree, Self, Transformation, replaces_fields
from .callbacks import Callback
from .metrics import _collection


class Learner(AbstractLearner[M]):
    """A model together with everything that training it needs.

    A learner is an `eqx.Module`: immutable, a pytree, saved by `eqx.tree_serialise_leaves`. Every
    method that changes something returns a new learner, and the old one stays usable.

    Subclass it to override steps (see the table in [`eqxtrain.AbstractLearner`][]) and to add
    hyperparameters as dataclass fields.

    **Arguments:**

    - `model`: any pytree, usually an `eqx.Module` that takes a single example.
    - `optimizer`: an optax gradient transformation, or None where nothing is trained.
    - `loss`: a function, an [`eqxtrain.Loss`][], or lists and dicts of them.
    - `metrics`: a metric, a function, or lists and dicts of them.
    - `trainable`: which leaves are trained: a function from a leaf to a bool, a tree of bools that
        is a prefix of the model, or [`eqxtrain.freeze`][]. By default, all floating arrays.
    - `ema`: keeps an exponential moving average of the trainable weights, with this decay: a number
        such as 0.999, or a function from the step to one. Or [`eqxtrain.SWA`][].
    - `model_state`: the `eqx.nn.State` of BatchNorm and the like. `init` moves it into `state`.
    - `state`: everything that training adds to the model; `init` makes it.

    `is_initialised` says whether it has a `state`; files keep it.

    !!! example

        ```python
        learner = et.Learner(
            eqx.nn.MLP(64, 10, 128, 2, key=jr.key(0)),
            optax.adam(1e-3),
            loss=optax.softmax_cross_entropy_with_integer_labels,
            metrics={"accuracy": et.metrics.Accuracy()},
        )
        learner, history = learner.fit(x, y, epochs=20, validation_split=0.1)
        ```
    """

    model: M
    optimizer: Transformation = eqx.field(converter=_optimize.as_optimizer)
    loss: Measures | None = eqx.field(default=None, kw_only=True)
    metrics: Measures | None = eqx.field(default=None, kw_only=True)
    trainable: FilterSpec = eqx.field(
        default=None, kw_only=True, static=True, converter=_optimize.as_spec
    )
    ema: _averages.Averaging = eqx.field(
        default=None, kw_only=True, static=True, converter=_averages.as_averaging
    )
    # A leaf of its own, so that a file tells what it was made of: see `_steps/partial_load.py`.
    is_initialised: bool = eqx.field(default=False, init=False, kw_only=True)
    # Factories, so that the class has no attributes of these names: see `without_state`.
    model_state: eqx.nn.State | None = eqx.field(default_factory=lambda: None, kw_only=True)
    state: LearnerState | None = eqx.field(default_factory=lambda: None, kw_only=True)

    def __check_init__(self) -> None:
        _loss.check_losses(self.loss)
        _collection.check_metrics(self.metrics)
        object.__setattr__(self, "is_initialised", self.state is not None)
        check_states(self.model, self.model_state, self.state)
        if self.state is not None:
            object.__setattr__(self, "state", at_rest(self.state))

    def init(self, x: PyTree = None, y: PyTree = None, *, key: PRNGKeyArray | None = None) -> Self:
        """A learner with a fresh state, and with whatever else `init_step` makes.

        `fit`, `evaluate` and `predict` call it for a learner that has no state yet. Called on one
        that has a state, it keeps the model and throws that state away.

        **Arguments:**

        - `x`, `y`: one batch, for an `init_step` that asks for it.
        - `key`: the source of all randomness, `jax.random.key(0)` by default.

        **Raises:** `ValueError` if it would throw a `model_state` away, or if one is missing.
        """
        names = {} if x is None else data.step_arguments(data.array_source(x, y).take(slice(None)))
        return initialise(self, names, key=key)

    @replaces_fields
    def replace(self, **changes: Any) -> Self:
        """A learner with some fields changed: `learner.replace(trainable=None, beta=2.0)`.

        Model, model state, key and step are kept. So is the optimizer's state, unless the new
        model, optimizer or `trainable` needs one of another structure, which is then made. So you
        can freeze layers, train, unfreeze them and train on. An average of the weights begins anew
        with another `ema` or model.

        **Raises:** `TypeError` when the learner has no field of that name.
        """
        return replace_fields(self, changes)

    def averaged(self) -> Self:
        """This learner with the averaged weights as its model, to evaluate, predict or save.

        The average is corrected for its bias towards zero; before the first step, it is the model.
        All else is kept, the statistics of BatchNorm included: see `recompute_statistics`.

        **Raises:** `ValueError` if it keeps no average: pass `ema`.
        """
        return _tree.with_fields(self, model=_averages.averaged(self))

    def recompute_statistics(
        self, x: PyTree, *, batch_size: int = 32, steps: int | None = None
    ) -> Self:
        """This learner with the statistics of its BatchNorm layers taken from data.

        For weights that were not trained with those that it has, such as averaged ones. Each
        statistic becomes its mean over the batches, weighted by their numbers of rows (PyTorch's
        `update_bn` weighs all batches alike). The weights stay as they are, and so do layers in
        inference mode.

        **Arguments:**

        - `x`, `batch_size`, `steps`: the data, as for [`eqxtrain.Learner.predict`][]; take the
            batch size that the learner was trained with.

        !!! example

            ```python
            averaged = learner.averaged().recompute_statistics(x, batch_size=32)
            ```
        """
        checked = inputs.check_inputs(
            (x, None, None),
            batch_size=batch_size,
            remainder="keep",
            callbacks=None,
            steps_per_call="auto",
            eager=False,
        )
        return recomputing.recompute_statistics(self, checked, inputs.check_steps(checked, steps))

    def fit(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        steps_per_epoch: int | None = None,
        batch_size: int = 32,
        remainder: Remainder = "keep",
        shuffle: bool = True,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        validation_data: Any = None,
        validation_split: float = 0.0,
        validation_freq: Frequency = 1,
        validation_steps: int | None = None,
        validation_weights: ValidationWeights = "raw",
        position: Position | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: Verbose = "auto",
        on_interrupt: OnInterrupt = None,
        steps_per_call: StepsPerCall = "auto",
        donate: bool = False,
        snapshots: bool = True,
        eager: bool = False,
    ) -> Fitted[Self]:
        """Train.

        **Arguments:**

        - `x`, `y`: the data: arrays, or nested tuples, lists and dicts of them, with the examples
            along their first axis. A dict alone is a mapping whose keys steps may ask for. Or `x`
            alone: a dataset of examples, an iterable of batches, or a function that makes one for
            each pass.
        - `epochs`, `steps`: how many more to train for; with both, whichever ends first. By
            default one epoch, or with `steps` alone as many epochs as those take.
        - `steps_per_epoch`: how many steps make an epoch, by default those of one pass over the
            data. With fewer, the next epoch continues the pass where this one stopped.
        - `batch_size`: how many examples a step sees.
        - `remainder`: what becomes of a last batch with fewer examples: `"keep"` it, `"pad"` it and
            say so by `mask`, or `"drop"` it (never in validation).
        - `shuffle`: whether each pass has a new order, a function of the learner's key and step.
        - `sample_weight`: one weight per example, or one for each value of the loss.
        - `class_weight`: a dict or an array with one weight per class, for the training loss.
        - `validation_data`: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, or a dict of named sets.
        - `validation_split`: the last fraction of the data to validate on, taken before shuffling.
        - `validation_freq`: every so many epochs, a list of epochs, or `et.Every(steps=...)`.
        - `validation_steps`: how many batches of each set, from its beginning; all by default.
        - `validation_weights`: with `ema`, whether `val_...` measures the `"raw"` weights, as by
            default, or the `"averaged"` ones; with `"both"`, those are `val_averaged_...`.
        - `position`: where in the data to begin: the `history.position` of an earlier run.
        - `callbacks`: one, or a list; they are called in order.
        - `verbose`: 0 silent, 1 or `"auto"` a live bar where one can be shown, 2 a line per epoch,
            `"plot"` the curves, in a notebook.
        - `on_interrupt`: whether Ctrl-C makes `fit` return, as in IPython by default, or raise a
            `KeyboardInterrupt` that carries `.learner` and `.history`.
        - `steps_per_call`: how many steps one call of the device may run; `"auto"` decides from the
            program, the shapes and the platform. Where calls are cut changes no number.
        - `donate`: give this learner's arrays away instead of copying them; it is unusable then.
        - `snapshots`: copy model and state to the host as each epoch begins, for an exception to
            carry if the device fails. Without, and with `donate`, nothing is copied.
        - `eager`: run every step without compiling it, for debugging.

        **Returns:** the trained learner and the [`eqxtrain.History`][] of the run.

        **Raises:** whatever goes wrong; the exception's `.learner` is that of the last step.
        """
        schedule = make_schedule(epochs, steps, steps_per_epoch, validation_freq, validation_steps)
        options = inputs.FitOptions(
            shuffle=shuffle,
            position=position,
            on_interrupt=inputs.check_on_interrupt(on_interrupt),
            donate=donate,
            snapshots=snapshots,
            validation_weights=inputs.check_validation_weights(validation_weights, self.ema),
        )

        def check_data() -> tuple[inputs.PassInputs, dict[str, data.Source]]:
            checked = inputs.check_inputs(
                (x, y, sample_weight),
                class_weight,
                batch_size=batch_size,
                remainder=remainder,
                callbacks=callbacks,
                steps_per_call=steps_per_call,
                eager=eager,
                verbose=verbose,
            )
            return inputs.training_data(checked, validation_data, validation_split, schedule)

        return fitting.fit(self, check_data, schedule, options)

    def evaluate(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        batch_size: int = 32,
        steps: int | None = None,
        remainder: Remainder = "keep",
        sample_weight: PyTree = None,
        class_weight: Any = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: Verbose = 0,
        steps_per_call: StepsPerCall = "auto",
        eager: bool = False,
    ) -> dict[str, Any]:
        """Measure loss and metrics. Changes nothing, and needs neither an optimizer nor a `fit`.

        The arguments are those of [`eqxtrain.Learner.fit`][]; `steps` is how many batches to take.

        **Returns:** a dict from names to floats; to NumPy arrays for values that aren't scalars.
        """
        checked = inputs.check_inputs(
            (x, y, sample_weight),
            class_weight,
            batch_size=batch_size,
            remainder=remainder,
            callbacks=callbacks,
            steps_per_call=steps_per_call,
            eager=eager,
            verbose=verbose,
        )
        return evaluation.evaluate(self, checked, inputs.check_steps(checked, steps))

    def predict(
        self,
        x: PyTree,
        *,
        batch_size: int = 32,
        steps: int | None = None,
        remainder: Remainder = "keep",
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: Verbose = 0,
        steps_per_call: StepsPerCall = "auto",
        eager: bool = False,
    ) -> PyTree:
        """What `pred_step` returns for every example, as NumPy arrays, in order.

        That may be any tree of arrays with one row per example. The arguments are those of
        [`eqxtrain.Learner.evaluate`][].
        """
        checked = inputs.check_inputs(
            (x, None, None),
            batch_size=batch_size,
            remainder=remainder,
            callbacks=callbacks,
            steps_per_call=steps_per_call,
            eager=eager,
            verbose=verbose,
        )
        return evaluation.predict(self, checked, inputs.check_steps(checked, steps))

    def train_on_batch(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        eager: bool = False,
    ) -> tuple[Self, dict[str, Any]]:
        """Take one training step on one batch. Returns the new learner and this batch's logs."""
        return evaluation.on_batch(self, "train", (x, y, sample_weight), class_weight, eager)

    def test_on_batch(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        eager: bool = False,
    ) -> dict[str, Any]:
        """The loss and metrics of one batch."""
        return evaluation.on_batch(self, "test", (x, y, sample_weight), class_weight, eager)[1]

    def predict_on_batch(self, x: PyTree, *, eager: bool = False) -> PyTree:
        """What `pred_step` returns for one batch, as NumPy arrays."""
        return evaluation.on_batch(self, "predict", (x, None, None), None, eager)[1]

    def forecast(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        batch_size: int | tuple[int, int] = 32,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        steps_per_call: StepsPerCall = "auto",
        donate: bool = False,
        memory: int | None = None,
    ) -> Forecast:
        """What a step of such a `fit` would cost. Compiles its program, which `fit` then uses.

        **Arguments:**

        - `x`, `y`, `sample_weight`: the data; instead of arrays, `jax.ShapeDtypeStruct`s will do.
        - `batch_size`: one, or two to find the largest that fits into `memory` bytes, by default
            those of the device.
        """
        options = inputs.check_options(steps_per_call, False)
        arrays = (x, y, sample_weight)
        return forecasting.forecast(self, arrays, batch_size, class_weight, options, donate, memory)

    def summary(self, x: PyTree = None) -> Summary:
        """The table of parameters, from shapes alone: computes nothing and needs no `init`.

        **Arguments:**

        - `x`: a batch, or its shapes (`jax.ShapeDtypeStruct`), to show the shapes of outputs.
        """
        return summarise(self, {} if x is None else data.step_arguments(data.make_batch(x)))
