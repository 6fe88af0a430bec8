"""What TensorBoard itself reads of the files that we write."""

import io
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import matplotlib.figure
import numpy as np
import pytest
from helpers import data, learner, library
from PIL import Image

import eqxtrain as et

TensorBoard = et.callbacks.TensorBoard
X, Y = data(21)


def read(folder: Path) -> Any:
    """TensorBoard's own reader of a folder."""
    accumulator = library("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance=dict.fromkeys(
        (accumulator.SCALARS, accumulator.IMAGES, accumulator.HISTOGRAMS, accumulator.TENSORS), 0
    ))  # fmt: skip
    return found.Reload()


def curve(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    events = read(folder).Scalars(tag)
    return [event.step for event in events], [event.value for event in events]


def text(folder: Path, tag: str) -> str:
    (event,) = read(folder).Tensors(f"{tag}/text_summary")
    (value,) = event.tensor_proto.string_val
    return value.decode().removeprefix("```\n").removesuffix("\n```")


def images(folder: Path, tag: str) -> list[np.ndarray]:
    found = read(folder).Images(tag)
    return [np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in found]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, et.History]:
    """A run that uses everything, with 9 steps in 3 epochs."""
    folder = tmp_path_factory.mktemp("logs") / "first"
    figure = lambda: matplotlib.figure.Figure(figsize=(2, 1), dpi=50)

    def pictures(run: et.Run) -> dict[str, Any]:
        return {
            "ramp": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
            "batch": np.full((2, 1, 4, 5), run.epoch, np.uint8),  # channels first
            "plot": [figure()],
        }

    board = TensorBoard(
        folder,
        every=et.Every(steps=2),
        histogram_every=et.Every(steps=3),
        images=pictures,
        images_every=et.Every(epochs=2),
        hyperparameters={"depth": 7},
    )
    sets = {"clean": (X, Y), "noisy": (X[::2], Y[::2])}
    options: dict[str, Any] = {"epochs": 3, "batch_size": 7, "verbose": 0, "validation_data": sets}
    _, history = learner().fit(X, Y, **options, callbacks=board)
    return folder, history


def test_training_and_validation_are_curves_of_one_name(run: tuple[Path, et.History]) -> None:
    folder, history = run
    steps, losses = curve(folder / "train", "loss")
    assert steps == [2, 3, 4, 6, 8, 9]  # every second one, and the ends of epochs
    np.testing.assert_array_equal(
        [losses[i] for i in (1, 3, 5)], np.array(history["loss"], np.float32)
    )
    for name in ("clean", "noisy"):
        steps, losses = curve(folder / "validation" / name, "loss")
        assert steps == [3, 6, 9]
        np.testing.assert_array_equal(losses, np.array(history[f"val_{name}_loss"], np.float32))
    assert read(folder / "train").Tags()["scalars"] == ["loss", "accuracy"]


def test_the_text_says_what_the_run_is_and_how_it_ended(run: tuple[Path, et.History]) -> None:
    folder, history = run
    assert text(folder, "summary") == str(learner().init().summary())
    described = json.loads(text(folder, "run"))
    assert described["versions"]["eqxtrain"] == et.__version__ and described["model"] == "Linear"
    assert " at 0x" not in text(folder, "run")
    end = json.loads(text(folder, "end"))
    assert (end["epochs"], end["step"]) == (3, 9)
    assert len(end["compilations"]) == len(history.timing.compilations)


def test_the_tab_of_hyperparameters_has_values_and_curves(run: tuple[Path, et.History]) -> None:
    plugin: Any = library("tensorboard.plugins.hparams.plugin_data_pb2")
    metadata = read(run[0]).SummaryMetadata
    parts = ("experiment", "session_start_info", "session_end_info")
    content = [metadata(f"_hparams_/{part}").plugin_data.content for part in parts]
    experiment, start, _ = map(plugin.HParamsPluginData.FromString, content)
    values = start.session_start_info.hparams
    assert values["depth"].number_value == 7 and values["batch_size"].number_value == 7
    names = [(m.name.group, m.name.tag) for m in experiment.experiment.metric_infos]
    assert ("train", "loss") in names and ("validation/clean", "accuracy") in names
    assert len(names) == len(set(names)) == 6


def test_histograms_are_of_the_weights_at_that_step(run: tuple[Path, et.History]) -> None:
    folder = run[0] / "train"
    events = read(folder).Histograms("weights/weight")
    assert [event.step for event in events] == [3, 6, 9]
    options: dict[str, Any] = {"batch_size": 7, "verbose": 0}
    trained, _ = learner().fit(X, Y, epochs=2, **options)
    weights = np.asarray(trained.model.weight, np.float64)
    told = events[1].histogram_value
    assert (told.num, told.min, told.max) == (12, weights.min(), weights.max())
    assert np.isclose(told.sum, weights.sum()) and sum(told.bucket) == 12
    assert read(folder).Tags()["histograms"] == ["weights/weight", "weights/bias"]


def test_images_are_the_pixels_that_the_function_returned(run: tuple[Path, et.History]) -> None:
    folder = run[0] / "train"
    (ramp,) = images(folder, "ramp")
    np.testing.assert_array_equal(ramp[..., 0], [[0, 51, 102], [153, 204, 255]])
    for i in range(2):
        (image,) = images(folder, f"batch/{i}")
        assert image.shape[:2] == (4, 5) and (image == 1).all()  # of the second epoch
    (plot,) = images(folder, "plot")
    assert plot.shape == (50, 100, 3) and (plot == 255).all()


def test_a_run_takes_the_place_of_what_came_after_its_first_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 7, "verbose": 0}
    trained, first = learner().fit(X, Y, epochs=2, **options, callbacks=TensorBoard(tmp_path))
    trained.fit(X, Y, epochs=2, **options, callbacks=TensorBoard(tmp_path))
    assert curve(tmp_path / "train", "loss")[0] == [3, 6, 9, 12]
    resumed = TensorBoard(tmp_path)
    resumed.load_state_dict({"step": 6})
    _, second = trained.fit(Y[:, None] + 0 * X, Y, **options, callbacks=resumed)
    steps, losses = curve(tmp_path / "train", "loss")
    assert steps == [3, 6, 9] and resumed.state_dict() == {"step": 9}
    np.testing.assert_array_equal(losses, np.array([*first["loss"], *second["loss"]], np.float32))


class Fails(et.Callback):
    def on_epoch_end(self, run: et.Run) -> None:
        if run.epoch == 1:
            raise OSError("the disk is full")


def test_a_run_that_fails_leaves_whole_files(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk is full"):
        learner().fit(X, Y, epochs=3, verbose=0, callbacks=[TensorBoard(tmp_path), Fails()])
    assert curve(tmp_path / "train", "loss")[0] == [1, 2]
    assert "the disk is full" in json.loads(text(tmp_path, "end"))["stopped"]


def test_what_is_written_is_on_the_disk_after_each_epoch(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    look = et.callbacks.Lambda(
        on_epoch_end=lambda run: seen.append(curve(tmp_path / "train", "loss")[0])
    )
    learner().fit(X, Y, epochs=2, verbose=0, callbacks=[TensorBoard(tmp_path), look])
    assert seen == [[1], [1, 2]]


def test_validations_within_an_epoch_stand_at_their_own_steps(tmp_path: Path) -> None:
    _, history = learner().fit(
        X, Y, steps=9, batch_size=7, verbose=0, validation_data=(X, Y),
        validation_freq=et.Every(steps=2), callbacks=TensorBoard(tmp_path),
    )  # fmt: skip
    steps, losses = curve(tmp_path / "validation", "loss")
    assert steps == [v["step"] for v in history.validations] == [2, 4, 6, 8]
    np.testing.assert_array_equal(
        losses, np.array([v["val_loss"] for v in history.validations], np.float32)
    )


def test_epochs_may_be_left_out(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, every=et.Every(epochs=2), histogram_every=et.Every(epochs=3))
    learner().fit(X, Y, epochs=4, verbose=0, callbacks=board)
    assert curve(tmp_path / "train", "loss")[0] == [2, 4]
    assert [e.step for e in read(tmp_path / "train").Histograms("weights/bias")] == [3]


def test_weights_that_are_not_finite_do_not_end_a_run(tmp_path: Path) -> None:
    nan = eqx.tree_at(lambda m: m.bias, learner().model, replace_fn=lambda b: b * np.nan)
    board = TensorBoard(tmp_path, histogram_every=et.Every(epochs=1))
    with pytest.warns(UserWarning, match="is nan"):
        learner(nan).fit(X, Y, verbose=0, callbacks=board)
    assert read(tmp_path / "train").Tags()["histograms"] == []
    assert np.isnan(curve(tmp_path / "train", "loss")[1][0])


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, images=lambda run: {"noise": np.zeros((2, 5, 5))})
    with pytest.raises(ValueError, match=r"returned 'noise' with the shape \(2, 5, 5\)"):
        learner().fit(X, Y, verbose=0, callbacks=board)
