"""Strict settings for every test: warnings are errors, no silent promotion, eight devices."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

from collections.abc import Callable, Iterator

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("default", deadline=None, max_examples=25)
settings.load_profile("default")


@pytest.fixture
def getkey(request: pytest.FixtureRequest) -> Callable[[], jax.Array]:
    """A function that gives another random key on each call, the same ones on every run."""
    seed = sum(map(ord, request.node.name))
    keys = iter(jax.random.split(jax.random.key(seed), 64))
    return lambda: next(keys)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """NumPy's generator, seeded by the name of the test."""
    return np.random.default_rng(sum(map(ord, request.node.name)))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without run-time type checks, so that what people see is our sentence."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
