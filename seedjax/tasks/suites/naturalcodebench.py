"""NaturalCodeBench (Zhang et al., 2024), development set: questions of real users in
English and in Chinese, answered in Python (pytest) and in Java (JUnit).

No licence comes with the problems, so the files are the user's own download. A problem
passes where all its tests do.
"""

import functools
import re
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.sandbox.script import Script
from seedjax.tasks.markdown import code_blocks
from seedjax.tasks.python_source import after_preamble
from seedjax.tasks.suite import Problem, Source, Suite, nothing_absent
from seedjax.tasks.suites import junit
from seedjax.tasks.suites.rows import read_rows
from seedjax.tasks.suites.splicing import in_one_java_file

PROJECT = "github.com/THUDM/NaturalCodeBench"
COMMIT = "268e850"
NUM_PROBLEMS = 70
FIELDS = ("_id", "prompt", "testcases", "setup_code", "reference_solution")
LANGUAGES = {"python": "Python", "java": "Java"}
TONGUES = {"en": "English", "zh": "Chinese"}

# The original harness feeds a program that reads ones.
STANDARD_INPUT = 'import io, sys\nsys.stdin = io.StringIO("1\\n" * 1000)\n'
PYTEST = """
import os, pathlib
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
import pytest
class Counter:
    found = passed = 0
    def pytest_collection_finish(self, session):
        self.found = len(session.items)
    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.outcome == "passed"
counter = Counter()
pathlib.Path({name!r}).write_text({text!r}, encoding="utf-8")
status = pytest.main(["-s", "-q", "-p", "no:cacheprovider", {name!r}], [counter])
assert status == 0 and counter.passed == counter.found > 0, (
    f"{{counter.passed}} of {{counter.found}} tests pass"
)
"""


def read(folder: Path, *, language: str, tongue: str) -> list[Problem]:
    path = folder / file_name(language, tongue)
    rows = read_rows(path)
    for row in rows:
        if absent := [name for name in FIELDS if name not in row]:
            raise InputError(
                f"{path}: problem {row.get('_id')!r} has no {', '.join(absent)}: is it "
                "the file of the folder problems/?"
            )
    if len(rows) != NUM_PROBLEMS:
        raise InputError(
            f"{path} has {len(rows)} problems, {NUM_PROBLEMS} are expected"
        )
    return [problem_of(row, language, tongue) for row in rows]


def file_name(language: str, tongue: str) -> str:
    return f"naturalcodebench/ncb_{language}_{tongue}.jsonl"


def problem_of(row: dict[str, Any], language: str, tongue: str) -> Problem:
    reference = row["reference_solution"]
    blocks = code_blocks(reference or "")
    code = "\n".join(block.code for block in blocks) or reference
    return Problem(
        problem_id=f"{language}_{tongue}/{row['_id']}",
        question=row["prompt"],
        reference=code,
        language=language,
        data={
            "number": row["_id"],
            "testcases": row["testcases"],
            "setup_code": row["setup_code"] or "",
            "packages": ["pytest"] if language == "python" else [],
        },
    )


def python_program(problem: Problem, answer: str) -> Script:
    module = f"python_{problem.data['number']}"
    tests = (
        f"import pytest\nfrom {module} import *\n"
        f"{problem.data['testcases']}\n{problem.data['setup_code']}\n"
    )
    return Script(
        language="python",
        source=after_preamble(f"import pytest\n{STANDARD_INPUT}", f"{answer}\n"),
        file_name=f"{module}.py",
        test=PYTEST.format(name=f"test_{module}.py", text=tests),
    )


def java_program(problem: Problem, answer: str) -> Script:
    tests = problem.data["testcases"]
    found = re.search(r"\bclass\s+(\w+)", tests)
    if found is None:
        raise InputError(f"the tests of {problem.problem_id} define no class")
    name = f"Test_java_{problem.data['number']}"
    tests = re.sub(rf"\b{found[1]}\b", name, tests)
    files = {"Solution.java": in_one_java_file(answer), f"{name}.java": tests}
    return junit.junit_script(files, [name])


def wrong(problem: Problem) -> str:
    return "class Wrong {}\n" if problem.language == "java" else "answer = None\n"


def suite(language: str, tongue: str) -> Suite:
    return Suite(
        name=f"naturalcodebench_{language}_{tongue}",
        title=f"NaturalCodeBench, {LANGUAGES[language]}, {TONGUES[tongue]}",
        family="NaturalCodeBench",
        task="chat",
        source=Source(
            project=PROJECT,
            version=COMMIT,
            licence="none is given; for research",
            address=f"https://{PROJECT}/tree/{COMMIT}/problems",
            files={file_name(language, tongue): ""},
        ),
        num_problems=NUM_PROBLEMS,
        language=language,
        extraction="fenced",
        max_new_tokens=1024,
        wall_seconds=840.0 if language == "python" else 420.0,
        memory_bytes=4 << 30,
        read=functools.partial(read, language=language, tongue=tongue),
        program=python_program if language == "python" else java_program,
        wrong=wrong,
        absent=junit.absent if language == "java" else nothing_absent,
    )


SUITES = tuple(suite(language, tongue) for language in LANGUAGES for tongue in TONGUES)
