"""Type variables, aliases, and signatures that only type checkers see. Imports nothing of ours."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from equinox import Module

StepKind = Literal["train", "test", "predict"]
"""Which of the learner's steps a pass runs."""

if TYPE_CHECKING:
    from typing import ParamSpec, Protocol, Self as Self, overload

    import optax

    # `default=` lets people write a bare `Learner` under pyright strict; at run time Python 3.11
    # has no such argument, and nobody asks.
    from typing_extensions import TypeVar as _TypeVar

    M = _TypeVar("M", default=Any)
    P = ParamSpec("P")
    R = TypeVar("R", covariant=True)
    S = TypeVar("S")

    # Checkers know nothing of jaxtyping's, so whatever it touched would be "partially unknown".
    PyTree: TypeAlias = Any

    Optimizer: TypeAlias = optax.GradientTransformation | optax.MultiSteps
    Transformation: TypeAlias = optax.GradientTransformation
    Measures: TypeAlias = (
        Callable[..., Any] | Module | list[Any] | tuple[Any, ...] | Mapping[str, Any]
    )

    class ByName(Protocol[R]):
        """A step as its callers see it: whatever it asks for, it is called by name."""

        def __call__(self, **available: Any) -> R: ...

    class StepMethod(Protocol[R]):
        """A step as its overrides see it: they may ask for anything, and must return `R`.

        An override is compared with `__call__`, and a call of the default with what `__get__`
        gives. The second member of that union is there for mypy, which compares overrides with it.
        """

        def __call__(self, *args: Any, **available: Any) -> R: ...
        def __get__(self, instance: Any, owner: Any = None, /) -> ByName[R] | Callable[..., R]: ...

    class _Replaces(Protocol[P]):
        """What checkers make of every dataclass from Python 3.13 on, for `copy.replace`."""

        def __replace__(self, *args: P.args, **changes: P.kwargs) -> Any: ...

    class _Defaults(Protocol[P]):
        """A class that can be called without arguments, as one whose fields have defaults."""

        @overload
        def __call__(self) -> Any: ...
        @overload
        def __call__(self, *args: P.args, **fields: P.kwargs) -> Any: ...

    class Replace:
        """A method that takes any of the fields of its class, and gives a new instance.

        Python has no syntax for that signature. Checkers that target Python 3.13 or later know the
        fields; before that, they let any name pass.
        """

        @overload
        def __get__(self, instance: None, owner: Any) -> Callable[..., Any]: ...
        @overload
        def __get__(self, instance: _Replaces[P], owner: type[S]) -> Callable[P, S]: ...
        @overload
        def __get__(self, instance: S, owner: type[S]) -> Callable[..., S]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    class Update:
        """`Replace` for a class whose constructor takes its fields, none of which it must be given.

        Of such a class, pyright knows the fields before Python 3.13, too.
        """

        @overload
        def __get__(self, instance: None, owner: Any) -> Callable[..., Any]: ...
        @overload
        def __get__(self, instance: _Replaces[P], owner: type[S]) -> Callable[P, S]: ...
        @overload
        def __get__(self, instance: S, owner: _Defaults[P]) -> Callable[P, S]: ...
        @overload
        def __get__(self, instance: S, owner: type[S]) -> Callable[..., S]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    def called_by_name(default: Callable[..., R]) -> StepMethod[R]: ...
    def replaces_fields(method: Callable[..., Any]) -> Replace: ...
    def updates_fields(method: Callable[..., Any]) -> Update: ...

else:
    from jaxtyping import PyTree as PyTree

    M = TypeVar("M")

    # beartype decorates methods one at a time, and can't check `Self` there.
    Self = Any

    # Whoever passes something else at run time gets a sentence of ours, and not beartype's.
    Optimizer = Transformation = Measures = Any

    def replaces_fields(method: Callable[..., Any]) -> Callable[..., Any]:
        """The method as it is. Checkers see that it takes the fields of its class."""
        return method

    updates_fields = replaces_fields


Logs: TypeAlias = dict[str, Any]
"""What a step reports: names to scalar arrays, or to metrics."""

FilterSpec: TypeAlias = Any
"""An Equinox filter spec: a predicate on leaves, or a bool prefix of the model."""
