"""BigCodeBench (Zhuo et al., 2024): practical functions with many library calls, posed
for by their docstring ("complete") or in prose ("instruct"); judged by unittest.

Scores are the calibrated ones: the prompt's imports stand before every answer. Most
problems need third-party packages (`Problem.data["packages"]`); where one is
not installed, its problems are not run. No test reaches the network.
"""

import ast
import functools
import sys
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.files.text import read_json
from seedjax.sandbox.script import Script
from seedjax.tasks.python_source import after_preamble, defines
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites.exceptions import exceptions
from seedjax.tasks.suites.rows import published, read_rows

FILE = "bigcodebench/BigCodeBench.jsonl.gz"
HARD = "bigcodebench/hard_ids.json"
ENTRY_POINT = "task_func"
MODULE = "__test__.py"  # under this name `if __name__ == "__main__"` does not run
STOPS = (
    "\ndef ",
    "\nclass ",
    "\nimport ",
    "\nfrom ",
    "\nassert ",
    "\nif __name__",
    "\nprint(",
)
HARD_EXCEPTIONS = (
    "101 177 590 655 785 1006 1012 1020 1040".split()
)  # those in the subset
# The words that the original harness puts before a problem.
ASK = (
    "Please provide a self-contained Python script that solves the following problem "
    "in a markdown code block:\n"
)


def read(folder: Path, *, hard: bool, instruct: bool) -> list[Problem]:
    rows = read_rows(folder / FILE)
    if hard:
        kept = hard_ids(folder / HARD)
        rows = [row for row in rows if row["task_id"] in kept]
    return [problem_of(row, instruct) for row in rows]


def hard_ids(path: Path) -> set[str]:
    found = read_json(path)
    if not isinstance(found, list):
        raise InputError(f"{path} holds no list of problems")
    return set(found)


def problem_of(row: dict[str, Any], instruct: bool) -> Problem:
    prompt = row["complete_prompt"]
    request = (
        row["instruct_prompt"].strip() if instruct else f"```\n{prompt.strip()}\n```"
    )
    libraries = ast.literal_eval(row["libs"])
    return Problem(
        problem_id=row["task_id"],
        prompt="" if instruct else prompt,
        question=f"{ASK}{request}\n",
        reference=row["canonical_solution"],
        data={
            "entry_point": ENTRY_POINT,
            "code_prompt": row["code_prompt"],
            "complete_prompt": prompt,
            "test": row["test"],
            "packages": sorted(set(libraries) - sys.stdlib_module_names),
        },
    )


def program(problem: Problem, answer: str) -> Script:
    data = problem.data
    if not defines(answer, ENTRY_POINT):
        answer = data["complete_prompt"] + answer
    return Script(
        language="python",
        source=after_preamble(f"{data['code_prompt']}\n    pass", f"{answer}\n"),
        test=data["test"],
        test_cases=True,
        file_name=MODULE,
    )


def wrong(problem: Problem) -> str:
    return "    raise RuntimeError\n"


def suite(name: str, title: str, count: int, *, hard: bool, instruct: bool) -> Suite:
    return Suite(
        name=name,
        title=title,
        family="BigCodeBench",
        task="chat" if instruct else "complete",
        source=published("bigcodebench", None if hard else (FILE,)),
        num_problems=count,
        stop=() if instruct else STOPS,
        extraction="fenced" if instruct else "function",
        max_new_tokens=1280,
        wall_seconds=240.0,
        memory_bytes=4 << 30,
        processes=256,  # TensorFlow starts dozens of threads
        read=functools.partial(read, hard=hard, instruct=instruct),
        program=program,
        wrong=wrong,
        exceptions={
            problem: why
            for problem, why in exceptions("bigcodebench", "BigCodeBench/").items()
            if not hard or problem.rpartition("/")[2] in HARD_EXCEPTIONS
        },
    )


SUITES = (
    suite("bigcodebench", "BigCodeBench, complete", 1140, hard=False, instruct=False),
    suite(
        "bigcodebench_instruct",
        "BigCodeBench, instruct",
        1140,
        hard=False,
        instruct=True,
    ),
    suite(
        "bigcodebench_hard",
        "BigCodeBench Hard, complete",
        148,
        hard=True,
        instruct=False,
    ),
    suite(
        "bigcodebench_hard_instruct",
        "BigCodeBench Hard, instruct",
        148,
        hard=True,
        instruct=True,
    ),
)
