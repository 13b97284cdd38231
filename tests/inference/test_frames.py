"""What completions have to parse with: never required where it cannot be met."""

import pytest

from seedjax.errors import InputError
from seedjax.inference.frames import frame_of_hole, frame_of_program, frame_of_prompt


def test_a_program_stays_one():
    frame = frame_of_program("def f(r):\n    return r\n")
    assert frame.required and frame.language == "python" and frame.compiles
    assert frame.parses("def f(radius):\n    return radius\n")
    assert frame.parses("def f(:\n    return r\n") is False
    # What compiled has to compile, what merely parsed to parse.
    assert frame.parses("return 1\n") is False
    assert "line 2" in str(frame.fault("x = 1\ny = ) 1"))
    snippet = frame_of_program("return r + 1")
    assert snippet.required and snippet.parses("return radius + 1")
    assert frame.can_go_on("def f(") and not frame.can_go_on("def f(:\n")


@pytest.mark.parametrize(
    ("program", "language", "reason"),
    [
        ("def f(:\n", "python", "does not parse as python: invalid syntax (line 1"),
        ("def f(:\n", None, "name its language"),
        ("Hello", None, "name its language"),
        ("x = 1", "text", "the language is text"),
    ],
)
def test_what_was_no_program_need_not_become_one(program, language, reason):
    frame = frame_of_program(program, language)
    assert not frame.required and reason in frame.reason
    # Where the language is known, the result is judged all the same.
    expected = False if language == "python" else None
    assert frame.parses("x = )") is expected


HOLES = {
    "an expression": ("def add(a, b): return ", ""),
    "a body": ("def f(xs):\n", "\n    return y\n"),
    "a body whose indentation is there": ("def f(xs):\n    ", "\n    return y\n"),
    "a loop": ("for ", "\n    print(i)\n"),
    "a loop's head": ("for ", ":\n    print(i)\n"),
    "a condition": ("def f(x):\n    while ", ":\n        x -= 1\n"),
    "a class's body": ("class A:\n", "\n\nx = 1\n"),
    "a clause": ("try:\n    x\n", ""),
    "an entry": ("x = {'a': 1, ", "}\n"),
    "a name": ("def ", "(a):\n    return 1\n"),
    "arguments": ("f(a, ", ")"),
    "the inside of a string": ("x = 'ab", "c'\n"),
    "a bracket's end": ("x = [\n    1,\n", "print(x)\n"),
    "a branch": ("def f(a):\n    if a > 0:\n", "    else:\n        return 2\n"),
    "the beginning": ("", "\nprint(x)\n"),
    "a parameter": ("f = lambda ", ": 1"),
    "a comprehension": ("x = [", " for i in y]"),
    "a decorator": ("@", "\ndef f(): pass\n"),
}


@pytest.mark.parametrize(("prefix", "suffix"), HOLES.values(), ids=list(HOLES))
def test_holes_that_can_be_filled_must_be(prefix, suffix):
    frame = frame_of_hole(prefix, suffix)
    assert frame.required, frame.reason
    assert frame.parses("return     return r.strip()") is ("ab" in prefix)


def test_a_hole_in_broken_code_or_prose_need_not_be_filled():
    frame = frame_of_hole("x = = 1\ny = ", "\n", "python")
    assert not frame.required and "line 1" in frame.reason
    assert frame.parses("2") is False
    for prefix, suffix in (("Dear ", ""), ("Hello, ", "!"), ("", "")):
        frame = frame_of_hole(prefix, suffix)
        assert not frame.required and frame.parses("Bob") is None


def test_other_languages():
    pytest.importorskip("tree_sitter", reason="needs the extra languages")
    frame = frame_of_hole("fn main() { let x = ", "; }", "rust")
    assert frame.required and frame.parses("1 + 2") and not frame.parses("1 +")
    assert frame_of_hole("int f() { ", "\n}", "c").required
    assert frame_of_program("package a\n", "go").parses("package {") is False
    # Of their beginnings nothing is known.
    assert frame.can_go_on(")")
    assert not frame_of_program("package a\n").required


def test_prompts_are_judged_where_they_are_python():
    frame = frame_of_prompt("def gcd(a, b):")
    assert not frame.required
    assert frame.parses("\n    return a\n") and not frame.parses("\nReturn a a a")
    for prose in ("Once upon a time", "Dear Bob,", "1. First (of all)"):
        assert frame_of_prompt(prose).parses("x") is None
    assert frame_of_prompt("x", "python").parses(" = 1")
    assert frame_of_prompt("def f(:\n", "python").parses("") is False
    assert frame_of_prompt("x = 1", "text").parses("") is None
    with pytest.raises(InputError, match="cobol"):
        frame_of_prompt("x", "cobol")
