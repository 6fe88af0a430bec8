"""How long a run took."""

import dataclasses

from .._engine.compile_log import Compilation


@dataclasses.dataclass
class PassTiming:
    """What the training steps of one epoch did, and where their time went.

    **Arguments:**

    - `steps`, `examples`: how many there were; padding is no example.
    - `flops`: operations of all steps, as `Learner.forecast` counts them.
    - `seconds`: how long the steps took. Validations and compiles are left out.
    - `compile_wait`: seconds in which training stood still, because something was traced or
        compiled.
    - `waiting`: seconds of `seconds` in which the loop waited for the next batches.
    - `idle`: seconds of `waiting` in which the device had nothing left to do. They are known if a
        callback such as `Throughput` asks for them with `times_device = True`; else None.
    """

    steps: int = 0
    examples: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    compile_wait: float = 0.0
    waiting: float = 0.0
    idle: float | None = None


@dataclasses.dataclass
class Timing:
    """How long a run took. Kept apart from its results, which a rerun repeats to the bit.

    **Arguments:**

    - `epochs`: the seconds of each epoch, including its validation.
    - `passes`: where the time of the training steps of each epoch went.
    - `compilations`: which programs were compiled, why, and how long it took.
    """

    epochs: list[float] = dataclasses.field(default_factory=list)
    passes: list[PassTiming] = dataclasses.field(default_factory=list)
    compilations: list[Compilation] = dataclasses.field(default_factory=list)

    @property
    def compiling(self) -> float:
        """The seconds of all compiles. Those in threads overlap with each other and with steps."""
        return sum((compilation.seconds for compilation in self.compilations), 0.0)
