"""Type variables and aliases. Imports nothing of ours."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from equinox import Module

if TYPE_CHECKING:
    from typing import Self as Self

    import optax

    # `default=` lets people write a bare `Learner` under pyright strict; at run time Python 3.11
    # has no such argument, and nobody asks.
    from typing_extensions import TypeVar

    M = TypeVar("M", default=Any)

    Optimizer: TypeAlias = optax.GradientTransformation | optax.MultiSteps
    Transformation: TypeAlias = optax.GradientTransformation
    Measures: TypeAlias = (
        Callable[..., Any] | Module | list[Any] | tuple[Any, ...] | Mapping[str, Any]
    )
else:
    from typing import TypeVar

    M = TypeVar("M")

    # beartype decorates methods one at a time, and can't check `Self` there.
    Self = Any

    # Whoever passes something else at run time gets a sentence of ours, and not beartype's.
    Optimizer = Transformation = Measures = Any

Logs: TypeAlias = dict[str, Any]
"""What a step reports: names to scalar arrays, or to metrics."""

FilterSpec: TypeAlias = Any
"""An Equinox filter spec: a predicate on leaves, or a bool prefix of the model."""
