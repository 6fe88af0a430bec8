"""Loggers that write text files: a table, or lines of JSON."""

import abc
import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._placement import as_numpy
from ._describe import describe_end, describe_run
from ._every import Every
from ._logger import Logger, numbers
from ._run import Run


class _FileLogger(Logger):
    """Writes rows to a text file.

    **Arguments:**

    - `filename`: the file; its folder is made.
    - `append`: whether to go on with a file that is there, rather than to begin it anew. After
        `load_state_dict`, it goes on where it was, and cuts off what was written after that.
    """

    def __init__(
        self, filename: str | os.PathLike[str], *, append: bool, every: Every | None
    ) -> None:
        super().__init__(every)
        self.path: Path = Path(filename)
        self.append: bool = append
        self._rows: int = 0
        self._last: tuple[int, int] | None = None  # the epoch and the step of the last row
        self._last_row_at: int = 0

    def _begin(self, run: Run) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._whole_lines() if (self.append or self._resumes) and self.path.exists() else []
        if self._resumes:
            kept = self._cut(kept, self._rows)
        self._rows, self._last = self._count(kept), None
        _replace(self.path, "".join(kept))
        self._begin_file(run)

    def _write(self, run: Run) -> None:
        if (run.epoch, run.step) == self._last:  # a row within the epoch, which has just ended
            os.truncate(self.path, self._last_row_at)
            self._rows -= 1
        self._write_row(run)
        self._rows, self._last = self._rows + 1, (run.epoch, run.step)

    def state_dict(self) -> dict[str, Any]:
        """How many rows it has written."""
        return {"rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: the next `fit` goes on after that many rows."""
        self._rows, self._resumes = state["rows"], True

    def _whole_lines(self) -> list[str]:
        """The lines of the file, but for a last one that was not written to its end."""
        with self.path.open(newline="", encoding="utf-8") as file:
            lines = file.read().splitlines(keepends=True)
        return lines[:-1] if lines and not lines[-1].endswith("\n") else lines

    def _append(self, line: str) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            self._last_row_at = file.tell()
            file.write(line)

    @abc.abstractmethod
    def _begin_file(self, run: Run) -> None:
        """Write what the run is."""

    @abc.abstractmethod
    def _write_row(self, run: Run) -> None: ...

    @abc.abstractmethod
    def _cut(self, lines: list[str], rows: int) -> list[str]:
        """The lines up to some number of rows."""

    @abc.abstractmethod
    def _count(self, lines: Sequence[str]) -> int:
        """How many rows the lines hold."""


class CSVLogger(_FileLogger):
    """Writes each epoch to a CSV file, which `pandas.read_csv` reads.

    The columns are `epoch` (from 0), `step` and the names of the logs, those of validation
    included; a value that an epoch did not measure is `NA`. Arrays are left out. A name that comes
    up later gets a column of its own, and earlier rows an `NA` in it. What the run is (the
    learner's configuration and summary, versions, compiles) is written beside it, to
    `<filename>.run.json`.

    **Arguments:**

    - `filename`: the file; its folder is made.
    - `separator`: what stands between the values.
    - `append`: whether to go on with a file that is there.
    - `every`: `Every(steps=n)` writes a row every so many steps as well, with what the epoch has
        measured so far; `Every(epochs=n)` writes every so many epochs alone. `History.from_csv`
        takes each row for an epoch.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        *,
        separator: str = ",",
        append: bool = False,
        every: Every | None = None,
    ) -> None:
        super().__init__(filename, append=append, every=every)
        if len(separator) != 1:
            raise ValueError(f"`CSVLogger(separator)` must be one character; got {separator!r}.")
        self.separator: str = separator
        self._columns: list[str] = []
        self._description: dict[str, Any] = {}

    def _begin_file(self, run: Run) -> None:
        self._columns = self._read()[0] if self._rows else []
        self._description = describe_run(run)
        self._write_description({})

    def _write_row(self, run: Run) -> None:
        row = {"epoch": run.epoch, "step": run.step, **numbers(run.logs)}
        arrays = tuple(n for n in run.logs if n not in row)
        # What other epochs measure. A name of validation is that of an array if the same name of
        # training is.
        due = [n for n in run.directions if n not in run.logs and not n.endswith(arrays)]
        columns = list(dict.fromkeys([*self._columns, *row, *due]))
        if columns != self._columns:
            old = self._read()[1] if self._columns else []
            self._columns = columns
            header = {name: name for name in columns}
            _replace(self.path, "".join(map(self._line, [header, *old])))
        self._append(self._line(row))

    def _line(self, row: dict[str, Any]) -> str:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=self.separator, lineterminator="\n")
        writer.writerow([row.get(name, "NA") for name in self._columns])
        return out.getvalue()

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, delimiter=self.separator)
        return header, [dict(zip(header, row, strict=True)) for row in rows]

    def _end(self, run: Run) -> None:
        self._write_description({"end": describe_end(run)})

    def _write_description(self, more: dict[str, Any]) -> None:
        text = json.dumps({"run": self._description, **more}, indent=2) + "\n"
        _replace(self.path.with_name(f"{self.path.name}.run.json"), text)

    def _cut(self, lines: list[str], rows: int) -> list[str]:
        return lines[: rows + 1] if rows else []

    def _count(self, lines: Sequence[str]) -> int:
        return max(len(lines) - 1, 0)


class JSONLinesLogger(_FileLogger):
    """Writes each epoch to a file of JSON objects, one a line.

    The first line of a run is `{"run": ...}`, what it is; then comes a line for each epoch, with
    `epoch` (from 0), `step`, and the logs, arrays as lists and nan as null; at last `{"end": ...}`,
    how it ended.

    **Arguments:**

    - `filename`: the file; its folder is made.
    - `append`: whether to go on with a file that is there.
    - `every`: `Every(steps=n)` writes a line every so many steps as well, with what the epoch has
        measured so far; `Every(epochs=n)` writes every so many epochs alone.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        *,
        append: bool = False,
        every: Every | None = None,
    ) -> None:
        super().__init__(filename, append=append, every=every)

    def _begin_file(self, run: Run) -> None:
        self._append(_json({"run": describe_run(run)}))

    def _write_row(self, run: Run) -> None:
        self._append(_json({"epoch": run.epoch, "step": run.step, **run.logs}))

    def _end(self, run: Run) -> None:
        self._append(_json({"end": describe_end(run)}))

    def _cut(self, lines: list[str], rows: int) -> list[str]:
        kept: list[str] = []
        for line in lines:
            if self._count(kept) == rows and "epoch" in json.loads(line):
                break
            kept.append(line)
        return kept

    def _count(self, lines: Sequence[str]) -> int:
        return sum("epoch" in json.loads(line) for line in lines)


def _replace(path: Path, text: str) -> None:
    """Write a file whole, or leave the one that is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def _json(record: dict[str, Any]) -> str:
    return json.dumps({name: _as_json(value) for name, value in record.items()}) + "\n"


def _as_json(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    return _as_json(as_numpy(value).tolist()) if hasattr(value, "dtype") else value
