"""Cuts the answer out of what a model wrote.

    continuation  up to the first of the suite's stop strings
    function      Python: the problem's function, continued or written anew
    braces        the same in other languages
    fenced        the code block of a reply that holds the problem's function
    last_fenced   the last code block of a reply
    whole_file    a file's text, out of its code block if it stands in one

Published scores differ by several points for this alone, so every suite names its rule.
What a model thought before it answered is never an answer.
"""

import re
from collections.abc import Callable, Sequence

from seedjax.errors import InputError
from seedjax.sampling.stop_strings import cut_at_stop
from seedjax.tasks.languages import (
    HEADERS,
    aliases,
    braces,
    closing_brace,
    cut_braces,
    definition,
)
from seedjax.tasks.markdown import (
    CodeBlock,
    code_blocks,
    text_before_fence,
    thought_tags,
    unix_lines,
    without_thoughts,
)
from seedjax.tasks.python_source import (
    completed_body,
    continuation,
    is_python,
    top_level_names,
    whole_program,
    whole_programs_among_words,
    with_needed,
)
from seedjax.tasks.suite import Problem, Suite


def extract(rule: str, text: str, suite: Suite, problem: Problem) -> str:
    """The answer in `text`, in the form that `suite.program` takes. Raises InputError
    for a rule that there is not."""
    if rule == "continuation" and suite.task == "infill":
        return cut_at_stop(text, suite.stop)  # nothing but the hole's text
    python = problem.language == "python"
    entry_point = problem.data.get("entry_point", "")
    text = unix_lines(text)
    if python and entry_point and rule in ("function", "fenced"):
        return python_answer(problem.prompt, text, entry_point)
    text = without_thoughts(text)
    match rule:
        case "continuation":
            return cut_at_stop(text, suite.stop)
        case "function":
            return cut_function(problem.prompt, cut_at_stop(text, suite.stop))
        case "braces":
            return braces_answer(problem, cut_at_stop(text, suite.stop), entry_point)
        case "fenced" if entry_point:
            return braces_answer(problem, text, entry_point)
        case "fenced":
            return file_text(problem, text)
        case "last_fenced":
            blocks = code_blocks(text, whole_in(problem))
            return in_language(problem.language, blocks)[-1].code if blocks else text
        case "whole_file":
            return file_text(problem, cut_at_stop(text, suite.stop))
    raise InputError(f"there is no extraction rule {rule!r}")


def whole_in(problem: Problem) -> Callable[[str], bool] | None:
    """Whether code is complete, where that is known of its language."""
    return is_python if problem.language == "python" else None


def python_answer(prompt: str, text: str, entry_point: str) -> str:
    """The function `entry_point`: how `text` goes on with the prompt, else a whole
    program in one of its code blocks, the last that does more than the prompt, else one
    among its words, else a body alone."""
    cut = continuation(prompt, text)
    if cut is not None:
        inside = len("\n".join(text.split("\n")[: cut[1]]))
        tags = [tag.start() for tag in thought_tags(text)]
        if not tags or tags[0] < inside:  # one in the function stands in a string
            return cut[0]
    text = without_thoughts(text)
    cut = continuation(prompt, text)
    if cut is not None:
        return cut[0]
    blocks = [block.code for block in code_blocks(text, is_python)]
    found = [whole_program(code, entry_point) for code in blocks]
    wholes = [one for one in found if one is not None]
    done = [one for one in wholes if not one.is_stub]
    if done:
        return with_needed(done[-1].source, blocks)
    loose = list(whole_programs_among_words(text, entry_point))
    done = [one for one in loose if not one.is_stub]
    if done:
        return with_needed(done[-1].source, blocks)
    for code in [*blocks, text]:
        if (body := completed_body(prompt, code)) is not None:
            return body
    if wholes or loose:
        return [*wholes, *loose][-1].source
    return blocks[0] if blocks else cut_function(prompt, text)


def cut_function(prompt: str, text: str) -> str:
    """Up to the first line at the margin, of an answer that no parser takes."""
    for found in re.finditer(r"^(?=\S)", text, re.M):
        # The first line may continue the prompt's last.
        if found.start() > 0 or prompt.endswith("\n"):
            return text[: found.start()]
    return text


def braces_answer(problem: Problem, text: str, entry_point: str) -> str:
    """The function `entry_point` in a language with braces: how `text` goes on with the
    prompt, else the last code block that defines it, else its definition among words,
    else a body in a block."""
    language = problem.language
    # A Java prompt opens a class, too, which the answer closes.
    closing = 2 if language == "java" else 1
    pattern = definition(language, entry_point) if entry_point else None
    cut = cut_braces(language, text, closing)
    place = pattern.search(text) if pattern else None
    fence = text_before_fence(text)
    before = min(len(fence), place.start() if place else len(text))
    if cut is not None and len(cut.rstrip().rstrip("}").rstrip()) <= before:
        return cut
    blocks = code_blocks(text)
    defining = [b.code for b in blocks if pattern and pattern.search(b.code)]
    if defining:
        return defining[-1]
    if pattern and (place := pattern.search(fence)):
        return definition_among_words(language, fence, place.start())
    for block in in_language(language, blocks):
        return cut_braces(language, block.code, closing) or block.code
    return cut or text


def definition_among_words(language: str, text: str, place: int) -> str:
    """The definition at `place` of a text with words around it, the lines before it
    from the first import or the like on, and the blocks that follow without a word
    between."""
    header = re.search(HEADERS.get(language, r"(?!)"), text[:place], re.M)
    start = header.start() if header else text.rfind("\n", 0, place) + 1
    end = place
    while (opening := text.find("{", end)) >= 0:
        if end > place and "\n" in text[end:opening].strip():
            break
        closed = closing_brace(language, text, opening)
        if closed is None:
            return text[start:] if end == place else text[start:end] + "\n"
        end = closed + 1
    return text[start:end] + "\n" if end > place else text[start:]


def in_language(language: str, blocks: Sequence[CodeBlock]) -> list[CodeBlock]:
    """The blocks whose fences name the language, else those that name none, else all of
    them."""
    names = aliases(language)
    named = [block for block in blocks if block.language in names]
    silent = [block for block in blocks if not block.language]
    return named or silent or list(blocks)


def file_text(problem: Problem, text: str) -> str:
    """A file, given as it is or in a code block: in the one that defines most of what
    the program to change does, else in the first in its language."""
    python = problem.language == "python"
    head = text_before_fence(text)
    # A file may have fences of its own, in its documentation.
    if is_python(text) if python else braces(problem.language, head):
        return text
    blocks = code_blocks(text, whole_in(problem))
    if not blocks:
        return text
    chosen = in_language(problem.language, blocks)
    names = top_level_names(problem.before)
    if python and names:
        return max(chosen, key=lambda b: len(names & top_level_names(b.code))).code
    return chosen[0].code
