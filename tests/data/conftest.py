"""A small corpus of standard-library modules, built once, and its tokenizer."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from seedjax.data.build import BuildConfig, build_corpus
from seedjax.data.decontaminate import Contamination, shipped_contamination
from seedjax.data.sources import DirectorySource
from seedjax.text.loading import load_tokenizer
from seedjax.text.tokenizer import Tokenizer

STDLIB = Path(sysconfig.get_path("stdlib"))
FOLDERS = ("json", "email", "asyncio", "html", "logging")
CONFIG = BuildConfig(vocab_size=600, heldout_fraction=0.1, shard_bytes=200_000)


@pytest.fixture(scope="session")
def source_folders(tmp_path_factory) -> list[Path]:
    """Folders of Python files, copied so that nothing changes under the tests."""
    root = tmp_path_factory.mktemp("sources")
    for name in FOLDERS:
        shutil.copytree(
            STDLIB / name, root / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return [root / name for name in FOLDERS]


@pytest.fixture(scope="session")
def contamination() -> Contamination:
    return shipped_contamination()


@pytest.fixture(scope="session")
def corpus(source_folders, contamination, tmp_path_factory) -> Path:
    """A corpus with several shards; not to be changed."""
    directory = tmp_path_factory.mktemp("corpus")
    sources = [DirectorySource(folder) for folder in source_folders]
    build_corpus(sources, directory, CONFIG, contamination=contamination)
    return directory


@pytest.fixture(scope="session")
def small_corpus(source_folders, contamination, tmp_path_factory) -> Path:
    """A corpus of which an epoch is soon over; not to be changed."""
    directory = tmp_path_factory.mktemp("small")
    sources = [DirectorySource(folder) for folder in source_folders[:1]]
    build_corpus(sources, directory, CONFIG, contamination=contamination)
    return directory


@pytest.fixture(scope="session")
def tokenizer(corpus) -> Tokenizer:
    return load_tokenizer(corpus / "tokenizer")
