"""LiveCodeBench, code generation (Jain et al., 2024): contest problems with dates, so
that a model can be examined only on what came after its training data.

The statements belong to contest sites, so the files are the user's own download: JSON
Lines of the "lite" set, one file a release, which holds what that release added. Tests
hold inputs and expected outputs; these stay in the checker's process. Programs read
standard input or, where there is starter code, define the method of a class.
"""

import base64
import binascii
import functools
import io
import json
import pickle
import zlib
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.sandbox.sandbox import Program
from seedjax.tasks.python_source import after_preamble
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites.rows import published, read_rows

# What each release added, 1,055 problems in all.
FILES = (
    "livecodebench/test.jsonl",
    "livecodebench/test2.jsonl",
    "livecodebench/test3.jsonl",
    "livecodebench/test4.jsonl",
    "livecodebench/test5.jsonl",
    "livecodebench/test6.jsonl",
)
NUM_PROBLEMS = 1055
NUM_IN_RELEASE_6 = 175
CALL_SECONDS = 6  # of one test
ENTRY_POINT = "seedjax_call"

# Names that contest programs use without importing them, as the original harness does.
STARRED = (
    "string re datetime collections heapq bisect copy math random statistics itertools "
    "functools operator io sys json builtins typing"
).split()
IMPORTS = "".join(f"from {name} import *\n" for name in STARRED)
IMPORTS += f"import {', '.join(STARRED)}\nsys.setrecursionlimit(50000)\n"

# The words of the original harness for chat models.
FUNCTION_FORM = (
    "### Format: You will use the following starter code to write the solution to the "
    "problem and enclose your code within delimiters.\n```python\n{starter}\n```\n\n"
)
INPUT_FORM = (
    "### Format: Read the inputs from stdin solve the problem and write the answer to "
    "stdout (do not directly test on the sample inputs). Enclose your code within "
    "delimiters as follows.\n```python\n# YOUR CODE HERE\n```\n\n"
)
QUESTION = (
    "You are an expert Python programmer. You will be given a question (problem "
    "specification) and will generate a correct Python program that matches the "
    "specification and passes all tests. You will NOT return anything except for the "
    "program.\n\n### Question:\n{content}\n\n{form}"
    "### Answer: (use the provided format with backticks)\n\n"
)

ALARM = """
import signal
def _out_of_time(*_):
    raise TimeoutError("a test took more than {seconds} seconds")
signal.signal(signal.SIGALRM, _out_of_time)
"""

CALL_METHOD = """
_solution = Solution() if "Solution" in globals() else None
def seedjax_call(*arguments):
    signal.alarm({seconds})
    try:
        found = _solution.{name} if _solution is not None else {name}
        return found(*arguments)
    finally:
        signal.alarm(0)
"""

# Runs the program anew for each input, as `python program.py < input` would.
CALL_PROGRAM = """
import builtins, io, sys
def seedjax_call(text):
    def opened(file, *more, **named):
        if file in (0, "/dev/stdin"):
            return io.StringIO(text)
        return builtins.open(file, *more, **named)
    names = {{"__name__": "__main__"}}
    exec(_imports, names)
    names["open"] = opened
    output = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    kept = sys.stdin, sys.stdout
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
    names["stdin"], names["stdout"] = sys.stdin, output
    sys.stdout = output
    signal.alarm({seconds})
    try:
        exec(_code, names)
    except SystemExit:
        pass
    finally:
        signal.alarm(0)
        sys.stdin, sys.stdout = kept
    return output.buffer.getvalue().decode()
_imports = compile({imports!r}, "imports.py", "exec")
_code = compile({answer!r}, "program.py", "exec")
"""

CHECK_CALLS = """
import json
CASES = json.loads({cases!r})
def check(candidate):
    for text, expected in CASES:
        got = candidate(*[json.loads(line) for line in text.split("\\n")])
        assert (list(got) if isinstance(got, tuple) else got) == json.loads(expected)
"""

CHECK_OUTPUTS = """
import json
from decimal import Decimal, InvalidOperation
CASES = json.loads({cases!r})
def lines(text):
    return [line.strip() for line in text.strip().split("\\n")]
def numbers(line):
    try:
        return [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None
def same(got, expected):
    return got == expected or (
        numbers(got) is not None and numbers(got) == numbers(expected)
    )
def check(candidate):
    for text, expected in CASES:
        got, right = lines(candidate(text)), lines(expected)
        assert len(got) == len(right), "it prints another number of lines"
        assert all(map(same, got, right)), "it prints another answer"
"""


def read(
    folder: Path,
    *,
    count: int,
    files: tuple[str, ...] = FILES,
    first: date | None = None,
    last: date | None = None,
) -> list[Problem]:
    """The problems of `files` whose contest was on a day from `first` to `last`; raises
    InputError where that are not `count`."""
    problems = []
    for name in files:
        for row in read_rows(folder / name):
            try:
                day = datetime.fromisoformat(row["contest_date"]).date()
                if (first is None or first <= day) and (last is None or day <= last):
                    problems.append(problem_of(row))
            except (KeyError, TypeError, ValueError) as fault:
                raise InputError(
                    f"{folder / name}: problem {row.get('question_id')!r} is not in "
                    f"the format of LiveCodeBench: {type(fault).__name__}: {fault}"
                ) from None
    if len(problems) != count:
        raise InputError(
            f"{folder / files[0]} and the like hold {len(problems)} problems of that "
            f"window, {count} are expected: is this another release?"
        )
    return problems


def problem_of(row: dict[str, Any]) -> Problem:
    starter = row["starter_code"]
    form = FUNCTION_FORM.format(starter=starter) if starter else INPUT_FORM
    tests = json.loads(row["public_test_cases"]) + private_tests(
        row["private_test_cases"]
    )
    return Problem(
        problem_id=row["question_id"],
        question=QUESTION.format(content=row["question_content"], form=form),
        data={
            "cases": [[test["input"], test["output"]] for test in tests],
            "func_name": json.loads(row["metadata"] or "{}").get("func_name"),
            "contest_date": row["contest_date"],
            "difficulty": row["difficulty"],
            "platform": row["platform"],
        },
    )


class TextUnpickler(pickle.Unpickler):
    """Reads a pickled text and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"a pickle of {module}.{name}, a text is expected")


def private_tests(text: str) -> list[dict[str, str]]:
    """The hidden tests: JSON, or its pickled text, compressed, in base 64."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    try:
        packed = zlib.decompress(base64.b64decode(text, validate=True))
        plain = TextUnpickler(io.BytesIO(packed)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError) as fault:
        raise ValueError(f"hidden tests cannot be read: {fault}") from None
    if not isinstance(plain, str):
        raise ValueError("hidden tests are not a text")
    return json.loads(plain)


def program(problem: Problem, answer: str) -> Program:
    name = problem.data["func_name"]
    if not name:
        return input_output_program(answer, problem.data["cases"])
    cases = json.dumps(problem.data["cases"])
    source = ALARM.format(seconds=CALL_SECONDS)
    call = CALL_METHOD.format(name=name, seconds=CALL_SECONDS)
    source = after_preamble(IMPORTS, f"{answer}\n{source}{call}")
    test = CHECK_CALLS.format(cases=cases)
    return Program(source=source, test=test, entry_point=ENTRY_POINT)


def input_output_program(answer: str, cases: Sequence[Sequence[str]]) -> Program:
    """A program that reads standard input, and the outputs that are expected of it.

    Args:
      answer: the whole program.
      cases: pairs of input and output.
    """
    source = ALARM.format(seconds=CALL_SECONDS)
    source += CALL_PROGRAM.format(imports=IMPORTS, answer=answer, seconds=CALL_SECONDS)
    test = CHECK_OUTPUTS.format(cases=json.dumps(list(map(list, cases))))
    return Program(source=source, test=test, entry_point=ENTRY_POINT)


def wrong(problem: Problem) -> str:
    name = problem.data["func_name"]
    if not name:
        return "print('wrong')\n"
    return f"class Solution:\n    def {name}(self, *_):\n        return 'wrong'\n"


def suite(
    name: str,
    title: str,
    count: int,
    files: tuple[str, ...] = FILES,
    first: date | None = None,
    last: date | None = None,
) -> Suite:
    """A suite of the problems of `files` in a window of days; `count` says how many
    these are."""
    return Suite(
        name=name,
        title=title,
        family="LiveCodeBench",
        task="chat",
        source=published("livecodebench", files),
        num_problems=count,
        extraction="last_fenced",
        chat_extraction="last_fenced",
        samples=10,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=2000,
        wall_seconds=120.0,
        memory_bytes=4 << 30,
        read=functools.partial(read, count=count, files=files, first=first, last=last),
        program=program,
        wrong=wrong,
    )


SUITES = (
    suite("livecodebench", "LiveCodeBench v1 to v6", NUM_PROBLEMS),
    suite(
        "livecodebench_v6",
        "LiveCodeBench, what v6 added",
        NUM_IN_RELEASE_6,
        files=FILES[-1:],
    ),
)
