"""Where compiled programs are kept between processes: JAX's persistent cache, in the
user's cache directory unless the user has set another.

The command line and `seedjax.load` turn it on by the same function. JAX's own settings
go before: with `JAX_COMPILATION_CACHE_DIR` (or `jax_compilation_cache_dir`) that
directory is taken, and with `JAX_ENABLE_COMPILATION_CACHE=false` there is no cache.
"""

import os
import warnings
from pathlib import Path

KEEP_ALL = {
    # Start-up is small programs, too.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def compile_cache_directory() -> Path:
    """Where compiled programs are kept: the user's cache directory."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("seedjax")) / "jax"


def use_compile_cache() -> None:
    """Turns JAX's persistent cache on, unless it has a directory already or was turned
    off. A directory that cannot be written is a warning of one line."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings = jax.config.values
    if (
        settings["jax_compilation_cache_dir"] is not None
        or not settings["jax_enable_compilation_cache"]
    ):
        return
    directory = compile_cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(f"{directory} cannot be written")
    except OSError as error:
        warnings.warn(f"no compilation cache: {error}", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    for name, value in KEEP_ALL.items():
        jax.config.update(name, value)
    # Something may have been compiled before, and JAX remembers that there was none.
    compilation_cache.reset_cache()


def refuse_compile_cache() -> None:
    """Turns JAX's persistent cache off for this process."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
