"""The settings of JAX that programs depend on, and its cache of programs on disk."""

import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

_SETTINGS = (
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_default_matmul_precision",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
    "jax_high_dynamic_range_gumbel",
    "jax_random_seed_offset",
    "jax_embedded_constants_max_bytes",
    "jax_optimization_level",
    "jax_disable_jit",
    "jax_default_prng_impl",
    "jax_default_device",
    "jax_threefry_partitionable",
)


def program_settings() -> dict[str, Any]:
    """The current values of the settings that change what is traced or compiled."""
    # Some of them are missing from older or newer versions of JAX.
    return {name: getattr(jax.config, name, None) for name in _SETTINGS}


def cache_on_disk(folder: str | os.PathLike[str] | None) -> None:
    """Keep what XLA compiles in a folder, so that the next process need not compile it again.

    This switches on JAX's persistent cache for all of its programs, however quickly they compile.
    Traces are not saved.

    **Arguments:**

    - `folder`: created if it does not exist; None switches the cache off.
    """
    if folder is not None:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"`cache_on_disk` takes a folder, or None; got {folder!r}.")
        folder = Path(folder).expanduser().resolve()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"`{folder}` is a file: `cache_on_disk` takes a folder.")
        folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # JAX reads these settings only when its cache is created
