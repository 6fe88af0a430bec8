"""What a line says of a pass over data."""

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any

from .._format import duration, format_value
from .line import Piece, cut
from .meter import Meter


@dataclasses.dataclass
class Pass:
    """A pass over data, as far as it has come.

    **Arguments:**

    - `title`: what it is, and shorter: `("Epoch 3/10", "3/10")`.
    - `meter`: measures its steps.
    - `total`: how many steps it has, if that is known.
    - `batch_size`: how many examples a step has, if that is known.
    - `part`: which part of the epoch it is, such as `"validating"`.
    - `steps`: how many steps it has begun.
    - `logs`: what it has measured so far, as text by name.
    """

    title: tuple[str, str]
    meter: Meter
    total: int | None
    batch_size: int | float | None
    part: str = ""
    steps: int = 0
    logs: Mapping[str, str] = dataclasses.field(default_factory=dict)


class _Rank(enum.IntEnum):
    """What a line that is too long gives up, one after the other."""

    LONG_BAR = enum.auto()
    RATE = enum.auto()
    STEPS_DONE = enum.auto()
    LONG_NAMES = enum.auto()
    CLOCK = enum.auto()
    NAMES = enum.auto()
    BAR = enum.auto()
    SHORT_RATE = enum.auto()
    ELAPSED = enum.auto()
    SHORT_NAMES = enum.auto()
    SHORT_BAR = enum.auto()
    TIME_LEFT = enum.auto()
    STEPS = enum.auto()
    PART = enum.auto()
    SHORTER_NAMES = enum.auto()
    TITLE = enum.auto()
    PERCENT = enum.auto()
    LOGS = enum.auto()
    FIRST_NAME = enum.auto()
    WAITS_FOR = enum.auto()
    WAITS = enum.auto()
    NOTHING = enum.auto()


_GONE = (_Rank.NOTHING, "")


def under_way(shown: Pass, now: float, compiling: tuple[str, float] | None = None) -> list[Piece]:
    """The line of a pass that is under way.

    **Arguments:**

    - `compiling`: the step whose compile it waits for, and for how many seconds.
    """
    steps, total = shown.steps, shown.total
    percent = f"{100 * steps // total}%" if total else f"{steps}"
    bars = (
        (_Rank.LONG_BAR, _bar(steps, total, 20)),
        (_Rank.BAR, _bar(steps, total, 12)),
        (_Rank.SHORT_BAR, _bar(steps, total, 6)),
        _GONE,
    )
    counts = (_Rank.STEPS, _count(steps, total)), (_Rank.PERCENT, percent), _GONE
    part = (_Rank.PART, shown.part), _GONE
    times = _waiting(*compiling) if compiling else _clocks(shown, now)
    return [_title(shown.title), part, bars, counts, *times, *_values(shown.logs)]


def _waiting(step: str, seconds: float) -> list[Piece]:
    time = duration(seconds)
    return [
        (
            (_Rank.WAITS_FOR, f"compiling {step}, {time}"),
            (_Rank.WAITS, f"compiling, {time}"),
            (_Rank.NOTHING, "compiling"),
        )
    ]


def _clocks(shown: Pass, now: float) -> list[Piece]:
    elapsed, left = duration(shown.meter.elapsed(now), tenths=False), ""
    seconds = None if shown.total is None else shown.meter.seconds_left(now, shown.total)
    if seconds is not None:
        left = f"{duration(seconds, tenths=False)} left"
    both = f"{elapsed}, {left}" if left else elapsed
    return [
        ((_Rank.CLOCK, both), (_Rank.TIME_LEFT, left), _GONE),
        _speed(shown.meter.rate(), shown.batch_size),
    ]


def done(shown: Pass, now: float, left_out: float, compiling: float) -> list[Piece]:
    """The line of a pass that is over.

    **Arguments:**

    - `left_out`: how many seconds up to now went into other things than its steps.
    - `compiling`: how many of its seconds went into compiles.
    """
    elapsed = duration(shown.meter.elapsed(now))
    both = f"{elapsed} ({duration(compiling)} compiling)" if compiling >= 0.1 else elapsed
    rate = shown.meter.whole_rate(now, left_out, shown.steps)
    return [
        _title(shown.title),
        ((_Rank.STEPS_DONE, _count(shown.steps, shown.total)), _GONE),
        ((_Rank.CLOCK, both), (_Rank.ELAPSED, elapsed), _GONE),
        _speed(rate, shown.batch_size),
        *_values(shown.logs),
    ]


def as_text(logs: Mapping[str, Any]) -> dict[str, str]:
    """The logs as they are shown. What cannot be printed in one line is left out of a name."""
    shown = {"".join(filter(str.isprintable, name)): value for name, value in logs.items()}
    return {name: format_value(value) for name, value in shown.items()}


def _title(title: tuple[str, str]) -> Piece:
    return (_Rank.TITLE, title[0]), (_Rank.NOTHING, title[1])


def _values(logs: Mapping[str, str]) -> Iterator[Piece]:
    """The logs: names are cut before a number goes, and the first number stays."""
    for i, (name, value) in enumerate(logs.items()):
        yield (
            (_Rank.LONG_NAMES, f"{name}: {value}"),
            (_Rank.NAMES, f"{cut(name, 12)}: {value}"),
            (_Rank.SHORT_NAMES, f"{cut(name, 9)}: {value}"),
            (_Rank.SHORTER_NAMES, f"{cut(name, 6)}: {value}"),
            (_Rank.FIRST_NAME if i == 0 else _Rank.LOGS, f"{cut(name, 4)}: {value}"),
            (_Rank.NOTHING, value if i == 0 else ""),
        )


def _count(steps: int, total: int | None) -> str:
    return f"{steps}" if total is None else f"{steps:{len(str(total))}}/{total}"


def _bar(steps: int, total: int | None, width: int) -> str:
    if not total:
        return ""
    filled = min(width * steps // total, width)
    return "━" * filled + "╺" * (width - filled)


def _speed(steps: float | None, batch_size: int | float | None) -> Piece:
    """Examples a second, or steps where a step has nobody knows how many."""
    if steps is None:
        return (_GONE,)
    unit, rate = ("steps", steps) if batch_size is None else ("examples", steps * batch_size)
    return (_Rank.RATE, f"{amount(rate)} {unit}/s"), (_Rank.SHORT_RATE, f"{amount(rate)}/s"), _GONE


def amount(value: float) -> str:
    """A number to three digits: `0.52`, `954`, `12.3k`."""
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or unit == "G":
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f}{unit}"
        value /= 1000
    raise AssertionError
