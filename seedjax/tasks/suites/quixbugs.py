"""QuixBugs (Lin et al., 2017), Python: forty classic algorithms, one wrong line each.

Instruction and tests are those of OctoPack's version: asserts that run after the
mended program, within 10 s, because one of the algorithms is slow.
"""

from pathlib import Path

from seedjax.sandbox.script import Script
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites.canitedit import STOPS, edit_prompt
from seedjax.tasks.suites.rows import published, read_rows

FILE = "quixbugs/quixbugs_python.jsonl.gz"


def read(folder: Path) -> list[Problem]:
    return [
        Problem(
            problem_id=row["name"],
            prompt=edit_prompt(row["buggy_program"], f"Fix bug in {row['name']}"),
            before=row["buggy_program"],
            instruction=f"Fix bug in {row['name']}",
            question=(
                f"Fix bug in {row['name']}. Answer with the whole fixed program in one "
                f"fenced code block.\n\n```python\n{row['buggy_program']}\n```"
            ),
            reference=row["solution"],
            data={"entry_point": row["name"], "tests": row["tests"]},
        )
        for row in read_rows(folder / FILE)
    ]


def program(problem: Problem, answer: str) -> Script:
    return Script(language="python", source=answer, test=problem.data["tests"])


def wrong(problem: Problem) -> str:
    return problem.before


SUITES = (
    Suite(
        name="quixbugs",
        title="QuixBugs, Python",
        family="QuixBugs",
        task="edit",
        source=published("quixbugs"),
        num_problems=40,
        stop=STOPS,
        extraction="whole_file",
        wall_seconds=10.0,
        read=read,
        program=program,
        wrong=wrong,
    ),
)
