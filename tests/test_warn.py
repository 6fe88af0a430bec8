"""Warnings point at the user's line."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import data, learner, normed

import eqxtrain as et


def lost_weights() -> Any:
    class Heedless(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Any, y_true: Any) -> Any:
            return np.mean(x), {}, state

    return Heedless(learner().model, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        lambda x, y: normed().fit(x, y, batch_size=4, remainder="pad", verbose=0),
        lambda x, y: learner().fit(x, y, batch_size=8, steps_per_epoch=9, verbose=0),
        lambda x, y: learner().evaluate(x, y, batch_size=8, steps=9),
        lambda x, y: lost_weights().evaluate(x, y, sample_weight=np.ones(21)),
    ],
)
def test_a_warning_names_the_file_of_who_called(run: Any) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with contextlib.suppress(TypeError):  # it was told before
            run(*data(21))
    assert {Path(warning.filename) for warning in told} == {Path(__file__)}
