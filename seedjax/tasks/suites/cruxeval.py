"""CRUXEval (Gu et al., "CRUXEval: A Benchmark for Code Reasoning, Understanding and
Execution", 2024): given a function, predict the output of a call (CRUXEval-O), or any
input that gives an output (CRUXEval-I).

A base model gets the direct prompt, a chat model the one that lets it think first; an
answer is the assertion of either, or the missing part of it alone. The original harness
runs `assert OUTPUT == ANSWER` within 3 s and fails an output that repeats the call.
What differs here: an answer must be one expression and, for an input, a call of f.
"""

import ast
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seedjax.files.package import package_table
from seedjax.sandbox.sandbox import Program
from seedjax.tasks.markdown import code_blocks
from seedjax.tasks.python_source import parse
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites.rows import published, read_rows

FILE = "cruxeval/cruxeval.jsonl.gz"
STOPS = ("[/ANSWER]",)

Kind = Literal["input", "output"]


@functools.cache
def prompts() -> dict[str, dict[Kind, str]]:
    """The templates of `cruxeval.toml`: "direct" or "thinking", then by kind."""
    return package_table("seedjax.tasks.suites", "cruxeval.toml")


def fill(template: str, row: dict[str, str]) -> str:
    """One pass: what is filled in may hold braces and the words of other fields."""
    for name in ("input", "output"):
        head, field, tail = template.partition("{" + name + "}")
        if field:
            before, _, between = head.partition("{code}")
            return before + row["code"] + between + row[name] + tail
    raise ValueError("the template has neither input nor output")


@dataclass(frozen=True)
class Reader:
    kind: Kind

    def __call__(self, folder: Path) -> list[Problem]:
        reference = "output" if self.kind == "output" else "input"
        return [
            Problem(
                problem_id=row["id"],
                prompt=fill(prompts()["direct"][self.kind], row),
                question=fill(prompts()["thinking"][self.kind], row),
                reference=row[reference]
                if self.kind == "output"
                else f"f({row[reference]})",
                data={
                    "kind": self.kind,
                    "code": row["code"],
                    "input": row["input"],
                    "output": row["output"],
                },
            )
            for row in read_rows(folder / FILE)
        ]


def program(problem: Problem, answer: str) -> Program:
    data = problem.data
    part = missing_part(data["kind"], answer)
    if is_answer(data["kind"], part, data["input"]):
        returned = f"return (\n{part}\n)"
    else:
        returned = "raise SyntaxError('not an expression of the form asked for')"
    return Program(
        source=f"{data['code']}\n\n\ndef answer():\n    {returned}\n",
        test=f"def check(candidate):\n    assert ({data['output']}) == candidate()\n",
        entry_point="answer",
    )


def missing_part(kind: Kind, answer: str) -> str:
    """The side of the assertion that was left out, or the whole answer if it is no
    assertion."""
    answer = answer.rpartition("[ANSWER]")[2].partition("[/ANSWER]")[0].strip()
    blocks = code_blocks(answer)
    answer = (blocks[-1].code if blocks else answer).strip().strip("`").strip()
    tree = parse(answer)
    node = tree.body[0] if tree and tree.body else None
    if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
        compared = node.test
        sides = (compared.left, compared.comparators[-1])
        side = sides[kind == "output"]
        return ast.get_source_segment(answer, side) or ""
    return answer.removeprefix("assert").strip()


def is_answer(kind: Kind, part: str, given: str) -> bool:
    try:
        node = ast.parse(part, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if kind == "output":
        return f"f({given})" not in part
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "f"
    )


def wrong(problem: Problem) -> str:
    """A value that equals nothing; for an input, a call that no function takes, as to
    some all inputs are the same."""
    return "object()" if problem.data["kind"] == "output" else "f(*[None] * 9)"


def suite(kind: Kind) -> Suite:
    return Suite(
        name=f"cruxeval_{kind}",
        title=f"CRUXEval-{kind[0].upper()}",
        family="CRUXEval",
        task="complete",
        source=published("cruxeval"),
        num_problems=800,
        stop=STOPS,
        chat_extraction="continuation",
        samples=10,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=1024,
        read=Reader(kind),
        program=program,
        wrong=wrong,
    )


SUITES = (suite("input"), suite("output"))
