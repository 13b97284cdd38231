"""Folders that are not the writer's, sources, what is left after an error."""

import json
import os
import re
from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.files.output import claimed, writes
from seedjax.files.ownership import MARKER
from seedjax.files.replacing import (
    check_file,
    json_lines_with,
    replaced_directory,
    replaced_file,
)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


@pytest.fixture
def project(tmp_path):
    """A user's folder, with files that a model directory has as well."""
    folder = tmp_path / "project"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "README.md").write_text("mine\n")
    (folder / "config.json").write_text('{"name": "mine"}\n')
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return folder


@pytest.mark.parametrize("writer", ["convert", "train", "data build", None])
def test_a_users_folder_is_refused_and_stays_as_it_is(project, writer):
    before = contents(project)
    with pytest.raises(InputError, match=r"holds README.md, config.json, .*--force"):
        with claimed(project, writer):
            raise AssertionError("claimed")
    assert contents(project) == before


def test_force_moves_it_aside_whole(project, tmp_path, capsys):
    before = contents(project)
    for name in ("project.old", "project.old2"):
        with claimed(project, "convert", force=True) as out:
            (out / "new").write_text("new")
        assert contents(tmp_path / "project.old") == before
        assert (tmp_path / name).is_dir() and (project / "new").exists()
        assert name in capsys.readouterr().err


def test_a_failure_before_anything_is_written_undoes_force(project, tmp_path):
    before = contents(project)
    with pytest.raises(InputError, match="no such model"):
        with claimed(project, "convert", force=True):
            raise InputError("no such model")
    assert contents(project) == before
    assert [p.name for p in tmp_path.iterdir()] == ["project"]


def test_a_failure_leaves_no_new_folder_but_what_was_written(tmp_path):
    for written in (False, True):
        with pytest.raises(KeyboardInterrupt):
            with claimed(tmp_path / "a/b/out", "train") as out:
                (out / "empty").mkdir()
                if written:
                    (out / "checkpoint").write_text("1")
                raise KeyboardInterrupt
        assert (tmp_path / "a").exists() is written
    with claimed(tmp_path / "a/b/out", "train") as out:  # its own: it goes on
        assert (out / "checkpoint").exists()


def test_own_folder_is_taken_and_that_of_another_writer_is_not(tmp_path):
    out = tmp_path / "out"
    for number in (1, 2):
        with claimed(out, "convert"):
            (out / "params").write_text(str(number))
    with pytest.raises(InputError, match="was written by `seedjax convert`"):
        with claimed(out, "posttrain average"):
            pass
    with claimed(out, "train", resume=True):
        pass
    assert json.loads((out / MARKER).read_text()) == {"writer": "convert"}


@pytest.mark.parametrize(
    ("record", "content", "writer"),
    [
        ("run.json", {"kind": "RunConfig", "optimizer": {}}, "train"),
        ("run.json", {"settings": {}, "machine": {}}, "eval"),
        ("lab/run.json", {"settings": {}, "machine": {}}, "eval"),
        ("sweep/lab/run.json", {"settings": {}, "machine": {}}, "eval"),
        (
            "config.json",
            {"format_version": 1, "denoiser": {}, "weights": {}},
            "convert",
        ),
        ("manifest.json", {"build": "", "heldout": {}}, "data build"),
        ("policies.jsonl", {"curve": "a", "setting": "b"}, "lab policies"),
    ],
)
def test_folders_of_earlier_versions_are_known_by_their_records(
    tmp_path, record, content, writer
):
    (tmp_path / record).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / record).write_text(json.dumps(content) + "\n")
    with claimed(tmp_path, writer):
        pass
    (tmp_path / record).write_text(json.dumps({"mine": 1}))
    (tmp_path / MARKER).unlink(missing_ok=True)
    with pytest.raises(InputError, match="not of seedjax"):
        with claimed(tmp_path, writer):
            pass


def spellings(folder: Path) -> list[Path]:
    link = folder.with_name("link")
    link.symlink_to(folder)
    parts = [folder / ".." / folder.name, Path(f"{folder}/"), Path(f"{folder}/.")]
    return [folder, link, *parts, Path(os.path.relpath(folder))]


@pytest.mark.parametrize("force", [False, True])
def test_a_source_is_never_the_target(tmp_path, force):
    source = tmp_path / "source"
    with claimed(source, "convert"):
        (source / "weights").write_text("w")
    before = contents(source)
    for path in spellings(source):
        for target, said in (
            (path, "is what is read"),
            (path / "within", "lies in"),
            (path.parent if path.name == "source" else path / "..", "which is read"),
        ):
            with pytest.raises(InputError, match=said):
                with claimed(target, "convert", sources=[source], force=force):
                    pass
    assert contents(source) == before
    with claimed(source / "corpus", "data build", sources=[source], may_be_inside=True):
        pass


def test_a_bundled_model_is_a_source(tmp_path):
    import seedjax

    bundled = Path(seedjax.__file__).parent / "bundled" / "mini"
    before = (bundled / "config.json").read_bytes()
    with pytest.raises(InputError, match="is what is read"):
        with claimed(bundled, "convert", sources=["mini"]):
            pass
    assert (bundled / "config.json").read_bytes() == before


def test_writers_call_writers(tmp_path):
    @writes("posttrain average", sources=("names",))
    def inner(names: list[str], out: Path) -> None:
        (out / "model").mkdir()

    with claimed(tmp_path / "out", "lab reproduce") as out:
        (out / "start").mkdir()
        (out / "start" / "x").write_text("")
        inner([str(out)], out / "start")  # inside of what is claimed
    with pytest.raises(InputError, match="is what is read"):
        inner([str(out / "start"), "mini"], out / "start")


def test_a_replaced_directory_is_there_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    with replaced_directory(out, "export") as staged:
        (staged / "weights").write_text("1")
        assert not (out / "weights").exists()
    before = contents(out)
    with pytest.raises(ZeroDivisionError):
        with replaced_directory(out, "export") as staged:
            (staged / "weights").write_text("2")
            raise ZeroDivisionError
    assert contents(out) == before and [p.name for p in tmp_path.iterdir()] == ["out"]
    with replaced_directory(out, "export") as staged:
        (staged / "weights").write_text("3")
    assert (out / "weights").read_text() == "3"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    # What the user put beside is kept.
    (out / "notes.txt").write_text("mine")
    with replaced_directory(out, "export") as staged:
        (staged / "weights").write_text("4")
    assert (tmp_path / "out.old" / "notes.txt").read_text() == "mine"
    assert (out / "weights").read_text() == "4"


def test_files(tmp_path):
    path, is_ours = tmp_path / "tasks.jsonl", json_lines_with("task_id", "tier")
    for text in ("1", "2"):
        with replaced_file(path, is_ours=is_ours) as partial:
            partial.write_text(json.dumps({"task_id": text, "tier": 1}) + "\n")
    mine = '{"task_id": "HumanEval/0"}\n'
    path.write_text(mine)
    with pytest.raises(InputError, match="name another file, or give --force"):
        with replaced_file(path, is_ours=is_ours):
            pass
    with pytest.raises(InputError, match="is what is read"):
        with replaced_file(path, sources=[tmp_path / "." / path.name], force=True):
            pass
    with pytest.raises(ZeroDivisionError):
        with replaced_file(path, force=True) as partial:
            partial.write_text("half")
            raise ZeroDivisionError
    assert path.read_text() == mine and len(list(tmp_path.iterdir())) == 1
    with replaced_file(path, force=True) as partial:
        partial.write_text("all")
    assert path.read_text() == "all"
    with replaced_file(Path("/dev/null")) as device:
        device.write_text("written through")
    for fault in (tmp_path, tmp_path / "nowhere" / "file"):
        with pytest.raises(InputError, match=re.escape(str(fault.parent))):
            check_file(fault)


def test_a_first_line_longer_than_what_is_looked_at():
    line = json.dumps({"task_id": "a", "answer": "x" * 9000, "tier": 1}).encode()
    assert json_lines_with("task_id", "answer")(line[:4096])
    assert not json_lines_with("task_id", "passed")(line[:4096])
