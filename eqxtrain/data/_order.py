"""The order of a pass: a function of the key and the step at which the pass began."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int, UInt32

from .._state import Stream

Order = Callable[[int], np.ndarray]
"""Gives a permutation of that many examples."""


def order(key: UInt32[np.ndarray, "words"], step: int, length: int) -> Int[np.ndarray, "length"]:
    """A permutation of `range(length)`.

    It depends on nothing else: not on the process, and not on how training got to `step`. So a
    second `fit` sees a new order, and a resumed one the order that it would have seen.
    """
    entropy = [int(Stream.ORDER), *(int(word) for word in key), int(step)]
    return np.random.default_rng(np.random.SeedSequence(entropy)).permutation(length)
