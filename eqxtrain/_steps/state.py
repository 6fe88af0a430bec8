"""`LearnerState`: everything that training adds to a model."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from .._check import check_fields
from .._keys import key_data
from .._tree import is_typed_key, with_fields
from .._types import PyTree, Self, updates_fields
from ..metrics import _logs


def _raw(key: Any) -> Any:
    return key_data(key) if is_typed_key(key) else key


class LearnerState(eqx.Module):
    """Everything that training adds to the model, as one tree of arrays.

    Extend it by subclassing. Give each further field a default; it is then passed from step to step
    and saved with the rest.

    **Arguments:**

    - `model_state`: the `eqx.nn.State` of BatchNorm and the like, or None.
    - `step`: how many training steps the learner has taken, an int32 scalar.
    - `key`: raw `uint32` key data, the only source of randomness.
    - `metrics`: the accumulators of a loop of your own, by name, which `advance` fills. A learner
        that `fit` returns has none, so that its file always loads into a fresh `init`.
    - `averages`: the average of the weights under way, if the learner has an `ema`.
    - `opt_state`: the state of the optimizer.

    `opt_state_checksum` is for files, and made by the learner: a number for how many leaves
    `averages` and `opt_state` have, where, and of which shapes. Loading a file with another number
    raises, since it was written with another optimizer, `trainable` or `ema`. Inside steps it is
    None.
    """

    # First, as in a learner without a state, so that the files of both begin alike.
    model_state: eqx.nn.State | None = None
    step: Int32[Array, ""] | Any = eqx.field(default_factory=lambda: jnp.zeros((), jnp.int32))
    key: Any = eqx.field(default_factory=lambda: key_data(jax.random.key(0)), converter=_raw)
    metrics: dict[str, Any] = eqx.field(default_factory=dict)
    # Last, after their checksum, so that those of another optimizer are refused before they are
    # read.
    opt_state_checksum: Any = eqx.field(default=None, kw_only=True)
    averages: PyTree = eqx.field(default=None, kw_only=True)
    opt_state: PyTree = None

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except dataclasses.FrozenInstanceError:
                raise dataclasses.FrozenInstanceError(
                    f"`{type(self).__name__}.{name}` can't be assigned: a state is immutable. "
                    f"Make a new one, `state = state.update({name}=...)`, and return it."
                ) from None

    @updates_fields
    def update(self, **changes: Any) -> Self:
        """A new state with some fields changed: `state.update(opt_state=opt_state)`.

        **Raises:** `TypeError` when the state has no field of that name.
        """
        names = [f.name for f in dataclasses.fields(self) if f.name != "opt_state_checksum"]
        remedy = (
            "; for more, subclass `LearnerState` and make one with "
            "`MyState.from_state(state, ...)` in `states_step`"
        )
        check_fields(type(self), changes, names, remedy=remedy)
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_state(cls, state: "LearnerState", **fields: Any) -> Self:
        """A state of this class with the fields of `state`, and `fields` for the new ones."""
        names = [field.name for field in dataclasses.fields(cls)]
        check_fields(cls, fields, names, remedy=": declare it in the class")
        kept = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
        return cls(**{name: kept[name] for name in kept if name in names} | fields)

    def begin(self, logs: Mapping[str, Any]) -> Self:
        """A state with empty accumulators for logs like these (arrays or their shapes).

        Use it for a `lax.scan` of your own, whose carry must have its structure from the start.
        """
        return self.update(metrics=_logs.empty_accumulators(logs))

    def advance(self, logs: Mapping[str, Any], *, weight: Any = 1) -> Self:
        """A state with the logs of one training step merged into `metrics`, and `step` one higher.

        **Arguments:**

        - `logs`: what a step returned.
        - `weight`: how many examples the plain scalars among them are means of.
        """
        new = _logs.contributions(_logs.check_logs(dict(logs), who="advance"), weight)
        metrics = self.metrics or _logs.empty_accumulators(new)
        return self.update(metrics=_logs.merge(metrics, new), step=self.step + 1)


def at_rest(state: Any) -> Any:
    """The state as files hold it: with the checksum of its `averages` and `opt_state`."""
    covered = state.opt_state
    if state.averages is not None:
        covered = (state.averages, state.opt_state)
    leaves, structure = jax.tree.flatten(covered)
    kinds = tuple(
        (leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else type(leaf) for leaf in leaves
    )
    try:
        checksum = _checksum(structure, kinds)
    except TypeError:  # a static field that can't be hashed
        checksum = _checksum.__wrapped__(structure, kinds)
    if type(state.opt_state_checksum) is _only(checksum):
        return state
    return with_fields(state, opt_state_checksum=_only(checksum)(checksum))


@functools.lru_cache(maxsize=128)
def _checksum(structure: Any, kinds: tuple[Any, ...]) -> int:
    """A number for a tree's leaves: how many there are, where, and of which shapes and dtypes.

    Names and classes don't count, so that a model may rename its fields. It fits into an int32, to
    which JAX converts the ints that it is given.
    """
    listed = [str(kind) if isinstance(kind, type) else (kind[0], str(kind[1])) for kind in kinds]
    return zlib.crc32(repr((_skeleton(structure), listed)).encode()) >> 1


def _skeleton(structure: Any) -> tuple[Any, ...] | None:
    """The structure of a tree without its names: a tuple for each node, None for each leaf."""
    is_leaf = structure.num_nodes == structure.num_leaves == 1
    return None if is_leaf else tuple(map(_skeleton, structure.children()))


@functools.lru_cache(maxsize=128)
def _only(expected: int) -> type[int]:
    """A type of int with a single valid value; constructing it from any other raises.

    Plain Equinox turns a number in a file into `type(leaf)(number)` as soon as it reads it, but
    compares shapes only after it has read everything. So this is the first thing that is wrong with
    the file of another optimizer, and the error can say so.
    """

    class Checksum(int):
        """That number, and no other."""

        def __new__(cls, number: Any) -> "Checksum":
            if type(number) is not int or number != expected:
                raise ValueError(
                    "The optimizer's state in the file does not fit this learner: the file was "
                    "saved with another optimizer, `trainable` or `ema`, or with other losses or "
                    "metrics, which come before it. Load it into a learner like the one that was "
                    "saved, then change that with `learner.replace(...)`."
                )
            return super().__new__(cls, number)

        def __reduce__(self) -> tuple[Any, ...]:
            return _of_number, (expected,)

    return Checksum


def _of_number(number: int) -> int:
    return _only(number)(number)


def check_states(model: Any, model_state: Any, state: Any) -> None:
    """Refuse states of the wrong class, and a model that is still paired with its state."""
    if isinstance(model, type):
        raise TypeError(
            f"`model` is the class `{model.__name__}`: pass an instance, `{model.__name__}(...)`."
        )
    pair = isinstance(model, tuple) and len(model) == 2 and isinstance(model[1], eqx.nn.State)
    if pair and type(model) is tuple:
        raise TypeError(
            "`model` is the pair that `eqx.nn.make_with_state(...)` returns: unpack it, "
            "`model, model_state = ...`, and pass both, "
            "`Learner(model, optimizer, model_state=model_state)`."
        )
    if state is not None and not isinstance(state, LearnerState):
        raise TypeError(
            f"`state` is a `{type(state).__name__}`, not a `LearnerState`: the state of BatchNorm "
            "and the like goes to `model_state`."
        )
    if model_state is not None and not isinstance(model_state, eqx.nn.State):
        remedy = (
            "a learner's goes to `state`"
            if isinstance(model_state, LearnerState)
            else "pass what `model, model_state = eqx.nn.make_with_state(Model)(...)` returns; to "
            "keep a state of your own, add a field to a `LearnerState` in `states_step`"
        )
        raise TypeError(
            f"`model_state` is a `{type(model_state).__name__}`, not an `eqx.nn.State`: {remedy}."
        )
