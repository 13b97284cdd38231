"""HumanEval (Chen et al., "Evaluating Large Language Models Trained on Code", 2021).

The original harness runs `prompt + completion`, then `check(entry_point)`, within 3 s.
Here the test sees nothing of the program but the function, and takes the helpers that
some tests use from the prompt.
"""

import re
from pathlib import Path
from typing import Any

from seedjax.sandbox.sandbox import Program
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites.rows import published, read_rows
from seedjax.tasks.suites.splicing import as_whole_program

FILE = "humaneval/HumanEval.jsonl.gz"

# As the paper has them.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

# As EvalPlus asks chat models.
QUESTION = (
    "Please provide a self-contained Python script that solves the following problem "
    "in a markdown code block:\n```\n{prompt}\n```\n"
)


def read(folder: Path) -> list[Problem]:
    return [problem_of(row) for row in read_rows(folder / FILE)]


def problem_of(row: dict[str, Any]) -> Problem:
    return Problem(
        problem_id=row["task_id"],
        prompt=row["prompt"],
        question=QUESTION.format(prompt=row["prompt"].strip()),
        reference=row["canonical_solution"],
        data={"entry_point": row["entry_point"], "test": row["test"]},
    )


def program(problem: Problem, answer: str) -> Program:
    entry, test = problem.data["entry_point"], problem.data["test"]
    source = as_whole_program("python", problem.prompt, entry, answer)
    return Program(source=source, test=f"{problem.prompt}\n{test}", entry_point=entry)


def wrong(problem: Problem) -> str:
    """Returns what equals nothing."""
    indents = re.findall(r'^([ \t]+)(?:r?"""|r?\'\'\')', problem.prompt, re.M)
    return f"{indents[-1] if indents else '    '}return object()\n"


SUITES = (
    Suite(
        name="humaneval",
        title="HumanEval",
        family="HumanEval",
        task="complete",
        source=published("humaneval"),
        num_problems=164,
        stop=STOPS,
        extraction="function",
        read=read,
        program=program,
        wrong=wrong,
    ),
)
