"""`Learner`: a model, an optimizer and the steps, with `fit`, `evaluate` and `predict`."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from . import _arguments, _forecast, _loop, _loss, _optimize, _reduction, data
from ._arguments import OnInterrupt, Verbose
from ._cost import StepsPerCall
from ._engine import Options, Pass
from ._exceptions import carrying
from ._fold import Kind
from ._forecast import Forecast
from ._history import Fitted
from ._initialise import initialised, ready, replaced
from ._state import LearnerState
from ._steps import AbstractLearner
from ._summary import Summary, summarise
from ._types import FilterSpec, M, Measures, Self, Transformation
from .callbacks import Callback
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
    - `model_state`: the `eqx.nn.State` of a model with BatchNorm and the like. `init` moves it
        into `state`.
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
        if self.state is not None and not isinstance(self.state, LearnerState):
            raise TypeError(
                f"`state` is a `{type(self.state).__name__}`, not a `LearnerState`; the state of "
                "BatchNorm and the like goes to `model_state`."
            )

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
        epochs: int = 1,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        validation_data: Any = None,
        validation_split: float = 0.0,
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
            alone: an iterable of batches, or a function that makes one for each epoch.
        - `epochs`, `batch_size`: how many more passes over the data; how many examples a step sees.
        - `shuffle`: whether each pass has a new order, a function of the learner's key and step.
        - `sample_weight`: one weight an example, or one for each value of the loss.
        - `class_weight`: a dict or an array of one weight a class, for the training loss.
        - `validation_data`: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, or a dict of named sets.
        - `validation_split`: the last fraction of the data to validate on, taken before shuffling.
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
        batch_size = data.check_whole("batch_size", batch_size, at_least=1)
        epochs = data.check_whole("epochs", epochs, at_least=0)
        source, validation = _arguments.training_data(
            data.as_source(x, y, sample_weight), validation_data, validation_split, epochs
        )
        weights = _arguments.given(sample_weight=sample_weight, class_weight=class_weight)
        with carrying(self):
            learner = ready(self, source.first(batch_size), "train", weights=weights)
        return _loop.fit(
            learner,
            source,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            validation=validation,
            class_weight=_reduction.class_weight_table(class_weight, y),
            callbacks=_arguments.callbacks(callbacks, verbose),
            on_interrupt=_arguments.on_interrupt(on_interrupt),
            options=_arguments.options(steps_per_call, eager),
            donate=donate,
            params={"batch_size": batch_size, "verbose": verbose},
        )

    def evaluate(
        self,
        x: PyTree,
        y: PyTree = None,
        *,
        batch_size: int = 32,
        sample_weight: PyTree = None,
        class_weight: Any = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: Verbose = 0,
        steps_per_call: StepsPerCall = "auto",
        eager: bool = False,
    ) -> dict[str, Any]:
        """Measure. The learner is not changed, and needs no optimizer and no `fit`.

        The arguments are those of [`eqxtrain.Learner.fit`][].

        **Returns:** names to floats, or to NumPy arrays where a value is no scalar.
        """
        batch_size = data.check_whole("batch_size", batch_size, at_least=1)
        source = data.as_source(x, y, sample_weight)
        weights = _arguments.given(sample_weight=sample_weight, class_weight=class_weight)
        return _loop.evaluate(
            ready(self, source.first(batch_size), "test", weights=weights),
            source,
            batch_size=batch_size,
            class_weight=_reduction.class_weight_table(class_weight, y),
            callbacks=_arguments.callbacks(callbacks, verbose),
            options=_arguments.options(steps_per_call, eager),
            params={"batch_size": batch_size, "verbose": verbose},
        )

    def predict(
        self,
        x: PyTree,
        *,
        batch_size: int = 32,
        callbacks: Callback | Sequence[Callback] | None = None,
        steps_per_call: StepsPerCall = "auto",
        eager: bool = False,
    ) -> PyTree:
        """What `pred_step` gives for every example, as NumPy arrays, in order."""
        size, source = data.check_whole("batch_size", batch_size, at_least=1), data.as_source(x)
        return _loop.predict(
            ready(self, source.first(size), "predict"),
            source,
            batch_size=size,
            callbacks=_arguments.callbacks(callbacks, 0),
            options=_arguments.options(steps_per_call, eager),
            params={"batch_size": size},
        )

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
        done = self._on_batch("train", (x, y, sample_weight), class_weight, eager)
        logs = done.logs()
        done.begin()
        return done.learner, logs

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
        return self._on_batch("test", (x, y, sample_weight), class_weight, eager).logs()

    def predict_on_batch(self, x: PyTree, *, eager: bool = False) -> PyTree:
        """What `pred_step` gives for one batch, as NumPy arrays."""
        return self._on_batch("predict", (x, None, None), None, eager).outputs()

    def _on_batch(self, kind: Kind, given: tuple[PyTree, ...], weight: Any, eager: bool) -> Pass:
        batch = data.array_source(*given).tree
        table = _reduction.class_weight_table(weight, given[1])
        one = Pass(ready(self, batch, kind), kind, class_weight=table, options=Options(eager, 1))
        one(batch)
        return one

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
        return _forecast.forecast(
            self,
            (x, y, sample_weight),
            batch_size if isinstance(batch_size, tuple) else (batch_size,),
            class_weight=_reduction.class_weight_table(class_weight, y),
            options=_arguments.options(steps_per_call, False),
            donate=donate,
            memory=memory,
        )

    def summary(self, x: PyTree = None) -> Summary:
        """The parameter table, from shapes alone: no array is computed, no `init` is needed.

        **Arguments:**

        - `x`: a batch, or the shapes of one (`jax.ShapeDtypeStruct`), for the outputs' shapes.
        """
        return summarise(self, {} if x is None else data.named(data.pack(x)))
