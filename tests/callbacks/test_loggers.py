"""What loggers write, read back by others."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import data, learner

import eqxtrain as et

C = et.callbacks
X, Y = data(8)


class Fails(et.Callback):
    """Fails at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, run: et.Run) -> None:
        if run.epoch == self.epoch:
            raise OSError("the disk is full")


def run_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_name(path.name + ".run.json").read_text())


@pytest.mark.slow
def test_a_csv_file_has_the_columns_of_validation_from_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.csv"
    metrics = {"matrix": et.metrics.ConfusionMatrix(num_classes=3)}
    _, history = learner(metrics=metrics).fit(
        X, Y, epochs=4, validation_data=(X, Y), validation_freq=3, verbose=0,
        callbacks=C.CSVLogger(path),
    )  # fmt: skip
    frame = pd.read_csv(path)
    assert list(frame) == ["epoch", "step", "loss", "val_loss"]
    assert list(frame["epoch"]) == [0, 1, 2, 3] and list(frame["step"]) == [1, 2, 3, 4]
    np.testing.assert_array_equal(frame["loss"], history["loss"])
    np.testing.assert_array_equal(frame["val_loss"], history["val_loss"])
    assert frame["val_loss"].isna().tolist() == [True, True, False, True]
    assert path.read_text().splitlines()[1].endswith(",NA")


@pytest.mark.slow
def test_a_name_that_comes_up_later_gets_a_column(tmp_path: Path) -> None:
    def add(run: et.Run) -> None:
        if run.epoch == 1:
            run.logs["late; or so"] = 0.5

    path = tmp_path / "log.csv"
    callbacks = [C.Lambda(on_epoch_end=add), C.CSVLogger(path, separator=";")]
    learner().fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)
    frame = pd.read_csv(path, sep=";")
    assert list(frame) == ["epoch", "step", "loss", "accuracy", "late; or so"]
    assert frame["late; or so"].isna().tolist() == [True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [C.CSVLogger, C.JSONLinesLogger])
def test_a_file_is_begun_anew_or_appended_to(kind: Any, tmp_path: Path) -> None:
    path, made = tmp_path / "log", learner()

    def epochs() -> list[int]:
        if kind is C.CSVLogger:
            return list(pd.read_csv(path)["epoch"])
        return [r["epoch"] for r in map(json.loads, path.read_text().splitlines()) if "epoch" in r]

    made.fit(X, Y, epochs=2, verbose=0, callbacks=kind(path))
    made.fit(X, Y, epochs=3, verbose=0, callbacks=kind(path))
    assert epochs() == [0, 1, 2]
    with path.open("a") as file:
        file.write("half a li")  # a crash in the middle of writing
    made.fit(X, Y, epochs=2, verbose=0, callbacks=kind(path, append=True))
    assert epochs() == [0, 1, 2, 0, 1]
    logger = kind(path)
    logger.load_state_dict({"rows": 2})
    made.fit(X, Y, epochs=1, verbose=0, callbacks=logger)
    assert epochs() == [0, 1, 0] and logger.state_dict() == {"rows": 3}


@pytest.mark.slow
def test_rows_within_epochs_have_what_was_measured_so_far(tmp_path: Path) -> None:
    table, lines = tmp_path / "log.csv", tmp_path / "log.jsonl"
    every = et.Every(steps=2)
    loggers = [C.CSVLogger(table, every=every), C.JSONLinesLogger(lines, every=every)]
    losses: dict[int, float] = {}
    look = C.Lambda(
        reads="logs", on_train_batch_end=lambda run: losses.update({run.step: run.logs["loss"]})
    )
    options: dict[str, Any] = {"epochs": 2, "batch_size": 3, "verbose": 0}
    _, history = learner().fit(X, Y, validation_data=(X, Y), **options, callbacks=[*loggers, look])
    frame = pd.read_csv(table)
    assert list(frame["step"]) == [2, 3, 4, 6] and list(frame["epoch"]) == [0, 0, 1, 1]
    np.testing.assert_array_equal(frame["loss"], [losses[step] for step in frame["step"]])
    np.testing.assert_array_equal(frame["val_loss"][[1, 3]], history["val_loss"])
    assert loggers[0].state_dict() == loggers[1].state_dict() == {"rows": 4}
    rows = [row for row in map(json.loads, lines.read_text().splitlines()) if "epoch" in row]
    assert [row["loss"] for row in rows] == list(frame["loss"])
    logger = C.CSVLogger(table, every=et.Every(epochs=2))
    logger.load_state_dict({"rows": 2})
    learner().fit(X, Y, epochs=4, verbose=0, callbacks=logger)
    assert list(pd.read_csv(table)["epoch"]) == [0, 0, 1, 3]


@pytest.mark.slow
def test_json_lines_say_what_the_run_is_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    metrics = {"matrix": et.metrics.ConfusionMatrix(num_classes=3)}
    add = C.Lambda(on_epoch_end=lambda run: run.logs.update(odd=math.nan))
    _, history = learner(metrics=metrics).fit(
        X, Y, epochs=2, verbose=0, callbacks=[add, C.JSONLinesLogger(path)]
    )
    first, *epochs, last = map(json.loads, path.read_text().splitlines())
    assert [record["loss"] for record in epochs] == history["loss"]
    assert epochs[1]["matrix"] == history["matrix"][1].tolist() and epochs[0]["odd"] is None
    run = first["run"]
    assert run["learner"] == "Learner" and run["model"] == "Linear" and run["step"] == 0
    assert run["configuration"]["loss"].startswith("softmax_cross_entropy")
    assert "Parameters:" in run["summary"] and run["params"]["epochs"] == 2
    assert run["versions"]["eqxtrain"] == et.__version__
    end = last["end"]
    assert (end["epochs"], end["step"], end["stopped"]) == (2, 2, None)
    assert len(end["compilations"]) == len(history.timing.compilations)


@pytest.mark.slow
def test_a_run_that_fails_leaves_its_complete_epochs(tmp_path: Path) -> None:
    table, lines = tmp_path / "log.csv", tmp_path / "log.jsonl"
    callbacks = [C.CSVLogger(table), C.JSONLinesLogger(lines), Fails(2)]
    with pytest.raises(OSError, match="the disk is full"):
        learner().fit(X, Y, epochs=5, verbose=0, callbacks=callbacks)
    assert list(pd.read_csv(table)["epoch"]) == [0, 1, 2]
    assert "the disk is full" in run_of(table)["end"]["stopped"]
    assert "the disk is full" in json.loads(lines.read_text().splitlines()[-1])["end"]["stopped"]


def test_a_run_that_fails_before_it_begins_leaves_the_file_of_the_last(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("")
    for logger in (C.JSONLinesLogger(path), C.CSVLogger(tmp_path / "log.csv")):
        with pytest.raises(ValueError, match="does not measure"):
            learner().fit(X, Y, verbose=0, callbacks=[logger, C.EarlyStopping("lss")])
    assert path.read_text() == "" and not (tmp_path / "log.csv").exists()


def test_a_separator_of_several_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be one character"):
        C.CSVLogger(tmp_path / "log.csv", separator=", ")


@pytest.mark.parametrize(
    ("kind", "library", "extra"),
    [(C.TensorBoard, "tensorboardX", "tensorboard"), (C.WandB, "wandb", "wandb")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    kind: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    expected = rf"`{kind.__name__}` needs {library}: `pip install 'eqxtrain\[{extra}\]'`"
    with pytest.raises(ImportError, match=expected):
        kind()
