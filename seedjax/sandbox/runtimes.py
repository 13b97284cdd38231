"""The compilers and interpreters that programs are run with: how each is called, found,
limited and installed. None of them is needed by the package itself."""

import functools
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import platformdirs

from seedjax.errors import InputError
from seedjax.files.package import package_table

VERSION_SECONDS = 180.0  # a virtual machine that starts first on a busy machine


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One language. In a command, {source} is the file, {stem} its name without the
    suffix, {megabytes} the limit on memory."""

    title: str
    file_name: str  # of the program
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    emits: str = ""  # where this file is there, the compiler's exit status is no matter
    version: tuple[str, ...]  # a command that prints it
    install: str  # an example
    # AS is the address space, which virtual machines and garbage collectors reserve far
    # more of than they use; DATA counts what may be written.
    memory_limit: Literal["AS", "DATA"] = "AS"
    spare_bytes: int = 0  # what the virtual machine needs besides the program's heap
    processes: int = 64  # and threads, at a time
    variables: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()  # patterns of the folders that configure it
    root: tuple[str, ...] = ()  # a command that prints the folder above its bin/
    header: str = ""  # compiled once, ahead of the programs that include it first


@functools.cache
def runtimes() -> dict[str, Runtime]:
    """Every language that `runtimes.toml` describes."""
    tables = package_table("seedjax.sandbox", "runtimes.toml")
    return {name: _runtime_of(table) for name, table in tables.items()}


def _runtime_of(table: dict[str, Any]) -> Runtime:
    """The runtime of a table: its lists are tuples, `{python}` is this interpreter."""
    fields: dict[str, Any] = {
        name: tuple(sys.executable if word == "{python}" else word for word in value)
        if isinstance(value, list)
        else value
        for name, value in table.items()
    }
    return Runtime(**fields)


def runtime(language: str) -> Runtime:
    """The runtime of a language. Raises InputError for one that there is not."""
    if language not in runtimes():
        raise InputError(
            f"no runtime of language {language!r}, there are {', '.join(runtimes())}"
        )
    return runtimes()[language]


def missing(language: str) -> str | None:
    """Why programs in `language` cannot be run here, with what to install; None where
    they can. Raises InputError for an unknown language."""
    known = runtime(language)
    hint = f"to install it, for example: {known.install}"
    for program in programs_of(known):
        path = located(program, known.root)
        if path is None:
            return f"{known.title}: {program} is not on PATH; {hint}"
        if folder_of(path) is None:
            return f"{known.title}: {path} lies in a folder that programs may not see"
    try:
        version(language)
    except InputError as fault:
        return f"{fault}; {hint}"
    return None


@functools.cache
def version(language: str) -> str:
    """The version line of the compiler or interpreter. Raises InputError
    where it does not start."""
    known = runtime(language)
    try:
        done = subprocess.run(
            known.version,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=VERSION_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as fault:
        why = " ".join(str(fault).split())
        raise InputError(f"{known.title}: it does not start: {why}") from None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    # A virtual machine may warn before anything else.
    numbered = [line for line in lines if re.search(r"\d\.\d", line)]
    return numbered[-1] if numbered else "no version"


def programs_of(known: Runtime) -> list[str]:
    """Programs that must be installed: the first words of its commands."""
    words = [command[0] for command in (known.compile, known.run) if command]
    return [word for word in words if not word.startswith("./")]


@functools.cache
def located(program: str, root: tuple[str, ...] = ()) -> str | None:
    """The absolute path of a program; below what the command `root` prints, where PATH
    has a mere proxy that chooses among several."""
    path = shutil.which(program)
    if path is None or not root:
        return path and os.path.abspath(path)
    done = subprocess.run(root, capture_output=True, text=True, check=False)
    inner = os.path.join(done.stdout.strip(), "bin", program)
    return inner if os.access(inner, os.X_OK) else os.path.abspath(path)


def folder_of(path: str) -> str | None:
    """The folder that a program at `path` must see: the one above its bin/. None where
    that would show a home folder or all there is."""
    real = Path(os.path.realpath(path))
    if real.is_relative_to("/usr"):
        return "/usr"
    folder = real.parent.parent
    return None if Path.home().is_relative_to(folder) else str(folder)


def folders(language: str) -> list[str]:
    """Folders that must be shown to programs in `language`, besides the system's."""
    known = runtime(language)
    found = [path for pattern in known.settings for path in glob.glob(pattern)]
    for program in programs_of(known):
        path = located(program, known.root)
        # Of Python, the walls show what belongs to it anyway.
        if path is not None and program != sys.executable:
            folder = folder_of(path)
            found += [folder] if folder else []
    header = compiled_header(language)
    return [*found, str(header)] if header else found


def compiled_header(language: str) -> Path | None:
    """The folder that the compiler finds a compiled header in, which is made the first
    time and kept in the user's cache; None where there is none, which only costs time.
    A compiler that cannot use it reads the header itself, with the same result."""
    known = runtime(language)
    if not known.header:
        return None
    key = hashlib.sha256(version(language).encode()).hexdigest()[:16]
    folder = Path(platformdirs.user_cache_dir("seedjax")) / "headers" / key
    compiled = folder / f"{known.header}.gch"
    with _COMPILING:
        if not compiled.exists() and not _compile_header(known, compiled):
            return None
    return folder


_COMPILING = threading.Lock()


def _compile_header(known: Runtime, compiled: Path) -> bool:
    try:
        compiled.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that it comes there whole.
        with tempfile.TemporaryDirectory(dir=compiled.parent) as folder:
            header = Path(folder, "all.h")
            header.write_text(f"#include <{known.header}>\n")
            subprocess.run(
                [known.compile[0], header, "-o", f"{header}.gch"],
                capture_output=True,
                timeout=VERSION_SECONDS,
                check=True,
            )
            # A compiled header serves once for each program. Where it is included
            # again, the compiler looks for its text in the same folder.
            header.write_text(f"#include_next <{known.header}>\n")
            header.replace(compiled.with_suffix(""))
            Path(f"{header}.gch").replace(compiled)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def variables(language: str, folder: str) -> dict[str, str]:
    """Environment variables of programs in `language` that run in `folder`."""
    known = runtime(language)
    found = {k: v.format(folder=folder) for k, v in known.variables.items()}
    paths = [located(program, known.root) for program in programs_of(known)]
    places = [os.path.dirname(path) for path in paths if path]
    found["PATH"] = ":".join(dict.fromkeys([*places, "/usr/bin", "/bin"]))
    return found


def command(
    language: str, words: tuple[str, ...], source: str, memory_bytes: int
) -> list[str]:
    """The words of a command of `language`, filled in."""
    stem = source.rpartition(".")[0]
    megabytes = memory_bytes >> 20
    first, *rest = [
        word.format(source=source, stem=stem, megabytes=megabytes) for word in words
    ]
    return [located(first, runtime(language).root) or first, *rest]
