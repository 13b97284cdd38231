"""A user's own problems with tests, for post-training beside the lab's.

    {"prompt": "def inc(a):\\n", "test": "assert inc(1) == 2", "entry_point": "inc"}
    {"prompt": "# Doubles a number that it reads.\\n", "tests": [["2\\n", "4\\n"]]}
    {"question": "Write a function inc that adds one.", "test": ..., ...}
    {"before": "def f(x): ...", "instruction": "Handle None.", "test": ..., ...}

A line is a prompt that the completion follows, with `suffix` a hole, a `question` that
a user asks in a chat, whose reply holds the program, or with `before` and `instruction`
a program to change. A line with both question and prompt takes the one or the other as
the model has a chat template or not. It is judged by `test`, statements that may use
`entry_point`, or HumanEval's `check(candidate)`; or by `tests`, pairs of a program's
input and output. `task_id` and `canonical_solution` may be there, as in HumanEval.
"""

import ast
import functools
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedjax.config import require
from seedjax.data.records import Split
from seedjax.errors import InputError
from seedjax.files.text import brief, read_json_lines
from seedjax.sandbox.sandbox import Program, Sandbox
from seedjax.tasks.extraction import python_answer
from seedjax.tasks.lab.stream import LabConfig, draw_task, load_vocabulary
from seedjax.tasks.lab.tasks import Task, TaskName
from seedjax.tasks.markdown import code_blocks, unix_lines
from seedjax.tasks.python_source import is_python
from seedjax.tasks.suites.livecodebench import ENTRY_POINT, input_output_program
from seedjax.tasks.suites.splicing import as_whole_program
from seedjax.text.tokenizer import Tokenizer

TEXTS = ("prompt", "question", "suffix", "before", "instruction", "test", "entry_point")
HELDOUT_BUCKETS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class InputOutputTask(Task):
    """A task whose program reads standard input and is judged by its output."""

    def source(self, answer: str) -> str:
        """The whole program, as a function of its input."""
        program = self.prompt + answer + self.suffix
        if self.question and (blocks := code_blocks(answer, is_python)):
            program = blocks[-1].code
        return input_output_program(program, []).source


@dataclass(frozen=True, kw_only=True)
class QuestionTask(Task):
    """A task that is asked in words: the answer is a reply with the function in it."""

    def source(self, answer: str) -> str:
        """The program in the reply, cut out as `seedjax eval` does."""
        found = python_answer(self.prompt, unix_lines(answer), self.entry_point)
        return as_whole_program("python", self.prompt, self.entry_point, found)


@dataclass(frozen=True, kw_only=True)
class ProblemConfig:
    """Problems of a user's file as a source of tasks, where the lab is one, too."""

    path: str = "problems.jsonl"
    vocabulary: str = "mini"  # whose tokenizer: a model's, or a tokenizer's directory
    seed: int = 1  # of the draws
    heldout_fraction: float = 0.1  # share that is kept for scores

    def __post_init__(self):
        require(
            0.0 < self.heldout_fraction < 1.0, self, "heldout_fraction", "in (0, 1)"
        )

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that `vocabulary` names."""
        return load_vocabulary(self.vocabulary)

    def problems(self, split: Split) -> list[Task]:
        """The problems of a split, by their prompts; always the same.

        Raises:
          InputError: as `read_problems`; if the split is empty.
        """
        found = [
            task
            for task in read_problems(self.path)
            if (_share(task) < self.heldout_fraction) == (split == "heldout")
        ]
        if not found:
            raise InputError(
                f"{self.path} leaves no {split} problem; give more of them, or another "
                "tasks.heldout_fraction"
            )
        return found


TaskSource = LabConfig | ProblemConfig


def draw(
    source: TaskSource, rng: random.Random, split: Split, *, num_tests: int
) -> Task:
    """A task of a source; of a file, any of the split's.

    Args:
      source: the lab, or a file.
      rng: of the draw.
      split: which part.
      num_tests: of the lab's: assertions of the test at most.
    """
    if isinstance(source, LabConfig):
        return draw_task(source, rng, split, num_tests=num_tests)
    return rng.choice(_of_split(source, split))


def numbered(source: ProblemConfig, number: int) -> Task:
    """Training problem number `number`, from the first again after the last."""
    problems = _of_split(source, "train")
    return problems[number % len(problems)]


@functools.lru_cache(maxsize=4)
def _of_split(source: ProblemConfig, split: Split) -> Sequence[Task]:
    return source.problems(split)


def read_problems(path: str | Path) -> list[Task]:
    """The problems of a file of JSON lines.

    Raises:
      InputError: for a file that is missing or empty, or a line that is no problem, by
        its number.
    """
    lines = read_json_lines(path, hint="give a file with a problem per line")
    tasks = [_problem(line.values, line.where, line.number) for line in lines]
    if not tasks:
        raise InputError(f"{path} holds no problems")
    known: set[str] = set()
    for task in tasks:
        if task.problem_id in known:
            raise InputError(
                f"{path} has task_id {task.problem_id!r} twice; name each otherwise"
            )
        known.add(task.problem_id)
    return tasks


def _problem(found: Mapping[str, Any], where: str, number: int) -> Task:
    for name in (*TEXTS, "canonical_solution"):
        if not isinstance(found.get(name, ""), str):
            raise InputError(f"{where}: {name} is {brief(found[name])}, expected text")
    given = {name: found.get(name, "") for name in TEXTS}
    kind: TaskName = "generate"
    if given["before"]:
        kind = "edit"
        if not given["instruction"]:
            raise InputError(f"{where}: before comes without an instruction")
        if given["prompt"] or given["suffix"] or given["question"]:
            raise InputError(
                f"{where}: give prompt and suffix, question, or before, not two of them"
            )
    elif given["suffix"] and given["question"]:
        raise InputError(
            f"{where}: a question has no suffix; leave the one or the other"
        )
    elif not (given["prompt"] or given["question"]):
        raise InputError(f"{where}: there is no prompt, question or before")
    elif given["suffix"]:
        kind = "infill"
    test, entry_point, type_of = given["test"], given["entry_point"], Task
    if given["question"]:
        type_of = QuestionTask
    if pairs := found.get("tests"):
        test, entry_point = _input_output_test(pairs, where), ENTRY_POINT
        type_of = InputOutputTask
    elif not test.strip():
        raise InputError(
            f"{where}: there are no tests; give test, or tests with pairs of input and "
            "output"
        )
    elif not entry_point.isidentifier():
        raise InputError(
            f"{where}: entry_point is {brief(entry_point)}; name the function or class "
            "that the test uses"
        )
    else:
        test = _checked_test(test, entry_point, where)
    return type_of(
        problem_id=str(found.get("task_id") or f"line {number}"),
        prompt=given["prompt"],
        suffix=given["suffix"],
        before=given["before"],
        instruction=given["instruction"],
        question=given["question"],
        reference=found.get("canonical_solution", ""),
        entry_point=entry_point,
        test=test,
        task=kind,
        tier=0,
        slice="standard",
        data={"entry_point": entry_point} if given["question"] else {},
    )


def _checked_test(test: str, entry_point: str, where: str) -> str:
    """A test that defines `check(candidate)`, of one that does or of statements."""
    try:
        ast.parse(test)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{where}: test is no Python: {error}") from None
    if "def check(" in test:
        return test
    return (
        f"_TEST = compile({test!r}, 'test.py', 'exec')\n"
        "def check(candidate):\n"
        f"    exec(_TEST, {{'candidate': candidate, {entry_point!r}: candidate}})\n"
    )


def _input_output_test(pairs: Any, where: str) -> str:
    """The test of pairs, [input, output] or {"input", "output"}."""
    cases = []
    listed: list[Any] = pairs if isinstance(pairs, list) else [None]
    for pair in listed:
        if isinstance(pair, Mapping):
            pair = [pair.get("input"), pair.get("output")]
        fits = isinstance(pair, list) and len(pair) == 2
        if not fits or not all(isinstance(text, str) for text in pair):
            raise InputError(
                f"{where}: a pair of tests is {brief(pair)}; expected [input, output], "
                "two texts"
            )
        cases.append(pair)
    return input_output_program("", cases).test


def _share(task: Task) -> float:
    """Where a problem lies between 0 and 1, by its text."""
    parts = [task.prompt, task.suffix, task.before, task.instruction]
    text = json.dumps([*parts, task.question] if task.question else parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=2)
    return int.from_bytes(digest.digest()) / HELDOUT_BUCKETS


def passing_when_empty(tasks: Sequence[Task], sandbox: Sandbox) -> list[str]:
    """Ids of the problems whose tests pass on an empty answer, or on an unchanged
    program: a model learns from them to write nothing.

    Args:
      tasks: any.
      sandbox: runs the tests.
    """
    outcomes = sandbox.run(
        [
            Program(
                source=task.source(task.before),
                test=task.test,
                entry_point=task.entry_point,
            )
            for task in tasks
        ]
    )
    return [t.problem_id for t, o in zip(tasks, outcomes, strict=True) if o.passed]
