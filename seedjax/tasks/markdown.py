"""A chat model's text around its code: thoughts before it, Markdown about it.

`markdown-it-py` finds the fenced blocks as CommonMark has them, in lists and quotations
too. Models write fences that CommonMark does not know: after words in a line, twice in
a row, closed after the last line of code, in a list whose code is not indented. Such
fences are put on lines of their own first.
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from markdown_it import MarkdownIt

# Between these a model thinks. Each stands on a line of its own or at one of its ends.
_WORDS = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis)"
_OPENING = (
    rf"<(?:\w+:)?{_WORDS}>|\[(?:THINK|THOUGHT)\]|\u25c1think\u25b7|<unused94>|"
    r"<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|channel\|>analysis<\|message\|>"
)
_CLOSING = (
    rf"</(?:\w+:)?{_WORDS}>|\[/(?:THINK|THOUGHT)\]|\u25c1/think\u25b7|<unused95>|"
    r"<\|end_of_thought\|>|<\|END_THINKING\|>|<\|channel\|>final<\|message\|>|"
    r"\[BEGIN FINAL RESPONSE\]"
)
TAG = re.compile(
    rf"(?<![\"'`])(?:(?P<opening>{_OPENING})|(?P<closing>{_CLOSING}))(?![\"'`](?!``))",
    re.IGNORECASE,
)

CONTAINERS = r"[ \t]*(?:(?:>|[-*+]|\d{1,9}[.)])[ \t]*)*"  # of lists and quotations
FENCE = re.compile(rf"^({CONTAINERS})(`{{3,}}|~{{3,}})[ \t]*([^`\n]*?)[ \t]*$")
MID_LINE = re.compile(r"^(.*?[^`\s].*?)(`{3,})([^`\n]*)$")
LAST_IN_LINE = re.compile(r"^(.*[^`\s~].*?)[ \t]*(`{3,}|~{3,})[ \t]*$")
ONE_LINE = re.compile(r"```+[ \t]*([\w+#.-]*)[ \t]+([^`\n]+)```+")
# A first line of code in the place of a fence's attributes.
CODE_IN_INFO = re.compile(
    r"^([\w+#.-]+)[ \t]+((?:async |def |class |from |import |@).*)"
)


class CodeBlock(NamedTuple):
    """A fenced block.

    Attributes:
      language: the first word of its info string, in small letters; "" = none.
      code: what stands in it, with a line break at its end unless it is empty.
      info: the whole info string, as `python title="x.py"`.
      above: the last line with text before it.
      is_closed: whether it ends with a fence, not with the text.
    """

    language: str
    code: str
    info: str = ""
    above: str = ""
    is_closed: bool = True


def without_thoughts(text: str) -> str:
    """A model's reply after its thoughts: `text` without what stands between tags
    such as <think> and </think>, without what stands before a closing one whose opening
    one was in the prompt, and without thoughts that never end.

    A tag counts at the beginning of a line and never between quotation marks. One that
    closes counts anywhere if one is open, else also at the end of a line or before a
    fence.
    """
    kept, place, opened = "", 0, False
    for tag in thought_tags(text):
        if tag["opening"]:
            if not opened:
                kept, place, opened = kept + text[place : tag.start()], tag.end(), True
        else:
            # Thoughts that began in the prompt: nothing before their end is a reply.
            kept = kept if opened else ""
            place, opened = tag.end(), False
    if not place:
        return text
    rest = "" if opened else text[place:]
    # The line breaks after the tag, not the indentation of what follows them.
    return kept + (rest if kept.strip() else re.sub(r"^(?:[ \t]*\n)+", "", rest))


def thought_tags(text: str) -> Iterator[re.Match[str]]:
    """The tags that count."""
    opened = False
    for tag in TAG.finditer(text):
        before = text[text.rfind("\n", 0, tag.start()) + 1 : tag.start()]
        after = text[tag.end() :].partition("\n")[0].strip()
        ends = tag["closing"] and (not after or after.startswith(("```", "~~~")))
        if not before.strip() or ends or (opened and tag["closing"]):
            opened = tag["opening"] is not None
            yield tag


def code_blocks(
    text: str, is_whole: Callable[[str], bool] | None = None
) -> list[CodeBlock]:
    """The fenced blocks of a Markdown text, in their order. One that is never closed
    goes to the end; one that was opened in the prompt, and so is only closed here,
    begins at the start. Of a block of Markdown the blocks in it are taken.

    Args:
      text: with line breaks of any kind.
      is_whole: whether code is complete, if that is known. A block of which it is
        not, but of which it would be if it ended at a later fence, as where a fence
        stands in a docstring, ends there.
    """
    lines = unix_lines(text).split("\n")
    blocks = _parsed(lines, is_whole)
    if not blocks or any(_is_doubtful(block, is_whole) for block in blocks):
        lines = _fences_alone(lines)
        blocks = _parsed(lines, is_whole)
    if blocks is None:
        # The list or quotation around a block ended before the block did.
        flat = [_without_container(line) for line in lines]
        blocks = _parsed(flat, is_whole, flat=True) or []
    if len(blocks) == 1 and not blocks[0].info and not blocks[0].code.strip():
        head = text_before_fence(text)
        blocks = [CodeBlock("", head)] if head.strip() else blocks
    if not blocks:
        blocks = [
            CodeBlock(found[1].lower(), found[2].strip() + "\n", found[1])
            for found in ONE_LINE.finditer(text)
        ]
    inner: list[CodeBlock] = []
    for block in blocks:
        nested = block.language in ("markdown", "md") and code_blocks(block.code)
        inner += nested or [block]
    return inner


def _is_doubtful(block: CodeBlock, is_whole: Callable[[str], bool] | None) -> bool:
    """Whether a block may not be what its author saw as one."""
    if not block.is_closed:
        return True
    inside = "```" in block.code or "~~~" in block.code
    return inside and (is_whole is None or not is_whole(block.code))


def text_before_fence(text: str) -> str:
    """The text before the first fence; all of it where there is none."""
    lines = _fences_alone(unix_lines(text).split("\n"))
    for number, line in enumerate(lines):
        if FENCE.match(line):
            return "".join(f"{one}\n" for one in lines[:number])
    return text


def unix_lines(text: str) -> str:
    """With line breaks as Unix has them, and without a byte order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _fences_alone(lines: list[str]) -> list[str]:
    """The lines, every fence on one of its own, and every block closed before the next
    begins."""
    made: list[str] = []
    opened: re.Match[str] | None = None
    start = 0  # of the open block, in `made`
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if opened is None:
            middle = None if fence else MID_LINE.match(line)
            if (
                middle
                and "``" not in middle[1]
                and any("```" in x for x in lines[number + 1 :])
            ):
                made.append(middle[1].rstrip())
                line = middle[2] + middle[3]
                fence = FENCE.match(line)
            if fence:
                opened, start = fence, len(made)
                if code := CODE_IN_INFO.match(fence[3]):
                    made.append(f"{fence[1]}{fence[2]}{code[1]}")
                    line = code[2]
            made.append(line)
            continue
        same = fence is not None and _closes(opened, fence)
        if same and fence is not None and not fence[3]:
            made.append(line)
            opened = None
        elif same and fence is not None:
            if not any(x.strip() for x in made[start + 1 :]):
                made[start] = ""  # two opening fences in a row are one
                opened, start = fence, len(made)
                made.append(line)
            elif len(fence[3].split()) > 1 and not re.search("[={:]", fence[3]):
                made += [fence[1] + fence[2], fence[3]]  # words after a closing one
                opened = None
            else:
                made += [opened[1] + opened[2], line]
                opened, start = fence, len(made) - 1
        elif (last := LAST_IN_LINE.match(line)) and _closes_late(
            opened, last[2], lines[number + 1 :]
        ):
            made += [last[1], opened[1] + opened[2]]
            opened = None
        else:
            made.append(line)
    return made


def _closes(opened: re.Match[str], fence: re.Match[str]) -> bool:
    """Whether a fence is of the kind that closes a block, and not deep inside of it."""
    deep = len(fence[1].expandtabs()) >= len(opened[1].expandtabs()) + 4
    return fence[2].startswith(opened[2]) and not deep


def _closes_late(opened: re.Match[str], marks: str, after: list[str]) -> bool:
    """Whether marks at the end of a line of code close the block, which they do where
    no line that follows does."""
    if not marks.startswith(opened[2]):
        return False
    fences = [fence for line in after if (fence := FENCE.match(line))]
    return not fences or bool(fences[0][3])


def _without_container(line: str) -> str:
    """A fence without the marks of list and quotation before it; other lines as they
    are."""
    fence = FENCE.match(line)
    return line[len(fence[1].rstrip()) :] if fence and fence[1].strip() else line


@functools.cache
def _parser(*, flat: bool) -> MarkdownIt:
    """CommonMark's blocks. A tag on a line of its own hides no fence; a flat one knows
    neither lists nor quotations nor code without fences."""
    parser = MarkdownIt("commonmark").disable(["html_block", "inline"])
    return parser.disable(["list", "blockquote", "code"]) if flat else parser


def _parsed(
    lines: list[str], is_whole: Callable[[str], bool] | None, *, flat: bool = False
) -> list[CodeBlock] | None:
    """The blocks of the lines; None if one of them ends before its fence comes."""
    blocks: list[CodeBlock] = []
    past = 0  # lines up to here are in a block
    used = max((n + 1 for n, line in enumerate(lines) if line.strip()), default=0)
    for token in _parser(flat=flat).parse("\n".join(lines)):
        if token.type != "fence" or token.map is None or token.map[0] < past:
            continue
        start, past = token.map
        closing = FENCE.match(lines[past - 1]) if past - start > 1 else None
        is_closed = closing is not None and not closing[3]
        if not is_closed and past < used:
            return None
        code = token.content
        if flat:
            code = _inside(lines[start : past - is_closed])
        if is_whole is not None and not is_whole(code):
            longer, end = _longer(lines, start, past, is_whole)
            code, past = (longer, end) if longer else (code, past)
        above = next((x for x in reversed(lines[:start]) if x.strip()), "")
        info = token.info.strip()
        first = re.match(r"[\w+#.-]*", info.lstrip("{."))
        language = first[0].lower() if first else ""
        blocks.append(CodeBlock(language, code, info, above, is_closed))
    return blocks


def _longer(
    lines: list[str], start: int, end: int, is_whole: Callable[[str], bool]
) -> tuple[str, int]:
    """The block that opens in line `start` and ends later than in line `end`, if it is
    whole then, and where that is."""
    for number in range(end, len(lines)):
        fence = FENCE.match(lines[number])
        if fence and not fence[3]:
            code = _inside(lines[start:number])
            if is_whole(code):
                return code, number + 1
    return "", end


def _inside(lines: list[str]) -> str:
    """The text after the first line, a fence, with as much indentation less as the
    fence has and all lines share."""
    fence, *code = lines
    indents = [len(x) - len(x.lstrip()) for x in (fence, *code) if x.strip()]
    return "".join(f"{line[min(indents) :]}\n" for line in code)
