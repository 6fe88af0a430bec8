"""The record of a run."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from ._engine.compile_log import Compilation
from ._format import Table, format_value


@dataclasses.dataclass
class Timing:
    """How long a run took. Kept apart from its results, which a rerun repeats to the bit.

    **Arguments:**

    - `epochs`: the seconds of each epoch, including its validation.
    - `compilations`: which programs were compiled, why, and how long it took.
    """

    epochs: list[float] = dataclasses.field(default_factory=list)
    compilations: list[Compilation] = dataclasses.field(default_factory=list)


L = TypeVar("L")


class History(Mapping[str, list[Any]]):
    """What each epoch measured: `history["val_loss"]` is a list of floats, one per epoch.

    For an epoch that did not measure a name, the list has nan. `print(history)` prints a table.

    **Attributes:**

    - `epochs`: how many epochs it has.
    - `stopped`: why the run ended before its last epoch, such as `"interrupted"`; else None.
    - `validations`: a dict for each validation, with its results and the `epoch` (from 0) and
        `step` that it came after; `pandas.DataFrame(history.validations)` makes a table of them.
    - `position`: where in the data the run ended, so that `fit(..., position=history.position)`
        continues there; None while it is running.
    - `timing`: how long its epochs and its compiles took.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}
        self.epochs: int = 0
        self.stopped: str | None = None
        self.validations: list[dict[str, Any]] = []
        self.position: dict[str, Any] | None = None
        self.timing: Timing = Timing()

    def append(self, result: Mapping[str, Any]) -> None:
        """Add one epoch."""
        for name in result:
            self._columns.setdefault(name, [math.nan] * self.epochs)
        for name, column in self._columns.items():
            column.append(_plain(result.get(name, math.nan)))
        self.epochs += 1

    def __getitem__(self, name: str) -> list[Any]:
        try:
            return self._columns[name]
        except KeyError:
            known = ", ".join(self._columns) or "nothing yet"
            raise KeyError(f"History has no {name!r}; it has {known}.") from None

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __str__(self) -> str:
        return str(self._table())

    def __repr__(self) -> str:
        end = f", stopped={self.stopped!r}" if self.stopped else ""
        last = ", ".join(f"{n}={format_value(c[-1])}" for n, c in self._columns.items() if c)
        return f"History(epochs={self.epochs}{end}{', last: ' + last if last else ''})"

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        rows = [
            [str(i + 1), *(format_value(column[i]) for column in self._columns.values())]
            for i in range(self.epochs)
        ]
        header = ["epoch", *self._columns]
        return Table(rows, ">" * len(header), header)


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
        return f"Fitted(learner={type(self.learner).__name__}(...), history={self.history!r})"


def _plain(value: Any) -> Any:
    """A number of any type as a float; everything else unchanged."""
    is_number = isinstance(value, int | float) or (np.ndim(value) == 0 and hasattr(value, "dtype"))
    return float(value) if is_number else value
