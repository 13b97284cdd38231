"""Units: functions, methods and small classes cut out whole, at the left margin."""

import ast
from pathlib import Path

import pytest

from seedjax.data.filters import normalize
from seedjax.data.units import UnitConfig, function_units, parse, unit_rejection

SOURCE = '''"""A module."""

import functools

LIMIT = 3


# Adds, and
# remembers.
@functools.cache
@functools.wraps(
    len,
)
def add(a, b):
    """Adds.

    Twice.
    """
    def inner():
        return a

    return inner() + b


class Small:
    x = 1


class Large:
    """Too long to stay whole."""

    # Says
    @property
    async def area(self):
        text = """
left of the margin
        at the margin
"""
        return text

    LIMIT = 4

    def last(self): return 1
# not of the class
if LIMIT:
    def conditional():
        pass
'''

ADD = '''# Adds, and
# remembers.
@functools.cache
@functools.wraps(
    len,
)
def add(a, b):
    """Adds.

    Twice.
    """
    def inner():
        return a

    return inner() + b
'''
SMALL = "class Small:\n    x = 1\n"
AREA = '''# Says
@property
async def area(self):
    text = """
left of the margin
    at the margin
"""
    return text
'''
LAST = "def last(self): return 1\n"


def test_a_file_is_cut_into_its_functions():
    config = UnitConfig(small_class_bytes=40)
    tree = parse(SOURCE)
    assert tree is not None
    assert list(function_units(SOURCE, tree, config)) == [ADD, SMALL, AREA, LAST]


def test_small_classes_stay_whole():
    tree = parse(SOURCE)
    assert tree is not None
    units = list(function_units(SOURCE, tree, UnitConfig()))
    assert len(units) == 3 and units[2].startswith("class Large:")
    assert units[2].endswith("return 1\n")


def test_units_of_real_files_parse_alone(source_folders):
    count = 0
    for path in Path(source_folders[1]).rglob("*.py"):
        text = normalize(path.read_bytes())
        tree = parse(text)
        assert tree is not None
        for unit in function_units(text, tree, UnitConfig(small_class_bytes=100)):
            ast.parse(unit)
            assert unit[0] in "@#dca" and unit.endswith("\n")
            count += 1
    assert count > 300


@pytest.mark.parametrize("text", ["def f(:\n", "x = \0\n", "(" * 10_000, "\tx\n y\n"])
def test_what_does_not_parse_is_none(text):
    assert parse(text) is None


def test_warnings_of_the_source_stay_silent(recwarn):
    assert parse("x = '\\d'\nassert (1, 2)\n") is not None
    assert len(recwarn) == 0


def test_lengths_are_limited():
    config = UnitConfig(min_lines=3, max_bytes=60)
    assert unit_rejection("def f():\n    return 1\n", config) == "short_function"
    assert unit_rejection("def f():\n    x = 1\n    return x\n", config) is None
    assert unit_rejection("def f():\n\n" + "#" * 60 + "\n", config) == "long_function"
