"""CanItEdit (Cassano et al., "Can It Edit? Evaluating the Ability of Large Language
Models to Follow Code Editing Instructions", 2024).

105 programs, each with a descriptive and a lazy instruction, which are two suites here.
Some programs are classes or scripts, so the tests run after the answer in its own
process. Besides pass@1 there is ExcessCode, see `excess_code`.
"""

import ast
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedjax.sandbox.outcome import Outcome
from seedjax.sandbox.script import Script
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites.rows import published, read_rows

FILE = "canitedit/canitedit.jsonl.gz"

STOPS = (
    "## Code After:",
    "## Instruction:",
    "## Code Before:",
    "## Test Case:",
    "## Explanation:",
)

# Only the first half is the original's user message: its system message asks for code
# alone.
QUESTION = """## Code Before
```py
{before}
```

## Instruction
{instruction}

## Code After"""

WALL_SECONDS = 30.0

# Prints which lines of the answer ran. It follows no more than the answer's own file.
TRACER = """
def _trace():
    import json, sys
    lines = set()
    def local(frame, event, argument):
        if event == "line":
            lines.add(frame.f_lineno)
        return local
    def trace(frame, event, argument):
        return local if frame.f_code.co_filename == "<answer>" else None
    sys.settrace(trace)
    try:
        exec(compile({program!r}, "<answer>", "exec"), {{"__name__": "__main__"}})
    finally:
        sys.settrace(None)
    print("\\n" + json.dumps({{"lines": sorted(lines)}}))
_trace()
"""


def edit_prompt(before: str, instruction: str) -> str:
    """A prompt that a base model continues with the edited program."""
    return (
        f"## Code Before:\n{before}\n## Instruction:\n{instruction}\n## Code After:\n"
    )


@dataclass(frozen=True)
class Reader:
    kind: str

    def __call__(self, folder: Path) -> list[Problem]:
        problems = []
        for row in read_rows(folder / FILE):
            before, instruction = row["before"], row[f"instruction_{self.kind}"]
            problems.append(
                Problem(
                    problem_id=row["full_name"],
                    prompt=edit_prompt(before, instruction),
                    before=before,
                    instruction=instruction,
                    question=QUESTION.format(before=before, instruction=instruction),
                    reference=row["after"],
                    data={
                        "tests": row["tests"],
                        "taxonomy": row["taxonomy"],
                        "packages": packages(f"{row['after']}\n{row['tests']}"),
                    },
                )
            )
        return problems


def packages(source: str) -> list[str]:
    """Imports of a program that Python does not bring along."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return sorted(found - sys.stdlib_module_names)


def program(problem: Problem, answer: str) -> Script:
    return Script(language="python", source=answer, test="\n" + problem.data["tests"])


def wrong(problem: Problem) -> str:
    return problem.before


def coverage_script(problem: Problem, answer: str) -> Script:
    """Runs answer and tests once more, and prints which lines of the answer ran; for an
    answer that has passed."""
    whole = answer + "\n" + problem.data["tests"]
    return Script(language="python", source="", test=TRACER.format(program=whole))


def covered_share(answer: str, outcome: Outcome) -> float | None:
    """The share of the answer's statements that ran, 0 to 1; None where the script has
    not come to its end or the answer has no statements."""
    statements = statement_lines(answer)
    printed = outcome.output.rstrip().rpartition("\n")[2]
    if not outcome.passed or not statements or not printed.startswith('{"lines"'):
        return None
    ran = set(json.loads(printed)["lines"])
    return sum(not ran.isdisjoint(lines) for lines in statements) / len(statements)


def statement_lines(source: str) -> list[range]:
    """The lines of every statement of a program, of a compound one those of its head;
    a documentation string or a declaration of names is none, for it runs nothing."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        if isinstance(node, ast.Global | ast.Nonlocal):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        first = min(
            [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]
        )
        inner = getattr(node, "body", None) or getattr(node, "cases", None)
        last = node.end_lineno or node.lineno
        if inner:
            begin = getattr(inner[0], "lineno", None) or inner[0].pattern.lineno
            last = max(node.lineno, begin - 1)
        found.append(range(first, last + 1))
    return found


def excess_code(shares: Sequence[Sequence[float]]) -> float:
    """ExcessCode in percent, as the original harness computes it: what the tests leave
    out of the median passing answer of a problem, averaged over the problems that have
    one.

    Args:
      shares: for each problem the `covered_share` of its passing answers. The original
        rounds each to a whole percent, this does not.
    """
    medians = [statistics.median(problem) for problem in shares if problem]
    return 100.0 * (1.0 - statistics.mean(medians)) if medians else float("nan")


def suite(kind: str) -> Suite:
    return Suite(
        name=f"canitedit_{kind}",
        title=f"CanItEdit, {kind} instructions",
        family="CanItEdit",
        task="edit",
        source=published("canitedit"),
        num_problems=105,
        stop=STOPS,
        extraction="whole_file",
        metric="pass@1, ExcessCode",
        samples=20,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=2048,
        wall_seconds=WALL_SECONDS,
        memory_bytes=4 << 30,
        read=Reader(kind),
        program=program,
        wrong=wrong,
        exceptions={
            "60_unique_number": (
                "its test times the program beside the unedited one, which on a busy "
                "machine the unedited one may pass, too"
            )
        },
    )


SUITES = (suite("descriptive"), suite("lazy"))
