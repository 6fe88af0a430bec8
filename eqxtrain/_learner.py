"""`Learner`: a model, an optimizer and the steps, with `fit`, `evaluate` and `predict`."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from . import _arguments, _forecast, _loop, _loss, _optimize, _passes, _schedule, data
from ._arguments import OnInterrupt, Verbose
from ._cost import StepsPerCall
from ._forecast import Forecast
from ._history import Fitted
from ._initialise import initialised, replaced
from ._schedule import Frequency
from ._state import LearnerState, check_states
from ._steps import AbstractLearner
from ._summary import Summary, summarise
from ._types import FilterSpec, M, Measures, Self, Transformation
from .callbacks import Callback
from .data import Position, Remainder
from .metrics import _collection


class Learner(AbstractLearner[M]):
    """A model with all that it takes to train it.

    A learner is an `eqx.Module`: immutable, a pytree, saved by `eqx.tree_serialise_leaves`. Every
    method that changes something returns a new learner, and the old one stays usable.

    Subclass it to override steps (see the table in [`eqxtrain.AbstractLearner`][]) and to add
    hyperparameters as dataclass fields.

    **Arguments:**

    - `model`: any pytree, usually an `eqx.Module` for one example.
    - `optimizer`: an optax gradient transformation, or None where nothing is trained.
    - `loss`: a function, an [`eqxtrain.Loss`][], or lists and dicts of them.
    - `metrics`: a metric, a function, or lists and dicts of them.
    - `trainable`: which leaves are trained: a function from a leaf to a bool, a tree of bools that
        is a prefix of the model, or [`eqxtrain.freeze`][]. By default, all floating arrays.
    - `model_state`: the `eqx.nn.State` of BatchNorm and the like. `init` moves it into `state`.
    - `state`: what training adds; `init` makes it.

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
    # Factories, so that the class has no attributes of these names: see `_protocol.withhold`.
    model_state: eqx.nn.State | None = eqx.field(default_factory=lambda: None, kw_only=True)
    state: LearnerState | None = eqx.field(default_factory=lambda: None, kw_only=True)

    def __check_init__(self) -> None:
        _loss.check(self.loss)
        _collection.check(self.metrics)
        check_states(self.model, self.model_state, self.state)

    def init(self, x: PyTree = None, y: PyTree = None, *, key: PRNGKeyArray | None = None) -> Self:
        """Make the state, and whatever else `init_step` makes.

        `fit`, `evaluate` and `predict` call it when needed. With a state, it starts anew.

        **Arguments:**

        - `x`, `y`: one batch, for an `init_step` that asks for it.
        - `key`: the source of all randomness, `jax.random.key(0)` by default.

        **Raises:** `ValueError` where the state of a stateful model would be lost, or is missing.
        """
        return initialised(self, None if x is None else data.array_source(x, y).tree, key=key)

    def replace(self, **changes: Any) -> Self:
        """A learner with some fields changed: `learner.replace(trainable=None, beta=2.0)`.

        Model, model state, key and step are kept. The optimizer's state is kept as long as it has
        the structure that the new model, optimizer and `trainable` ask for, and made anew
        otherwise: so one can freeze, train, unfreeze and train on.

        **Raises:** `TypeError` when a name is no field of the learner.
        """
        return replaced(self, changes)

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
        position: Position | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: Verbose = "auto",
        on_interrupt: OnInterrupt = None,
        steps_per_call: StepsPerCall = "auto",
        donate: bool = False,
        eager: bool = False,
    ) -> Fitted[Self]:
        """Train.

        **Arguments:**

        - `x`, `y`: the data: arrays, or nested tuples, lists and dicts of them, with the examples
            along their first axis. A dict alone is a mapping whose keys steps may ask for. Or `x`
            alone: a dataset of examples, an iterable of batches, or a function that makes one for
            each pass.
        - `epochs`, `steps`: how many more of them, whichever ends first; by default one epoch, or
            with `steps` as many as those take.
        - `steps_per_epoch`: of a pass by default. With fewer, the next epoch goes on in it.
        - `batch_size`, `remainder`: how many examples a step sees; what becomes of a batch that has
            fewer: `"keep"` it, `"pad"` it and tell by `mask`, or `"drop"` it (never in validation).
        - `shuffle`: whether each pass has a new order, a function of the learner's key and step.
        - `sample_weight`: one weight an example, or one for each value of the loss.
        - `class_weight`: a dict or an array of one weight a class, for the training loss.
        - `validation_data`: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, or a dict of named sets.
        - `validation_split`: the last fraction of the data to validate on, taken before shuffling.
        - `validation_freq`: every so many epochs, a list of epochs, or `et.Every(steps=...)`.
        - `validation_steps`: how many batches of each set, from its beginning; all by default.
        - `position`: where in the data to begin, as `history.position` of another run told.
        - `callbacks`: one, or a list; they are told in order.
        - `verbose`: 0 silent, 1 a live bar, 2 a line an epoch, `"auto"` a bar where it can be.
        - `on_interrupt`: whether Ctrl-C makes `fit` return, as in IPython by default, or raise a
            `KeyboardInterrupt` that carries `.learner` and `.history`.
        - `steps_per_call`: how many steps one call of the device may run; `"auto"` decides from the
            program, the shapes and the platform. Where calls are cut changes no number.
        - `donate`: give this learner's arrays away instead of copying them; it can't be used then.
        - `eager`: run every step without compiling it, for debugging.

        **Returns:** the trained learner and the [`eqxtrain.History`][] of the run.

        **Raises:** what goes wrong, with the learner of the last step as its `.learner`.
        """
        length = (epochs, steps, steps_per_epoch)
        schedule = _schedule.schedule(*length, validation_freq, validation_steps)
        given = lambda: _arguments.passed(
            (x, y, sample_weight),
            class_weight,
            cut=_arguments.cut(batch_size, remainder),
            callbacks=_arguments.callbacks(callbacks, verbose),
            options=_arguments.options(steps_per_call, eager),
            verbose=verbose,
        )
        split = (validation_data, validation_split)
        return _loop.fit(
            self,
            lambda: _arguments.training_data(given(), *split, schedule),
            schedule,
            shuffle=shuffle,
            position=position,
            on_interrupt=_arguments.on_interrupt(on_interrupt),
            donate=donate,
        )

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
        """Measure. The learner is not changed, and needs no optimizer and no `fit`.

        The arguments are those of [`eqxtrain.Learner.fit`][]; `steps` is how many batches to take.

        **Returns:** names to floats, or to NumPy arrays where a value is no scalar.
        """
        given = _arguments.passed(
            (x, y, sample_weight),
            class_weight,
            cut=_arguments.cut(batch_size, remainder),
            callbacks=_arguments.callbacks(callbacks, verbose),
            options=_arguments.options(steps_per_call, eager),
            verbose=verbose,
        )
        return _passes.evaluate(self, given, _arguments.steps(given, steps))

    def predict(
        self,
        x: PyTree,
        *,
        batch_size: int = 32,
        steps: int | None = None,
        remainder: Remainder = "keep",
        callbacks: Callback | Sequence[Callback] | None = None,
        steps_per_call: StepsPerCall = "auto",
        eager: bool = False,
    ) -> PyTree:
        """What `pred_step` gives for every example, as NumPy arrays, in order.

        It gives any tree of arrays with one row an example. The arguments are those of
        [`eqxtrain.Learner.evaluate`][].
        """
        given = _arguments.passed(
            (x, None, None),
            cut=_arguments.cut(batch_size, remainder),
            callbacks=_arguments.callbacks(callbacks, 0),
            options=_arguments.options(steps_per_call, eager),
        )
        return _passes.predict(self, given, _arguments.steps(given, steps))

    def train_on_batch(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        eager: bool = False,
    ) -> tuple[Self, dict[str, Any]]:
        """One training step on one batch. Returns the new learner, and this batch's logs."""
        return _passes.on_batch(self, "train", (x, y, sample_weight), class_weight, eager)

    def test_on_batch(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        eager: bool = False,
    ) -> dict[str, Any]:
        """The logs of one batch."""
        return _passes.on_batch(self, "test", (x, y, sample_weight), class_weight, eager)[1]

    def predict_on_batch(self, x: PyTree, *, eager: bool = False) -> PyTree:
        """What `pred_step` gives for one batch, as NumPy arrays."""
        return _passes.on_batch(self, "predict", (x, None, None), None, eager)[1]

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
        """What a step of such a `fit` costs. Its program is compiled, not run; `fit` uses it then.

        **Arguments:**

        - `x`, `y`, `sample_weight`: the data; of arrays, `jax.ShapeDtypeStruct`s will do.
        - `batch_size`: one, or two to find the largest that fits into `memory` bytes, by default
            those of the device.
        """
        options = _arguments.options(steps_per_call, False)
        given = (x, y, sample_weight)
        return _forecast.forecast(self, given, batch_size, class_weight, options, donate, memory)

    def summary(self, x: PyTree = None) -> Summary:
        """The parameter table, from shapes alone: no array is computed, no `init` is needed.

        **Arguments:**

        - `x`: a batch, or the shapes of one (`jax.ShapeDtypeStruct`), for the outputs' shapes.
        """
        return summarise(self, {} if x is None else data.named(data.pack(x)))
