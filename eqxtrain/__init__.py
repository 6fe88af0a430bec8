"""A trainer for Equinox, with steps that you can override one by one."""

from importlib.metadata import version as _version

from . import callbacks as callbacks, metrics as metrics
from ._engine.cache import clear_caches as clear_caches
from ._engine.compile_log import Compilation as Compilation, max_compiles as max_compiles
from ._engine.jax_settings import cache_on_disk as cache_on_disk
from ._history import Fitted as Fitted, History as History
from ._learner import Learner as Learner
from ._loop.forecast import Forecast as Forecast
from ._losses.loss import Loss as Loss
from ._losses.regularize import L1 as L1, L2 as L2
from ._steps.averages import SWA as SWA
from ._steps.ladder import AbstractLearner as AbstractLearner
from ._steps.optimize import freeze as freeze
from ._steps.state import LearnerState as LearnerState
from ._steps.summary import Row as Row, Summary as Summary
from .callbacks import Callback as Callback, Every as Every, Run as Run

__version__ = _version("eqxtrain")
