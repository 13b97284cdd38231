"""Everyday prompts: 200 small tasks as a stranger types them, written by hand.

Functions from a signature and a docstring, a comment or nothing, short scripts, tests,
holes, edits and repairs, over strings, numbers, lists, dictionaries, files, dates and
classes. They were written and fixed before any model was trained on everyday code, and
the generator of that training (`seedjax.tasks.lab.everyday`) is kept away from them.

The problems travel with the package, one JSON object a line:

    id, topic           everyday/KIND/NUMBER, and what it is about
    prompt, suffix      text around the answer (generate, infill)
    before, instruction the program, and what to do with it (edit, repair)
    answer              the reference
    test                runs after the whole program, in its namespace; `SOURCE` is the
                        program's text, `OUTPUT` what it has printed
    stdout              whether the program's output is caught for the test
"""

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from seedjax.sandbox.script import Script
from seedjax.tasks.extraction import is_python
from seedjax.tasks.lab.tasks import TaskName
from seedjax.tasks.suite import Problem, Source, Suite
from seedjax.tasks.suites.lab import KINDS

FILE = "everyday.jsonl"
CHECKSUM = "9bc4837a7a22f516f59894eff1ad5f2605bb205e850c49c57f3b653b83bb90a5"  # SHA-256
COUNTS: dict[TaskName, int] = {"generate": 110, "infill": 30, "edit": 40, "repair": 20}

_CATCH = "__import__('sys').stdout = __import__('io').StringIO()\n"
_CAUGHT = (
    "OUTPUT = __import__('sys').stdout.getvalue()\n"
    "__import__('sys').stdout = __import__('sys').__stdout__\n"
)


@cache
def rows() -> tuple[dict[str, Any], ...]:
    """The problems of all kinds, as they are stored."""
    lines = _contents().decode().splitlines()
    return tuple(json.loads(line) for line in lines)


def checksum() -> str:
    """The SHA-256 of the problems as they are installed."""
    return hashlib.sha256(_contents()).hexdigest()


def _contents() -> bytes:
    return (resources.files("seedjax.tasks.suites") / FILE).read_bytes()


def source_of(problem: Problem, answer: str) -> str:
    """The whole program with an answer in it."""
    return problem.prompt + answer + problem.suffix


def program(problem: Problem, answer: str) -> Script:
    """The program with its test after it, in the same process: some answers are
    scripts, classes or tests themselves."""
    source = source_of(problem, answer)
    test = f"SOURCE = {source!r}\n{problem.data['test']}"
    if not problem.data["stdout"]:
        return Script(language="python", source=source, test=test)
    return Script(language="python", source=_CATCH + source, test=_CAUGHT + test)


def wrong(problem: Problem) -> str:
    """The program unchanged; or `pass` in the place of statements, None in that of an
    expression."""
    if problem.before:
        return problem.before
    reference = problem.reference or ""
    line_break = reference[: len(reference) - len(reference.lstrip("\n"))]
    lines = line_break or problem.prompt.endswith("\n") or not problem.prompt
    if not lines:
        # Of a line that has begun, what precedes says whether a value is missing.
        return "pass" if not problem.prompt.rpartition("\n")[2].strip() else " None"
    first = reference.lstrip("\n")
    indent = first[: len(first) - len(first.lstrip(" "))]
    return f"{line_break}{indent}pass\n"


def parses(problem: Problem, answer: str) -> bool:
    """Whether the whole program is Python."""
    return is_python(source_of(problem, answer))


def _suite(kind: TaskName) -> Suite:
    def read(_: Path) -> list[Problem]:
        return [
            Problem(
                problem_id=row["id"],
                prompt=row.get("prompt", ""),
                suffix=row.get("suffix", ""),
                before=row.get("before", ""),
                instruction=row.get("instruction", ""),
                reference=row["answer"],
                data={
                    "test": row["test"],
                    "topic": row["topic"],
                    "stdout": row.get("stdout", False),
                },
            )
            for row in rows()
            if row["id"].split("/")[1] == kind
        ]

    return Suite(
        name=f"everyday_{kind}",
        title=f"everyday prompts: {kind}",
        family="Everyday",
        task=KINDS[kind],
        source=Source(
            project="seedjax",
            version=CHECKSUM[:16],
            licence="Apache-2.0",
            address="part of the package",
            files={},
        ),
        num_problems=COUNTS[kind],
        max_new_tokens=192,
        read=read,
        program=program,
        wrong=wrong,
        well_formed=parses,
    )


SUITES = tuple(map(_suite, COUNTS))
