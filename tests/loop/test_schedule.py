"""The shape of a run, as plain numbers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import eqxtrain as et
from eqxtrain._loop.schedule import Schedule, make_schedule


def simulated(made: Schedule, batches: int) -> list[int]:
    """The steps of each epoch, over data of so many batches: a loop by hand."""
    epochs: list[int] = []
    at = 0
    while made.goes_on(len(epochs), sum(epochs)):
        most = made.max_steps_of_epoch(sum(epochs))
        left = batches - at
        steps = left if most is None else min(left, most)
        at = (at + steps) % batches
        epochs.append(steps)
    return epochs


counts = st.integers(1, 7) | st.none()


@given(epochs=counts, steps=counts, steps_per_epoch=counts, batches=st.integers(1, 6))
def test_a_run_ends_where_it_should(
    epochs: int | None, steps: int | None, steps_per_epoch: int | None, batches: int
) -> None:
    made = make_schedule(epochs, steps, steps_per_epoch, 1, None)
    run = simulated(made, batches)
    if steps is None:
        assert len(run) == (epochs or 1)
    else:
        assert sum(run) == steps or len(run) == epochs
    assert made.max_steps is None or sum(run) <= made.max_steps
    assert all(0 < each <= (steps_per_epoch or batches) for each in run)
    assert made.epochs_of(batches) == len(run)
    assert made.steps_of(batches) == max(run) or run[-1] < max(run)


def test_what_is_known_of_data_without_an_end_or_a_length() -> None:
    for batches in (math.inf, None):
        assert make_schedule(None, 10, None, 1, None).epochs_of(batches) == (1 if batches else None)
        assert make_schedule(None, 10, 4, 1, None).epochs_of(batches) == 3
        assert make_schedule(None, 10, 4, 1, None).steps_of(batches) == 4
        assert make_schedule(2, None, None, 1, None).steps_of(batches) is None
        assert make_schedule(2, None, None, 1, None).epochs_of(batches) == 2


def test_passes_and_limits_are_those_that_are_sure() -> None:
    assert make_schedule(3, None, None, 1, None).passes == 3
    assert make_schedule(3, None, 5, 1, None).passes == 1  # all may be one long pass
    assert make_schedule(None, 9, None, 1, None).passes == 1
    assert make_schedule(3, None, 5, 1, None).max_steps == 15
    assert make_schedule(3, 9, 5, 1, None).max_steps == 9
    assert make_schedule(3, None, None, 1, None).max_steps is None


@pytest.mark.parametrize(
    ("frequency", "epochs"),
    [
        (1, [0, 1, 2, 3, 4, 5]),
        (2, [1, 3, 5]),
        ([1, 4], [0, 3]),
        (np.array([2]), [1]),
        ((), []),
        (et.Every(epochs=3), [2, 5]),
        (et.Every(steps=3), []),
    ],
)
def test_which_epochs_are_validated(frequency: Any, epochs: list[int]) -> None:
    made = make_schedule(6, None, None, frequency, None)
    assert [epoch for epoch in range(6) if made.validates(epoch)] == epochs
    expected = 10 if frequency == et.Every(steps=3) else len(epochs)
    assert made.validations(5) == expected
    once = make_schedule(6, 1, None, frequency, None)
    assert once.validations(5) == int(0 in epochs)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"epochs": -1}, "`epochs` must be a whole number, 0 or more; got -1"),
        ({"epochs": True}, "`epochs` must be a whole number"),
        ({"steps": -1}, "`steps` must be a whole number, 0 or more"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch` must be a whole number, 1 or more"),
        ({"validation_steps": 0}, "`validation_steps` must be a whole number, 1 or more"),
        ({"validation_freq": 0}, r"`validation_freq` must be a number of epochs, a list .*; got 0"),
        ({"validation_freq": [0]}, "a list of epochs counted from 1"),
        ({"validation_freq": "each"}, r"or `eqxtrain\.Every\(steps=\.\.\.\)`; got 'each'"),
    ],
)
def test_what_is_no_number_of_steps_gets_a_sentence(arguments: Any, match: str) -> None:
    given = {
        "epochs": None, "steps": None, "steps_per_epoch": None, "validation_freq": 1,
        "validation_steps": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match=match):
        make_schedule(**given | arguments)
