"""The epochs of a run as a CSV file, of the form that `CSVLogger` writes as well."""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

WHERE = ("epoch", "step")
"""The columns that say what a row is of."""

_MISSING = ("NA", "", None)


def write(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    records: Iterable[Mapping[str, Any]],
    separator: str,
) -> None:
    """Write some columns of records. What is None or nan becomes `NA`."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerow(columns)
        for record in records:
            cells = (record[name] for name in columns)
            writer.writerow(["NA" if c is None or math.isnan(c) else c for c in cells])


def read(path: str | os.PathLike[str], separator: str) -> Iterator[dict[str, float]]:
    """Read the rows of a file, as numbers."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter=separator)
        if not {*WHERE} <= {*(reader.fieldnames or ())}:
            raise ValueError(
                f"`{path}` has no columns `epoch` and `step` separated by {separator!r}: "
                "`from_csv` reads what `history.to_csv` or `CSVLogger` wrote."
            )
        for row in reader:
            yield {n: math.nan if cell in _MISSING else float(cell) for n, cell in row.items()}
