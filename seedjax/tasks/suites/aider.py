"""Aider's code editing benchmark (P. Gauthier): Exercism exercises, whole-file format,
two tries, the second of which sees what the tests print.

"aider" are the exercises of Exercism's Python track, of which the benchmark of the
older leaderboard used 133; "aider_polyglot_*" are the harder ones of six languages.
Reported are the pass rates after try one and two and the share of well-formed answers.
The tests are run without the tracks' build tools where these would have to download
something: C++ with the Catch2 header and Java with the JUnit of the system.
"""

import functools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from seedjax.sandbox.outcome import Outcome
from seedjax.sandbox.script import Script
from seedjax.tasks.markdown import CodeBlock, code_blocks
from seedjax.tasks.python_source import is_python
from seedjax.tasks.suite import Problem, Source, Suite, nothing_absent
from seedjax.tasks.suites import junit
from seedjax.tasks.suites.exceptions import exceptions
from seedjax.tasks.suites.rows import published, read_rows

PYTHON_TRACK = "exercism_python/exercism_python.jsonl.gz"
POLYGLOT = "aider_polyglot/polyglot.jsonl.gz"
TITLES = {
    "python": "Python",
    "cpp": "C++",
    "go": "Go",
    "java": "Java",
    "javascript": "JavaScript",
    "rust": "Rust",
}
POLYGLOT_COUNTS = {
    "python": 34,
    "cpp": 26,
    "go": 39,
    "java": 47,
    "javascript": 49,
    "rust": 30,
}
CATCH = "/usr/include/catch2/catch.hpp"
REFACTORINGS = ("ledger", "markdown", "tree-building")
SHOWN_LINES = 50  # of what the tests print

# The words of the original harness: after the exercise, and between the tries.
ASK = (
    "\n####\n\nUse the above instructions to modify the supplied files: {files}\n"
    "Don't change the names of existing functions or classes, as they may be "
    "referenced from other code like unit tests, etc.\n"
    "Only use standard libraries, don't suggest installing any packages.\n"
)
ASK_AGAIN = (
    "\n####\n\nSee the testing errors above.\n"
    "The tests are correct, don't try and change them.\n"
    "Fix the code in {files} to resolve the errors.\n"
)
FORMAT = (
    "Answer with the entire content of each file that you change, in this form and "
    "without leaving anything out:\n\npath/to/file\n```\nentire content of the file\n"
    "```\n"
)


def read(folder: Path, *, path: str, language: str) -> list[Problem]:
    rows = read_rows(folder / path)
    return [problem_of(r) for r in rows if r.get("language", language) == language]


def problem_of(row: dict[str, Any]) -> Problem:
    language = row.get("language", "python")
    stubs = row["solution_files"]
    parts = (row["introduction"], row["instructions"], row["instructions_append"])
    exercise = "\n".join(part for part in parts if part)
    # Cargo.toml is among Rust's, but names packages only.
    names = " ".join(name for name in stubs if not name.endswith(".toml"))
    instruction = exercise + ASK.format(files=names)
    listing = "\n".join(f"{name}\n```\n{text}```\n" for name, text in stubs.items())
    return Problem(
        problem_id=f"{language}/{row['slug']}",
        before=stubs[main_file(stubs)] if len(stubs) == 1 else listing,
        instruction=instruction,
        question=f"{instruction}\n{FORMAT}\nThe files are now:\n\n{listing}",
        reference=reference_of(row),
        language=language,
        data={
            "slug": row["slug"],
            "stubs": stubs,
            "tests": row["test_files"],
            "others": {**row["editor_files"], **row.get("support_files", {})},
        },
    )


def main_file(stubs: Mapping[str, str]) -> str:
    return next(iter(stubs))


def reference_of(row: dict[str, Any]) -> str:
    """Upstream's example as a listing of files under the names of the stubs."""
    stubs, examples = list(row["solution_files"]), row["example_files"]
    files = {}
    for name, text in examples.items():
        path = PurePosixPath(name)
        same_name = [stub for stub in stubs if PurePosixPath(stub).name == path.name]
        same_kind = [
            stub for stub in stubs if PurePosixPath(stub).suffix == path.suffix
        ]
        if same_name:
            files[same_name[0]] = text
        elif len(examples) > 1 and path.suffix == ".java":
            files[f"src/main/java/{path.name}"] = text
        elif path.suffix != ".toml" and same_kind:
            files[same_kind[0]] = text
        elif path.name.endswith(".toml"):
            files["Cargo.toml"] = text
    # A C++ example may be all in the header.
    if row.get("language") == "cpp":
        files |= {stub: "" for stub in stubs if stub not in files}
    return listed(files)


def listed(files: Mapping[str, str]) -> str:
    return "\n".join(
        f"{name}\n{fence_for(text)}\n{text.rstrip()}\n{fence_for(text)}\n"
        for name, text in files.items()
    )


def fence_for(text: str) -> str:
    return "````" if "```" in text else "```"


def files_of(problem: Problem, answer: str) -> dict[str, str]:
    """The files that an answer writes: those that it lists by name, else its first code
    block, or all of it, as the main file."""
    blocks = file_blocks(problem, answer)
    files = {
        name: block.code
        for block in blocks
        if (name := file_of(block, problem)) is not None
    }
    if files:
        return files
    main = main_file(problem.data["stubs"])
    return {main: blocks[0].code if blocks else answer}


def file_blocks(problem: Problem, answer: str) -> list[CodeBlock]:
    """The code blocks, those in a program's documentation not among them."""
    return code_blocks(answer, is_python if problem.language == "python" else None)


def file_of(block: CodeBlock, problem: Problem) -> str | None:
    """The name of a block's file, above it or in its fence."""
    stubs: Mapping[str, str] = problem.data["stubs"]
    in_fence = re.findall(r"[\w./-]+\.\w+", block.info)
    for name in (named_file(block.above), *in_fence):
        for stub in stubs:
            if name in (stub, PurePosixPath(stub).name):
                return stub
        if is_further_file(name, problem):
            return name
    return None


def named_file(line: str) -> str:
    """A file name, without the markup that models put around it."""
    line = re.sub(r"^(?:[-*+]|\d+[.)])[ \t]+", "", line.strip())
    return line.strip("*`#: \t").removeprefix("./")


def is_further_file(name: str, problem: Problem) -> bool:
    """One that an answer may add beside the stubs: a source file, not a test."""
    path = PurePosixPath(name)
    kinds = {PurePosixPath(stub).suffix for stub in problem.data["stubs"]}
    return (
        re.fullmatch(r"[\w./-]+", name) is not None
        and path.suffix in kinds
        and not path.is_absolute()
        and ".." not in path.parts
        and name not in problem.data["tests"]
        and name not in problem.data["others"]
    )


def is_well_formed(problem: Problem, answer: str) -> bool:
    """Whether an answer lists the files in the suite's form."""
    stubs = problem.data["stubs"]
    return any(
        block.is_closed and file_of(block, problem) in stubs
        for block in file_blocks(problem, answer)
    )


def program(problem: Problem, answer: str) -> Script:
    files = {**problem.data["stubs"], **files_of(problem, answer)}
    return BUILDS[problem.language](problem, files)


def python_script(problem: Problem, files: dict[str, str]) -> Script:
    name = main_file(problem.data["stubs"])
    tests = dict(problem.data["tests"])
    test = tests.pop(name.replace(".py", "_test.py"))
    return Script(
        language="python",
        source=files.pop(name),
        file_name=name,
        files={**problem.data["others"], **tests, **files},
        test=test,
        test_cases=True,
    )


def go_script(problem: Problem, files: dict[str, str]) -> Script:
    name = main_file(problem.data["stubs"])
    return Script(
        language="go",
        source=files.pop(name),
        file_name=name,
        files={
            **files,
            **problem.data["others"],
            **problem.data["tests"],
            ".tmp/empty": "",
        },
        # Without its linter, which reads the whole standard library first.
        command=("go", "test", "-vet=off", "./..."),
        end_mark="ok  \t",  # an early exit of its own is an error to `go test`
    )


def rust_script(problem: Problem, files: dict[str, str]) -> Script:
    tests = [PurePosixPath(name).stem for name in problem.data["tests"]]
    chosen = [word for test in tests for word in ("--test", test)]
    name = "src/lib.rs"
    return Script(
        language="rust",
        source=files.pop(name),
        file_name=name,
        files={**files, **problem.data["others"], **problem.data["tests"]},
        command=("cargo", "test", "--offline", "--quiet", *chosen)
        + ("--", "--include-ignored"),
        end_mark="test result: ok",
        memory_bytes=2 << 30,
    )


def cpp_script(problem: Problem, files: dict[str, str]) -> Script:
    files |= problem.data["others"] | problem.data["tests"]
    name = next(name for name in problem.data["tests"])
    sources = [file for file in files if file.endswith(".cpp")]
    return Script(
        language="cpp",
        source=files.pop(name),
        file_name=name,
        files=files,
        compile=("g++", "-std=c++17", "-I.", "-I/usr/include/catch2")
        + ("-DEXERCISM_RUN_ALL_TESTS", "-DEXERCISM_TEST_SUITE")
        + (*sources, "-o", "program", "-pthread"),
        command=("./program",),
        end_mark="All tests passed",
    )


def java_script(problem: Problem, files: dict[str, str]) -> Script:
    tests = {
        # Exercises are done test by test; here all count.
        name: re.sub(r"@(?:Disabled|Ignore)(?:\([^)]*\))?", "", text)
        for name, text in problem.data["tests"].items()
    }
    names = [PurePosixPath(n).stem for n in tests if n.endswith("Test.java")]
    more = {n: t for n, t in problem.data["others"].items() if n.endswith(".java")}
    return junit.junit_script({**files, **more, **tests}, names)


def javascript_script(problem: Problem, files: dict[str, str]) -> Script:
    name = main_file(problem.data["stubs"])
    (test,) = problem.data["tests"]
    text = re.sub(r"\bx(test|it|describe)\(", r"\1(", problem.data["tests"][test])
    # Jest's globals and both module systems, with what Node brings.
    return Script(
        language="javascript",
        source=files.pop(name),
        file_name=name,
        files={**files, test: text},
        command=("jest", "--ci", "--colors=false", test),
        end_mark="Tests: ",
    )


def no_catch() -> str | None:
    if os.path.exists(CATCH):
        return None
    return (
        f"Catch2 is not at {CATCH}; to install it, for example: apt-get install catch2"
    )


def no_jest() -> str | None:
    if shutil.which("jest") is not None:
        return None
    return "jest is not on PATH; to install it, for example: npm install --global jest"


ABSENT = {"cpp": no_catch, "java": junit.absent, "javascript": no_jest}
"""Whether what runs the tests of a language is there, besides its compiler."""

BUILDS: dict[str, Callable[[Problem, dict[str, str]], Script]] = {
    "python": python_script,
    "go": go_script,
    "rust": rust_script,
    "cpp": cpp_script,
    "java": java_script,
    "javascript": javascript_script,
}


def wrong(problem: Problem) -> str:
    """The stub as it is, where that is not right already."""
    stubs = problem.data["stubs"]
    done = problem.data["slug"] in REFACTORINGS
    return listed(dict.fromkeys(stubs, "") if done else stubs)


def second_question(problem: Problem, answer: str, outcome: Outcome) -> str:
    """The message to the model after its first try has failed."""
    text = outcome.output.strip() or outcome.message
    shown = "\n".join(text.splitlines()[:SHOWN_LINES])
    names = " ".join(n for n in problem.data["stubs"] if not n.endswith(".toml"))
    return shown + "\n" + ASK_AGAIN.format(files=names)


def suite(
    name: str, title: str, language: str, source: Source, path: str, count: int
) -> Suite:
    table = "aider" if path == PYTHON_TRACK else f"aider_polyglot.{language}"
    return Suite(
        name=name,
        title=title,
        family="Aider",
        task="edit",
        source=source,
        num_problems=count,
        language=language,
        extraction="continuation",
        chat_extraction="continuation",
        metric="pass@1 after each of two tries",
        max_new_tokens=4096,
        wall_seconds=180.0,
        memory_bytes=1 << 30,
        tries=2,
        read=functools.partial(read, path=path, language=language),
        program=program,
        wrong=wrong,
        well_formed=is_well_formed,
        second_question=second_question,
        absent=ABSENT.get(language, nothing_absent),
        exceptions=exceptions(table),
    )


TRACK = published("aider")
SIX_LANGUAGES = published("aider_polyglot")

SUITES = (
    suite("aider", "Aider, Python track", "python", TRACK, PYTHON_TRACK, 140),
    *(
        suite(
            f"aider_polyglot_{language}",
            f"Aider polyglot, {TITLES[language]}",
            language,
            SIX_LANGUAGES,
            POLYGLOT,
            count,
        )
        for language, count in POLYGLOT_COUNTS.items()
    ),
)
