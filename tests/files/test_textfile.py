"""Text in files: how it is decoded, what is wrong with it, and that no other code opens
text."""

import ast
import gzip
import json
import os
from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.files import text as textfile

PACKAGE = Path(textfile.__file__).parents[1]
SEPARATORS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"


def write(path, raw):
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("start", [b"", textfile.BYTE_ORDER_MARK])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_json_lines_end_in_line_feeds_only(tmp_path, start, end):
    line = json.dumps({"text": SEPARATORS}, ensure_ascii=False).encode()
    path = write(tmp_path / "a.jsonl", start + line + end + end + line)
    found = list(textfile.read_json_lines(path))
    assert [x.values for x in found] == [{"text": SEPARATORS}] * 2
    assert [(x.number, x.where) for x in found] == [(1, f"{path}:1"), (3, f"{path}:3")]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [x.values for x in textfile.read_json_lines(packed)] == [
        {"text": SEPARATORS}
    ] * 2


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a": 1}\n{"a": "caf\xe9"}', ":2: byte 10 of the line is 0xe9"),
        (b'{"a": 1}\n{"a": }', ":2: not JSON (Expecting value, column 7)"),
        (b'{"a": 1}\n\n[1, 2]', ":3: it must be a JSON object, got [1, 2]"),
        ('{"a": 1}'.encode("utf-16"), " is UTF-16"),
        (b"[" * 100_000, ":1: not JSON (nested more than 100 deep)"),
        (b'{"a": ' + b"9" * 5000 + b"}", ":1: not JSON (Exceeds the limit"),
        (rb'{"a": ["\ud800"]}', ":1: '\\ud800' holds half of a surrogate pair"),
    ],
)
def test_a_fault_in_json_lines_names_file_and_line(tmp_path, raw, message):
    path = write(tmp_path / "a.jsonl", raw)
    with pytest.raises(InputError) as error:
        list(textfile.read_json_lines(path))
    assert f"{path}{message}" in str(error.value)


def test_a_last_line_that_was_cut_off_can_be_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": \xe2')
    lines = list(textfile.read_json_lines(path, unfinished=True))
    assert [line.values for line in lines] == [{"a": 1}]


def test_text_loses_its_byte_order_mark_and_nothing_else(tmp_path):
    raw = textfile.BYTE_ORDER_MARK + b"a\r\nb\x0c\xef\xbb\xbf"
    path = write(tmp_path / "a", raw)
    assert textfile.read_text(path) == "a\r\nb\x0c\ufeff"
    write(path, b"one\ntw\xff")
    with pytest.raises(InputError, match=r"a:2: byte 2 of the line is 0xff"):
        textfile.read_text(path)
    with pytest.raises(InputError, match=r"no file .*nowhere'; look elsewhere"):
        textfile.read_text(tmp_path / "nowhere", hint="look elsewhere")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        textfile.read_text(tmp_path)
    broken = write(tmp_path / "b.gz", gzip.compress(b"a" * 99)[:-9])
    with pytest.raises(InputError, match="b.gz cannot be read: Compressed file ended"):
        textfile.read_text(broken)


def test_writing_keeps_what_was_there_until_the_new_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    textfile.write_text(path, "é\r\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    link = tmp_path / "link"
    link.symlink_to(path)
    textfile.write_text(link, "new\n")
    assert link.is_symlink() and path.read_text() == "new\n"
    with pytest.raises(InputError, match="half of a surrogate pair"):
        textfile.write_text(path, "\ud800")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(InputError, match="cannot write"):
        textfile.write_text(path, "lost")
    assert path.read_text() == "new\n" and len(list(tmp_path.iterdir())) == 2


def test_devices_are_written_to_and_not_replaced():
    textfile.write_text(os.devnull, "x")
    assert not Path(os.devnull).is_file()
    with pytest.raises(InputError, match="cannot write '/dev/full': No space left"):
        textfile.write_text("/dev/full", "x")


def test_lines_that_are_written_can_be_read(tmp_path):
    values = [{"text": text} for text in (SEPARATORS, "\ud800", "é")]
    lines = map(textfile.format_json_line, values)
    textfile.write_text(tmp_path / "a", "".join(lines))
    found = textfile.read_json_lines(tmp_path / "a", surrogates=True)
    assert [line.values for line in found] == values


def test_names_that_are_not_text_can_be_printed():
    assert textfile.printable_name(os.fsdecode(b"caf\xe9.py")) == "caf\\udce9.py"
    assert textfile.printable_name(Path("café.py")) == "café.py"


# Code that runs alone, inside a sandbox or as a program's text, and the files of Linux.
ALONE = (
    *("sandbox/containment/", "sandbox/runtimes.py", "machine.py", "files/text.py"),
    # These read files of the package and of the system alone.
    *("files/package.py", "tasks/lab/everyday/", "inference/stored_programs.py"),
)
OTHER = (
    "os.open",
    "tarfile.open",
    "archive.open",
    "builtins.open",
    "HuggingFaceTokenizer.open",
)


def is_text_call(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes a file as text."""
    called = ast.unparse(call.func)
    name = called.rpartition(".")[2]
    if name in ("read_text", "write_text"):
        # A path's: those of `textfile` go by their bare names.
        return "." in called and called != "options.read_text"
    if called == "json.load":
        return ast.unparse(call.args[0]) != "sys.stdin"
    if name != "open" or called in OTHER:
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = [part.value for part in given if isinstance(part, ast.Constant)]
    return not any(isinstance(text, str) and "b" in text for text in texts)


def test_text_is_opened_in_one_place():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inner = path.relative_to(PACKAGE).as_posix()
        if not inner.startswith(ALONE):
            found += [
                f"{inner}:{node.lineno} {ast.unparse(node.func)}"
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and is_text_call(node)
            ]
    assert found == []


@pytest.mark.parametrize(
    "call", ["open(p)", "p.open('a')", "gzip.open(p, 'rt')", "q.read_text()"]
)
def test_the_search_for_opened_text_finds_it(call):
    assert is_text_call(ast.parse(call).body[0].value)


def test_text_in_markdown_is_text():
    """As a reader of CommonMark sees it."""
    from markdown_it import MarkdownIt

    from seedjax.files.text import fill_markdown, markdown_code, markdown_text

    reader = MarkdownIt("commonmark").enable("table")
    for text in (
        "<script>alert(1)</script>",
        "a|b",
        "![x](https://example.org/x.png)",
        "[x](javascript:alert(1))",
        "*a* _b_ __c__ `d` ~~e~~ **f**",
        "mini_left_2 and fast-dllm",
        "&lt;b&gt; &#60;",
        "back\\slash \\| \\",
        "two\nlines\r\n\n# three",
        "``` x",
    ):
        plain = " ".join(text.split())
        for made in (f"- {markdown_text(text)}", f"| {markdown_text(text)} |\n|---|"):
            inline = [t for t in reader.parse(made) if t.type == "inline"]
            assert len(inline) == 1
            shown = inline[0].children
            kinds = {child.type for child in shown}
            assert kinds <= {"text", "text_special"}, (text, kinds)
            assert "".join(child.content for child in shown) == plain
        code = [t for t in reader.parse(markdown_code(plain)) if t.type == "inline"]
        assert [c.content for c in code[0].children] == [plain]
        assert [c.type for c in code[0].children] == ["code_inline"]
    assert markdown_text("mini_left_2 and fast-dllm") == "mini_left_2 and fast-dllm"
    assert fill_markdown("# {name}, {n:.1f}", name="a{b}*", n=1) == r"# a{b}\*, 1.0"
