"""Compiled programs kept whole beside JAX's persistent cache, so that a process that
runs what an earlier one ran neither traces nor lowers: most of a warm start.

JAX's cache is looked up by the lowered program; this one by everything that the lowered
program depends on (`program_key`): another source, version, setting, processor, recipe
or shape is another key. What cannot be described like that is not kept: strategies from
outside the package, meshes, other devices than a CPU.

The files are machine code, as those of JAX's cache are: the directory is the user's own
and is trusted.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pickle
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib
import ml_dtypes
import numpy as np
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.sharding import get_abstract_mesh

from seedjax.errors import InputError
from seedjax.files.locks import lock_beside, locked

PACKAGE = Path(__file__).parents[1]
DIGEST_BYTES = hashlib.sha256().digest_size


def load_or_compile(key: str | None, compile: Callable[[], Any]) -> Any:
    """A compiled program from its file, or compiled now and kept.

    Args:
      key: from `program_key`; None keeps nothing.
      compile: gives a `jax.stages.Compiled`.
    """
    directory = _directory()
    if key is None or directory is None:
        return compile()
    path = directory / f"{key}.program"
    program = _read(path)
    if program is None:
        # A program that came out of JAX's cache lacks some of its functions when it is
        # written again, and its reader finds out when it runs it.
        with _compiling_anew():
            program = compile()
        _write(path, program)
    return program


@contextlib.contextmanager
def _compiling_anew() -> Iterator[None]:
    """JAX's persistent cache is neither read nor written."""
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # JAX decides once whether it uses its cache
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        reset_cache()


def program_key(
    function: Callable, donate: str | None, recipes: tuple, arguments: Any
) -> str | None:
    """A name for a program that no other program has, or None if there is none.

    Args:
      function: of a module of this package.
      donate: the argument whose memory the result takes.
      recipes: frozen dataclasses, static arguments of the function.
      arguments: trees of arrays.
    """
    leaves, tree = jax.tree.flatten(arguments)
    ours = function.__module__.partition(".")[0] == "seedjax"
    if not (ours and all(map(_is_ours, recipes)) and _is_plain(leaves)):
        return None
    described = (
        _surroundings(),
        {name: str(getattr(jax.config, name, None)) for name in jax.config.values},
        (function.__module__, function.__qualname__, donate),
        recipes,
        str(tree),
        [(leaf.shape, str(leaf.dtype), leaf.aval.weak_type) for leaf in leaves],
    )
    return hashlib.sha256(repr(described).encode()).hexdigest()


@functools.cache
def _surroundings() -> tuple:
    """Sources, versions, processor and flags."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    modules = (jax, jaxlib, np, ml_dtypes)
    flags = [(k, v) for k, v in os.environ.items() if k.startswith(("XLA_", "TF_"))]
    return (
        digest.hexdigest(),
        [(module.__name__, module.__version__) for module in modules],
        (sys.version, platform.platform(), _processor(), jax.device_count()),
        sorted(flags),
    )


def _processor() -> str:
    """The processor's name and features, on which machine code depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return str(sorted({line for line in lines if line[:5] in ("flags", "model")}))


def _is_ours(recipe: Any) -> bool:
    """Whether a recipe is made of this package's dataclasses and plain values, which
    their text describes whole."""
    if dataclasses.is_dataclass(recipe):
        fields = [getattr(recipe, f.name) for f in dataclasses.fields(recipe)]
        ours = type(recipe).__module__.partition(".")[0] == "seedjax"
        return ours and all(map(_is_ours, fields))
    if isinstance(recipe, tuple):
        return all(map(_is_ours, recipe))
    return recipe is None or type(recipe) in (bool, int, float, str)


def _is_plain(leaves: list[Any]) -> bool:
    """Whether all arrays lie on the one default CPU device of a single process."""
    device = jax.devices()[0]
    if device.platform != "cpu" or jax.process_count() > 1:
        return False
    return get_abstract_mesh().empty and all(
        isinstance(leaf, jax.Array) and leaf.devices() == {device} for leaf in leaves
    )


def _directory() -> Path | None:
    """Beside JAX's entries; None where JAX keeps no cache on a disk."""
    settings = jax.config.values
    directory = settings["jax_compilation_cache_dir"]
    if not settings["jax_enable_compilation_cache"] or not directory:
        return None
    return None if "://" in directory else Path(directory).parent / "programs"


def _read(path: Path) -> Any:
    """The program in a file; None if there is none, or the file is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, pickled = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(pickled).digest() != digest:
        return None
    # For one device, however many there are.
    payload, in_tree, out_tree = pickle.loads(pickled)
    return serialize_executable.deserialize_and_load(
        payload, in_tree, out_tree, execution_devices=jax.devices()[:1]
    )


def _write(path: Path, program: Any) -> None:
    """Keeps a program; a full or unwritable disk keeps nothing."""
    pickled = pickle.dumps(serialize_executable.serialize(program))
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_beside(path), path):
            unfinished.write_bytes(hashlib.sha256(pickled).digest() + pickled)
            os.replace(unfinished, path)
    except InputError:
        return  # another process writes the same program
    except OSError:
        unfinished.unlink(missing_ok=True)
