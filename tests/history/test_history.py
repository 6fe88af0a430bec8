"""The record of a run: its epochs and steps, and the files and tables made of them."""

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import data, learner

import eqxtrain as et
from eqxtrain import Compilation, History
from eqxtrain._history import PassTiming


def recorded() -> History:
    history = History()
    history.append({"loss": 1.0, "acc": 0.5})
    history.append({"loss": 1e-7, "acc": 0.75, "val_loss": 2.0})
    history.append({"loss": 0.25, "acc": 1.0, "matrix": np.eye(2)})
    return history


def with_steps() -> History:
    """Two epochs of three steps, each of which was recorded."""
    history = History()
    for step in range(1, 7):
        epoch = (step - 1) // 3
        history.step_logs.append({"epoch": epoch, "step": step, "loss": 1 / step})
        if step % 3 == 0:
            history.append({"loss": 1 / step}, step=step)
            history.validations.append({"epoch": epoch, "step": step, "val_loss": 2 / step})
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


def test_its_headline_tells_times_and_why_the_run_ended() -> None:
    history = recorded()
    assert history.headline == "3 epochs"
    history.timing.epochs = [0.5, 0.25, 11.5]
    assert history.headline == "3 epochs in 12s"
    history.timing.compilations = [
        Compilation("train_step", "first", {}, 0.25, 0.5, 1.0),
        Compilation("test_step", "first", {}, 0.25, 0.25, 0.25),
    ]
    history.stopped = "interrupted"
    assert history.headline == "3 epochs in 12s, 2.5s of compiling, stopped: interrupted"
    assert str(history).splitlines()[0] == repr(history).splitlines()[0] == history.headline


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
    history.append({"rows": np.eye(2)})
    with pytest.raises(TypeError, match=r"'rows' is an array, so no epoch is its best"):
        history.best("rows", mode="min")


def test_a_continued_run_is_added_to_the_first() -> None:
    first, second = recorded(), with_steps()
    first.validations = [{"epoch": 2, "step": 9}]
    first.timing.passes, second.timing.passes = [PassTiming(steps=4)], [PassTiming(steps=5)]
    first.step_logs = [{"epoch": 1, "step": 8, "loss": 4.0}]
    second.stopped = "interrupted"
    whole = first + second
    assert whole.epochs == 5 and whole["loss"] == first["loss"] + second["loss"]
    assert [v["epoch"] for v in whole.validations] == [2, 3, 4]
    assert [each["epoch"] for each in whole.step_logs] == [1, 3, 3, 3, 4, 4, 4]
    assert whole.step_logs[0] == first.step_logs[0] and whole.step_logs[-1]["loss"] == 1 / 6
    assert whole.stopped == "interrupted" and first.epochs == 3
    assert [timing.steps for timing in whole.timing.passes] == [4, 5]
    assert second.step_logs[0]["epoch"] == 0


def test_a_history_is_written_to_json_and_read(tmp_path: Path) -> None:
    history = with_steps()
    history.append({"loss": math.inf, "matrix": np.eye(2)}, step=7)
    history.timing.epochs, history.stopped = [0.5, 0.25, 1.5], "interrupted"
    history.timing.passes = [PassTiming(4, 31, math.inf, seconds=0.25, idle=0.125), PassTiming()]
    history.validations.append({"epoch": 1, "step": 3, "val_loss": math.nan})
    history.to_json(tmp_path / "history.json")
    json.loads((tmp_path / "history.json").read_text(), parse_constant=pytest.fail)
    same = History.from_json(tmp_path / "history.json")
    assert str(same) == str(history) and same["loss"] == history["loss"]
    assert np.array_equal(same["matrix"][2], np.eye(2)) and same.timing.epochs == [0.5, 0.25, 1.5]
    assert math.isnan(same.validations[-1]["val_loss"]) and same.steps == [3, 6, 7]
    assert same.step_logs == history.step_logs and same.timing.passes == history.timing.passes


def test_a_history_is_written_to_csv_and_read(tmp_path: Path) -> None:
    history = recorded()
    history.append({"loss": 1 / 3, "acc": -math.inf}, step=7)
    for separator in (",", "\t"):
        history.to_csv(tmp_path / "history.csv", separator=separator)
        with (tmp_path / "history.csv").open(newline="") as file:
            header, *rows = csv.reader(file, delimiter=separator)
        assert header == ["epoch", "step", "loss", "acc", "val_loss"]
        assert rows[0] == ["0", "NA", "1.0", "0.5", "NA"]
        same = History.from_csv(tmp_path / "history.csv", separator=separator)
        assert same.epochs == 4 and same.steps == [None, None, None, 7]
        assert list(same) == ["loss", "acc", "val_loss"]
        for name in same:
            np.testing.assert_array_equal(same[name], history[name])
    with (tmp_path / "history.csv").open("a") as file:
        file.write("4\t8\t2.5")  # a row that was not written to its end
    same = History.from_csv(tmp_path / "history.csv", separator="\t")
    assert same["loss"][-1] == 2.5 and math.isnan(same["acc"][-1]) and same.steps[-1] == 8
    with pytest.raises(ValueError, match=r"no columns `epoch` and `step` separated by ','"):
        History.from_csv(tmp_path / "history.csv")
    History().to_csv(tmp_path / "empty.csv")
    assert History.from_csv(tmp_path / "empty.csv").epochs == 0


@pytest.mark.slow
def test_what_the_logger_wrote_is_read_as_the_history_of_the_run(tmp_path: Path) -> None:
    x, y = data()
    logger = et.callbacks.CSVLogger(tmp_path / "log.csv")
    options: dict[str, Any] = {"batch_size": 8, "validation_data": (x, y), "validation_freq": 2}
    _, history = learner().fit(x, y, epochs=3, verbose=0, callbacks=logger, **options)
    same = History.from_csv(tmp_path / "log.csv")
    assert same.steps == history.steps and set(same) == set(history)
    for name in same:
        np.testing.assert_array_equal(same[name], history[name])


@pytest.mark.slow
def test_pandas_gets_a_row_for_each_epoch() -> None:
    x, y = data()
    fitted, first = learner().fit(x, y, epochs=2, verbose=0)
    _, second = fitted.fit(x, y, validation_data=(x, y), verbose=0)
    frame = (first + second).to_pandas()
    assert list(frame.index) == [0, 1, 2] and list(frame["step"]) == [1, 2, 3]
    assert frame["val_accuracy"].isna().tolist() == [True, True, False]
    assert second.best("val_accuracy").epoch == 0 and second.directions["val_accuracy"] == "max"


def test_pandas_gets_a_row_for_each_step() -> None:
    frame = (with_steps() + with_steps()).to_pandas(per="step")
    assert frame.index.name == "step" and list(frame.index) == [1, 2, 3, 4, 5, 6] * 2
    assert list(frame["epoch"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert list(frame["loss"][:6]) == [1 / step for step in range(1, 7)]
    assert list(History().to_pandas().columns) == ["step"]
    with pytest.raises(ValueError, match=r"no single steps: record them, .*StepHistory\(\)"):
        recorded().to_pandas(per="step")


@pytest.mark.usefixtures("unchecked")
def test_there_are_records_of_epochs_and_of_steps() -> None:
    batches: Any = "batch"
    with pytest.raises(ValueError, match=r'`per` must be "epoch" or "step"; got \'batch\'.'):
        recorded().to_pandas(per=batches)


@pytest.mark.parametrize(
    ("library", "extra", "use"),
    [
        ("pandas", "pandas", lambda history: history.to_pandas()),
        ("matplotlib", "plot", lambda history: history.plot()),
    ],
)
def test_a_library_that_is_not_there_is_named_with_its_extra(
    library: str, extra: str, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    sentence = rf"needs {library}: `pip install 'eqxtrain\[{extra}\]'`"
    with pytest.raises(ImportError, match=sentence):
        use(recorded())
