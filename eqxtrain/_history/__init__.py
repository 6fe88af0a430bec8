"""The record of a run, and how it is shown."""

from .fitted import Fitted as Fitted
from .history import Best as Best, History as History
from .timing import PassTiming as PassTiming, Timing as Timing
