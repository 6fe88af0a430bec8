"""Sources of data, and the batches, stacks and orders that come of them."""

from .arrays import (
    ArraySource as ArraySource,
    array_source as array_source,
)
from .as_source import as_source as as_source, named_sets as named_sets
from .batch import (
    Batch as Batch,
    MaskedBatch as MaskedBatch,
    make_batch as make_batch,
    num_rows as num_rows,
    step_arguments as step_arguments,
    strip_mask as strip_mask,
)
from .iterables import IterableSource as IterableSource
from .map_dataset import ExampleSource as ExampleSource
from .order import Order as Order
from .random_access import RowSource as RowSource
from .source import (
    Batching as Batching,
    Position as Position,
    Reader as Reader,
    Remainder as Remainder,
    Source as Source,
)
from .stack import Stack as Stack, stack_of_one as stack_of_one
