"""The parameter table: what a model consists of, from shapes alone."""

import dataclasses
import html
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax

from .._tree import count_and_bytes, describe, is_array
from .._types import FilterSpec, PyTree
from .module_calls import shapes_of
from .module_outputs import trace
from .optimize import trainable_mask


class Row(NamedTuple):
    """One module of the model.

    **Arguments:**

    - `path`: where it is in the model, such as `model.layers[0]`.
    - `type`: the name of its class.
    - `arrays`: its own arrays, with shapes and dtypes; modules inside it have rows of their own.
    - `parameters`, `bytes`: the size of its own arrays.
    - `trainable`: how many of `parameters` are trained.
    - `output`: the shapes that a call of it returned; empty if `pred_step` did not call it.
    """

    path: str
    type: str
    arrays: tuple[str, ...]
    parameters: int
    bytes: int
    trainable: int
    output: str = ""

    @property
    def status(self) -> str:
        """Whether its own parameters are trained."""
        if not self.parameters:
            return ""
        states = {0: "frozen", self.parameters: "trainable"}
        return states.get(self.trainable, "in part")


@dataclasses.dataclass(frozen=True)
class Summary:
    """A model as a table. `str(...)` is for terminals; notebooks show it as HTML.

    **Arguments:**

    - `rows`: one for each module, the whole model first.
    - `optimizer_state`, `model_state`: how many numbers and how many bytes each holds.
    """

    rows: list[Row]
    optimizer_state: tuple[int, int] = (0, 0)
    model_state: tuple[int, int] = (0, 0)

    @property
    def trainable(self) -> int:
        """How many parameters are trained."""
        return sum(row.trainable for row in self.rows)

    @property
    def frozen(self) -> int:
        """How many parameters are not."""
        return sum(row.parameters - row.trainable for row in self.rows)

    @property
    def totals(self) -> list[tuple[str, str]]:
        """The lines under the table."""
        parameters, in_bytes = self.trainable + self.frozen, sum(row.bytes for row in self.rows)
        lines = [
            ("Parameters", f"{parameters:,} ({in_units(in_bytes)})"),
            ("Trainable", f"{self.trainable:,}"),
            ("Frozen", f"{self.frozen:,}"),
            (
                "Optimizer state",
                f"{self.optimizer_state[0]:,} ({in_units(self.optimizer_state[1])})",
            ),
        ]
        if self.model_state[0]:
            lines.append(
                ("Model state", f"{self.model_state[0]:,} ({in_units(self.model_state[1])})")
            )
        return lines

    def __str__(self) -> str:
        table = [tuple(heading for heading, _ in _COLUMNS), *(_cells(row) for row in self.rows)]
        lines = [line for cells in table for line in _lines(cells)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.rjust(width) if align == "right" else cell.ljust(width)
                for cell, width, (_, align) in zip(line, widths, _COLUMNS, strict=True)
            ).rstrip()
            for line in lines
        ]
        text.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([*text, "", *(f"{n + ':':<17}{value}" for n, value in self.totals)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{heading}</th>" for heading, _ in _COLUMNS)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(c).replace(chr(10), '<br>')}</td>" for c in _cells(row))
            + "</tr>"
            for row in self.rows
        )
        totals = "".join(f"<div>{name}: {value}</div>" for name, value in self.totals)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{totals}"


_COLUMNS: list[tuple[str, Any]] = [
    ("Module", "left"),
    ("Type", "left"),
    ("Arrays", "left"),
    ("Parameters", "right"),
    ("Bytes", "right"),
    ("Trained", "left"),
    ("Output", "left"),
]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.path,
        row.type,
        "\n".join(row.arrays),
        f"{row.parameters:,}" if row.parameters else "",
        in_units(row.bytes) if row.bytes else "",
        row.status,
        row.output,
    )


def _lines(cells: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A row whose cells may hold several lines, as lines of cells."""
    parts = [cell.split("\n") for cell in cells]
    return list(itertools.zip_longest(*parts, fillvalue=""))


def in_units(count: float | int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def rows(
    pred_step: Callable[..., Any],
    spec: FilterSpec,
    model: PyTree,
    state: Any,
    names: Mapping[str, Any],
) -> list[Row]:
    """The rows of a model, with its outputs where there is an `x` (or its shapes) among `names`.

    The output of the whole model is that of `pred_step`, batch axis and all. That of a part is
    what each call of it returned while `pred_step` was traced: one example, where the step maps the
    model over the batch.
    """
    whole, outputs = trace(pred_step, model, state, names) if "x" in names else ("", {})
    trained = _modules(eqx.filter(model, trainable_mask(spec, model)), "model")
    found = [
        Row(
            path=path,
            type=type(node).__name__,
            arrays=tuple(f"{name} {describe(leaf)}" for name, leaf in own),
            parameters=count_and_bytes(own)[0],
            bytes=count_and_bytes(own)[1],
            trainable=count_and_bytes(trained_own)[0],
            output=" | ".join(outputs.get(path, ())),
        )
        for (path, node, own), (_, _, trained_own) in zip(
            _modules(model, "model"), trained, strict=True
        )
    ]
    root, *parts = found
    return [root._replace(output=whole), *(row for row in parts if row.parameters or row.output)]


def _modules(node: PyTree, path: str) -> Iterator[tuple[str, PyTree, list[tuple[str, Any]]]]:
    """Every module with its path and its own arrays, by name; the root counts as one."""
    own: list[tuple[str, Any]] = []
    inner: list[tuple[str, PyTree]] = []
    is_leaf = lambda child: child is not node and isinstance(child, eqx.Module)
    for keys, child in jax.tree_util.tree_flatten_with_path(node, is_leaf=is_leaf)[0]:
        name = jax.tree_util.keystr(keys)
        if isinstance(child, eqx.Module) and child is not node:
            inner.append((path + name, child))
        elif is_array(child):
            own.append((name.removeprefix("."), child))
    yield path, node, own
    for inner_path, child in inner:
        yield from _modules(child, inner_path)


def summarise(learner: Any, batch: Mapping[str, Any]) -> Summary:
    """The summary of a learner, initialised or not, by its `summary_step`.

    **Arguments:**

    - `batch`: the parts of a batch by name, or their shapes; empty if there is no batch.
    """

    def described(learner: Any, batch: Mapping[str, Any]) -> tuple[list[Row], PyTree]:
        model, state = learner.model, learner.state
        if state is None:
            init = {"model_state": learner.model_state, "key": jax.random.key(0)}
            model, state = learner.init_step(**batch, model=model, **init)
        names = {"model": eqx.nn.inference_mode(model), "state": state, "key": jax.random.key(0)}
        return learner.summary_step(**batch, **names), (state.opt_state, state.model_state)

    found, (opt_state, model_state) = shapes_of(described, learner, dict(batch))
    return Summary(found, count_and_bytes(opt_state), count_and_bytes(model_state))
