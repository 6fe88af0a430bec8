"""Sources of data, and the batches, stacks and orders that come of them."""

from ._arrays import (
    ArraySource as ArraySource,
    array_source as array_source,
    check_whole as check_whole,
)
from ._batch import (
    Batch as Batch,
    Masked as Masked,
    bare as bare,
    named as named,
    pack as pack,
    size as size,
)
from ._columns import take as take
from ._examples import ExampleSource as ExampleSource
from ._iterables import IterableSource as IterableSource
from ._order import Order as Order
from ._reading import (
    Cut as Cut,
    Position as Position,
    Reader as Reader,
    Remainder as Remainder,
    Source as Source,
)
from ._rows import RowSource as RowSource
from ._sources import as_source as as_source, named_sets as named_sets
from ._stack import Stack as Stack, alone as alone
