"""What `fit` returns."""

from html import escape
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .._tree import count_and_bytes
from .history import History

L = TypeVar("L")

if TYPE_CHECKING:

    class _Fields(NamedTuple, Generic[L]):
        learner: L
        history: History

else:
    # beartype can't check a generic named tuple, so at run time `Fitted[L]` is `Fitted`.
    class _Fields(NamedTuple):
        learner: Any
        history: History

        @classmethod
        def __class_getitem__(cls, item: Any) -> Any:
            return cls


class Fitted(_Fields[L]):
    """What `fit` returns: the trained learner and the record of the run.

    !!! example

        ```python
        learner, history = learner.fit(x, y, epochs=10)
        ```
    """

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            has = [field for field in self._fields if hasattr(getattr(self, field), name)]
            remedy = f", then `{has[0]}.{name}`" if has else ""
            raise AttributeError(
                f"`fit` returns `(learner, history)`, which has no `{name}`: unpack it, "
                f"`learner, history = learner.fit(...)`{remedy}."
            )

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, str):
                raise TypeError(
                    "`fit` returns `(learner, history)`: unpack it, "
                    f"`learner, history = learner.fit(...)`, then `history[{index!r}]`."
                )
            return super().__getitem__(index)

    def __repr__(self) -> str:
        return f"Fitted(learner={_named(self.learner)}, history=<{self.history.headline}>)"

    def _repr_html_(self) -> str:
        return f"<code>{escape(_named(self.learner))}</code>{self.history._repr_html_()}"


def _named(learner: Any) -> str:
    """A learner in few words: `Learner(MLP, 1,234 parameters)`."""
    model = getattr(learner, "model", None)
    count, _ = count_and_bytes(model)
    return f"{type(learner).__name__}({type(model).__name__}, {count:,} parameters)"
