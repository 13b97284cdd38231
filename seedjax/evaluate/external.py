"""Completions of any other system, from a file of JSON lines.

    {"task_id": "HumanEval/0", "completion": "    return ..."}

`task_id` may be called `problem_id`; a bare number stands for the one problem whose
name ends in it (11 for "Mbpp/11"). `completion` (after the prompt), `solution` (a
whole program) and `answer` are judged as they are, as the original harnesses do; out of
`text`, a model's whole reply, the answer is cut by the suite's rule. Several lines of a
problem are several samples of it; `sample` may number them, `turn` the tries.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.evaluate.complete import Completion
from seedjax.files.text import read_json_lines
from seedjax.tasks.extraction import extract
from seedjax.tasks.suite import Problem, Suite

JUDGED = ("completion", "solution", "answer")


def read_external(
    path: Path, suite: Suite, problems: Sequence[Problem], *, raw: bool = False
) -> list[Completion]:
    """The samples of a file, one of every problem at least, in the file's order.

    Args:
      path: JSON lines, compressed if the name ends in .gz.
      suite: whose answers they are.
      problems: that have to be answered.
      raw: cut the answer out of whatever field there is by the suite's rule.

    Raises:
      InputError: for a file that cannot be read, with the number of the line for one
        that is no answer to a problem of the suite or is there twice; for a problem
        without an answer, or with another number of them than the first.
    """
    known = {problem.problem_id: problem for problem in problems}
    numbered: dict[int, set[str]] = {}
    for problem_id in known:
        if (digits := problem_id.rpartition("/")[2]).isdecimal():
            numbered.setdefault(int(digits), set()).add(problem_id)
    samples: list[Completion] = []
    keys: dict[tuple[str, int, int], int] = {}
    counted: Counter[str] = Counter()
    for number, where, values in read_json_lines(path):
        name = values.get("task_id", values.get("problem_id"))
        if isinstance(name, int) and len(numbered.get(name, ())) == 1:
            (name,) = numbered[name]
        if not isinstance(name, str) or name not in known:
            raise InputError(
                f"{where}: {name!r} is no problem of {suite.name}, whose first is "
                f"{problems[0].problem_id!r}; give the file to the suite that it is "
                "of, or drop --limit"
            )
        sample = values.get("sample", counted[name])
        turn = values.get("turn", 0)
        if not isinstance(sample, int) or not isinstance(turn, int):
            raise InputError(f"{where}: sample and turn must be whole numbers")
        counted[name] += turn == 0
        key = name, sample, turn
        if key in keys:
            raise InputError(
                f"{where}: a second answer to {name!r}, sample {sample}; the first is "
                f"in line {keys[key]}: remove one"
            )
        keys[key] = number
        text, judged = _answer(values, where)
        if raw or not judged:
            text = extract(_rule(suite, known[name], text), text, suite, known[name])
        samples.append(
            Completion(
                problem_id=name, sample=sample, turn=turn, text=text, answer=text
            )
        )
    if not samples:
        raise InputError(f"{str(path)!r} holds no answers")
    for problem in problems:
        count, first = counted[problem.problem_id], counted[problems[0].problem_id]
        if not count:
            raise InputError(
                f"{path} has no answer to {problem.problem_id!r}; add it (an empty one "
                "counts as failed), or give --limit"
            )
        if count != first:
            raise InputError(
                f"{path} has {count} answers to {problem.problem_id!r} and {first} to "
                f"{problems[0].problem_id!r}; give as many of each, without duplicates"
            )
    return samples


def _answer(values: dict[str, Any], where: str) -> tuple[str, bool]:
    """The completion, and whether it is judged as it is."""
    for name in (*JUDGED, "text"):
        if name in values:
            if not isinstance(values[name], str):
                raise InputError(f"{where}: the field {name!r} is not a text")
            return values[name], name in JUDGED
    raise InputError(
        f"{where}: no answer in the line; it takes one of {', '.join(JUDGED)}, text"
    )


def _rule(suite: Suite, problem: Problem, text: str) -> str:
    """How an answer is cut out: as a chat's, if the suite has such a form and the text
    has a code block."""
    chat = bool(problem.question) and ("```" in text or "~~~" in text)
    return suite.chat_extraction if chat else suite.extraction
