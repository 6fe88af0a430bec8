"""Sources of data, and the batches and orders that come of them."""

from ._arrays import (
    ArraySource as ArraySource,
    as_source as as_source,
    check_whole as check_whole,
    named_sets as named_sets,
)
from ._batch import Batch as Batch, named as named, pack as pack, size as size
from ._order import order as order
