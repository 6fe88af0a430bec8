"""Metrics: monoids that no split of the data can change."""

from ._base import Metric as Metric
from ._classification import Accuracy as Accuracy
from ._modes import (
    Gather as Gather,
    Last as Last,
    Max as Max,
    Mean as Mean,
    Min as Min,
    Std as Std,
    Sum as Sum,
)
from ._regression import (
    MeanAbsoluteError as MeanAbsoluteError,
    MeanSquaredError as MeanSquaredError,
)
