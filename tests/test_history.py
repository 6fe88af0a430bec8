"""The record of a run."""

import math
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
