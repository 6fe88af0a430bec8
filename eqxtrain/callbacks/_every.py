"""`Every`: how often something happens."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """How often something happens: every so many steps, or epochs.

    `Every(steps=100)` means after steps 100, 200, ... of the learner's life, and `Every(epochs=2)`
    after the second, fourth, ... epoch of a call of `fit`.
    """

    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.epochs) if value is not None]
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in given)
        if len(given) != 1 or not whole or given[0] < 1:
            raise ValueError(
                "`Every` takes one positive whole number, `Every(steps=100)` or `Every(epochs=1)`; "
                f"got steps={self.steps}, epochs={self.epochs}."
            )
