"""`Every`: how often hooks are called."""

from typing import Any

import numpy as np
import pytest
from helpers import Tape, data, learner

import eqxtrain as et


def test_every_thins_the_hooks_of_batches_and_epochs() -> None:
    steps, epochs = Tape(), Tape()
    steps.every, epochs.every = et.Every(steps=4), et.Every(epochs=2)
    learner().fit(*data(21), epochs=3, batch_size=7, callbacks=[steps, epochs], verbose=0)
    assert steps.hooks.count("on_train_batch_end") == 2 == steps.hooks.count("on_train_batch_begin")
    assert epochs.hooks.count("on_epoch_end") == 1 and epochs.hooks.count("on_train_batch_end") == 9
    for wrong in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(ValueError, match="takes either `steps` or `epochs`"):
            et.Every(**wrong)


@pytest.mark.usefixtures("unchecked")
def test_every_counts_in_whole_numbers() -> None:
    number: Any
    for number in (0, True, 1.0):
        with pytest.raises(
            ValueError, match=r"`Every\(epochs\)` must be a whole number, 1 or more"
        ):
            et.Every(epochs=number)
    number = np.int64(3)
    assert type(et.Every(steps=number).steps) is int
