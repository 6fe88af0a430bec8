"""`Every`: how often something happens."""

import dataclasses

from .._check import whole_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """How often something happens: every so many steps, or epochs.

    `Every(steps=100)` means after steps 100, 200, ... of the learner's life, and `Every(epochs=2)`
    after the second, fourth, ... epoch of a call of `fit`.
    """

    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                "`Every` takes either `steps` or `epochs`, as in `Every(steps=100)`; "
                f"got steps={self.steps}, epochs={self.epochs}."
            )
        name = "epochs" if self.steps is None else "steps"
        number = whole_number(f"Every({name})", getattr(self, name), at_least=1)
        object.__setattr__(self, name, number)
