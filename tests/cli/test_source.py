"""Diffs that the real tools apply, and texts that keep their form."""

import os
import shutil
import subprocess

import pytest

from seedjax.cli.source import Source, how_to_apply, name_in_diff, unified_diff

FORMS = {
    "lf": "x = 1\ny = 2\n",
    "crlf": "x = 1\r\ny = 2\r\nz = 3\r\n",
    "no newline at the end": "x = 1\ny = 2",
    "crlf, none at the end": "x = 1\r\ny = 2",
    "mark": "\ufeffx = 1\ny = 2\n",
    "mark and crlf": "\ufeffx = 1\r\ny = 2\r\n",
    "mixed": "x = 1\r\ny = 2\nz\r\nx = 1\n",
    "other breaks": "x = '\u2028\x0c\x85'\nx = 1\n",
}
NAMES = [
    *("area.py", "sub/area.py", "a b.py", "sub dir/naïve file.py", "日本.py"),
    *("tab\tx.py", 'quo"te.py', "back\\slash.py", "new\nline.py", "-dash.py", "a.py "),
    os.fsdecode(b"caf\xe9.py"),
]
TOOLS = ["git apply", "patch -p1", "patch -p0"]


def apply(tool, diff, folder):
    """Applies a diff in a folder that no repository is around."""
    if shutil.which(tool.split()[0]) is None:
        pytest.skip(f"needs {tool.split()[0]}")
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    raw = diff.encode("utf-8", "surrogateescape")
    return subprocess.run(
        tool.split(), cwd=folder, input=raw, capture_output=True, env=environment
    ).returncode


@pytest.mark.parametrize("tool", TOOLS)
def test_edits_apply_to_texts_of_any_form(tool, tmp_path):
    for number, form in enumerate(FORMS.values()):
        folder = tmp_path / str(number) / "work"
        (folder / "sub").mkdir(parents=True)
        source, file = Source(form), folder / "sub" / "area.py"
        file.write_bytes(form.encode())
        (folder / "area.py").write_bytes(form.encode())
        after = source.rewritten(source.text.replace("x = 1", "radius = 1\nr = 2"))
        diff = unified_diff(form, after, name_in_diff(file, folder))
        assert apply(tool, diff, folder) == 0
        assert file.read_bytes() == after.encode()
        # The edit and nothing else, and not in another file of that name.
        added = [line for line in diff.splitlines() if line.startswith("+")]
        assert len(added) == 1 + 2 * form.count("x = 1")
        assert (folder / "area.py").read_bytes() == form.encode()


@pytest.mark.parametrize("tool", TOOLS)
def test_files_of_any_name_are_found(tool, tmp_path):
    for number, name in enumerate(NAMES):
        folder = tmp_path / str(number) / "work"
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_text("x = 1\n")
        # However the file was named: from elsewhere, or as an absolute path.
        for way in (file, folder / ".." / "work" / name):
            assert name_in_diff(way, folder) == name
        diff = unified_diff("x = 1\n", "x = 2\n", name)
        assert apply(tool, diff, folder) == 0, name
        assert file.read_text() == "x = 2\n"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_repository_and_a_folder_in_it(tool, tmp_path):
    folder = tmp_path / "repository" / "sub"
    folder.mkdir(parents=True)
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q", folder.parent], check=True)
    for place in (folder, folder.parent):
        (place / "area.py").write_text("x = 1\n")
    name = name_in_diff(folder / "area.py", folder)
    assert apply(tool, unified_diff("x = 1\n", "x = 2\n", name), folder) == 0
    assert (folder / "area.py").read_text() == "x = 2\n"
    name = name_in_diff(folder / "area.py", folder.parent)
    assert apply(tool, unified_diff("x = 2\n", "x = 3\n", name), folder.parent) == 0
    assert (folder / "area.py").read_text() == "x = 3\n"
    assert (folder.parent / "area.py").read_text() == "x = 1\n"


def test_a_file_outside_is_never_another_one(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "area.py").write_text("x = 1\n")
    name = name_in_diff(folder / ".." / "area.py", folder)
    diff = unified_diff("x = 1\n", "x = 2\n", name)
    # Both tools refuse to leave the folder, unless they are told to.
    for tool in TOOLS:
        assert apply(tool, diff, folder) != 0
    assert "`patch ../area.py`" in how_to_apply(name)
    assert apply(f"patch {name}", diff, folder) == 0
    assert (tmp_path / "area.py").read_text() == "x = 2\n"
    assert (folder / "area.py").read_text() == "x = 1\n"
    assert apply("git apply --unsafe-paths -R", diff, folder) == 0
    assert (tmp_path / "area.py").read_text() == "x = 1\n"


def test_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "area.py").write_text("x = 1\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "area.py").symlink_to(tmp_path / "real" / "area.py")
    assert name_in_diff(tmp_path / "link" / "area.py", tmp_path) == "real/area.py"
    assert name_in_diff(tmp_path / "area.py", tmp_path) == "real/area.py"
    assert name_in_diff(tmp_path / "real/area.py", tmp_path / "link") == "area.py"


def test_what_is_left_of_a_text_that_was_emptied(tmp_path):
    (tmp_path / "area.py").write_text("x = 1\n")
    assert Source("\ufeffx = 1\r\n").rewritten("") == ""
    assert apply("git apply", unified_diff("x = 1\n", "", "area.py"), tmp_path) == 0
    assert (tmp_path / "area.py").read_text() == ""


def test_how_a_diff_reads():
    head = "--- ./a.py\n+++ ./a.py\n"
    missing = "\\ No newline at end of file\n"
    assert unified_diff("x\n", "x\n", "a.py") == ""
    assert unified_diff("x\n", "y\n", "a.py") == head + "@@ -1 +1 @@\n-x\n+y\n"
    assert unified_diff("x", "y\n", "a.py") == (
        head + "@@ -1 +1 @@\n-x\n" + missing + "+y\n"
    )
    # Other line breaks of Unicode are characters of their line.
    assert unified_diff("a\fb\n", "a\fc", "a.py") == (
        head + "@@ -1 +1 @@\n-a\fb\n+a\fc\n" + missing
    )
    assert how_to_apply("a.py") is None and "patch -p1" in how_to_apply("sub/a.py")


def test_a_text_keeps_its_form():
    source = Source("\ufeffa\r\nb\nc\r\nd")
    assert source.text == "a\nb\nc\nd" and source.line_end == "\r\n"
    assert source.rewritten("a\nb\nc\nd") == source.whole
    # Ends go with their lines, new lines get that of most, the last one stays as it is.
    assert source.rewritten("a\nnew\nB\nc\nd\n") == "\ufeffa\r\nnew\nB\r\nc\r\nd"
    assert source.rewritten("b\nd") == "\ufeffb\nd"
    assert Source("a\n").rewritten("b") == "b\n" and Source("").rewritten("b") == "b"
    assert Source("a\n").rewritten("b\n\n") == "b\n\n"
    # A carriage return alone is a character of its line.
    assert Source("a\r\r\nb\r\n").text == "a\r\nb\n"
    assert Source("a\r\r\nb\r\n").rewritten("a\r\nc\n") == "a\r\r\nc\r\n"
    for form in FORMS.values():
        assert Source(form).rewritten(Source(form).text) == form
