"""MBXP and multilingual HumanEval (Athiwaratkun et al., "Multi-lingual Evaluation of
Code Generation Models", 2023): MBPP and HumanEval turned into twelve other languages.

A program is prompt, answer and test in one file, compiled within 100 s and run within
15 s, as the original harness does. What differs here: the program must print a secret
at the end of its test, so that an answer which ends the process early does not pass;
TypeScript passes where the emitted JavaScript does, however many errors its compiler
reports (the original wants the compiler to fail); C# is compiled by Mono, and the two
comparing libraries which tests import (lodash and CompareNetObjects), as well as Perl's
Data::Compare, are stood in for by the files in stand_ins/.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedjax.files.package import package_table
from seedjax.sandbox.sandbox import Program
from seedjax.sandbox.script import Script
from seedjax.tasks.suite import Problem, Rule, Source, Suite
from seedjax.tasks.suites.exceptions import exceptions
from seedjax.tasks.suites.rows import read_rows
from seedjax.tasks.suites.splicing import as_whole_program
from seedjax.tasks.suites.stand_ins import comparing

PROJECT = "github.com/amazon-science/mxeval"
COMMIT = "e09974f990eeaf0c0e8f2b5eaff4be66effb2c86"
RAW = f"https://raw.githubusercontent.com/amazon-science/mxeval/{COMMIT}/data/"

END_MARK = "seedjax-end-of-test"


@dataclass(frozen=True, kw_only=True)
class Language:
    """How the sets write one language. `closers` is what an answer ends with, `body`
    one that compiles and is wrong."""

    title: str
    prefix: str  # of the ids of MBXP's problems
    mbxp: tuple[str, int, str]  # file, problems, SHA-256 of its contents
    humaneval: tuple[str, int, str] | None = None
    end: str = ""  # the statement that prints the secret
    # How many of the braces that end the test come after it.
    trailing: int = 0
    body: str = ""
    closers: str = "}\n"
    extraction: Rule = "braces"
    stop: tuple[str, ...] = ()


def _languages() -> dict[str, Language]:
    """Every language that `multilingual.toml` describes."""
    tables = package_table("seedjax.tasks.suites", "multilingual.toml")
    return {name: _language_of(table) for name, table in tables.items()}


def _language_of(table: dict[str, Any]) -> Language:
    """The language of a table: its lists are tuples."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in table.items()
    }
    return Language(**fields)


LANGUAGES = _languages()

QUESTION = (
    "Complete this {title} function. Answer with the whole function in one fenced code "
    "block, without tests.\n\n```{language}\n{prompt}\n```"
)


def read(path: Path, language: str) -> list[Problem]:
    return [problem_of(row, language) for row in read_rows(path)]


def problem_of(row: dict[str, Any], language: str) -> Problem:
    title = LANGUAGES[language].title
    prompt = row["prompt"]
    return Problem(
        problem_id=row["task_id"],
        prompt=prompt,
        question=QUESTION.format(
            title=title, language=language, prompt=prompt.strip("\n")
        ),
        reference=row.get("canonical_solution"),
        language=language,
        data={"entry_point": row["entry_point"], "test": row["test"]},
    )


def program(problem: Problem, answer: str) -> Program | Script:
    entry, test = problem.data["entry_point"], problem.data["test"]
    source = as_whole_program(problem.language, problem.prompt, entry, answer)
    if problem.language == "python":
        # The helpers and imports of some tests are what stands before the function.
        before = re.split(rf"^def {entry}\b", problem.prompt, flags=re.M)[0]
        return Program(source=source, test=f"{before}\n{test}", entry_point=entry)
    return Script(
        language=problem.language,
        source=source + with_end_mark(test, LANGUAGES[problem.language]),
        files=comparing(problem.language),
        end_mark=END_MARK,
    )


def with_end_mark(test: str, language: Language) -> str:
    """The test, the last statement of which prints the mark."""
    statement = "\n" + language.end.format(mark=END_MARK) + "\n"
    place = len(test)
    for _ in range(language.trailing):
        place = test.rindex("}", 0, place)
    # C++ returns before the brace.
    last = re.search(r"return 0;\s*$", test[:place])
    place = last.start() if last else place
    return test[:place] + statement + test[place:]


def wrong(problem: Problem) -> str:
    language = LANGUAGES[problem.language]
    if problem.language == "python":
        # Prompts indent by two or by four.
        indents = re.findall(r'^([ \t]+)(?:"""|\'\'\')', problem.prompt, re.M)
        return (indents[-1] if indents else "    ") + "return object()\n"
    return language.body + language.closers


def suite(
    name: str,
    title: str,
    family: str,
    language: str,
    folder: str,
    file: tuple[str, int, str],
    licence: str,
) -> Suite:
    known = LANGUAGES[language]
    stem, count, checksum = file
    path = f"{folder}/{stem}.jsonl.gz"
    return Suite(
        name=name,
        title=f"{title}, {known.title}",
        family=family,
        task="complete",
        source=Source(
            project=PROJECT,
            version=COMMIT,
            licence=licence,
            address=f"https://{PROJECT}/tree/{COMMIT}/data/{folder}",
            files={path: checksum},
            urls={path: f"{RAW}{folder}/{stem}.jsonl"},
        ),
        num_problems=count,
        language=language,
        stop=known.stop,
        extraction=known.extraction,
        wall_seconds=15.0,
        read=Reader(path, language),
        program=program,
        wrong=wrong,
        exceptions=exceptions(f"{folder}.{language}", f"{known.prefix}/"),
    )


@dataclass(frozen=True)
class Reader:
    path: str
    language: str

    def __call__(self, folder: Path) -> list[Problem]:
        return read(folder / self.path, self.language)


SUITES = tuple(
    [
        suite(
            f"mbxp_{name}",
            "MBXP",
            "MBXP",
            name,
            "mbxp",
            language.mbxp,
            "CC-BY-4.0",
        )
        for name, language in LANGUAGES.items()
    ]
    + [
        suite(
            f"humaneval_{name}",
            "Multilingual HumanEval",
            "Multilingual HumanEval",
            name,
            "multilingual_humaneval",
            language.humaneval,
            "MIT",
        )
        for name, language in LANGUAGES.items()
        if language.humaneval is not None
    ]
)
