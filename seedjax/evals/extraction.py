"""Cuts the answer out of what a model wrote.

    continuation  up to the first of the suite's stop strings
    function      the same, and up to where the function that the prompt began ends
    braces        the same by braces
    fenced        the code block of a reply that holds the function asked for
    last_fenced   the last code block of a reply
    whole_file    a file's text, out of its code block if it stands in one

Published scores differ by several points for this alone, so every suite names its rule.
"""

import ast
import re
import warnings
from typing import NamedTuple

from seedjax.errors import InputError
from seedjax.evals.suite import Problem, Suite

FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*).*$", re.M)

# Strings and comments, in which braces do not count.
BRACES = re.compile(
    r'//[^\n]*|/\*.*?\*/|"""(?:\\.|.)*?"""|"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|([{}])",
    re.S,
)


def extract(rule: str, text: str, suite: Suite, problem: Problem) -> str:
    """The answer in `text`, in the form that `suite.program` takes. Raises InputError
    for a rule that there is not."""
    match rule:
        case "continuation":
            return cut_at_stop(text, suite.stop)
        case "function":
            return cut_function(problem.prompt, cut_at_stop(text, suite.stop))
        case "braces":
            # A Java prompt opens a class, too, which the answer closes.
            closing = 2 if problem.language == "java" else 1
            return cut_braces(cut_at_stop(text, suite.stop), closing)
        case "fenced":
            return fenced(text, problem.data.get("entry_point", ""))
        case "last_fenced":
            blocks = code_blocks(text)
            return blocks[-1].code if blocks else text
        case "whole_file":
            blocks = code_blocks(text)
            return blocks[0].code if blocks else cut_at_stop(text, suite.stop)
    raise InputError(f"there is no extraction rule {rule!r}")


def cut_at_stop(text: str, stop: tuple[str, ...]) -> str:
    places = [text.find(word) for word in stop]
    return text[: min((place for place in places if place >= 0), default=None)]


def cut_function(prompt: str, text: str) -> str:
    """Up to the first line that begins at the margin, unless what stands before it is
    no whole program yet: such a line may be inside a string or a bracket."""
    places = [
        found.start()
        for found in re.finditer(r"^(?=\S)", text, re.M)
        # The first line may continue the prompt's last.
        if found.start() > 0 or prompt.endswith("\n")
    ]
    for place in places:
        if is_python(prompt + text[:place]):
            return text[:place]
    return text[: places[0]] if places else text


def is_python(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its style
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def cut_braces(text: str, closing: int) -> str:
    """Up to the brace that closes the last of `closing` blocks which are open at the
    start; closed here where only the first of them is."""
    depth = closing
    ends: list[int] = []
    for found in BRACES.finditer(text):
        if found[1] is None:
            continue
        depth += 1 if found[1] == "{" else -1
        if depth == closing - 1 - len(ends):
            ends.append(found.end())
        if depth == 0:
            return text[: found.end()] + "\n"
    if not ends:
        return text
    return text[: ends[-1]] + "\n}" * (closing - len(ends)) + "\n"


class CodeBlock(NamedTuple):
    language: str  # "" = none is named
    code: str


def code_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of a Markdown text. One that is never closed goes to the end;
    one that was opened in the question, and so is only closed here, from the start."""
    fences = list(FENCE.finditer(text))
    if len(fences) == 1 and not fences[0][2] and not text[fences[0].end() :].strip():
        return [CodeBlock("", text[: fences[0].start()])]
    blocks, opened = [], None
    for fence in fences:
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2]:
            code = text[opened.end() + 1 : fence.start()]
            blocks.append(CodeBlock(opened[2], code))
            opened = None
    if opened is not None:
        blocks.append(CodeBlock(opened[2], text[opened.end() + 1 :]))
    return blocks


def fenced(text: str, entry_point: str) -> str:
    """The first block that speaks of `entry_point`, else the first; `text` as it is
    where there is none."""
    blocks = code_blocks(text)
    for block in blocks:
        if entry_point and re.search(rf"\b{re.escape(entry_point)}\b", block.code):
            return block.code
    return blocks[0].code if blocks else text
