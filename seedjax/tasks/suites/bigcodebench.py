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
from seedjax.tasks.suite import Problem, Source, Suite
from seedjax.tasks.suites.exceptions import exceptions
from seedjax.tasks.suites.rows import read_rows

PROJECT = "github.com/bigcode-project/bigcodebench-annotation"
COMMIT = "a3b89850db670d7302571142b881e4f85eef18e3"
FILE = "bigcodebench/BigCodeBench.jsonl.gz"
HARD = "bigcodebench/hard_ids.json"
CHECKSUMS = {
    FILE: "33baf4f414eb34507f1a8fd55ef9bcd79c1f9b4c3e8e2544f023edac1b20afec",
    HARD: "34c80192bbacfffbae02e955069afbbb2b9ad467ff2111095b2f45fc5c6bcb72",
}
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
        source=Source(
            project=PROJECT,
            version=f"commit {COMMIT} (v0.1.0)",
            licence="Apache-2.0",
            address=f"https://{PROJECT}/tree/{COMMIT}/hf_data",
            files=CHECKSUMS if hard else {FILE: CHECKSUMS[FILE]},
            urls={
                FILE: "https://raw.githubusercontent.com/bigcode-project/"
                f"bigcodebench-annotation/{COMMIT}/hf_data/BigCodeBench.jsonl.gz"
            },
            note="hard_ids.json is the list of the 148 task ids of the Hard subset",
        ),
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
