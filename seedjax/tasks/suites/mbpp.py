"""MBPP (Austin et al., "Program Synthesis with Large Language Models", 2021): the 500
problems of the test split, and the 257 of them that were sanitized by hand.

The prompt is the paper's: three solved problems, with [BEGIN] and [DONE] around each
answer. A test is a list of asserts. Where these call one function only, they are run
apart from it; the few that use more of the program run after it, in its process.
"""

import ast
import builtins
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seedjax.files.text import read_json
from seedjax.sandbox.sandbox import Program
from seedjax.sandbox.script import Script
from seedjax.tasks.python_source import after_preamble
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites.rows import published, read_rows

FILE = "mbpp/mbpp.jsonl.gz"
SANITIZED = "mbpp/sanitized-mbpp.json.gz"

EXAMPLES = (2, 3, 4)  # the problems that every prompt shows solved
TEST_SPLIT = range(11, 511)
STOPS = ("[DONE]",)
WALL_SECONDS = 10.0  # the reference of Mbpp/123 alone takes two or three

TASK = (
    "You are an expert Python programmer, and here is your task: {text} Your code "
    "should pass these tests:\n\n{tests}\n"
)


def read(folder: Path) -> list[Problem]:
    rows = read_rows(folder / FILE)
    return problems_of(rows, "text", lambda row: row["test_setup_code"])


def read_sanitized(folder: Path) -> list[Problem]:
    rows = read_json(folder / SANITIZED)
    return problems_of(rows, "prompt", lambda row: "\n".join(row["test_imports"]))


def problems_of(
    rows: Sequence[Mapping[str, Any]], text: str, setup: Callable[[Mapping], str]
) -> list[Problem]:
    def task(row: Mapping[str, Any]) -> str:
        return TASK.format(text=row[text], tests="\n".join(row["test_list"]))

    known = {row["task_id"]: row for row in rows}
    shown = "".join(
        f"{task(known[number])}[BEGIN]\n{known[number]['code']}\n[DONE]\n\n"
        for number in EXAMPLES
        if number in known
    )
    return [
        Problem(
            problem_id=f"Mbpp/{row['task_id']}",
            prompt=f"{shown}{task(row)}[BEGIN]\n",
            question=task(row) + "Answer with one fenced code block.",
            reference=row["code"],
            data={
                "entry_point": entry_point(row["test_list"], row["code"]),
                "setup": setup(row),
                "tests": row["test_list"],
            },
        )
        for row in rows
        if row["task_id"] in TEST_SPLIT
    ]


def parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of upstream's style
        return ast.parse(source)


def entry_point(tests: Sequence[str], code: str) -> str:
    """The first function of the program that the tests call."""
    defined = {
        node.name
        for node in parse(code).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    for node in ast.walk(parse("\n".join(tests))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in defined:
                return node.func.id
    raise RuntimeError(f"no function of the program is called by {tests[0]}")


def program(problem: Problem, answer: str) -> Program | Script:
    entry, setup = problem.data["entry_point"], problem.data["setup"]
    tests = problem.data["tests"]
    if uses_more(entry, setup, tests):
        return Script(language="python", source=answer, test="\n".join((setup, *tests)))
    body = "".join(f"    {line}\n" for test in tests for line in test.splitlines())
    return Program(
        source=after_preamble(setup, answer),
        test=f"{setup}\ndef check(candidate):\n{body}",
        entry_point=entry,
    )


def uses_more(entry: str, setup: str, tests: Sequence[str]) -> bool:
    """Whether a test names anything of the program besides its function."""
    names = [
        node
        for node in ast.walk(parse("\n".join((setup, *tests))))
        if isinstance(node, ast.Name)
    ]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {
        alias.asname or alias.name
        for node in ast.walk(parse(setup))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return not {node.id for node in names} <= bound | set(dir(builtins)) | {entry}


def wrong(problem: Problem) -> str:
    """Returns what equals nothing and does not count as true."""
    return (
        "class Wrong:\n    def __bool__(self):\n        return False\n\n\n"
        f"def {problem.data['entry_point']}(*arguments):\n    return Wrong()\n"
    )


SUITES = (
    Suite(
        name="mbpp",
        title="MBPP, test split",
        family="MBPP",
        task="complete",
        source=published("mbpp"),
        num_problems=500,
        stop=STOPS,
        extraction="whole_file",
        wall_seconds=WALL_SECONDS,
        read=read,
        program=program,
        wrong=wrong,
    ),
    Suite(
        name="mbpp_sanitized",
        title="MBPP, sanitized test split",
        family="MBPP",
        task="complete",
        source=published("mbpp_sanitized"),
        num_problems=257,
        stop=STOPS,
        extraction="whole_file",
        wall_seconds=WALL_SECONDS,
        read=read_sanitized,
        program=program,
        wrong=wrong,
    ),
)
