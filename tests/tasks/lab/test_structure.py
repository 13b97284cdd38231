"""Structure: names and constants do not count, everything else does."""

import pytest

from seedjax.tasks.lab.structure import bucket, split_of_tree, structure

PROGRAM = '''def total(values):
    """Adds."""
    seen = [v for v in values if v > 3]
    return sum(seen)
'''
CLASS = """class Meter:
    def __init__(self):
        self.kept = 0

    def add(self, value):
        self.kept += value
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total", "f"),
        ("values", "x"),
        ("v", "w"),
        ("seen", "first"),
        ("> 3", "> 42"),
        ("> 3", "> -3"),
        ('    """Adds."""\n', ""),
        ("Adds.", "Something else."),
        ("(values)", "(values: list[int]) -> int"),
        ("    seen =", "    # a comment\n    seen ="),
    ],
)
def test_names_constants_and_remarks_do_not_count(old, new):
    assert structure(PROGRAM.replace(old, new)) == structure(PROGRAM)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sum", "max"),
        ("sum(seen)", "seen.pop()"),
        ("> 3", "< 3"),
        ("> 3", '> "3"'),
        ("> 3", "> 3.0"),
        ("[v for v in values if v > 3]", "{v for v in values if v > 3}"),
        ("[v for v in values if v > 3]", "[v for v in values if 3 > v]"),
        ("[v for v in values if v > 3]", "[v + v for v in values if v > 3]"),
        ("sum(seen)", "sum(values)"),
        ("return sum(seen)", "return sum(seen) + 1"),
        ("(values)", "(values, other)"),
    ],
)
def test_everything_else_counts(old, new):
    changed = PROGRAM.replace(old, new)
    assert changed != PROGRAM
    assert structure(changed) != structure(PROGRAM)


def test_methods_count_and_fields_of_a_class_do_not():
    assert structure("def f(s):\n    return s.upper()") != structure(
        "def f(s):\n    return s.lower()"
    )
    renamed = CLASS.replace("kept", "state").replace("add", "push")
    assert structure(renamed.replace("Meter", "Box")) == structure(CLASS)
    assert structure(CLASS.replace("+=", "-=")) != structure(CLASS)


def test_what_is_no_python_is_refused():
    with pytest.raises(SyntaxError):
        structure("def f(:")


def test_splits_depend_on_the_text_alone():
    assert bucket("a text") == 8305082937329607654
    shares = [split_of_tree(f"tree {n}") == "test" for n in range(2000)]
    assert 0.17 < sum(shares) / len(shares) < 0.23
