"""How often three ways to cut answers out of texts lead to the right verdict: ours,
evalplus's `sanitize`, and the stop words of bigcode-evaluation-harness.

    python scripts/compare_extraction.py --data FOLDER --evalplus VENV/bin/python

Texts are HumanEval's own answers in the shapes of answer_shapes.py, so that it is known
whether one holds a right answer; what is cut out is run against HumanEval's tests. The
data folder is that of `seedjax eval run`. evalplus runs in a Python of its own (`pip
install --no-deps evalplus; pip install tree-sitter tree-sitter-python tqdm termcolor`);
without --evalplus it is left out. The rules of bigcode-evaluation-harness (commit
01762fc7: humaneval-unstripped, instruct-humaneval-nocontext) are told again here.
"""

import argparse
import json
import subprocess
from collections import defaultdict
from pathlib import Path

from answer_shapes import SHAPES, Given

from seedjax.sandbox.sandbox import Program, Sandbox
from seedjax.tasks.extraction import extract
from seedjax.tasks.suite import Problem
from seedjax.tasks.suites import SUITES

SUITE = SUITES["humaneval"]
COUNT = 500
STRIDE = 7  # of problems from one text to the next

# Its sanitizer alone: what else it imports fetches its data.
EVALPLUS = """
import json, sys, types
data = types.ModuleType("evalplus.data")
for name in ("get_human_eval_plus", "get_mbpp_plus", "load_solutions",
             "write_directory", "write_jsonl"):
    setattr(data, name, None)
sys.modules["evalplus.data"] = data
from evalplus.sanitize import sanitize
for line in sys.stdin:
    text, entry = json.loads(line)
    try:
        found = sanitize(text, entry)
    except Exception as error:
        found = f"raise SystemExit({str(error)!r})"
    print(json.dumps(found), flush=True)
"""
BIGCODE_BASE = (
    "\nclass",
    "\ndef",
    "\n#",
    "\n@",
    "\nprint",
    "\nif",
    "\n```",
    "<file_sep>",
)
BIGCODE_CHAT = ("if __name__", "\nprint", "\nclass")


def cut_at(text: str, words: tuple[str, ...]) -> str:
    return text[: min([len(text), *(n for w in words if (n := text.find(w)) >= 0)])]


def bigcode(problem: Problem, text: str, *, chat: bool) -> str:
    """A base model's text up to the first stop word. Of a chat model's what follows the
    first fence, from the function's `def` to the line of the last `return`."""
    if not chat:
        return problem.prompt + cut_at(text, BIGCODE_BASE)
    entry = problem.data["entry_point"]
    _, fence, after = text.partition("```")
    text = cut_at(after.removeprefix("python") if fence else text, BIGCODE_CHAT)
    start = max(0, text.find(f"def {entry}"))
    last = start + max(0, text[start:].rfind("  return "))
    ends = [n for n in (text.find("\n", last), text.find("```")) if n >= 0]
    head = problem.prompt[: problem.prompt.find(f"def {entry}")].strip()
    return f"{head}\n{text[start : min(ends, default=len(text))]}"


def evalplus(python: str, texts: list[tuple[str, str]]) -> list[str]:
    """What its sanitizer makes of each text, given the function's name."""
    lines = "".join(json.dumps(pair) + "\n" for pair in texts)
    ran = subprocess.run(
        [python, "-c", EVALPLUS], input=lines, text=True, capture_output=True
    )
    if ran.returncode:
        raise SystemExit(f"evalplus failed: {ran.stderr.strip()[-500:]}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--evalplus", help="a Python that has evalplus")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    problems = SUITE.read(arguments.data)
    names = list(SHAPES)
    rows = []
    for number in range(arguments.count):
        problem = problems[number * STRIDE % len(problems)]
        name = names[number % len(names)]
        given = Given(
            problem.prompt, problem.reference or "", problem.data["entry_point"]
        )
        rows.append((name, problem, SHAPES[name].write(given)))

    sources: dict[str, list[str]] = {"seedjax": [], "bigcode": []}
    for name, problem, text in rows:
        chat = SHAPES[name].chat
        rule = SUITE.chat_extraction if chat else SUITE.extraction
        program = SUITE.program(problem, extract(rule, text, SUITE, problem))
        sources["seedjax"].append(program.source)
        sources["bigcode"].append(bigcode(problem, text, chat=chat))
    if arguments.evalplus:
        texts = [
            (text if SHAPES[name].chat else problem.prompt + text, problem)
            for name, problem, text in rows
        ]
        pairs = [(text, problem.data["entry_point"]) for text, problem in texts]
        sources["evalplus"] = evalplus(arguments.evalplus, pairs)

    agreed: dict[str, dict[str, list[bool]]] = {}
    with Sandbox(arguments.workers, SUITE.limits) as sandbox:
        for system, found in sources.items():
            programs = [
                Program(
                    source=source,
                    test=f"{problem.prompt}\n{problem.data['test']}",
                    entry_point=problem.data["entry_point"],
                )
                for source, (_, problem, _) in zip(found, rows, strict=True)
            ]
            outcomes = sandbox.run(programs)
            by_shape: dict[str, list[bool]] = defaultdict(list)
            for (name, *_), outcome in zip(rows, outcomes, strict=True):
                by_shape[name].append(outcome.passed == SHAPES[name].right)
            agreed[system] = by_shape
    for system, by_shape in agreed.items():
        count = sum(map(sum, by_shape.values()))
        print(f"{system}: {count} of {len(rows)} verdicts are right")
    print("\nshape: right verdicts of each, where one is wrong")
    for name in names:
        cells = {s: (sum(a[name]), len(a[name])) for s, a in agreed.items() if a[name]}
        if any(right < count for right, count in cells.values()):
            listed = ", ".join(f"{s} {r}/{n}" for s, (r, n) in cells.items())
            print(f"  {name}: {listed}")


if __name__ == "__main__":
    main()
