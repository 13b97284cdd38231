"""Sources: every kind yields the same files, damage is one line, nothing is run."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from seedjax.data.sources import (
    USER_SUPPLIED,
    ArchiveSource,
    DirectorySource,
    JsonLinesSource,
    ParquetSource,
    open_source,
)
from seedjax.errors import InputError

CODE = "def f(x):\n    return x\n"
METADATA = "Metadata-Version: 2.4\nName: Thing\nVersion: 1.2\nLicense-Expression: MIT\n"


def write_wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/b.py", CODE * 2)
        archive.writestr("thing/a.py", CODE)
        archive.writestr("thing-1.2.dist-info/METADATA", METADATA + "\nLicense: GPL\n")
    return path


def write_sdist(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in [("thing/a.py", CODE), ("PKG-INFO", METADATA)]:
            member = tarfile.TarInfo(f"thing-1.2/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_wheels_are_read_in_order_with_their_metadata(tmp_path):
    source = ArchiveSource(write_wheel(tmp_path / "thing-1.2-py3-none-any.whl"))
    files = {file.path: (file, file.read()) for file in source.files()}
    assert list(files) == ["thing-1.2.dist-info/METADATA", "thing/a.py", "thing/b.py"]
    file, data = files["thing/a.py"]
    assert (file.package, file.version, file.licence) == ("Thing", "1.2", "MIT")
    assert data.decode() == CODE


def test_sdists_are_read_without_their_top_folder(tmp_path):
    source = ArchiveSource(write_sdist(tmp_path / "thing-1.2.tar.gz"))
    files = {file.path: (file.version, file.licence) for file in source.files()}
    assert files == {"thing/a.py": ("1.2", "MIT"), "PKG-INFO": ("1.2", "MIT")}
    assert [f.read() for f in source.files() if f.path == "thing/a.py"] == [
        CODE.encode()
    ]


@pytest.mark.parametrize("name", ["broken.whl", "broken.tar.gz"])
def test_broken_archives_are_input_errors(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(InputError, match="broken"):
        list(ArchiveSource(tmp_path / name).files())


def test_a_damaged_member_is_an_input_error(tmp_path):
    path = write_wheel(tmp_path / "thing.whl")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"return x", b"return y", 1))  # the checksum is off
    with pytest.raises(InputError, match=r"thing\.whl"):
        [file.read() for file in ArchiveSource(path).files()]


def test_folders_are_read_whole_and_without_links(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text(CODE)
    (tmp_path / "b.py").write_text(CODE)
    (tmp_path / "c.py").symlink_to(tmp_path / "b.py")
    (source,) = open_source(tmp_path)
    files = list(source.files())
    assert [file.path for file in files] == ["b.py", "deep/a.py"]
    assert {file.licence for file in files} == {USER_SUPPLIED}
    assert files[1].read().decode() == CODE


def test_a_folders_identity_follows_its_content(tmp_path):
    (tmp_path / "a.py").write_text(CODE)
    before = DirectorySource(tmp_path).identity()
    assert before == DirectorySource(tmp_path).identity()
    (tmp_path / "a.py").write_text(CODE + "#")
    assert before != DirectorySource(tmp_path).identity()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_git_checkout_gives_tracked_files_only(tmp_path):
    for name in ("tracked.py", "untracked.py", "größe.py"):
        (tmp_path / name).write_text(CODE)
    for command in (["init", "-q"], ["add", "tracked.py", "größe.py"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "deleted.py").write_text(CODE)
    subprocess.run(["git", "-C", str(tmp_path), "add", "deleted.py"], check=True)
    (tmp_path / "deleted.py").unlink()
    (source,) = open_source(tmp_path)
    assert [file.path for file in source.files()] == ["größe.py", "tracked.py"]


def test_a_folder_of_wheels_is_one_source_each(tmp_path):
    write_wheel(tmp_path / "b-1-py3-none-any.whl")
    write_wheel(tmp_path / "a-1-py3-none-any.whl")
    assert [s.name for s in open_source(tmp_path)] == [
        "a-1-py3-none-any.whl",
        "b-1-py3-none-any.whl",
    ]


RECORDS = [
    {"text": CODE, "path": "x/a.py", "package": "thing", "license": "MIT"},
    {"content": CODE * 2, "version": "3"},
    {"text": CODE + "\ud800"},
]


@pytest.mark.parametrize("name", ["code.jsonl", "code.jsonl.gz"])
def test_json_lines(tmp_path, name):
    path = tmp_path / name
    text = "\n".join(map(json.dumps, RECORDS)) + "\n\n"
    path.write_bytes(gzip.compress(text.encode()) if "gz" in name else text.encode())
    (source,) = open_source(path)
    first, second, third = source.files()
    assert first[:4] == ("x/a.py", "thing", "", "MIT")
    assert second[:4] == ("00000002.py", name, "3", USER_SUPPLIED)
    assert second.read().decode() == CODE * 2
    with pytest.raises(UnicodeDecodeError):  # which the filter counts as not UTF-8
        third.read().decode()


def test_the_text_field_can_be_named(tmp_path):
    path = tmp_path / "code.jsonl"
    path.write_text(json.dumps({"text": "no", "body": CODE}) + "\n")
    (source,) = open_source(path, field="body")
    assert [file.read().decode() for file in source.files()] == [CODE]
    (source,) = open_source(path, field="missing")
    with pytest.raises(InputError, match="no text in missing; its fields are text"):
        list(source.files())


@pytest.mark.parametrize("line", ["{broken", "[1]", '"text"', '{"text": 3}', "\udcff"])
def test_broken_json_lines_are_input_errors(tmp_path, line):
    path = tmp_path / "code.jsonl"
    path.write_text(line + "\n", errors="surrogateescape")
    with pytest.raises(InputError, match=r"code\.jsonl"):
        list(JsonLinesSource(path).files())


def test_evaluation_sets_are_refused_as_sources(tmp_path):
    path = tmp_path / "code.jsonl"
    item = {"task_id": "HumanEval/0", "prompt": CODE, "text": CODE}
    path.write_text(json.dumps({"text": CODE}) + "\n" + json.dumps(item) + "\n")
    with pytest.raises(InputError, match="record 2 .* HumanEval.* not be trained on"):
        list(JsonLinesSource(path).files())


def test_of_mbpp_only_the_training_part_is_let_through(tmp_path):
    path = tmp_path / "mbpp.jsonl"
    items = [
        {"task_id": number, "text": "", "code": CODE, "test_list": []}
        for number in (600, 601, 974)
    ]
    path.write_text("\n".join(map(json.dumps, items)))
    files = list(JsonLinesSource(path, "code").files())
    assert [file.is_evaluation for file in files] == [True, False, False]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "code.parquet"
    parquet.write_table(
        pyarrow.table({"content": [CODE] * 600, "path": ["a.py"] * 600}), path
    )
    (source,) = open_source(path)
    files = list(source.files())
    assert len(files) == 600 and files[599].read().decode() == CODE
    path.write_bytes(b"PAR1 broken")
    with pytest.raises(InputError, match=r"code\.parquet"):
        list(ParquetSource(path).files())


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"seedjax\[parquet\]"):
        list(ParquetSource(tmp_path / "code.parquet").files())


def test_unknown_sources_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no source at"):
        open_source(tmp_path / "missing")
    (tmp_path / "code.docx").write_text(CODE)
    with pytest.raises(InputError, match="no source of a known kind"):
        open_source(tmp_path / "code.docx")


def test_names_that_are_not_text_are_read_and_can_be_written(tmp_path):
    folder = tmp_path / os.fsdecode(b"d\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.py")).write_text(CODE)
    source = DirectorySource(folder)
    (file,) = source.files()
    assert (file.package, file.path) == ("d\\udce9", "caf\\udce9.py")
    assert file.read() == CODE.encode() and len(source.identity()) == 64
