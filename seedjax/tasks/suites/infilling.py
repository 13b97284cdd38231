"""HumanEval infilling (Bavarian et al., "Efficient Training of Language Models to Fill
in the Middle", 2022): HumanEval's own answers with a hole in them.

A hole is one line, several lines, or a random span of letters; the light set has one
random span a problem. The answer goes between prefix and suffix as it is.
"""

from dataclasses import dataclass
from pathlib import Path

from seedjax.sandbox.sandbox import Program
from seedjax.tasks.suite import Problem, Source, Suite
from seedjax.tasks.suites.rows import read_rows

PROJECT = "github.com/openai/human-eval-infilling"
COMMIT = "88062ff9859c875d04db115b698ed4b0f0395170"
RAW = f"https://raw.githubusercontent.com/openai/human-eval-infilling/{COMMIT}/data/"

# name: (title, file, problems, SHA-256 of its contents)
SETS = {
    "single_line": (
        "single line",
        "SingleLineInfilling",
        1033,
        "6fffc71ec2f1674372fcc177511f92312f1a27a9eacd8e43255c9f5ee9eca8c8",
    ),
    "multi_line": (
        "multiple lines",
        "MultiLineInfilling",
        5815,
        "5b49f312f0a781420a4ae54f5e73176009b9cfc52731e3a0b9be726b451032d1",
    ),
    "random_span": (
        "random span",
        "RandomSpanInfilling",
        1640,
        "4f15be2d4a479b504072c64e79702df184010f13bdf75f8b67ce08e054c48e26",
    ),
    "random_span_light": (
        "random span, light",
        "RandomSpanInfillingLight",
        164,
        "cbb2b36f90311a3a7d844b6361852bb33e3ab11ab3bca2b7e85bfb9bf78c5891",
    ),
}


@dataclass(frozen=True)
class Reader:
    path: str

    def __call__(self, folder: Path) -> list[Problem]:
        return [
            Problem(
                problem_id=row["task_id"],
                prompt=row["prompt"],
                suffix=row["suffix"],
                reference=row["canonical_solution"],
                data={"entry_point": row["entry_point"], "test": row["test"]},
            )
            for row in read_rows(folder / self.path)
        ]


def program(problem: Problem, answer: str) -> Program:
    # Some tests use helpers which only the whole program defines.
    whole = problem.prompt + (problem.reference or "") + problem.suffix
    return Program(
        source=problem.prompt + answer + problem.suffix,
        test=f"{whole}\n{problem.data['test']}",
        entry_point=problem.data["entry_point"],
    )


def wrong(problem: Problem) -> str:
    """Cannot be compiled wherever the hole is: no shorter answer is wrong everywhere,
    because some holes hold what is not needed, and some a closing bracket."""
    return "\n)}]\n"


def suite(name: str) -> Suite:
    title, stem, count, checksum = SETS[name]
    path = f"humaneval_infilling/HumanEval-{stem}.jsonl.gz"
    return Suite(
        name=f"humaneval_infill_{name}",
        title=f"HumanEval infilling, {title}",
        family="HumanEval infilling",
        task="infill",
        source=Source(
            project=PROJECT,
            version=COMMIT,
            licence="MIT",
            address=f"https://{PROJECT}/tree/{COMMIT}/data",
            files={path: checksum},
            urls={path: f"{RAW}HumanEval-{stem}.jsonl.gz"},
        ),
        num_problems=count,
        read=Reader(path),
        program=program,
        wrong=wrong,
    )


SUITES = tuple(suite(name) for name in SETS)
