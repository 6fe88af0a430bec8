"""The parameter table: the modules of a model, from shapes alone."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax

from .._format import Table, num_bytes
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
        return states.get(self.trainable, "partly")


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
        size = sum(row.bytes for row in self.rows)
        lines = [
            ("Parameters", _count_and_size(self.trainable + self.frozen, size)),
            ("Trainable", f"{self.trainable:,}"),
            ("Frozen", f"{self.frozen:,}"),
            ("Optimizer state", _count_and_size(*self.optimizer_state)),
        ]
        if self.model_state[0]:
            lines.append(("Model state", _count_and_size(*self.model_state)))
        return lines

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._tables()))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self._tables())

    def _tables(self) -> tuple[Table, Table]:
        header = ("Module", "Type", "Arrays", "Parameters", "Bytes", "Trained", "Output")
        totals = [(f"{name}:", value) for name, value in self.totals]
        return Table([_cells(row) for row in self.rows], "<<<>><<", header), Table(totals, "<<")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.path,
        row.type,
        "\n".join(row.arrays),
        f"{row.parameters:,}" if row.parameters else "",
        num_bytes(row.bytes) if row.bytes else "",
        row.status,
        row.output,
    )


def _count_and_size(count: int, size: int) -> str:
    return f"{count:,} ({num_bytes(size)})"


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
    table = [
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
    root, *parts = table
    return [root._replace(output=whole), *(row for row in parts if row.parameters or row.output)]


def _modules(node: PyTree, path: str) -> Iterator[tuple[str, PyTree, list[tuple[str, Any]]]]:
    """Every module with its path and its own arrays, by name; the root counts as one."""
    own: list[tuple[str, Any]] = []
    inner: list[tuple[str, PyTree]] = []

    def is_leaf(child: Any) -> bool:
        return child is not node and isinstance(child, eqx.Module)

    for keys, child in jax.tree.leaves_with_path(node, is_leaf=is_leaf):
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

    table, (opt_state, model_state) = shapes_of(described, learner, dict(batch))
    return Summary(table, count_and_bytes(opt_state), count_and_bytes(model_state))
