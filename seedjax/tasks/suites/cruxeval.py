"""CRUXEval (Gu et al., "CRUXEval: A Benchmark for Code Reasoning, Understanding and
Execution", 2024): given a function, predict the output of a call (CRUXEval-O), or any
input that gives an output (CRUXEval-I).

A base model gets the direct prompt, a chat model the one that lets it think first; an
answer is the assertion of either, or the missing part of it alone. The original harness
runs `assert OUTPUT == ANSWER` within 3 s and fails an output that repeats the call.
What differs here: an answer must be one expression and, for an input, a call of f.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seedjax.sandbox.sandbox import Program
from seedjax.tasks.markdown import code_blocks
from seedjax.tasks.python_source import parse
from seedjax.tasks.suite import Problem, Source, Suite
from seedjax.tasks.suites.rows import read_rows

PROJECT = "github.com/facebookresearch/cruxeval"
COMMIT = "190faf16d175b5847b0af05d937872b1fb395942"
FILE = "cruxeval/cruxeval.jsonl.gz"
STOPS = ("[/ANSWER]",)

Kind = Literal["input", "output"]

DIRECT: dict[Kind, str] = {
    "output": """\
You are given a Python function and an assertion containing an input to the function. \
Complete the assertion with a literal (no unsimplified expressions, no function calls) \
containing the output when executing the provided code on the given input, even if the \
function is incorrect or incomplete. Do NOT output any extra information. Provide the \
full assertion with the correct output in [ANSWER] and [/ANSWER] tags, following the \
examples.

[PYTHON]
def f(n):
    return n
assert f(17) == ??
[/PYTHON]
[ANSWER]
assert f(17) == 17
[/ANSWER]

[PYTHON]
def f(s):
    return s + "a"
assert f("x9j") == ??
[/PYTHON]
[ANSWER]
assert f("x9j") == "x9ja"
[/ANSWER]

[PYTHON]
{code}
assert f({input}) == ??
[/PYTHON]
[ANSWER]
""",
    "input": """\
You will be given a function f and an output in the form f(??) == output. Find any \
input such that executing f on the input leads to the given output. There may be \
multiple answers, but you should only output one. In [ANSWER] and [/ANSWER] tags, \
complete the assertion with one such input that will produce the output when executing \
the function.

[PYTHON]
def f(my_list):
    count = 0
    for i in my_list:
        if len(i) % 2 == 0:
            count += 1
    return count
assert f(??) == 3
[/PYTHON]
[ANSWER]
assert f(["mq", "px", "zy"]) == 3
[/ANSWER]

[PYTHON]
def f(s1, s2):
    return s1 + s2
assert f(??) == "banana"
[/PYTHON]
[ANSWER]
assert f("ba", "nana") == "banana"
[/ANSWER]

[PYTHON]
{code}
assert f(??) == {output}
[/PYTHON]
[ANSWER]
""",
}

THINKING: dict[Kind, str] = {
    "output": """\
You are given a Python function and an assertion containing an input to the function. \
Complete the assertion with a literal (no unsimplified expressions, no function calls) \
containing the output when executing the provided code on the given input, even if the \
function is incorrect or incomplete. Do NOT output any extra information. Execute the \
program step by step before arriving at an answer, and provide the full assertion with \
the correct output in [ANSWER] and [/ANSWER] tags, following the examples.

[PYTHON]
def f(s):
    s = s + s
    return "b" + s + "a"
assert f("hi") == ??
[/PYTHON]
[THOUGHT]
Let's execute the code step by step:

1. The function f is defined, which takes a single argument s.
2. The function is called with the argument "hi", so within the function, s is \
initially "hi".
3. Inside the function, s is concatenated with itself, so s becomes "hihi".
4. The function then returns a new string that starts with "b", followed by the value \
of s (which is now "hihi"), and ends with "a".
5. The return value of the function is therefore "bhihia".
[/THOUGHT]
[ANSWER]
assert f("hi") == "bhihia"
[/ANSWER]

[PYTHON]
{code}
assert f({input}) == ??
[/PYTHON]
[THOUGHT]
""",
    "input": """\
You will be given a function f and an output in the form f(??) == output. Your task is \
to find any input such that executing f on the input leads to the given output. There \
may be multiple answers, but only output one. First, think step by step. You MUST \
surround the answer with [ANSWER] and [/ANSWER] tags. Express your answer as a passing \
assertion containing the input and the given output.

[PYTHON]
def f(x):
    return x + 1
assert f(??) == 17
[/PYTHON]
[THOUGHT]
To find an input such that executing f on the input leads to the given output, we can \
work backwards from the given assertion. We know that f(??) == 17. \n
Since the function f(x) returns x + 1, for f(??) to be equal to 17, the value of ?? \
should be 16. \n[/THOUGHT]
[ANSWER]
assert f(16) == 17
[/ANSWER]

[PYTHON]
{code}
assert f(??) == {output}
[/PYTHON]
[THOUGHT]
""",
}


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
                prompt=fill(DIRECT[self.kind], row),
                question=fill(THINKING[self.kind], row),
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
    """What equals nothing; for an input, a call that no function takes, since to some
    all inputs are the same."""
    return "object()" if problem.data["kind"] == "output" else "f(*[None] * 9)"


def suite(kind: Kind) -> Suite:
    return Suite(
        name=f"cruxeval_{kind}",
        title=f"CRUXEval-{kind[0].upper()}",
        family="CRUXEval",
        task="complete",
        source=Source(
            project=PROJECT,
            version=COMMIT,
            licence="MIT",
            address=f"https://{PROJECT}/tree/{COMMIT}/data",
            files={
                FILE: "8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96"
            },
            urls={
                FILE: "https://raw.githubusercontent.com/facebookresearch/cruxeval/"
                f"{COMMIT}/data/cruxeval.jsonl"
            },
        ),
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
