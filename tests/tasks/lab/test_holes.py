"""Holes: where a body may be cut."""

import random

import pytest

from seedjax.tasks.lab.holes import draw_hole

BODY = """    kept = []
    for v in values:
        kept.append(v * 2)
    return kept
"""


def holes(body: str, count: int = 300) -> set[str]:
    """The texts of many holes, all of which are lines or ends of lines."""
    found = set()
    for seed in range(count):
        start, stop = draw_hole(random.Random(seed), body)
        hole = body[start:stop]
        assert hole.strip()
        if hole.endswith("\n"):
            assert start == 0 or body[start - 1] == "\n"
        else:
            assert body[stop] == "\n" and "\n" not in hole
        found.add(hole)
    return found


def test_holes_are_one_line_or_several_or_its_end():
    found = holes(BODY)
    assert {"    return kept\n", "    kept = []\n    for v in values:\n", BODY} <= found
    assert {"(v * 2)", "v * 2)", "2)", "return kept", "in values:"} <= found


@pytest.mark.parametrize("body", ["    return [\n", '    return "a b"\n', "    x\n"])
def test_odd_lines_have_holes_too(body):
    assert body in holes(body, 50)


def test_empty_lines_are_passed_over():
    assert "\n" not in holes("    x = 1\n\n    return x\n")
