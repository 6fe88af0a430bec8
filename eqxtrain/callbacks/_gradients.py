"""`GradientMonitor`: what gradients and updates look like while a model is trained."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._check import check_real_number
from .._types import Self
from .._warn import warn
from ..metrics._base import Metric
from ..metrics._compensated import CompensatedSum
from ..metrics._gradients import DeadUnits, GradientNorm, UpdateRatio
from ._base import Callback
from ._run import HIDDEN, Run

_PEAK = HIDDEN + "gradient_peak"


class Spike(NamedTuple):
    """A step whose gradient was much larger than those of the other steps of its epoch.

    **Arguments:**

    - `step`: how many training steps the learner had taken in its life before it.
    - `norm`: the Euclidean norm of its gradient.
    - `usual`: the mean of that norm over the other steps of the epoch.
    """

    step: int
    norm: float
    usual: float


class _Peak(Metric):
    """The largest norm of a gradient, at which step it was, and the mean of the others.

    A norm of nan is larger than all others; -1 stands for none.
    """

    largest: Any = eqx.field(default_factory=lambda: np.full((), -1, np.float32))
    step: Any = eqx.field(default_factory=lambda: np.zeros((), np.int32))
    others: CompensatedSum = eqx.field(default_factory=CompensatedSum)
    count: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    def update(self, grads: Any, state: Any) -> Self:
        return self.merge(type(self)(GradientNorm().update(grads).compute(), state.step))

    def merge(self, other: Any) -> Self:
        is_larger = jnp.isnan(other.largest) | (other.largest > self.largest)
        largest = jnp.where(is_larger, other.largest, self.largest)
        left = jnp.where(is_larger, self.largest, other.largest)  # which joins the others
        is_one = ~(left == -1)
        others = CompensatedSum.of(jnp.where(is_one, left, 0))
        return type(self)(
            largest,
            jnp.where(is_larger, other.step, self.step),
            self.others.merge(other.others).merge(others),
            self.count.merge(other.count).merge(CompensatedSum.of(is_one.astype(jnp.float32))),
        )

    def reset(self) -> Self:
        return type(self)(others=self.others.reset(), count=self.count.reset())

    def compute(self) -> Any:
        count = self.count.total()
        usual = self.others.total() / jnp.where(count > 0, count, 1)
        return {"norm": self.largest, "step": self.step, "usual": usual, "others": count}


@final
class GradientMonitor(Callback):
    """Logs how large gradients and updates are, and warns of spikes.

    The logs, and so the history, get `gradient_norm`, its mean over the steps of an epoch;
    `gradient_norm_max`, its largest value; and `update_ratio`, the norm of the updates as a
    fraction of that of the weights. They are measured on the device, within the step, and nothing
    waits for them; for a tiny model, they may take longer than the rest of its step. A `train_step`
    of your own must merge the logs of `apply_gradients` into its own.

    **Arguments:**

    - `per_layer`: whether each layer has its own norm and ratio instead, under its path, such as
        `gradient_norm/layers[0]`.
    - `dead_units`: whether to log, for each layer, the fraction of its units without a gradient in
        the whole epoch: see [`eqxtrain.metrics.DeadUnits`][].
    - `spike_factor`: a gradient is a spike if it is so many times as large as the others of its
        epoch on average.

    **Attributes:**

    - `spikes`: the largest one of each epoch that had any.

    !!! example

        ```python
        monitor = et.callbacks.GradientMonitor(per_layer=True)
        learner, history = learner.fit(x, y, epochs=10, callbacks=monitor)
        history["update_ratio/layers[0]"], monitor.spikes
        ```
    """

    reads: Literal["state", "logs"] = "logs"
    adds: tuple[str, ...] | None = ("gradient_norm_max",)

    def __init__(
        self, *, per_layer: bool = False, dead_units: bool = False, spike_factor: float = 10.0
    ) -> None:
        check_real_number("GradientMonitor(spike_factor)", spike_factor, at_least=1)
        self.spike_factor: float = spike_factor
        self.spikes: list[Spike] = []
        self._resumes = False
        metrics: dict[str, Metric] = {
            "gradient_norm": GradientNorm(per_layer=per_layer),
            "update_ratio": UpdateRatio(per_layer=per_layer),
            _PEAK: _Peak(),
        }
        if dead_units:
            metrics["dead_units"] = DeadUnits()
        self.metrics: Mapping[str, Metric] = metrics

    def on_train_begin(self, run: Run) -> None:
        if not self._resumes:
            self.spikes = []
        self._resumes = False

    def on_epoch_end(self, run: Run) -> None:
        peak = {key: run._hidden_logs.get(f"{_PEAK}/{key}") for key in _PEAK_VALUES}
        norm, step, usual, others = peak.values()
        if norm is None or step is None or usual is None or others is None:
            return  # the step left out the logs of `apply_gradients`
        run.logs["gradient_norm_max"] = norm
        if others >= 1 and norm > self.spike_factor * usual:
            self.spikes.append(Spike(int(step), norm, usual))
            if len(self.spikes) == 1:
                warn(
                    f"The gradient of step {int(step) + 1} of the learner's life has a norm of "
                    f"{norm:.3g}, where the others of epoch {run.epoch + 1} have {usual:.3g} on "
                    f"average. Look at its examples, `run.replay({int(step)})` in a callback, or "
                    "clip gradients, `optax.chain(optax.clip_by_global_norm(1.0), ...)`. Later "
                    "spikes are in `GradientMonitor.spikes`."
                )

    def state_dict(self) -> dict[str, Any]:
        """The spikes so far."""
        return {"spikes": [list(spike) for spike in self.spikes]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.spikes, self._resumes = [Spike(*spike) for spike in state["spikes"]], True


_PEAK_VALUES = ("norm", "step", "usual", "others")
