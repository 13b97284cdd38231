"""Edit tasks: the instruction leads from one program to the other."""

import ast
import re

from samples import sample

MANY = 90


def tasks_that(pattern: str, count: int = MANY):
    """Edit tasks whose instruction fits a pattern, with the match."""
    found = [
        (made, match)
        for made in sample("edit", "train", "standard", count)
        if (match := re.fullmatch(pattern, made.instruction))
    ]
    assert len(found) >= 3, pattern
    return found


def constants(source: str) -> list:
    return [n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)]


def lines(source: str) -> int:
    return len(source.splitlines())


def test_constants_are_exchanged():
    for made, match in tasks_that(r"Change (\S+) to (\S+)\."):
        old, new = map(ast.literal_eval, match.groups())
        before, after = constants(made.before), constants(made.reference)
        assert old in before and old not in after
        assert [new if value == old else value for value in before] == after


def test_functions_are_renamed():
    for made, match in tasks_that(r"Rename the function to (\w+)\."):
        name = match.group(1)
        assert made.entry_point == name
        assert f"def {name}(" in made.reference
        assert f"def {name}(" not in made.before
        body = made.before.partition("(")[2]
        assert made.reference == f"def {name}({body}"


def test_steps_are_removed_and_appended():
    for made, _ in tasks_that(r"Remove the last step\.|Stop one step earlier\."):
        assert made.before.split("(")[0] == made.reference.split("(")[0]
        assert lines(made.before) >= lines(made.reference)
    for made, _ in tasks_that(r"(Afterwards,|Add a step|Go one step further) .*"):
        assert made.tier >= 2
        assert lines(made.before) <= lines(made.reference)


def test_edited_programs_have_no_recursion_to_be_renamed():
    for made in sample("edit", "train", "standard", MANY):
        assert made.reference.count(f"{made.entry_point}(") == 1
