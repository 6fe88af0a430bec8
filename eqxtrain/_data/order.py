"""The order of a pass: a function of the key and the step at which the pass began."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .._keys import Stream


class Order(NamedTuple):
    """The order of the examples of one pass.

    It depends on nothing else: not on the process, and not on how training got to `step`. So a
    second `fit` sees a new order, and a resumed one the order that it would have seen.

    **Arguments:**

    - `key`: the words of the learner's key.
    - `step`: the learner's step at which the pass began.
    """

    key: tuple[int, ...]
    step: int

    def permutation(self, length: int) -> Int[np.ndarray, "length"]:
        """A permutation of `range(length)`."""
        entropy = [int(Stream.ORDER), *map(int, self.key), int(self.step)]
        return np.random.default_rng(np.random.SeedSequence(entropy)).permutation(length)
