"""The record of a run."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from ._engine.compile_log import Compilation
from ._extras import optional
from ._format import Table, format_value
from ._json import decoded, encoded


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


class Best(NamedTuple):
    """The best epoch of a run.

    **Arguments:**

    - `epoch`: which one, from 0.
    - `step`: how many training steps the learner had taken in its life after it.
    - `value`: the best value.
    - `values`: everything that the epoch measured.
    """

    epoch: int
    step: int | None
    value: float
    values: dict[str, Any]


class History(Mapping[str, list[Any]]):
    """What each epoch measured: `history["val_loss"]` is a list of floats, one per epoch.

    For an epoch that did not measure a name, the list has nan. `print(history)` prints a table.

    **Attributes:**

    - `epochs`: how many epochs it has.
    - `steps`: how many training steps the learner had taken in its life after each of them.
    - `directions`: whether `"min"` or `"max"` is best, for metrics of which that is known.
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
        self.steps: list[int | None] = []
        self.directions: dict[str, Literal["min", "max"] | None] = {}
        self.stopped: str | None = None
        self.validations: list[dict[str, Any]] = []
        self.position: dict[str, Any] | None = None
        self.timing: Timing = Timing()

    def best(self, name: str, mode: Literal["auto", "min", "max"] = "auto") -> "Best":
        """The epoch with the best value of `name`, the first of several.

        **Arguments:**

        - `mode`: whether `"min"` or `"max"` is best; `"auto"` takes what the metric itself says.

        **Raises:** `ValueError` if no epoch has a value, or if it is not known which is best.
        """
        direction = self._direction(name) if mode == "auto" else mode
        if direction not in ("min", "max"):
            raise ValueError(
                f"Whether a low or a high {name!r} is best is not known: say so, "
                f'`history.best({name!r}, mode="max")`.'
            )
        known = [(value, i) for i, value in enumerate(self[name]) if not math.isnan(value)]
        if not known:
            raise ValueError(f"No epoch has a value of {name!r}: all of them are nan.")
        value, epoch = (
            min(known) if direction == "min" else max(known, key=lambda pair: (pair[0], -pair[1]))
        )
        values = {column: self._columns[column][epoch] for column in self._columns}
        return Best(epoch, self.steps[epoch], value, values)

    def _direction(self, name: str) -> str | None:
        """Which values are best; a metric says it for all of its values, `f1/cat` and so on."""
        known = self.directions.get(name) or self.directions.get(name.partition("/")[0])
        return known or ("min" if name.endswith("loss") else None)

    def __add__(self, other: "History") -> "History":
        """The record of a run and of the one that continued it."""
        if not isinstance(other, History):
            return NotImplemented
        whole = History()
        for part in (self, other):
            for epoch in range(part.epochs):
                row = {name: column[epoch] for name, column in part.items()}
                whole.append(row, step=part.steps[epoch])
            whole.timing.epochs += part.timing.epochs
            whole.timing.compilations += part.timing.compilations
            whole.directions = {**whole.directions, **part.directions}
        later = ({**v, "epoch": v["epoch"] + self.epochs} for v in other.validations)
        whole.validations = [*self.validations, *later]
        whole.stopped, whole.position = other.stopped, other.position
        return whole

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each epoch, by its number from 0, and its step."""
        pandas = optional("pandas", "pandas", "history.to_pandas()")
        index = pandas.RangeIndex(self.epochs, name="epoch")
        return pandas.DataFrame({"step": self.steps, **self._columns}, index=index)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the compiles and the position to a file, for `from_json`."""
        record = {
            "columns": self._columns,
            "steps": self.steps,
            "directions": self.directions,
            "stopped": self.stopped,
            "validations": self.validations,
            "seconds": self.timing.epochs,
        }
        Path(path).write_text(json.dumps(encoded(record)) + "\n", encoding="utf-8")

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> "History":
        """Read a file that `to_json` wrote."""
        record = decoded(json.loads(Path(path).read_text(encoding="utf-8")))
        history = cls()
        history._columns, history.steps = record["columns"], record["steps"]
        history.epochs = len(history.steps)
        history.directions, history.stopped = record["directions"], record["stopped"]
        history.validations, history.timing.epochs = record["validations"], record["seconds"]
        return history

    def append(self, result: Mapping[str, Any], *, step: int | None = None) -> None:
        """Add one epoch.

        **Arguments:**

        - `step`: how many training steps the learner has taken in its life, if that is known.
        """
        self.steps.append(step)
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
