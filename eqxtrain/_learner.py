"""`Learner`: a model, an optimizer and the steps, with `fit`, `evaluate` and `predict`."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from . import _compile, _loop, _loss, _optimize, _tree, data
from ._engine import Kind, Pass
from ._history import Fitted
from ._request import SUMMARY_NAMES
from ._state import LearnerState, key_data
from ._steps import AbstractLearner
from ._summary import Summary
from ._types import FilterSpec, M, Measures, Self, Transformation
from .callbacks import Callback, Progress
from .callbacks._base import Callbacks
from .metrics import _collection

Verbose = Literal[0, 1, 2, "auto"]


class Learner(AbstractLearner[M]):
    """A model with all that it takes to train it.

    A learner is an `eqx.Module`: immutable, a pytree, saved by `eqx.tree_serialise_leaves`. Every
    method that changes something returns a new learner, and the old one stays usable.

    Subclass it to override steps (see the table in [`AbstractLearner`][]) and to add
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

        `fit`, `evaluate` and `predict` call it when needed. On a learner that has a state, it
        starts anew from the learner's model.

        **Arguments:**

        - `x`, `y`: one batch, for an `init_step` that asks for it.
        - `key`: the source of all randomness, `jax.random.key(0)` by default.

        **Raises:** `ValueError` where the state of a stateful model would be lost, or is missing.
        """
        batch = None if x is None else data.as_source(x, y).tree
        return self._init(batch, key=key)

    def _init(self, batch: PyTree, *, key: PRNGKeyArray | None = None) -> Self:
        if (
            self.state is not None
            and self.state.model_state is not None
            and self.model_state is None
        ):
            raise ValueError(
                "`init` would lose the `model_state` that was trained. To start anew with it, "
                "`learner.replace(state=None, model_state=learner.state.model_state).init()`; to "
                "start from the beginning, build the learner again."
            )
        key = jax.random.key(0) if key is None else key
        key_data(
            key
        )  # refuses a batch of keys, and keys that can't be stored, before they are used
        names = {} if batch is None else data.named(jax.tree.map(jnp.asarray, batch))
        names |= {"model": self.model, "model_state": self.model_state, "key": key}
        model, state = self.init_step(**names)
        seen: dict[int, str] = {}
        model = _tree.untied(_tree.canonical(model), seen, root="model", warn=True)
        state = _tree.untied(_tree.canonical(state), seen, root="state", warn=False)
        self._check_new(model, state)
        return _tree.with_fields(self, model=model, state=state, model_state=None)

    def _check_new(self, model: PyTree, state: LearnerState) -> None:
        name = type(self).__name__
        if model is None and self._uses_default("init_step"):
            raise ValueError(
                f"`{name}` has no model: give one, or override `init_step` to build it."
            )
        if state.model_state is None and (where := _stateful(model)):
            raise ValueError(
                f"`{where}` is stateful, but there is no `model_state`: build the model with "
                "`model, model_state = eqx.nn.make_with_state(Model)(...)` and give both, "
                "`Learner(model, optimizer, model_state=model_state)`; an overridden `init_step` "
                "passes it on to `self.states_step(..., model_state=model_state)`."
            )
        for tree, root in ((state, "state"), (model, "model")):
            if where := _tree.first(_tree.is_typed_key, tree, root):
                raise TypeError(
                    f"`{where}` is a typed random key, which `eqx.tree_serialise_leaves` can't "
                    "save: store `jax.random.key_data(key)`, and wrap it where it is used."
                )

    def _uses_default(self, step: str) -> bool:
        return getattr(type(self), step) is getattr(AbstractLearner, step)

    def _ready(self, batch: PyTree, kind: Kind) -> Self:
        """An initialised learner, checked for what `kind` needs."""
        name = type(self).__name__
        if kind == "train" and self.optimizer is None and self._uses_default("train_step"):
            raise TypeError(
                f"`{name}` has no optimizer to fit with: give one, "
                f"`{name}(model, optax.adam(1e-3), ...)`, or override `train_step`."
            )
        learner = self._init(batch) if self.state is None else self
        if kind == "train":
            learner._check_state()
        return learner

    def _check_state(self) -> None:
        """Refuse a state that was made for another model or optimizer."""
        own_states = not (self._uses_default("states_step") and self._uses_default("init_step"))
        if own_states or self.state is None or not self._uses_default("train_step"):
            return
        key = ("state", _compile.key_of(self))
        bad, _ = _compile.cached(key, lambda: self._foreign())
        if bad:
            raise ValueError(
                "The `state` of this learner belongs to another model, optimizer or `trainable`: "
                + "; ".join(bad[:5])
                + ". Change a learner with `learner.replace(...)`, which keeps its state in step, "
                "or make a new state with `.init()`."
            )

    def _foreign(self) -> list[str]:
        assert self.state is not None
        expected = eqx.filter_eval_shape(_optimize.init, self.optimizer, self.trainable, self.model)
        given = self.state.opt_state
        return _tree.differences(_tree.shapes(expected), _tree.shapes(given), "state.opt_state")

    def replace(self, **changes: Any) -> Self:
        """A learner with some fields changed: `learner.replace(trainable=None, beta=2.0)`.

        Model, model state, key and step are kept. The optimizer's state is kept as long as it has
        the structure that the new model, optimizer and `trainable` ask for, and made anew
        otherwise: so one can freeze, train, unfreeze and train on.

        **Raises:** `TypeError` when a name is no field of the learner.
        """
        names = [field.name for field in dataclasses.fields(self)]
        unknown = ", ".join(f"`{name}`" for name in changes if name not in names)
        if unknown:
            raise TypeError(
                f"`{type(self).__name__}` has no field {unknown}. Its fields are "
                f"{', '.join(names)}."
            )
        new = dataclasses.replace(self, **changes)
        if new.state is None or "state" in changes or not new._uses_default("states_step"):
            return new
        if changes.keys() & {"model", "optimizer", "trainable"} and new._foreign():
            opt_state = _optimize.init(new.optimizer, new.trainable, new.model)
            opt_state = _tree.copy(_tree.canonical(opt_state))
            return _tree.with_fields(new, state=new.state.update(opt_state=opt_state))
        return new

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
        callbacks: Callback | Sequence[Callback] = (),
        verbose: Verbose = "auto",
        on_interrupt: Literal["return", "raise"] | None = None,
        eager: bool = False,
    ) -> Fitted[Self]:
        """Train.

        **Arguments:**

        - `x`, `y`: the data: arrays, or nested tuples, lists and dicts of them, with the examples
            along their first axis. A dict alone is a mapping whose keys steps may ask for.
        - `epochs`: how many more passes over the data.
        - `batch_size`: how many examples a step sees. A short last batch keeps its true rows.
        - `shuffle`: whether each pass has a new order, a function of the learner's key and step.
        - `sample_weight`: one weight an example, or one for each value of the loss.
        - `class_weight`: a dict or an array of one weight a class, for the training loss.
        - `validation_data`: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, or a dict of named sets.
        - `validation_split`: the last fraction of the data to validate on, taken before shuffling.
        - `callbacks`: one, or a list; they are told in order.
        - `verbose`: 0 silent, 1 a live bar, 2 a line an epoch, `"auto"` a bar where one can be
            shown.
        - `on_interrupt`: whether Ctrl-C makes `fit` return, or raise a `KeyboardInterrupt` that
            carries `.learner` and `.history`. By default it returns in IPython.
        - `eager`: run every step without compiling it, for debugging.

        **Returns:** the trained learner and the [`eqxtrain.History`][] of the run.

        **Raises:** what goes wrong, with the learner of the last step as `.learner` on the
        exception.
        """
        _check_sizes(batch_size=batch_size)
        if epochs < 0:
            raise ValueError(f"`epochs` is how many more passes to train; got {epochs}.")
        source = data.as_source(x, y, sample_weight)
        validation: dict[str, data.ArraySource] = {}
        if validation_data is not None:
            if validation_split:
                raise ValueError("Give `validation_data` or `validation_split`, not both.")
            validation = data.named_sets(validation_data)
        elif validation_split:
            source, held_out = source.split(validation_split)
            validation = {"val_": held_out}
        learner = self._ready(source.take(slice(batch_size)), "train")
        return _loop.fit(
            learner,
            source,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            validation=validation,
            class_weight=_loss.class_weight_table(class_weight),
            callbacks=_callbacks(callbacks, verbose),
            on_interrupt=on_interrupt,
            eager=eager,
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
        callbacks: Callback | Sequence[Callback] = (),
        verbose: Verbose = 0,
        eager: bool = False,
    ) -> dict[str, Any]:
        """Measure. The learner is not changed, and needs no optimizer and no `fit`.

        The arguments are those of [`eqxtrain.Learner.fit`][].

        **Returns:** names to floats, or to NumPy arrays where a value is no scalar.
        """
        _check_sizes(batch_size=batch_size)
        source = data.as_source(x, y, sample_weight)
        return _loop.evaluate(
            self._ready(source.take(slice(batch_size)), "test"),
            source,
            batch_size=batch_size,
            class_weight=_loss.class_weight_table(class_weight),
            callbacks=_callbacks(callbacks, verbose),
            eager=eager,
            params={"batch_size": batch_size, "verbose": verbose},
        )

    def predict(
        self,
        x: PyTree,
        *,
        batch_size: int = 32,
        callbacks: Callback | Sequence[Callback] = (),
        eager: bool = False,
    ) -> PyTree:
        """What `pred_step` gives for every example, as NumPy arrays, in order."""
        _check_sizes(batch_size=batch_size)
        source = data.as_source(x)
        return _loop.predict(
            self._ready(source.take(slice(batch_size)), "predict"),
            source,
            batch_size=batch_size,
            callbacks=_callbacks(callbacks, 0),
            eager=eager,
            params={"batch_size": batch_size},
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
        done = self._on_batch("train", data.as_source(x, y, sample_weight), class_weight, eager)
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
        source = data.as_source(x, y, sample_weight)
        return self._on_batch("test", source, class_weight, eager).logs()

    def predict_on_batch(self, x: PyTree, *, eager: bool = False) -> PyTree:
        """What `pred_step` gives for one batch, as NumPy arrays."""
        return self._on_batch("predict", data.as_source(x), None, eager).outputs()

    def _on_batch(
        self, kind: Kind, source: data.ArraySource, class_weight: Any, eager: bool
    ) -> Pass:
        learner = self._ready(source.tree, kind)
        table = _loss.class_weight_table(class_weight)
        one = Pass(learner, kind, class_weight=table, eager=eager)
        one(source.tree)
        return one

    def summary(self, x: PyTree = None) -> Summary:
        """The parameter table, from shapes alone: no array is computed, no `init` is needed.

        **Arguments:**

        - `x`: a batch, or the shapes of one (`jax.ShapeDtypeStruct`), for the outputs' shapes.
        """

        def describe(learner: Self, x: PyTree) -> tuple[list[Any], PyTree]:
            names: dict[str, Any] = {} if x is None else {"x": x, "batch": x}
            if learner.state is None:
                init = {"model_state": learner.model_state, "key": jax.random.key(0)}
                model, state = learner.init_step(**names, model=learner.model, **init)
            else:
                model, state = learner.model, learner.state
            names |= {"model": eqx.nn.inference_mode(model), "state": state}
            names["key"] = jax.random.key(0)
            given = {name: value for name, value in names.items() if name in SUMMARY_NAMES}
            return learner.summary_step(**given), (state.opt_state, state.model_state)

        dynamic, static = eqx.partition((self, x), _tree.is_array)
        rows, (opt_state, model_state) = eqx.filter_eval_shape(
            lambda dynamic: describe(*eqx.combine(dynamic, static)), dynamic
        )
        return Summary(rows, _tree.size(opt_state), _tree.size(model_state))


def _callbacks(callbacks: Callback | Sequence[Callback], verbose: Verbose) -> Callbacks:
    if verbose not in (0, 1, 2, "auto"):
        raise ValueError(f'`verbose` is 0, 1, 2 or "auto"; got {verbose!r}.')
    given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    return Callbacks(given if verbose == 0 else [*given, Progress(verbose)])


def _check_sizes(*, batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"`batch_size` is a positive whole number of examples; got {batch_size!r}."
        )


def _stateful(model: PyTree) -> str | None:
    """The path of the first stateful layer of `model`."""
    is_index = lambda node: isinstance(node, eqx.nn.StateIndex)
    leaves = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_index)[0]
    return next(
        ("model" + jax.tree_util.keystr(path[:-1]) for path, leaf in leaves if is_index(leaf)), None
    )
