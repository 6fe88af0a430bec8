"""What W&B's own library writes of a run, without a connection."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import data, learner, library
from PIL import Image

import eqxtrain as et

X, Y = data(21)


@pytest.fixture
def wandb() -> Any:
    return library("wandb")


@pytest.fixture
def options(tmp_path: Path) -> Any:
    return {"mode": "offline", "dir": str(tmp_path), "settings": {"silent": True}}


def records(folder: Path) -> list[Any]:
    """What the one file of a run holds, once W&B's own process has written all of it."""
    for _ in range(1000):
        found = list(written(folder))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.02)
    raise AssertionError("W&B has not ended the file")


def written(folder: Path) -> Iterator[Any]:
    """What the file holds so far: LevelDB's log format, with a header of 7 bytes."""
    proto = library("wandb.proto.wandb_internal_pb2")
    (path,) = folder.rglob("run-*.wandb")
    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 2**15 - at % 2**15  # of the block
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if at + 7 + length > len(content):
            return
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the record is complete
            yield proto.Record.FromString(whole)
            whole = b""


def items(parts: Any) -> dict[str, Any]:
    """Items with their keys, as plain data."""
    return {"/".join(p.nested_key) or p.key: json.loads(p.value_json) for p in parts}


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the history that have a name."""
    found = [items(r.history.item) for r in records(folder) if r.HasField("history")]
    return [row for row in found if name in row]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records(folder):
        found |= items(record.summary.update)
    return found


def exit_codes(folder: Path) -> list[int]:
    return [r.exit.exit_code for r in records(folder) if r.HasField("exit")]


@pytest.mark.slow
def test_a_run_has_its_numbers_and_what_it_is(options: Any, tmp_path: Path) -> None:
    logger = et.callbacks.WandB("digits", every=et.Every(steps=2), name="first", **options)
    _, history = learner().fit(
        X, Y, epochs=2, batch_size=7, validation_data=(X, Y), verbose=0, callbacks=logger
    )
    losses = rows(tmp_path, "loss")
    assert [(row["epoch"], row["step"]) for row in losses] == [(0, 2), (0, 3), (1, 4), (1, 6)]
    assert [losses[i]["loss"] for i in (1, 3)] == history["loss"]
    assert [row["val_loss"] for row in rows(tmp_path, "val_loss")] == history["val_loss"]
    (run,) = [r.run for r in records(tmp_path) if r.HasField("run")]
    assert (run.project, run.display_name, run.run_id) == ("digits", "first", logger.id)
    config: dict[str, Any] = {}
    for record in records(tmp_path):
        config |= items(record.config.update) | items(record.run.config.update)
    assert config["model"] == "Linear" and config["summary"] == str(learner().init().summary())
    assert config["versions"]["eqxtrain"] == et.__version__ and config["params"]["epochs"] == 2
    steps = [r.metric.step_metric for r in records(tmp_path) if r.metric.glob_name == "*"]
    assert steps == ["step"] and exit_codes(tmp_path) == [0]
    end = summary(tmp_path)["end"]
    assert end["epochs"] == 2 and len(end["compilations"]) == len(history.timing.compilations)


@pytest.mark.slow
def test_histograms_and_images_are_those_of_the_step(options: Any, tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    logger = et.callbacks.WandB(
        histogram_every=et.Every(epochs=1), images=lambda run: {"grey": image}, **options
    )
    trained, _ = learner().fit(X, Y, verbose=0, callbacks=logger)
    (row,) = rows(tmp_path, "weights/weight/values")
    weights = np.asarray(trained.model.weight)
    counts, edges = np.histogram(weights.astype(float), 64)
    assert row["step"] == 1 and row["weights/weight/values"] == counts.tolist()
    np.testing.assert_allclose(row["weights/weight/bins"], edges, rtol=1e-6)
    (path,) = tmp_path.rglob("media/images/*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("L")), image)


@pytest.mark.slow
def test_a_resumed_run_has_the_id_of_the_first(options: Any, tmp_path: Path) -> None:
    first = et.callbacks.WandB(**options | {"dir": str(tmp_path / "a")})
    second = et.callbacks.WandB(**options | {"dir": str(tmp_path / "b")})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    trained, _ = learner().fit(X, Y, verbose=0, callbacks=first)
    second.load_state_dict(first.state_dict())
    trained.fit(X, Y, verbose=0, callbacks=second)
    assert first.id == second.id is not None
    assert [row["step"] for row in rows(tmp_path / "b", "loss")] == [2]
    assert [r.run.run_id for r in records(tmp_path / "b") if r.HasField("run")] == [first.id]
    trained.fit(X, Y, verbose=0, callbacks=second)  # which nobody resumes
    assert second.id != first.id


class Fails(et.Callback):
    def on_epoch_end(self, run: et.Run) -> None:
        raise OSError("the disk is full")


@pytest.mark.slow
def test_a_run_that_fails_is_marked_as_failed(options: Any, tmp_path: Path) -> None:
    logger = et.callbacks.WandB(**options)
    with pytest.raises(OSError, match="the disk is full"):
        learner().fit(X, Y, verbose=0, callbacks=[logger, Fails()])
    assert exit_codes(tmp_path) == [1] and len(rows(tmp_path, "loss")) == 1


@pytest.mark.slow
def test_a_run_of_the_users_is_used_and_left_open(wandb: Any, options: Any, tmp_path: Path) -> None:
    with wandb.init(**options) as mine:
        learner().fit(X, Y, verbose=0, callbacks=et.callbacks.WandB())
        mine.log({"after": 1.0})
    assert len(rows(tmp_path, "loss")) == 1 == len(rows(tmp_path, "after"))
