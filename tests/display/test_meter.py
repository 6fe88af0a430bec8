"""How fast steps go: against schedules of which it is known."""

import pytest

from eqxtrain._display.meter import Meter


def test_steps_of_a_second_each_are_one_a_second() -> None:
    meter = Meter(100.0)
    # Two calls are begun at once; from then on, each waits for one to end.
    for now, begun in [(100.0, 1), (101.0, 3), (102.0, 4), (103.0, 5)]:
        meter.mark(now, 0.0, begun)
    assert meter.rate() == 1.0
    assert meter.seconds_left(103.0, 9) == 4.0
    assert meter.seconds_left(103.5, 9) == 3.5  # the next step is under way
    assert meter.seconds_left(200.0, 9) == 0.0
    assert meter.elapsed(103.5) == 3.5


def test_nothing_is_known_before_the_device_has_worked() -> None:
    meter = Meter(0.0)
    for now in (0.5, 1.0):
        assert meter.rate() is None and meter.seconds_left(now, 10) is None
        meter.mark(now, 0.0, int(2 * now))
    assert meter.rate() is None
    meter.mark(1.5, 0.0, 3)
    assert meter.rate() == 2.0


def test_what_is_left_out_makes_no_step_slower() -> None:
    meter = Meter(0.0, left_out=7.0)  # before it began
    meter.mark(3.0, 10.0, 1)  # three seconds of compiling
    meter.mark(3.5, 10.0, 2)
    meter.mark(9.0, 15.0, 3)  # five seconds of validation within the third step
    assert meter.rate() == 2.0
    assert meter.work(9.0, 15.0) == 1.0
    assert meter.whole_rate(9.0, 15.0, 3) == 3.0
    assert meter.elapsed(9.0) == 9.0


@pytest.mark.parametrize("steps", [0, 5])
def test_no_time_and_no_steps_have_no_rate(steps: int) -> None:
    now = 1.0 if steps else 2.0
    meter = Meter(1.0)
    for _ in range(3):
        meter.mark(now, 0.0, steps)
    assert meter.rate() is None and meter.whole_rate(now, 0.0, steps) is None
