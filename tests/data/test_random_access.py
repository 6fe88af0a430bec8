"""Data whose rows can be had in any order."""

from typing import Any

import numpy as np
import pytest
from helpers import data as make_data, learner, normed, same

from eqxtrain import _data as data

X, Y = make_data(5)


class Examples:
    """The rows as a dataset of examples."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> Any:
        return X[i], Y[i]


@pytest.mark.parametrize("source", [data.array_source(X, Y), data.as_source(Examples())])
def test_a_batch_is_filled_up_to_no_more_rows_than_there_are(source: Any) -> None:
    with source.open_reader(data.Batching(10**12, "pad")) as reader:
        assert data.num_rows(reader.peek()) == 5
        (stack,) = reader.stacks(lambda batch: 1)
        assert stack.batches.mask.shape == (1, 5) and stack.batches.mask.all()
        reader.consume(1)
        assert reader.position == {"examples": 0, "of": 5, "order": None}


@pytest.mark.slow
def test_a_batch_size_beyond_the_data_is_that_of_the_data() -> None:
    """Everywhere, and without a warning of padding that enters the statistics of a batch."""
    huge: dict[str, Any] = {"batch_size": 10**12, "remainder": "pad"}
    made = learner().init()
    fitted, history = made.fit(X, Y, validation_data=(X[:3], Y[:3]), verbose=0, **huge)
    assert same(fitted, made.fit(X, Y, batch_size=5, remainder="pad", verbose=0)[0])
    assert len(history["val_loss"]) == 1
    assert np.array_equal(made.predict(X, **huge), made.predict(X, batch_size=5, remainder="pad"))
    normed().fit(X, Y, verbose=0, **huge)
