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

VERSION_SECONDS = 180.0  # a virtual machine that starts first on a busy machine
JVM_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
JVM_COMPILER_FLAGS = tuple(f"-J{flag}" for flag in JVM_FLAGS)


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


NODE: dict[str, Any] = {
    "run": ("node", "--max-old-space-size={megabytes}", "{stem}.js"),
    "memory_limit": "DATA",
    "spare_bytes": 512 << 20,
    "settings": ("/etc/ssl/openssl.cnf",),  # not to be let read it ends Node
}
JAVA: dict[str, Any] = {
    "memory_limit": "DATA",
    "spare_bytes": 768 << 20,
    "settings": ("/etc/java*",),
}

RUNTIMES: dict[str, Runtime] = {
    "python": Runtime(
        title="Python",
        file_name="main.py",
        run=(sys.executable, "{source}"),
        version=(sys.executable, "--version"),
        install="it runs this package",
        processes=8,
    ),
    "javascript": Runtime(
        title="JavaScript",
        file_name="main.js",
        version=("node", "--version"),
        install="apt-get install nodejs",
        **NODE,
    ),
    "typescript": Runtime(
        title="TypeScript",
        file_name="main.ts",
        compile=("tsc", "{source}", "--target", "es5", "--lib", "es2016"),
        emits="{stem}.js",
        version=("tsc", "--version"),
        install="npm install --global typescript@5.4.5",
        **NODE,
    ),
    "java": Runtime(
        title="Java",
        file_name="main.java",
        compile=("javac", *JVM_COMPILER_FLAGS, "-encoding", "UTF-8", "{source}"),
        run=("java", "-Xmx{megabytes}m", *JVM_FLAGS, "-cp", ".", "Main"),
        version=("javac", "-version"),
        install="apt-get install default-jdk-headless",
        **JAVA,
    ),
    "go": Runtime(
        title="Go",
        file_name="main.go",
        compile=("go", "build", "-o", "program", "{source}"),
        run=("./program",),
        version=("go", "version"),
        install="apt-get install golang-go",
        memory_limit="DATA",
        spare_bytes=256 << 20,
        variables={
            "GOCACHE": "{folder}/.cache",
            "GOPATH": "{folder}/.go",
            # Go reads no go.mod in the folder for temporary files itself.
            "TMPDIR": "{folder}/.tmp",
            "GOTMPDIR": "{folder}",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
            "CGO_ENABLED": "0",
        },
    ),
    "cpp": Runtime(
        title="C++",
        file_name="main.cpp",
        compile=("g++", "{source}", "-o", "program"),
        run=("./program",),
        version=("g++", "--version"),
        install="apt-get install g++",
        header="bits/stdc++.h",  # takes longer than all the rest of a program
    ),
    "csharp": Runtime(
        title="C#",
        file_name="main.cs",
        compile=("mcs", "-recurse:*.cs", "-out:program.exe"),
        run=("mono", "program.exe"),
        version=("mcs", "--version"),
        install="apt-get install mono-mcs mono-devel",
        memory_limit="DATA",
        spare_bytes=256 << 20,
        settings=("/etc/mono",),
    ),
    "php": Runtime(
        title="PHP",
        file_name="main.php",
        run=("php", "{source}"),
        version=("php", "--version"),
        install="apt-get install php-cli",
        settings=("/etc/php",),
    ),
    "ruby": Runtime(
        title="Ruby",
        file_name="main.rb",
        run=("ruby", "-rset", "{source}"),  # sets need no import from 3.2 on
        version=("ruby", "--version"),
        install="apt-get install ruby",
    ),
    "perl": Runtime(
        title="Perl",
        file_name="main.pl",
        run=("perl", "-I.", "{source}"),
        version=("perl", "-e", "print $^V"),
        install="apt-get install perl",
        settings=("/etc/perl",),
    ),
    "kotlin": Runtime(
        title="Kotlin",
        file_name="main.kt",
        compile=(
            "kotlinc",
            *JVM_COMPILER_FLAGS,
            "-jvm-target",
            "1.8",  # the default of all but old ones
            "{source}",
            "-include-runtime",
            "-d",
            "program.jar",
        ),
        run=("java", "-Xmx{megabytes}m", *JVM_FLAGS, "-jar", "program.jar"),
        version=("kotlinc", "-version"),
        install="apt-get install kotlin",
        **JAVA,
    ),
    "scala": Runtime(
        title="Scala",
        file_name="main.scala",
        compile=("scalac", "-d", ".", "{source}"),
        run=("scala", "-J-Xmx{megabytes}m", "-cp", ".", "Main"),
        version=("scalac", "-version"),
        install="apt-get install scala",
        **JAVA,
    ),
    "swift": Runtime(
        title="Swift",
        file_name="main.swift",
        compile=("swiftc", "{source}", "-o", "program"),
        run=("./program",),
        version=("swiftc", "--version"),
        install="the toolchain of swift.org",
        memory_limit="DATA",
    ),
    "rust": Runtime(
        title="Rust",
        file_name="main.rs",
        compile=("rustc", "{source}", "-o", "program"),
        run=("./program",),
        version=("rustc", "--version"),
        install="apt-get install rustc",
        root=("rustc", "--print", "sysroot"),
    ),
}


def runtime(language: str) -> Runtime:
    """Raises InputError for a language that is not in RUNTIMES."""
    if language not in RUNTIMES:
        raise InputError(
            f"no runtime of language {language!r}, there are {', '.join(RUNTIMES)}"
        )
    return RUNTIMES[language]


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
    """What the compiler or interpreter says of itself, one line. Raises InputError
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
    told = [line for line in lines if re.search(r"\d\.\d", line)]
    return told[-1] if told else "no version"


def programs_of(known: Runtime) -> list[str]:
    """What must be installed: the first words of its commands."""
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
    """What a program at `path` needs to be shown: the folder above its bin/. None where
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
