"""The table of a run: all epochs or a few, and the small curves of notebooks."""

import math
import re
from xml.etree import ElementTree

import numpy as np

from eqxtrain import History


def recorded(epochs: int) -> History:
    history = History()
    for epoch in range(epochs):
        row = {"loss": 8.0 - epoch, "matrix": np.eye(2)}
        history.append(row | ({"val_loss": 9.0} if epoch == 1 else {}))
    return history


def rows(text: str) -> list[list[str]]:
    """The cells of each row, below the headline, the header and the line under it."""
    return [line.split() for line in text.splitlines()[3:]]


def test_it_prints_as_a_table() -> None:
    history = History()
    history.append({"loss": 1.0, "acc": 0.5})
    history.append({"loss": 1e-7, "acc": 0.75, "val_loss": 2.0})
    history.append({"loss": 0.25, "acc": 1.0, "matrix": np.eye(2)})
    headline, *lines = str(history).splitlines()
    assert headline == "3 epochs" and lines[0].split() == [
        "epoch", "loss", "acc", "val_loss", "matrix",
    ]  # fmt: skip
    assert set(lines[1]) == {"─"}
    assert lines[3].split() == ["2", "1.000e-07", "0.7500", "2.0000", "nan"]
    assert "array(2, 2)" in lines[4] and len({len(line) for line in lines}) == 1


def test_the_repr_leaves_out_epochs_in_the_middle_and_print_shows_all() -> None:
    history = recorded(30)
    numbers = [row[0] for row in rows(repr(history))]
    assert numbers == ["1", "2", "3", "⋮", *map(str, range(24, 31))]
    assert [row[0] for row in rows(str(history))] == [str(e + 1) for e in range(30)]
    assert [row[0] for row in rows(repr(recorded(11)))] == [str(e + 1) for e in range(11)]
    assert rows(repr(History())) == [] and rows(str(recorded(1)))[0][:2] == ["1", "8.0000"]


def svgs(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html)]


def points(svg: ElementTree.Element) -> list[tuple[float, float]]:
    line = svg.find("polyline")
    assert line is not None
    pairs = (point.split(",") for point in line.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def test_a_notebook_shows_a_small_curve_above_each_column_of_numbers() -> None:
    history = History()
    for loss, other in ((4.0, 1.0), (1.0, math.nan), (2.0, 3.0)):
        history.append({"loss": loss, "other": other, "val_loss": 0.5 * loss, "none": math.nan})
    history.stopped = "<b>"
    html = history._repr_html_()
    assert html.startswith("<div>3 epochs, stopped: &lt;b&gt;</div><table>")
    loss, other, val_loss = svgs(html)
    assert [svg.attrib["aria-label"] for svg in (loss, other, val_loss)] == [
        "loss", "other", "val_loss",
    ]  # fmt: skip
    width, height = float(loss.attrib["width"]), float(loss.attrib["height"])
    for svg in (loss, other, val_loss):
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points(svg))
    assert [x for x, _ in points(other)] == [points(loss)[0][0], points(loss)[2][0]]
    heights = [y for _, y in points(loss)]
    assert heights[0] < heights[2] < heights[1]  # y goes down
    assert points(val_loss)[0][1] == heights[2]  # the same value, 2.0, on the same scale
    dot = loss.find("circle")
    assert dot is not None and (float(dot.attrib["cx"]), float(dot.attrib["cy"])) == points(loss)[1]
    assert [title.text for title in dot] == ["best: 1.0000, epoch 2"]
    assert other.find("circle") is None  # nobody knows which is best
    assert all(svg.find("polyline").attrib["stroke"] == "currentColor" for svg in (loss, other))  # type: ignore[union-attr]
    assert ">2.0000</td>" in html and html.count("<tr>") == 5


def test_a_best_value_that_is_infinite_has_no_dot() -> None:
    history = History()
    for loss in (1.0, -math.inf, 0.5):
        history.append({"loss": loss})
    (svg,) = svgs(history._repr_html_())
    assert len(points(svg)) == 2 and svg.find("circle") is None


def test_a_long_run_has_a_short_curve() -> None:
    (svg,) = svgs(recorded(2000)._repr_html_())
    assert 100 < len(points(svg)) <= 150


def test_what_has_no_curve_has_none() -> None:
    assert svgs(recorded(1)._repr_html_()) == [] and "<table>" in History()._repr_html_()
    (flat,) = svgs(recorded(2)._repr_html_())
    assert flat.attrib["aria-label"] == "loss"
    html = recorded(30)._repr_html_()
    assert html.count("<tr>") == 1 + 1 + 11 and len(points(svgs(html)[0])) == 30
