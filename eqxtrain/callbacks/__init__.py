"""Callbacks: what is told of a run."""

from ._base import Callback as Callback, Every as Every, Run as Run
from ._progress import Progress as Progress
