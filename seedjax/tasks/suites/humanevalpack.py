"""HumanEvalFix of HumanEvalPack (Muennighoff et al., "OctoPack: Instruction Tuning Code
Large Language Models", 2023): HumanEval functions with one bug each, in six languages.

A model sees the function without its documentation, and the tests; its answer is the
whole program, mended. What differs from the original harness: an answer that ends the
process early does not pass, for the program prints a secret after its test (see
multilingual.py); where JavaScript's console.assert only complains, it throws here; Go
runs the test functions without `go test`, with a stand-in for the one method of testify
that they call; a Rust program imports a crate from outside only if it uses it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedjax.sandbox.sandbox import Program
from seedjax.sandbox.script import Script
from seedjax.tasks.python_source import after_preamble
from seedjax.tasks.suite import Problem, Source, Suite
from seedjax.tasks.suites.canitedit import STOPS, edit_prompt
from seedjax.tasks.suites.exceptions import exceptions
from seedjax.tasks.suites.multilingual import END_MARK, LANGUAGES, with_end_mark
from seedjax.tasks.suites.rows import read_rows
from seedjax.tasks.suites.splicing import with_go_imports
from seedjax.tasks.suites.stand_ins import stand_in

PROJECT = "github.com/bigcode-project/octopack"
COMMIT = "e17a8f6470264286bc6a52eb8263582083bf3bf6"
UPSTREAM = "evaluation/create/humaneval-x/data"

# Ours: (upstream's name, SHA-256 of the contents)
FILES = {
    "python": (
        "python",
        "b1376d72be4bd016a62ad043d9de3846edb8d63edf1222da802a31330c14c3a7",
    ),
    "javascript": (
        "js",
        "04c86c1fac5f33818d9187cba278ed1dfc66cc259372dd8342126aa580fb7569",
    ),
    "java": (
        "java",
        "a8d077d300bbdc2eda91e1a733deb2944678bce8fcc7eb272214626516768cc1",
    ),
    "go": ("go", "0ee2cdca46d70afb33d913a0d4b205624fe4ded2f28c2efdb241727221837993"),
    "cpp": ("cpp", "891a390c1b9d2cb85dd8fbebcf1d88dbdd565734a6b2b3259f9ddb3fe95e33d7"),
    "rust": (
        "rust",
        "01ece28eaf490d7af037ce53095083dacfd38022cf5b82662ccb78024dc269a1",
    ),
}
TITLES = {"rust": "Rust"} | {name: known.title for name, known in LANGUAGES.items()}

# What the original harness imports for every answer, but for NumPy and Boost; in Go as
# far as it is used.
PYTHON_IMPORTS = (
    "import math, re, sys, copy, datetime, itertools, collections, heapq, statistics\n"
    "import functools, hashlib, string\nfrom typing import *\n"
    "from collections import *\n"
)
GO_IMPORTS = "math strings fmt strconv time bytes regexp sort math/rand crypto/md5"
CPP_HEADERS = (
    "stdlib.h algorithm cmath math.h numeric stdio.h vector set map queue stack list "
    "deque string climits cstring iostream sstream fstream"
)
THROWING_ASSERT = """
console.assert = holds => { if (!holds) throw new Error('assertion failed'); };
"""


@dataclass(frozen=True)
class Reader:
    language: str

    @property
    def path(self) -> str:
        return f"humanevalpack/humanevalpack_{FILES[self.language][0]}.jsonl.gz"

    def __call__(self, folder: Path) -> list[Problem]:
        rows = read_rows(folder / self.path)
        return [problem_of(row, self.language) for row in rows]


def problem_of(row: Mapping[str, Any], language: str) -> Problem:
    head = row.get("import", "") + row["declaration"]
    before = head + row["buggy_solution"]
    fix = f"Fix bugs in {row['entry_point']}."
    instruction = f"{fix} These tests must pass:\n{row['test'].strip()}"
    return Problem(
        problem_id=row["task_id"],
        prompt=edit_prompt(before, instruction),
        before=before,
        instruction=instruction,
        question=(
            f"{before}\n{row['test']}\n{fix} Answer with the whole fixed program in "
            "one fenced code block, without the tests."
        ),
        # Not the declaration: that of CPP/38 ends in the middle of a loop.
        reference=row["prompt"] + row["canonical_solution"],
        language=language,
        data={
            "entry_point": row["entry_point"],
            "prompt": row["prompt"],
            "setup": row.get("test_setup", ""),
            "test": row["test"],
        },
    )


def program(problem: Problem, answer: str) -> Program | Script:
    entry_point, test = problem.data["entry_point"], problem.data["test"]
    if problem.language == "python":
        # The sandbox calls `check` itself.
        test = test.rstrip().removesuffix(f"check({entry_point})")
        return Program(
            source=after_preamble(PYTHON_IMPORTS, answer),
            test=f"{problem.data['prompt']}\n{test}",
            entry_point=entry_point,
        )
    file_name = ""
    match problem.language:
        case "javascript":
            source = answer + THROWING_ASSERT + marked("javascript", test)
        case "java":
            source, file_name = answer + "\n" + marked("java", test), "Main.java"
        case "cpp":
            headers = "".join(f"#include <{name}>\n" for name in CPP_HEADERS.split())
            source = f"{headers}using namespace std;\n{answer}\n{marked('cpp', test)}"
        case "go":
            source = go_program(answer + missing_helpers(problem, answer), problem)
        case "rust":
            source = rust_program(answer, test)
        case _:
            raise ValueError(f"no such language: {problem.language}")
    return Script(
        language=problem.language,
        source=source,
        file_name=file_name,
        end_mark=END_MARK,
    )


def marked(language: str, test: str) -> str:
    return with_end_mark(test, LANGUAGES[language])


def missing_helpers(problem: Problem, answer: str) -> str:
    """The functions that upstream's Go tests use, and its declarations leave out."""
    helpers = re.finditer(r"^func (\w+)\(.*?^}\n", problem.data["prompt"], re.M | re.S)
    return "".join(f"\n{h[0]}" for h in helpers if f"func {h[1]}(" not in answer)


def go_program(answer: str, problem: Problem) -> str:
    setup, test = problem.data["setup"], problem.data["test"]
    setup = re.sub(r'.*"github\.com/stretchr/testify/assert".*\n', "", setup)
    imports = f'{setup}\nimport (\n\t"fmt"\n\t"reflect"\n)\n'
    calls = "".join(
        f"\t{name}(&testing.T{{}})\n"
        for name in re.findall(r"^func (Test\w+)", test, re.M)
    )
    main = f'func main() {{\n{calls}\tprintln("{END_MARK}")\n}}\n'
    more = "".join(f'import "{name}"\n' for name in GO_IMPORTS.split())
    answer = with_go_imports(imports, f"{more}{answer}\n")
    return answer + stand_in("equality.go") + test + main


def rust_program(answer: str, test: str) -> str:
    """The tests as a module whose functions `main` calls."""
    for crate, name in (("rand", "Rng|rand::"), ("regex", "Regex::"), ("md5", "md5::")):
        line = rf"^use {crate}\b.*;\n"
        if not re.search(name, re.sub(line, "", answer, flags=re.M)):
            answer = re.sub(line, "", answer, flags=re.M)
    answer = re.sub(r"^fn main\(\)\s*\{\s*\}", "", answer, flags=re.M)
    test = test.replace("#[cfg(test)]", "")
    test = re.sub(r"#\[test\]\s*(?://.*\s*)*(?:pub\s+)?fn", "pub fn", test)
    calls = "".join(
        f"    tests::{n}();\n" for n in re.findall(r"pub fn (\w+)\(\)", test)
    )
    return f'{answer}\n{test}\nfn main() {{\n{calls}    println!("{END_MARK}");\n}}\n'


def wrong(problem: Problem) -> str:
    return problem.before


def suite(language: str) -> Suite:
    upstream, checksum = FILES[language]
    reader = Reader(language)
    folder = f"{UPSTREAM}/{upstream}/data"
    return Suite(
        name=f"humanevalfix_{language}",
        title=f"HumanEvalFix, {TITLES[language]}",
        family="HumanEvalFix",
        task="edit",
        source=Source(
            project=PROJECT,
            version=COMMIT,
            licence="MIT",
            address=f"https://{PROJECT}/tree/{COMMIT}/{folder}",
            files={reader.path: checksum},
            urls={
                reader.path: "https://raw.githubusercontent.com/bigcode-project/"
                f"octopack/{COMMIT}/{folder}/humanevalpack.jsonl"
            },
        ),
        num_problems=164,
        language=language,
        stop=STOPS,
        extraction="whole_file",
        samples=20,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=1024,
        wall_seconds=10.0,
        read=reader,
        program=program,
        wrong=wrong,
        exceptions=exceptions(f"humanevalpack.{language}"),
    )


SUITES = tuple(suite(language) for language in FILES)
