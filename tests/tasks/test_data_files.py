"""The folder with the problems: found, checked, filled."""

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.tasks.data import checksum, data_folder, fetch, is_found, read_problems
from seedjax.tasks.suites import SUITES

PATH = "humaneval/HumanEval.jsonl.gz"
ROW = {
    "task_id": "HumanEval/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
TEXT = (json.dumps(ROW) + "\n").encode()


def suite_of(text=TEXT, url="", **changes):
    source = dataclasses.replace(
        SUITES["humaneval"].source,
        files={PATH: hashlib.sha256(text).hexdigest()},
        urls={PATH: url} if url else {},
    )
    changes = {"num_problems": 1} | changes
    return dataclasses.replace(SUITES["humaneval"], source=source, **changes)


def put(folder: Path, text=TEXT):
    file = folder / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(text))
    return file


def test_which_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SEEDJAX_EVAL_DATA", raising=False)
    assert data_folder(None) == tmp_path / "cache/seedjax/evals"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder(None) == tmp_path / ".cache/seedjax/evals"
    monkeypatch.setenv("SEEDJAX_EVAL_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    (tmp_path / "given").mkdir()
    assert data_folder(tmp_path / "given") == tmp_path / "given"
    with pytest.raises(InputError, match="there is no folder .*absent"):
        data_folder(tmp_path / "absent")


def test_problems_are_read_however_they_are_compressed(tmp_path):
    suite = suite_of()
    file = put(tmp_path)
    assert is_found(suite, tmp_path)
    (problem,) = read_problems(suite, tmp_path)
    assert problem.problem_id == "HumanEval/0" and problem.reference == "    return 1\n"
    file.write_bytes(gzip.compress(TEXT, compresslevel=0))
    assert read_problems(suite, tmp_path) == [problem]


def test_missing_data_say_what_to_do(tmp_path):
    with pytest.raises(InputError) as fault:
        read_problems(SUITES["humaneval"], tmp_path)
    line = str(fault.value)
    assert "\n" not in line and str(tmp_path / PATH) in line
    assert "https://github.com/openai/human-eval" in line
    assert "seedjax eval fetch humaneval" in line
    with pytest.raises(InputError) as fault:
        read_problems(SUITES["canitedit_lazy"], tmp_path)
    assert "eval fetch" not in str(fault.value)


def test_changed_data_are_refused(tmp_path):
    put(tmp_path, TEXT + b"\n")
    with pytest.raises(InputError, match="has changed: .* SHA-256 .* is expected"):
        read_problems(suite_of(), tmp_path)
    (tmp_path / PATH).write_bytes(b"not compressed")
    with pytest.raises(InputError, match="HumanEval.jsonl.gz cannot be read"):
        read_problems(suite_of(), tmp_path)
    (tmp_path / PATH).write_bytes(gzip.compress(TEXT)[:-9])
    with pytest.raises(InputError, match="HumanEval.jsonl.gz cannot be read"):
        read_problems(suite_of(), tmp_path)


def test_too_few_problems_are_refused(tmp_path):
    put(tmp_path)
    with pytest.raises(InputError, match="gives 1 problems, humaneval has 2"):
        read_problems(suite_of(num_problems=2), tmp_path)


def test_fetching(tmp_path):
    upstream = tmp_path / "upstream.jsonl"
    upstream.write_bytes(TEXT)
    suite, folder = suite_of(url=upstream.as_uri()), tmp_path / "data"
    counts: list[int] = []
    fetch(suite, folder, counts.append)
    assert sum(counts) == len(TEXT)
    assert gzip.decompress((folder / PATH).read_bytes()) == TEXT
    assert checksum(folder / PATH) == checksum(upstream)
    fetch(suite, folder, counts.append)  # nothing is missing
    assert sum(counts) == len(TEXT)
    upstream.write_bytes(TEXT * 2)
    (folder / PATH).unlink()
    with pytest.raises(InputError, match="nothing was kept"):
        fetch(suite, folder)
    assert not list((folder / PATH).parent.iterdir())
    upstream.unlink()
    with pytest.raises(InputError, match="cannot be fetched to"):
        fetch(suite, folder)
    with pytest.raises(InputError, match="cannot be downloaded by itself"):
        fetch(suite_of(), folder)
