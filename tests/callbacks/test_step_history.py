"""Single steps in the history."""

import numpy as np
import optax
import pytest
from helpers import data, learner

import eqxtrain as et
from eqxtrain.callbacks import StepHistory


def test_each_record_has_the_means_of_the_epoch_so_far() -> None:
    x, y = data(24)
    still = learner(optimizer=optax.sgd(0.0)).init()
    options = {"batch_size": 8, "shuffle": False, "verbose": 0}
    _, history = still.fit(x, y, epochs=2, callbacks=StepHistory(), **options)
    assert [(each["epoch"], each["step"]) for each in history.step_logs] == [
        (0, 1), (0, 2), (0, 3), (1, 4), (1, 5), (1, 6),
    ]  # fmt: skip
    for each in history.step_logs:
        rows = 8 * ((each["step"] - 1) % 3 + 1)
        expected = still.evaluate(x[:rows], y[:rows], batch_size=8)
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(each[name], expected[name], rtol=1e-5)
    assert [history.step_logs[i]["loss"] for i in (2, 5)] == history["loss"]


@pytest.mark.slow
def test_every_so_many_steps_arrays_left_out_and_over_several_fits() -> None:
    x, y = data(40)
    metrics = [et.metrics.Accuracy(), et.metrics.ConfusionMatrix()]
    steps = StepHistory(et.Every(steps=4))
    made, first = learner(metrics=metrics).fit(x, y, batch_size=8, verbose=0, callbacks=steps)
    _, second = made.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=steps)
    assert [each["step"] for each in first.step_logs] == [4]  # of five
    assert [each["step"] for each in second.step_logs] == [8, 12]
    assert list(first.step_logs[0]) == ["epoch", "step", "loss", "accuracy"]
    frame = (first + second).to_pandas(per="step")
    assert list(frame.index) == [4, 8, 12] and list(frame["epoch"]) == [0, 1, 2]


def test_epochs_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"must be `Every\(steps=\.\.\.\)`, since the history has"):
        StepHistory(et.Every(epochs=1))
