"""Callbacks: they watch a run, and can change it."""

from ._base import Callback as Callback
from ._control import (
    EarlyStopping as EarlyStopping,
    Lambda as Lambda,
    LearningRateScheduler as LearningRateScheduler,
    ReduceLROnPlateau as ReduceLROnPlateau,
    Timeout as Timeout,
)
from ._every import Every as Every
from ._gradients import GradientMonitor as GradientMonitor, Spike as Spike
from ._loggers import CSVLogger as CSVLogger, JSONLinesLogger as JSONLinesLogger
from ._monitor import Monitor as Monitor
from ._nan import TerminateOnNaN as TerminateOnNaN
from ._profiler import Profiler as Profiler
from ._progress import Progress as Progress
from ._run import Replay as Replay, Run as Run
from ._step_history import StepHistory as StepHistory
from ._tensorboard import TensorBoard as TensorBoard
from ._throughput import Throughput as Throughput
from ._wandb import WandB as WandB
