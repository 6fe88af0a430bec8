"""Callbacks: what is told of a run."""

from ._base import Callback as Callback, Every as Every
from ._progress import Progress as Progress
from ._run import Run as Run
