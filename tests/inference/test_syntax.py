"""Where programs of any language do not parse; of their beginnings never a false alarm,
and no whole line that is wrong."""

import ast
import heapq
import inspect
import shlex
import string
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.inference import syntax
from seedjax.inference.syntax import (
    can_be_continued,
    fault,
    language_of,
    missing_parser,
)

FUNCTIONS = (
    *(string.capwords, heapq.merge, textwrap.dedent, shlex.join, shlex.quote),
    *(inspect.getdoc, inspect.cleandoc, warnings.filterwarnings),
)
# What such functions seldom hold.
PROGRAM = r'''
@decorator(1)
@other
class A(B, metaclass=C):
    """Words, 'quoted'
    over lines."""

    async def f(self, a, /, b: int = 0x1F, *args, c=1_0.5e-3j, **rest) -> None:
        async with a as b, c: pass
        return [x async for x in y if not x is None]
    def g(self): return (yield), lambda x, *y: {**x, 'a': 1}
if x and \
        y:
	tabs = "a\
b" 'c' f"{x!r:>{width}}"; rb'\x00'
elif x: y[1:2, ...] += 3 ; del z
else:
    # indented less
  # than the body
    match x:
        case {"a": [1, *_]} | A(b=2) if x: nonlocal_ = -1
        case _:
            raise E from e
try:
    import a.b as c, d
    from . import (e,
        f as g,)
except* (A, B) as e: ...
else:
    global h
finally:
    assert x, y
while (n := 1) != 2: print(*a, sep='', end=""""""); continue
for i, in j: x = y if z else w; x: int; x @= ~y ** -z // 2 << 3
x = f"""{
    x:{y}
}"""
'''

WRONG_WHEN_WHOLE = (
    "x = 'abc",
    "x = ''' '''a'",
    "f(a b)",
    "if x",
    "x = 1 +",
    "    x = 1",
    "else:",
    "x = (1]",
    "def f(a, a b):",
    "def f(:",
    "1 = x",
    "x = (yield = 1)",
    "print x",
    "x = 08",
    "for x i n y:",
    "class A\n",
    "x = $",
    "a\0b",
    "x = '\ud800'",
    "if x:\ny = 1",
    "if x:\n    y\n  z",
    "try:\n    x\ny = 1",
    "@decorator\nx = 1",
    "x = (1,\ny = 2",
    "match x:\n    y = 1",
    "def f():\n\n# nothing\nx",
    "import a as 1",
    "x == = y",
    "return return",
)


def is_valid(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


@pytest.mark.representative("\\r\\n-dedent", "\\n-filterwarnings")
@pytest.mark.parametrize(
    "text",
    [PROGRAM, *(textwrap.dedent(inspect.getsource(f)) for f in FUNCTIONS)],
    ids=["all", *(f.__name__ for f in FUNCTIONS)],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_no_prefix_of_a_program_is_refused(text, newline):
    assert is_valid(text)
    text = text.replace("\n", newline)
    refused = [text[:n] for n in range(len(text) + 1) if not can_be_continued(text[:n])]
    assert refused == []


@pytest.mark.parametrize("line", WRONG_WHEN_WHOLE)
def test_a_wrong_line_is_refused_when_it_is_whole(line):
    before = "def f(x): return x\n\n"
    assert can_be_continued(before + line[:1])
    for text in (line + "\n", before + line + "\n", line + "\r\ny = 1\nz = "):
        assert not can_be_continued(text)


def test_lines_of_a_program_in_another_order_are_refused_where_they_do_not_parse():
    """Whole lines cut out of a program: refused, if nothing could follow them."""
    lines = textwrap.dedent(inspect.getsource(heapq.merge)).splitlines(keepends=True)
    refused = 0
    for left_out in range(len(lines)):
        text = "".join(lines[:left_out] + lines[left_out + 1 :])
        if not can_be_continued(text):
            assert not is_valid(text)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        ("x = )", False),
        ("x = ) + ", False),
        ("x = 1 2 ", False),
        ("if x:\ny = ", False),
        ("f(a=1, b) ", False),
        ("x = 1 2", True),  # 20 might be meant
        ("x = no", True),
        ("x = 5 no", True),  # not in
        ("x = 'a ) + ", True),
        ("# ) ( ", True),
        ("x = 1  # ) ( ", True),
        ("def f():\n        x\n    ", True),
        ("", True),
    ],
)
def test_an_unfinished_line_is_judged_in_front_of_its_last_token(beginning, expected):
    assert can_be_continued(beginning) is expected


def test_no_warning_gets_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert can_be_continued("x = '\\d'\nassert (x, 'y')\nx is 1\n1if x else 2 ")


def test_nothing_is_executed():
    assert can_be_continued("raise SystemExit\n")


def test_deep_nesting_is_answered():
    assert can_be_continued("x = " + "(" * 100)
    assert not can_be_continued("x = " + "(" * 10_000 + "\n")
    assert can_be_continued("x = " + "a + " * 20_000 + "a\n")


def test_another_language_is_an_input_error():
    with pytest.raises(InputError, match="rust"):
        can_be_continued("fn main() {", language="rust")


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("x = 1\ny = 'a\n", 2, 5, "unterminated string"),
        ("def f(:\n    pass\n", 1, 7, "invalid syntax"),
        ("a\nb\0c", 2, 2, "'\\x00'"),
        ("x = '\ud800'", 1, 6, "'\\ud800'"),
        ("x = " + "(" * 10_000, 1, 1, "too many nested"),
        ("é = 1\nreturn é", 2, 1, "'return' outside function"),
    ],
)
def test_a_fault_has_its_place(text, line, column, message):
    found = fault(text)
    assert (found.line, found.column) == (line, column) or "nested" in message
    assert message in found.message


def test_what_only_the_compiler_finds_is_a_fault_if_it_is_asked():
    for text in ("return 1", "def f(a, a): pass", "break", "await f()"):
        assert fault(text) is not None and fault(text, compiles=False) is None


def test_a_byte_order_mark_and_line_ends_are_no_faults():
    assert fault("\ufeffx = 1\r\nif x:\r\n    y = 2\r\n") is None
    assert can_be_continued("\ufeffx = 1\n")


PROGRAMS = {
    "bash": 'if [ -f "$1" ]; then\n  echo "$1"\nfi\n',
    "c": "#include <stdio.h>\nint main(void) {\n  return 0;\n}\n",
    "cpp": "template <class T> T f(T x) {\n  return x;\n}\n",
    "csharp": "class A {\n  int F(int x) { return x + 1; }\n}\n",
    "css": "a {\n  color: red;\n}\n",
    "go": "package main\n\nfunc main() {\n}\n",
    "html": "<p>\n<a href='b'>c</a></p>\n",
    "java": "class A {\n  int f() { return 1; }\n}\n",
    "javascript": "const f = (x) => {\n  return x;\n}\n",
    "json": '{"a": [1, null]}\n',
    "kotlin": 'fun main() {\n  println("hi")\n}\n',
    "php": "<?php\nfunction f($x) {\n  return $x;\n}\n",
    "ruby": "def f(x)\n  x + 1\nend\n",
    "rust": "fn main() {\n  let x = 1;\n}\n",
    "swift": "func f(_ x: Int) -> Int {\n  return x\n}\n",
    "tsx": "const f = (x: number) => { return <a>{x}</a>; }\n",
    "typescript": "function f(x: number): number {\n  return x;\n}\n",
}


@pytest.mark.parametrize("language", syntax.GRAMMARS)
def test_programs_of_other_languages(language):
    pytest.importorskip("tree_sitter", reason="needs the extra languages")
    program = PROGRAMS[language]
    assert missing_parser(language) is None and fault(program, language) is None
    lines = program.splitlines(keepends=True)
    # Without what closes its last bracket, and with one too many.
    broken = "".join(lines[:-1]) + lines[-1].replace("end", "").replace("fi", "")
    broken = broken.rstrip("\n")
    broken = broken[: broken.rfind("}")] if "}" in broken else broken
    broken = broken.removesuffix("</p>") + ("<" if language == "html" else "")
    found = fault(broken, language)
    assert found is not None and 1 <= found.line <= len(lines)
    assert fault(program, "python") is not None or language == "json"


def test_the_place_of_a_fault_counts_characters():
    pytest.importorskip("tree_sitter", reason="needs the extra languages")
    found = fault("fn f() {\n  let é = ) ;\n}\n", "rust")
    assert (found.line, found.column) == (2, 9) and "'='" in found.message


def test_languages_go_by_suffix():
    assert language_of(Path("a/b.PY")) == "python"
    assert language_of(Path("b.rs")) == "rust" and language_of(Path("Makefile")) is None
    assert set(syntax.SUFFIXES.values()) == set(syntax.LANGUAGES)


def test_a_missing_parser_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tree_sitter", None)
    syntax._parser.cache_clear()
    assert "pip install seedjax[languages]" in missing_parser("rust")
    assert missing_parser("python") is None
    with pytest.raises(ImportError):
        fault("fn main() {}", "rust")
    with pytest.raises(InputError, match="'cobol'.*rust.*or text"):
        missing_parser("cobol")
    with pytest.raises(InputError, match="cobol"):
        fault("", "cobol")
