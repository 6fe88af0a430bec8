"""The record of a run."""

import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from helpers import data, learner

from eqxtrain import History
from eqxtrain._history import Fitted


def recorded() -> History:
    history = History()
    history.append({"loss": 1.0, "acc": 0.5})
    history.append({"loss": 1e-7, "acc": 0.75, "val_loss": 2.0})
    history.append({"loss": 0.25, "acc": 1.0, "matrix": np.eye(2)})
    return history


def test_it_is_a_mapping_of_columns_one_value_an_epoch() -> None:
    history = recorded()
    assert list(history) == ["loss", "acc", "val_loss", "matrix"] and len(history) == 4
    assert history["loss"] == [1.0, 1e-7, 0.25] and "acc" in history
    assert math.isnan(history["val_loss"][0]) and history["val_loss"][1] == 2.0
    assert history.epochs == 3


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="no 'lss'; it has loss, acc"):
        recorded()["lss"]


def test_it_prints_as_a_table() -> None:
    lines = str(recorded()).splitlines()
    assert lines[0].split() == ["epoch", "loss", "acc", "val_loss", "matrix"]
    assert set(lines[1]) == {"─"}
    assert lines[3].split() == ["2", "1.000e-07", "0.7500", "2.0000", "nan"]
    assert "array(2, 2)" in lines[4] and len({len(line) for line in lines}) == 1


def test_reprs_are_short_and_say_how_the_run_ended() -> None:
    history = recorded()
    history.stopped = "interrupted"
    assert repr(history).startswith("History(epochs=3, stopped='interrupted', last: loss=0.2500")
    assert repr(Fitted(3, history)) == f"Fitted(learner=int(...), history={history!r})"
    assert ">0.2500</td>" in history._repr_html_()


def test_what_is_asked_of_both_at_once_is_told_where_it_is() -> None:
    both: Any = Fitted(learner(), recorded())
    with pytest.raises(AttributeError, match=r"unpack it, .*, then `learner\.evaluate`\."):
        both.evaluate(*data())
    with pytest.raises(AttributeError, match=r"unpack it, .*, then `history\.epochs`\."):
        _ = both.epochs
    with pytest.raises(AttributeError, match=r"has no `nothing`: unpack it, `[^`]*`\.$"):
        _ = both.nothing
    with pytest.raises(TypeError, match=r"then `history\['loss'\]`\."):
        both["loss"]
    assert not hasattr(both, "predict") and both.learner is both[0]


def test_the_best_epoch_is_found_by_what_the_metric_says() -> None:
    history = History()
    for loss, accuracy in ((1.0, 0.5), (math.nan, 0.9), (0.5, 0.7), (0.5, 0.9)):
        history.append({"loss": loss, "val_accuracy": accuracy}, step=10 * (history.epochs + 1))
    history.directions = {"val_accuracy": "max"}
    best = history.best("loss")
    assert best == (2, 30, 0.5, {"loss": 0.5, "val_accuracy": 0.7})
    assert history.best("val_accuracy").epoch == 1  # the first of two
    assert history.best("val_accuracy", mode="min").epoch == 0
    history.append({"odd": math.nan})
    with pytest.raises(ValueError, match=r"best is not known: say so, .*mode=\"max\""):
        history.best("odd")
    with pytest.raises(ValueError, match="all of them are nan"):
        history.best("odd", mode="min")
    with pytest.raises(KeyError, match="it has loss, val_accuracy"):
        history.best("lss", mode="min")


def test_a_continued_run_is_added_to_the_first() -> None:
    first, second = recorded(), recorded()
    first.validations, second.validations = [{"epoch": 2, "step": 9}], [{"epoch": 1, "step": 12}]
    second.stopped = "interrupted"
    whole = first + second
    assert whole.epochs == 6 and whole["loss"] == first["loss"] + second["loss"]
    assert [v["epoch"] for v in whole.validations] == [2, 4]
    assert whole.stopped == "interrupted" and first.epochs == 3


def test_a_history_is_written_and_read(tmp_path: Any) -> None:
    history = recorded()
    history.timing.epochs = [0.5, 0.25, math.inf]
    history.validations = [{"epoch": 1, "step": 3, "val_loss": math.nan}]
    history.to_json(tmp_path / "history.json")
    json.loads((tmp_path / "history.json").read_text(), parse_constant=pytest.fail)
    same = History.from_json(tmp_path / "history.json")
    assert str(same) == str(history) and same["loss"] == history["loss"]
    assert np.array_equal(same["matrix"][2], np.eye(2)) and same.timing.epochs[2] == math.inf
    assert math.isnan(same.validations[0]["val_loss"])


@pytest.mark.slow
def test_pandas_gets_a_row_for_each_epoch() -> None:
    x, y = data()
    fitted, first = learner().fit(x, y, epochs=2, verbose=0)
    _, second = fitted.fit(x, y, validation_data=(x, y), verbose=0)
    frame = (first + second).to_pandas()
    assert list(frame.index) == [0, 1, 2] and list(frame["step"]) == [1, 2, 3]
    assert frame["val_accuracy"].isna().tolist() == [True, True, False]
    assert second.best("val_accuracy").epoch == 0 and second.directions["val_accuracy"] == "max"


def test_a_library_that_is_not_there_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas: `pip install 'eqxtrain\[pandas\]'`"):
        recorded().to_pandas()
