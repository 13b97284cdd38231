#!/usr/bin/env python3
"""Writes prompts and responses to fine-tune a code model on, as JSON lines.

Two sources: MBPP's problems that may be trained on (ids 601 to 974), asked as `seedjax
eval` asks them; and functions out of wheels that have a docstring and use nothing from
outside, whose prompt is the function down to its docstring, asked as HumanEval is. A
response is one fenced block.
With --problems, the same MBPP problems with their tests, for `posttrain --problems`.
With --prompts, the prompts alone, for `posttrain completions`: of three functions two
as they are and one asked; and the questions of --chats, rows with a `prompt`.

Command:   python scripts/code_pairs.py --mbpp mbpp.jsonl.gz --wheels ~/wheels
           --functions 2000 --out pairs.jsonl --problems problems.jsonl
"""

import argparse
import ast
import builtins
import random
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seedjax.data.sources import ArchiveSource
from seedjax.files.text import format_json_line, write_text
from seedjax.tasks.suites.humaneval import QUESTION
from seedjax.tasks.suites.mbpp import TASK, entry_point
from seedjax.tasks.suites.rows import read_rows

TRAINING = range(601, 975)
FENCED = "```python\n{}\n```"
LINES = range(4, 41)  # of a function
MOST_CHARACTERS = 1_200
LEAST_WORDS = 5  # of a docstring
KNOWN = {*vars(builtins)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mbpp", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, help="a folder with .whl files")
    parser.add_argument("--functions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--chats", type=Path, help="JSON lines, gzipped or not")
    arguments = parser.parse_args()
    rows = [r for r in read_rows(arguments.mbpp) if r["task_id"] in TRAINING]
    pairs = [
        {"prompt": question(row), "response": FENCED.format(code(row))} for row in rows
    ]
    prompts = [asked(pair["prompt"]) for pair in pairs]
    if arguments.wheels is not None:
        found = sorted(set(functions(arguments.wheels)))
        random.Random(arguments.seed).shuffle(found)
        for number, (start, rest) in enumerate(found[: arguments.functions]):
            wanted = QUESTION.format(prompt=start)
            response = FENCED.format(f"{start}\n{rest}")
            pairs.append({"prompt": wanted, "response": response})
            prompts.append(
                asked(wanted) if number % 3 == 2 else {"prompt": f"{start}\n"}
            )
    write_text(arguments.out, "".join(map(format_json_line, pairs)))
    if arguments.problems is not None:
        lines = [format_json_line(problem(row)) for row in rows]
        write_text(arguments.problems, "".join(lines))
    if arguments.prompts is not None:
        if arguments.chats is not None:
            prompts += [asked(row["prompt"]) for row in read_rows(arguments.chats)]
        prompts = [p for p in prompts if len(str(p)) < MOST_CHARACTERS]
        random.Random(arguments.seed).shuffle(prompts)
        write_text(arguments.prompts, "".join(map(format_json_line, prompts)))
    print(f"{len(rows)} of MBPP, {len(pairs) - len(rows)} functions")


def asked(text: str) -> dict[str, Any]:
    """A prompt that the model's chat template takes."""
    return {"messages": [{"role": "user", "content": text}]}


def question(row: Mapping[str, Any]) -> str:
    task = TASK.format(text=row["text"], tests="\n".join(row["test_list"]))
    return task + "Answer with one fenced code block."


def code(row: Mapping[str, Any]) -> str:
    return textwrap.dedent(row["code"].replace("\r\n", "\n").expandtabs(4)).strip()


def problem(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line for `posttrain --problems`."""
    return {
        "task_id": f"Mbpp/{row['task_id']}",
        "question": question(row),
        "test": "\n".join([row["test_setup_code"], *row["test_list"]]).strip(),
        "entry_point": entry_point(row["test_list"], row["code"]),
        "canonical_solution": FENCED.format(code(row)),
    }


def functions(folder: Path) -> Iterator[tuple[str, str]]:
    """Functions at the top of files, each down to its docstring, and the rest."""
    for wheel in sorted(folder.glob("*.whl")):
        for file in ArchiveSource(wheel).files():
            if not file.path.endswith(".py") or "test" in file.path:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the files' own style
                try:
                    text = file.read().decode()
                    tree = ast.parse(text)
                except (SyntaxError, ValueError):
                    continue
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and is_example(node):
                    start, rest = parted(text, node)
                    if len(start) + len(rest) <= MOST_CHARACTERS:
                        yield start, rest


def is_example(node: ast.FunctionDef) -> bool:
    """Whether a function stands alone and says what it does."""
    docstring = ast.get_docstring(node) or ""
    size = (node.end_lineno or 0) - node.lineno + 1
    return (
        size in LINES
        and not node.decorator_list
        and not node.name.startswith("_")
        and len(docstring.split()) >= LEAST_WORDS
        and len(node.body) > 1
        and docstring.isascii()
        and names_of(node, ast.Load) <= KNOWN | names_of(node, ast.Store) | {node.name}
    )


def names_of(node: ast.FunctionDef, use: type[ast.expr_context]) -> set[str]:
    """The names that a function reads, or those that it binds."""
    names = {
        n.id
        for n in ast.walk(node)
        if isinstance(n, ast.Name) and isinstance(n.ctx, use)
    }
    if use is ast.Store:
        names |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
        names |= {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef)}
        names |= {
            (alias.asname or alias.name).partition(".")[0]
            for n in ast.walk(node)
            if isinstance(n, ast.Import | ast.ImportFrom)
            for alias in n.names
        }
    return names


def parted(text: str, node: ast.FunctionDef) -> tuple[str, str]:
    lines = text.splitlines()
    split, end = node.body[0].end_lineno or 0, node.end_lineno or 0
    start = "\n".join(lines[node.lineno - 1 : split])
    return start.rstrip(), "\n".join(lines[split:end]).strip("\n").rstrip()


if __name__ == "__main__":
    main()
