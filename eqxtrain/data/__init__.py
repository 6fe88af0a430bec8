"""Sources of data, and the batches, stacks and orders that come of them."""

from ._arrays import (
    ArraySource as ArraySource,
    array_source as array_source,
    check_whole as check_whole,
)
from ._batch import Batch as Batch, named as named, pack as pack, size as size
from ._iterables import IterableSource as IterableSource
from ._order import order as order
from ._sources import Source as Source, as_source as as_source, named_sets as named_sets
from ._stack import Demand as Demand, Stack as Stack, alone as alone
