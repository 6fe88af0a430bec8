"""What a line says."""

from typing import Any

import numpy as np
import pytest

from eqxtrain._display import text
from eqxtrain._display.line import fit, width_of
from eqxtrain._display.meter import Meter

LOGS = {"loss": 0.51234567, "accuracy": 0.875, "val_loss": 0.625, "val_accuracy": 0.75}


def made(total: int | None = 400, batch_size: int | None = 32, **fields: Any) -> text.Pass:
    """A pass of 10 steps a second."""
    meter = Meter(0.0)
    for seconds in (1.0, 2.0, 12.0):
        meter.mark(seconds, 0.0, round(10 * seconds))
    logs = text.as_text({name: LOGS[name] for name in ("loss", "accuracy")})
    shown = text.Pass(("Epoch 3/10", "3/10"), meter, total, batch_size, steps=120, logs=logs)
    for name, value in fields.items():
        setattr(shown, name, value)
    return shown


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            200,
            "Epoch 3/10  ━━━━━━╺╺╺╺╺╺╺╺╺╺╺╺╺╺  120/400  12s, 28s left  320 examples/s  "
            "loss: 0.5123  accuracy: 0.8750",
        ),
        (79, "Epoch 3/10  ━╺╺╺╺╺  120/400  28s left  320/s  loss: 0.5123  accuracy: 0.8750"),
        (60, "Epoch 3/10  120/400  28s left  loss: 0.5123  accur…: 0.8750"),
        (39, "3/10  30%  loss: 0.5123  acc…: 0.8750"),
        (19, "3/10  loss: 0.5123"),
        (12, "3/10  0.5123"),
    ],
)
def test_a_pass_under_way_at_each_width(width: int, line: str) -> None:
    assert fit(text.under_way(made(), 12.0), width) == line


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            200,
            "Epoch 3/10  400/400  42s (2.0s compiling)  320 examples/s  loss: 0.5123  "
            "accuracy: 0.8750  val_loss: 0.6250  val_accuracy: 0.7500",
        ),
        (
            100,
            "Epoch 3/10  42s  320/s  loss: 0.5123  accuracy: 0.8750  val_loss: 0.6250  "
            "val_accuracy: 0.7500",
        ),
        (79, "Epoch 3/10  loss: 0.5123  accuracy: 0.8750  val_loss: 0.6250  val_accu…: 0.7500"),
        (39, "3/10  loss: 0.5123  acc…: 0.8750"),
        (19, "3/10  loss: 0.5123"),
    ],
)
def test_a_pass_that_is_over_at_each_width(width: int, line: str) -> None:
    over = made(steps=400, logs=text.as_text(LOGS))
    assert fit(text.done(over, 42.0, 2.0, compiling=2.0), width) == line


def test_no_line_is_too_wide() -> None:
    logs = text.as_text({"精度 of everything": 0.5, "x" * 60: 1e-9, "an array": np.zeros((2, 2))})
    compiling = ("train_step", 3.2)
    for shown in (made(logs=logs), made(total=None, logs=logs, part="validating")):
        for width in range(1, 130, 3):
            for pieces in (
                text.under_way(shown, 5.0),
                text.under_way(shown, 5.0, compiling),
                text.done(shown, 5.0, 0.0, 1.0),
            ):
                assert width_of(fit(pieces, width)) <= width


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (79, "Epoch 3/10  ╺╺╺╺╺╺╺╺╺╺╺╺╺╺╺╺╺╺╺╺    0/400  compiling train_step, 3.2s"),
        (39, "3/10  0%  compiling train_step, 3.2s"),
        (19, "3/10  compiling"),
    ],
)
def test_a_compile_is_shown_as_such(width: int, line: str) -> None:
    shown = made(steps=0, logs={})
    assert fit(text.under_way(shown, 9.0, ("train_step", 3.2)), width) == line


def test_what_is_not_known_is_not_shown() -> None:
    shown = made(total=None, batch_size=None, part="validating", logs={})
    line = "Epoch 3/10  validating  120  12s  10.0 steps/s"
    assert fit(text.under_way(shown, 12.0), None) == line


def test_names_stay_in_their_line() -> None:
    assert list(text.as_text({"a\nb\r\x1b[31m": 1.0})) == ["ab[31m"]


def test_amounts_have_three_digits() -> None:
    amounts = (0.0, 0.523, 9.996, 12.34, 954.3, 999.7, 12345.0, 9.999e5, 2.5e6, 3e9, 4e12)
    assert [text.amount(value) for value in amounts] == [
        "0.00", "0.52", "10.0", "12.3", "954", "1.00k", "12.3k", "1.00M", "2.50M", "3.00G", "4000G",
    ]  # fmt: skip
