"""Callbacks: they watch a run, and can change it."""

from ._base import Callback as Callback
from ._every import Every as Every
from ._progress import Progress as Progress
from ._run import Run as Run
