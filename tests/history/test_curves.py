"""The picture of a run: which axes and lines there are, and what is marked on them."""

import math
from typing import Any

import numpy as np
import pytest

import eqxtrain as et
from eqxtrain._history import curves


def recorded(epochs: int = 9) -> et.History:
    """A run that validates every third epoch."""
    history = et.History()
    for epoch in range(epochs):
        row = {"loss": 2.0**-epoch, "accuracy": 1 - 0.5**epoch, "norm": 3.0, "matrix": np.eye(2)}
        if epoch % 3 == 2:
            accuracy = 0.5 + 0.25 * math.sin(epoch)
            row |= {"val_loss": abs(epoch - 4.0), "val_accuracy": accuracy, "val_odd": math.nan}
        history.append(row, step=10 * (epoch + 1))
    history.directions = {"accuracy": "max", "val_accuracy": "max"}
    return history


def drawn(figure: Any) -> dict[str, Any]:
    """The axes of a figure by their titles, once it was drawn."""
    figure.canvas.draw()
    return {axis.get_title(): axis for axis in figure.axes}


def lines(axis: Any) -> dict[str, list[list[float]]]:
    return {line.get_label(): line.get_xydata().tolist() for line in axis.lines}


def test_each_metric_has_an_axis_with_training_and_validation() -> None:
    history = recorded()
    axes = drawn(history.plot())
    assert list(axes) == ["loss", "accuracy", "norm"]
    there = lines(axes["loss"])
    assert there["loss"] == [[e + 1, 2.0**-e] for e in range(9)]
    assert there["val_loss"] == [[3, 2.0], [6, 1.0], [9, 4.0]]  # connected
    assert all(axis.get_xlabel() == "epoch" for axis in axes.values())
    assert lines(axes["norm"]) == {"norm": [[e + 1, 3.0] for e in range(9)]}
    assert axes["norm"].get_legend() is None
    assert all(tick == round(tick) for tick in axes["loss"].get_xticks())


def test_the_best_value_is_marked_where_it_is_known_which_is_best() -> None:
    axes = drawn(recorded().plot())
    marks = {label: at for label, at in lines(axes["loss"]).items() if label.startswith("best")}
    assert marks == {"best: 1.0000, epoch 6": [[6, 1.0]]}  # of validation
    best = recorded().best("val_accuracy")
    mark = axes["accuracy"].lines[-1]
    assert mark.get_xydata().tolist() == [[best.epoch + 1, best.value]] and best.epoch == 8
    assert mark.get_marker() == "o" and mark.get_linestyle() == "None"
    assert mark.get_color() == axes["accuracy"].lines[1].get_color()
    assert [text.get_text() for text in axes["accuracy"].get_legend().get_texts()] == [
        "accuracy", "val_accuracy", "best: 0.7473, epoch 9",
    ]  # fmt: skip
    alone = et.History()
    for loss in (2.0, 1.0, math.nan, 1.5):
        alone.append({"loss": loss})
    assert lines(drawn(alone.plot())["loss"])["best: 1.0000, epoch 2"] == [[2, 1.0]]


def test_the_scale_is_logarithmic_where_positive_values_span_two_decades() -> None:
    history = et.History()
    for epoch in range(3):
        shrinks = 10.0**-epoch
        history.append(
            {
                "loss": shrinks, "rate": shrinks, "accuracy": shrinks, "error": 1 - shrinks,
                "narrow": 0.02 * (1 + shrinks),
            }
        )  # fmt: skip
    history.directions = {"accuracy": "max"}
    scales = {name: axis.get_yscale() for name, axis in drawn(history.plot()).items()}
    expected = {"loss": "log", "rate": "log"}
    assert scales == dict.fromkeys(("accuracy", "error", "narrow"), "linear") | expected
    for log, scale in ((True, "log"), (False, "linear")):
        figure = history.plot(["loss", "narrow"], log=log)
        assert {axis.get_yscale() for axis in drawn(figure).values()} == {scale}


def test_names_choose_metrics() -> None:
    history = recorded()
    assert list(drawn(history.plot("accuracy"))) == ["accuracy"]
    assert list(drawn(history.plot(["norm", "loss"]))) == ["loss", "norm"]
    chosen = drawn(history.plot(["val_loss"]))
    assert "val_loss" in lines(chosen["loss"]) and "loss" not in lines(chosen["loss"])
    with pytest.raises(KeyError, match="no 'lss'; it has loss, accuracy"):
        history.plot("lss")


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("val_loss", "loss"),
        ("val_near_loss", "loss"),
        ("val_near_part/loss", "part/loss"),
        ("val_big_loss", "big_loss"),
        ("val_else", "else"),
        ("loss", "loss"),
        ("loss/val_a", "loss/val_a"),
    ],
)
def test_validation_goes_with_the_metric_that_it_measures(name: str, metric: str) -> None:
    assert curves.metric_of(name, ["loss", "big_loss", "part/loss", "val_loss"]) == metric


def test_sets_of_validation_share_an_axis() -> None:
    history = et.History()
    for epoch in range(2):
        history.append({"loss": 1.0, "val_near_loss": 2.0 - epoch, "val_far_loss": 3.0})
    (axis,) = drawn(history.plot()).values()
    names = [line.get_label() for line in axis.lines if not line.get_label().startswith("best")]
    assert names == ["loss", "val_near_loss", "val_far_loss"]
    assert len({line.get_color() for line in axis.lines}) == 3


def test_the_parts_of_a_metric_share_an_axis() -> None:
    history = et.History()
    for epoch in range(3):
        row = {"f1/cat": 0.5 + 0.1 * epoch, "f1/dog": 0.4, "val_f1/cat": 0.3, "val_f1/dog": 0.2}
        history.append(row | {"loss": 1.0, "part/of": 2.0})
    history.directions = {"f1": "max", "val_f1": "max"}
    axes = drawn(history.plot())
    assert list(axes) == ["f1", "loss", "part/of"]
    assert list(lines(axes["f1"])) == ["f1/cat", "f1/dog", "val_f1/cat", "val_f1/dog"]
    cat, dog, val_cat, val_dog = axes["f1"].lines
    assert cat.get_color() == val_cat.get_color() != dog.get_color() == val_dog.get_color()
    assert cat.get_linestyle() == "-" and val_cat.get_linestyle() == "--"
    assert list(lines(drawn(history.plot("f1/cat"))["f1/cat"]))[:2] == ["f1/cat", "val_f1/cat"]
    assert list(drawn(history.plot("f1"))) == ["f1"]
    many = et.History()
    many.append({f"norm/layers[{i}]": float(i) for i in range(30)})
    assert drawn(many.plot())["norm"].get_legend() is None


def test_steps_are_drawn_with_each_validation_at_its_step() -> None:
    history = recorded(2)
    history.step_logs = [{"epoch": s // 3, "step": s, "loss": 1 / s} for s in range(1, 6)]
    history.validations = [{"epoch": 0, "step": 3, "val_loss": 4.0, "val_matrix": np.eye(2)}]
    (axis,) = drawn(history.plot(per="step")).values()
    there = lines(axis)
    assert there["loss"] == [[s, 1 / s] for s in range(1, 6)]
    assert there["val_loss"] == [[3, 4.0]] and there["best: 4.0000, step 3"] == [[3, 4.0]]
    assert axis.get_xlabel() == "step" and axis.get_title() == "loss"
    with pytest.raises(ValueError, match="no single steps: record them"):
        recorded().plot(per="step")


def test_it_is_drawn_again_on_the_same_figure() -> None:
    history = recorded(3)
    figure = history.plot()
    before = tuple(figure.get_size_inches())
    assert before == curves.size_of([curves.Curve(n, n, [1], [1.0]) for n in ("a", "b", "c")])
    history.append({"loss": 0.5, "more": 1.0}, step=40)
    assert history.plot(figure=figure) is figure
    axes = drawn(figure)
    assert list(axes) == ["loss", "accuracy", "norm", "more"]
    assert lines(axes["loss"])["loss"][-1] == [4, 0.5]
    assert lines(axes["more"]) == {"more": [[4, 1.0]]}
    assert tuple(figure.get_size_inches()) == before


@pytest.mark.usefixtures("unchecked")
def test_another_scale_gets_a_sentence() -> None:
    linear: Any = "linear"
    with pytest.raises(ValueError, match=r'`log` must be True, False or "auto"; got \'linear\''):
        recorded().plot(log=linear)


def test_a_single_point_is_seen_and_what_is_not_finite_is_left_out() -> None:
    history = et.History()
    history.append({"loss": 1.0, "odd": math.inf})
    axes = drawn(history.plot())
    assert list(axes) == ["loss"] and axes["loss"].lines[0].get_marker() == "."
    for _ in range(30):
        history.append({"loss": 1.0, "odd": -math.inf})
    assert drawn(history.plot())["loss"].lines[0].get_marker() == "None"


def test_a_run_without_numbers_says_so() -> None:
    figure = et.History().plot()
    figure.canvas.draw()
    assert figure.axes == [] and figure.texts[0].get_text() == "no epoch has a number to draw"
