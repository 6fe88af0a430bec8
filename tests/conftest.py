"""Strict settings for every test: warnings are errors, no silent promotion, eight devices."""

import os

# Beside the flags that are there, so that the suite can be run under others as well. Compiling one
# program in many pieces at once only costs where each core has a worker.
os.environ["XLA_FLAGS"] = " ".join(
    {
        "--xla_force_host_platform_device_count=8": 0,
        "--xla_cpu_parallel_codegen_split_count=1": 0,
        **dict.fromkeys(os.environ.get("XLA_FLAGS", "").split()),
    }
)
os.environ.setdefault("KERAS_BACKEND", "jax")  # or Keras would look for TensorFlow

import hashlib
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jaxtyping
import light_checks
import numpy as np
import pytest
from hypothesis import settings

light_checks.install()

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A shell that starts `pytest &` has it ignore Ctrl-C, which the tests send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, max_examples=25)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what XLA compiles beside pytest's own cache: most of the time goes there.

    The workers, the scripts that tests start, and the next run share it; `--cache-clear` empties
    it. Programs are found by what they are, with XLA's flags and version, so none can be stale.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not hasattr(config, "cache"):
        return
    for name, value in {
        "jax_compilation_cache_dir": str(config.cache.mkdir(f"jax-{_processor()}")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)  # for scripts


def _processor() -> str:
    """A name for this kind of processor: what is compiled for one may not run on another."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    kind = "".join([platform.machine(), platform.processor(), *sorted(told)])
    return hashlib.sha256(kind.encode()).hexdigest()[:12]


_RESIDENT = 3 * 2**29
"""How many bytes a worker keeps before it forgets its programs: two of them on 4 GB do not swap."""


@pytest.fixture(scope="module", autouse=True)
def forget_what_no_other_file_needs() -> Iterator[None]:
    """Thousands of programs take gigabytes; what is needed again comes back from the disk."""
    yield
    told = Path("/proc/self/statm")  # on Linux
    pages = int(told.read_text().split()[1]) if told.exists() else 0
    if pages and pages * os.sysconf("SC_PAGE_SIZE") > _RESIDENT:
        import eqxtrain as et  # not above: it must come after jaxtyping's import hook

        et.clear_caches()


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
