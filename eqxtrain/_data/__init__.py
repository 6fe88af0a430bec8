"""Sources of data, and the batches, stacks and orders that come of them."""

from .arrays import (
    ArraySource as ArraySource,
    array_source as array_source,
    check_whole as check_whole,
)
from .as_source import as_source as as_source, named_sets as named_sets
from .batch import (
    Batch as Batch,
    Masked as Masked,
    bare as bare,
    named as named,
    pack as pack,
    size as size,
)
from .coerce import take as take
from .iterables import IterableSource as IterableSource
from .map_dataset import ExampleSource as ExampleSource
from .order import Order as Order
from .random_access import RowSource as RowSource
from .source import (
    Cut as Cut,
    Position as Position,
    Reader as Reader,
    Remainder as Remainder,
    Source as Source,
)
from .stack import Stack as Stack, alone as alone
