"""How fast steps go, and how long the rest of them will take."""

from typing import NamedTuple


class _Mark(NamedTuple):
    now: float
    work: float  # the seconds that went into steps
    steps: int


class Meter:
    """Measures the steps of a pass by marks, which are made every now and then.

    A step is counted when its call begins, and a call or two begin ahead of the device. So the
    first mark, at which only the host has worked, is not compared with later ones.

    **Arguments:**

    - `now`: the time, in seconds.
    - `left_out`: how many seconds up to now went into other things than steps.
    """

    def __init__(self, now: float, left_out: float = 0.0) -> None:
        self._begin = _Mark(now, now - left_out, 0)
        self._marks: tuple[_Mark, ...] = ()

    def mark(self, now: float, left_out: float, steps: int) -> None:
        """Note how many steps have begun."""
        # The first of all, the one to measure from, and the last; replaced as a whole, since
        # another thread may read them.
        self._marks = (*self._marks[:2], _Mark(now, now - left_out, steps))

    def rate(self) -> float | None:
        """Steps a second up to the last mark; None as long as that is not known."""
        if len(self._marks) < 3:
            return None
        _, first, last = self._marks
        seconds, steps = last.work - first.work, last.steps - first.steps
        return steps / seconds if seconds > 0 and steps > 0 else None

    def seconds_left(self, now: float, total: int) -> float | None:
        """How long the rest of `total` steps will take; None as long as that is not known."""
        rate = self.rate()
        if rate is None:
            return None
        last = self._marks[-1]
        return max((total - last.steps) / rate - (now - last.now), 0.0)

    def whole_rate(self, now: float, left_out: float, steps: int) -> float | None:
        """Steps a second from the beginning to an end at which all of them are done."""
        seconds = self.work(now, left_out)
        return steps / seconds if seconds > 0 and steps > 0 else None

    def elapsed(self, now: float) -> float:
        """How many seconds have passed, whatever they went into."""
        return now - self._begin.now

    def work(self, now: float, left_out: float) -> float:
        """How many of them went into steps."""
        return now - left_out - self._begin.work
