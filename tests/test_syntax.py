"""The beginning of a program: never a false alarm, and no whole line that is wrong."""

import ast
import heapq
import inspect
import shlex
import string
import textwrap
import warnings

import pytest

from seedjax.errors import InputError
from seedjax.syntax import can_be_continued

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
