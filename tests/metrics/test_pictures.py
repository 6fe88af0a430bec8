"""Values that draw themselves: what they show, and that they are arrays like all others."""

import copy
import pickle
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk

import eqxtrain as et
import eqxtrain.metrics as m
from eqxtrain.metrics import _pictures

COUNTS = np.array([[5, 1, 0], [2, 7, 1], [0, 0, 9]], np.float32).view(_pictures.Matrix)
NAMES = ["cat", "dog", "elephant"]
T = np.array([0, 0, 1, 1, 0, 1], np.int32)
P = np.array([0.1, 0.4, 0.35, 0.8, 0.2, 0.9], np.float32)


def axis_of(figure: Any) -> Any:
    """The axis of a picture, once it was drawn."""
    figure.canvas.draw()
    return figure.axes[0]


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def ticks(axis: Any, which: str) -> list[str]:
    return [label.get_text() for label in getattr(axis, f"get_{which}ticklabels")()]


@pytest.mark.slow
def test_what_evaluate_returns_draws_itself_and_is_an_array() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)).astype(np.float32), rng.integers(0, 3, 12).astype(np.int32)
    metrics = [
        m.ConfusionMatrix(),
        m.Weighted(m.ConfusionMatrix()),
        m.Accuracy(),
        m.Gather(),
        m.CalibrationCurve(3, from_logits=True),
    ]
    logs = et.Learner(eqx.nn.Identity(), None, metrics=metrics).evaluate(x, y)
    for name in ("confusion_matrix", "weighted_confusion_matrix"):
        assert isinstance(logs[name], np.ndarray)
        assert np.array_equal(logs[name], sk.confusion_matrix(y, x.argmax(1)))
        assert axis_of(logs[name].plot(NAMES)).get_ylabel() == "true class"
    assert type(logs["accuracy"]) is float and type(logs["gather"]) is np.ndarray
    assert len(axis_of(logs["calibration_curve"].plot()).patches) == 3


def test_what_is_taken_or_computed_from_a_picture_is_a_plain_array() -> None:
    first, *_ = COUNTS
    for plain in (first, COUNTS[1:], COUNTS / 2, np.sqrt(COUNTS), COUNTS == 1):
        assert type(plain) is np.ndarray
    assert type(COUNTS.sum()) is np.float32 and type(COUNTS[0, 0]) is np.float32
    assert type(COUNTS.sum(0)) is np.ndarray and COUNTS.tolist()[1] == [2, 7, 1]
    assert repr(COUNTS) == repr(np.array(COUNTS)) and str(COUNTS) == str(np.array(COUNTS))
    assert jnp.asarray(COUNTS).sum() == 25 and jax.jit(lambda a: a[1])(COUNTS).tolist() == [2, 7, 1]
    for same in (copy.deepcopy(COUNTS), pickle.loads(pickle.dumps(COUNTS))):
        assert np.array_equal(same, COUNTS) and same.plot()


def test_a_matrix_shows_its_numbers_under_the_names_of_the_classes() -> None:
    figure = COUNTS.plot(NAMES)
    axis = axis_of(figure)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert ticks(axis, "x") == ticks(axis, "y") == NAMES
    assert np.array_equal(axis.images[0].get_array(), COUNTS)
    cells = {text.get_position(): text for text in axis.texts}
    assert cells[1, 0].get_text() == "1" and cells[0, 1].get_text() == "2"  # x is the column
    assert cells[2, 2].get_color() == "white" and cells[2, 0].get_color() == "black"
    assert len(figure.axes) == 2  # with the bar of colours
    share = (COUNTS / COUNTS.sum()).view(_pictures.Matrix)
    axis = axis_of(share.plot())
    assert {text.get_text() for text in axis.texts} >= {"0.36", "0.00"}
    assert ticks(axis, "x") == ["0", "1", "2"]


def test_a_large_matrix_shows_colours_alone() -> None:
    axis = axis_of(np.eye(50).view(_pictures.Matrix).plot())
    assert not len(axis.texts) and axis.images[0].get_array().shape == (50, 50)


def test_an_empty_matrix_is_drawn() -> None:
    axis = axis_of(np.zeros((2, 2)).view(_pictures.Matrix).plot())
    assert [text.get_text() for text in axis.texts] == ["0"] * 4


def picture(metric: Any, p: np.ndarray = P, t: np.ndarray = T) -> Any:
    return np.array(metric.update(p, t).compute()).view(metric.array_class)


def test_a_roc_curve_has_its_area_and_the_diagonal() -> None:
    curve = picture(m.ROCCurve(bins=None))
    axis = axis_of(curve.plot())
    fpr, tpr, _ = sk.roc_curve(T, P, drop_intermediate=False)
    np.testing.assert_allclose(axis.lines[0].get_xydata(), np.stack([fpr, tpr], 1), rtol=1e-6)
    assert axis.lines[1].get_xydata().tolist() == [[0, 0], [1, 1]]
    assert texts(axis) == [f"AUC {sk.roc_auc_score(T, P):.3f}", "chance"]
    labels = axis.get_xlabel(), axis.get_ylabel()
    assert labels == ("false positive rate", "true positive rate")


def test_a_precision_recall_curve_goes_in_steps() -> None:
    axis = axis_of(picture(m.PrecisionRecallCurve(bins=None)).plot())
    precision, recall, _ = sk.precision_recall_curve(T, P)
    expected = np.stack([recall, precision], 1)
    np.testing.assert_allclose(axis.lines[0].get_xydata(), expected, rtol=1e-6)
    assert axis.lines[0].get_drawstyle() == "steps-post"
    assert texts(axis) == [f"AP {sk.average_precision_score(T, P):.3f}"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("recall", "precision")


@pytest.mark.parametrize("kind", [m.ROCCurve, m.PrecisionRecallCurve])
def test_each_class_has_a_curve_unless_it_has_none(kind: Any) -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.0]], np.float32)
    curves = picture(kind(bins=None), p, np.array([0, 1, 1], np.int32))
    legend = texts(axis_of(curves.plot(NAMES)))
    assert [text.split()[0] for text in legend if text != "chance"] == ["cat", "dog"]
    assert texts(axis_of(curves.plot()))[0].startswith("0 ")
    many: Any = np.zeros((3, 30, 4)).view(kind.array_class)
    assert axis_of(many.plot()).get_legend() is None


def test_a_reliability_diagram_has_a_point_for_each_bin_that_is_not_empty() -> None:
    curve = picture(m.CalibrationCurve(5))
    axis = axis_of(curve.plot())
    true, predicted, share = curve
    filled = share > 0
    assert filled.sum() == 4
    diagonal, line = axis.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    expected = np.stack([predicted[filled], true[filled]], 1)
    np.testing.assert_array_equal(line.get_xydata(), expected)
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches], share, rtol=1e-6)
    error = float(m.CalibrationError(5).update(P, T).compute())
    assert f"ECE {error:.3f}" in texts(axis)


def test_it_is_drawn_on_an_axis_that_is_given() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert COUNTS.plot(ax=right) is figure and not left.images and right.images
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_names_that_do_not_fit_and_a_missing_library_get_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"2 `class_names`, but the picture shows 3 classes\."):
        COUNTS.plot(["cat", "dog"])
    with pytest.raises(ValueError, match=r"1 `class_names`, but the picture shows no classes\."):
        picture(m.CalibrationCurve(5)).plot(["cat"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: `pip install 'eqxtrain\[plot\]'`"):
        COUNTS.plot()
