"""The record of a run."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from .._extras import optional
from .._figure import new_figure
from .._format import duration
from .._json import decoded, encoded
from . import csv_file, curves, table
from .csv_file import WHERE
from .curves import LogScale, Per
from .timing import PassTiming, Timing


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

    For an epoch that did not measure a name, the list has nan. `print(history)` prints a table of
    all epochs; notebooks show a short one, with a small curve above each column.

    **Attributes:**

    - `epochs`: how many epochs it has.
    - `steps`: how many training steps the learner had taken in its life after each of them.
    - `directions`: whether `"min"` or `"max"` is best, for metrics of which that is known.
    - `stopped`: why the run ended before its last epoch, such as `"interrupted"`; else None.
    - `validations`: a dict for each validation, with its results and the `epoch` (from 0) and
        `step` that it came after; `pandas.DataFrame(history.validations)` makes a table of them.
    - `step_logs`: a dict for each step that `et.callbacks.StepHistory` recorded, with its logs, and
        its `epoch` (from 0) and `step`.
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
        self.step_logs: list[dict[str, Any]] = []
        self.position: dict[str, Any] | None = None
        self.timing: Timing = Timing()

    def best(self, name: str, mode: Literal["auto", "min", "max"] = "auto") -> "Best":
        """The epoch with the best value of `name`, the first of several.

        **Arguments:**

        - `mode`: whether `"min"` or `"max"` is best; `"auto"` takes what the metric itself says.

        **Raises:** `ValueError` if no epoch has a value, or if it is not known which is best;
            `TypeError` if its values are arrays.
        """
        if _has_arrays(self[name]):
            raise TypeError(f"{name!r} is an array, so no epoch is its best: choose a number.")
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
            whole.timing.passes += part.timing.passes
            whole.timing.compilations += part.timing.compilations
            whole.directions = {**whole.directions, **part.directions}
        whole.validations = [*self.validations, *_after(self.epochs, other.validations)]
        whole.step_logs = [*self.step_logs, *_after(self.epochs, other.step_logs)]
        whole.stopped, whole.position = other.stopped, other.position
        return whole

    def plot(
        self,
        names: str | Sequence[str] | None = None,
        *,
        per: Per = "epoch",
        log: LogScale = "auto",
        figure: Any = None,
    ) -> Any:
        """Draw the curves: an axis for each metric, with its training and its validation.

        The best value is marked if it is known which is best. Arrays are left out, and so are names
        that have no value. Needs matplotlib, `pip install 'eqxtrain[plot]'`, but neither pyplot nor
        a display.

        **Arguments:**

        - `names`: which metrics; `"loss"` stands for `val_loss` as well, and `"f1"` for `f1/cat`.
        - `per`: `"epoch"`, or `"step"` to draw `step_logs`, with each validation at its step.
        - `log`: whether values have a logarithmic scale. `"auto"`: where they are positive and
            span two decades or more, unless high values are the best.
        - `figure`: the figure to draw on, in place of what is on it. None for a new one.

        **Returns:** the `matplotlib.figure.Figure`. Notebooks display it, and
        `history.plot().savefig("curves.png")` writes it to a file.
        """
        if log not in (True, False, "auto"):
            raise ValueError(f'`log` must be True, False or "auto"; got {log!r}.')
        records = self._records(per)
        if per == "step":
            records = [*records, *self.validations]
        known = [*dict.fromkeys(n for record in records for n in record if n not in WHERE)]
        wanted = known if names is None else [names] if isinstance(names, str) else names
        chosen = curves.select(records, known, wanted, per=per, direction=self._direction)
        if figure is None:
            figure = new_figure("history.plot()", *curves.size_of(chosen))
        curves.draw(figure, chosen, per=per, log=log)
        return figure

    def _records(self, per: Per) -> list[dict[str, Any]]:
        """A dict for each epoch or step, with its `epoch` (from 0) and its `step`."""
        if per not in ("epoch", "step"):
            raise ValueError(f'`per` must be "epoch" or "step"; got {per!r}.')
        if per == "epoch":
            columns = self._columns.items()
            return [
                {"epoch": epoch, "step": step, **{name: column[epoch] for name, column in columns}}
                for epoch, step in enumerate(self.steps)
            ]
        if not self.step_logs:
            raise ValueError(
                "The history has no single steps: record them, "
                "`fit(..., callbacks=et.callbacks.StepHistory())`."
            )
        return self.step_logs

    def to_pandas(self, per: Per = "epoch") -> Any:
        """A `pandas.DataFrame` with a row for each epoch, by its number from 0, and its step.

        With `per="step"`, it has a row for each of `step_logs`, by its step, and its epoch.
        """
        pandas = optional("pandas", "pandas", "history.to_pandas()")
        records = self._records(per)
        return pandas.DataFrame(records, columns=None if records else WHERE).set_index(per)

    def to_csv(self, path: str | os.PathLike[str], *, separator: str = ",") -> None:
        """Write the epochs to a CSV file, as `et.callbacks.CSVLogger` does, for `from_csv`.

        It has the columns `epoch` (from 0) and `step`, and all that are numbers; what is nan is
        `NA`. `to_json` keeps everything else as well.
        """
        numbers = [name for name in self if not _has_arrays(self[name])]
        csv_file.write(path, [*WHERE, *numbers], self._records("epoch"), separator)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], *, separator: str = ",") -> "History":
        """Read a file that `to_csv` or `et.callbacks.CSVLogger` wrote; each row is an epoch."""
        history = cls()
        for record in csv_file.read(path, separator):
            step = record.pop("step")
            del record["epoch"]
            history.append(record, step=None if math.isnan(step) else int(step))
        return history

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the compiles and the position to a file, for `from_json`."""
        record = {
            "columns": self._columns,
            "steps": self.steps,
            "directions": self.directions,
            "stopped": self.stopped,
            "validations": self.validations,
            "step_logs": self.step_logs,
            "seconds": self.timing.epochs,
            "passes": [dataclasses.asdict(timing) for timing in self.timing.passes],
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
        history.validations, history.step_logs = record["validations"], record["step_logs"]
        history.timing.epochs = record["seconds"]
        history.timing.passes = [PassTiming(**timing) for timing in record["passes"]]
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
            raise curves.unknown(name, self._columns) from None

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def headline(self) -> str:
        """How many epochs there are, how long they took, and why there are no more."""
        seconds, compiling = sum(self.timing.epochs), self.timing.compiling
        counted = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        parts = [f"{counted} in {duration(seconds)}" if self.timing.epochs else counted]
        parts += [f"{duration(compiling)} of compiling"] if compiling else []
        parts += [f"stopped: {self.stopped}"] if self.stopped else []
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{self.headline}\n{table.as_text(self, self.epochs, short=False)}"

    def __repr__(self) -> str:
        return f"{self.headline}\n{table.as_text(self, self.epochs, short=True)}"

    def _repr_html_(self) -> str:
        best = {
            name: self.best(name).epoch
            for name in self
            if self._direction(name) and _has_numbers(self[name])
        }
        return f"<div>{escape(self.headline)}</div>{table.as_html(self, self.epochs, best)}"


def _plain(value: Any) -> Any:
    """A number of any type as a float; everything else unchanged."""
    is_number = isinstance(value, int | float) or (np.ndim(value) == 0 and hasattr(value, "dtype"))
    return float(value) if is_number else value


def _after(epochs: int, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records of a run that continued one of so many epochs."""
    return [{**record, "epoch": record["epoch"] + epochs} for record in records]


def _has_arrays(column: Sequence[Any]) -> bool:
    return not all(isinstance(value, float) for value in column)


def _has_numbers(column: Sequence[Any]) -> bool:
    return not _has_arrays(column) and any(map(math.isfinite, column))
