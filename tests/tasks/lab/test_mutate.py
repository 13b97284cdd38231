"""Mutations: what each kind of fault makes of a program."""

import ast
import random
from collections import Counter
from typing import get_args

import pytest
from samples import sample

from seedjax.tasks.lab.mutate import Fault, draw_mutations, mutations

PROGRAM = '''def pick(values, k):
    """Up to 3 é."""
    kept = []
    for v in values:
        if v > k:
            kept.append(v)
        else:
            kept.append(0)
    return len(kept[:2])
'''


def made(fault, source: str = PROGRAM) -> set[str]:
    """The texts that a kind of fault makes of a program."""
    return {m.apply(source) for m in mutations(source) if m.fault == fault}


def changed(*pairs: tuple[str, str], source: str = PROGRAM) -> set[str]:
    for old, _ in pairs:
        assert source.count(old) == 1
    return {source.replace(old, new) for old, new in pairs}


def test_operators():
    assert made("operator") == changed(
        ("v > k", "v >= k"),
        ("v > k", "v < k"),
        ("len(", "sum("),
        ("append(v)", "extend(v)"),
        ("append(0)", "extend(0)"),
    )
    line = "def f(a, b):\n    return a not in b\n"
    assert made("operator", line) == changed(("not in", "in"), source=line)
    line = "def f(a, b):\n    a += b // 2\n"
    texts = ("a -= b // 2", "a *= b // 2", "a += b % 2", "a += b * 2")
    expected = changed(*[("a += b // 2", text) for text in texts], source=line)
    assert made("operator", line) == expected


def test_constants():
    assert made("constant") == changed(
        *[("append(0)", f"append({n})") for n in (1, 2)],
        *[("[:2]", f"[:{n}]") for n in (1, 3, 4)],
    )
    line = "def f(s):\n    return 'é' + s == 'a' or True\n"
    assert line.replace("True", "False") in made("constant", line)
    assert line.replace("'a'", '"e"') in made("constant", line)


def test_off_by_one():
    assert made("off_by_one") == changed(
        ("[:2]", "[:2 + 1]"),
        ("len(kept[:2])", "len(kept[:2]) + 1"),
        ("len(kept[:2])", "len(kept[:2]) - 1"),
    )
    line = "def f(n):\n    return list(range(1, n))\n"
    assert line.replace("n))", "n - 1))") in made("off_by_one", line)
    assert line.replace("1, n", "1 + 1, n") in made("off_by_one", line)


def test_wrong_variables():
    texts = made("variable")
    assert changed(("in values", "in k"), ("v > k", "kept > k")) <= texts
    assert not any("(values, values)" in text for text in texts), "a parameter's name"
    assert not any('"""' not in text or "é" not in text for text in texts)


def test_swapped_branches():
    swapped = PROGRAM.replace("(v)", "(?)").replace("(0)", "(v)").replace("(?)", "(0)")
    assert made("swapped_branches") == {swapped}
    line = "def f(a):\n    return 1 if a else 0\n"
    assert made("swapped_branches", line) == {
        line.replace("1 if a else 0", "0 if a else 1")
    }


def test_missing_returns():
    assert made("missing_return") == changed(("return len", "len"))


def test_dropped_statements():
    branches = PROGRAM[PROGRAM.index("        if") : PROGRAM.index("    return")]
    assert made("dropped_statement") == changed(("    kept = []\n", ""))
    assert branches  # the loop's only statement: without it nothing would be left


def test_every_kind_of_fault_occurs():
    found = Counter(task.fault for task in sample("repair", "train", "standard", 150))
    assert found.keys() == {*get_args(Fault)}


def test_nothing_in_front_of_the_start_is_changed():
    start = PROGRAM.index("    for")
    for mutation in mutations(PROGRAM, start=start):
        assert mutation.apply(PROGRAM)[:start] == PROGRAM[:start]


def test_columns_are_right_behind_letters_of_two_bytes():
    line = 'def f(s):\n    return "é" + s[1:]\n'
    assert line.replace("[1:]", "[2:]") in made("constant", line)


@pytest.mark.parametrize("seed", range(3))
def test_draws_give_each_mutation_once(seed):
    drawn = [*draw_mutations(random.Random(seed), PROGRAM)]
    assert sorted(drawn) == sorted(mutations(PROGRAM))
    assert len(set(drawn)) == len(drawn)
    kinds = [m.fault for m in drawn[:20]]
    assert len(set(kinds)) >= 5, "the kinds take turns"


def test_mutants_of_the_lab_are_python_but_for_few():
    texts = [task.reference for task in sample("repair", "train", "standard")]
    mutants = [m.apply(text) for text in texts for m in mutations(text)]
    assert len(mutants) > 200 and not set(mutants) & set(texts)
    broken = 0
    for mutant in mutants:
        try:
            ast.parse(mutant)
        except SyntaxError:
            broken += 1
    assert broken <= 0.02 * len(mutants)
