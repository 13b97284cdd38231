"""The text around a completion, with which it has to parse.

    edit      frame_of_program   the completion is the whole: it parses as the program
                                 whose place it takes
    infill    frame_of_hole      prefix + completion + suffix
    generate  frame_of_prompt    prompt + completion, which is reported only

A completion is at fault only where the whole is known to be able to parse: a program
that did, a hole that can be filled.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from seedjax.inference.syntax import Fault, can_be_continued, fault, missing_parser

TEXT = "text"  # given as a language where nothing is to be judged
# Prose of a word or two is a Python program, too, but nobody means it as one.
SIGNS_OF_CODE = re.compile(
    r"[=()\[\]{}]|^\s*(?:@|(?:async|class|def|for|from|if|import|return|try|while|with)"
    r"\b)",
    re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The text around a completion, and what is expected of the whole.

    Attributes:
      before: in front of the completion.
      after: following it.
      language: that the whole is judged in; None if it is not judged.
      required: whether the whole is known to be able to parse, so that a completion
        with which it does not is at fault.
      reason: why it is not required.
      compiles: see `fault`.
      replaces: whether the completion takes the place of a program, which then is not
        to be lost because nothing was written or the end is missing.
    """

    before: str = ""
    after: str = ""
    language: str | None = None
    required: bool = False
    reason: str = ""
    compiles: bool = False
    replaces: bool = False

    def fault(self, completion: str) -> Fault | None:
        """The first place at which the whole does not parse, if it is judged."""
        if self.language is None:
            return None
        whole = self.before + completion + self.after
        return fault(whole, self.language, compiles=self.compiles)

    def parses(self, completion: str, *, cut_off: bool = False) -> bool | None:
        """Whether the whole parses; None if it is not judged, or if a completion that
        is `cut_off` by its budget, with nothing after it, may still come to parse."""
        if self.language is None:
            return None
        if self.fault(completion) is None:
            return True
        is_open = cut_off and not self.after and not self.replaces
        can_go_on = self.language == "python" and self.can_go_on(completion)
        return None if is_open and can_go_on else False

    def objection(self, completion: str, *, cut_off: bool = False) -> str | None:
        """The objection to a completion, on one line; None if it may be handed out.

        Args:
          completion: what the model wrote.
          cut_off: whether it ended because its budget was used up.
        """
        if self.replaces and not completion.strip():
            return "the model wrote nothing in the program's place"
        if self.replaces and cut_off:
            return "the result was cut off when max_new_tokens were used up"
        found = self.fault(completion) if self.required else None
        if found is None:
            return None
        return f"the result does not parse as {self.language}: {found}"

    def can_go_on(self, completion: str) -> bool:
        """Whether a completion that is not finished may still become one with which
        the whole parses, as far as can be said."""
        if self.language != "python":
            return True
        return can_be_continued(self.before + completion)


@functools.lru_cache(maxsize=256)
def frame_of_program(program: str, language: str | None = None) -> Frame:
    """The frame of a completion that takes a program's place: it must parse in the
    program's language, if the program does.

    Args:
      program: that the completion takes the place of.
      language: its language; `TEXT` for no check; None if it is not known, which then
        is Python for what looks and parses like it.

    Raises:
      InputError: for a language that there is not.
    """
    is_code = SIGNS_OF_CODE.search(program) is not None
    around = Frame(replaces=True)
    return _judged(around, [program], language, is_code, "the program")


@functools.lru_cache(maxsize=256)
def frame_of_hole(prefix: str, suffix: str, language: str | None = None) -> Frame:
    """The frame of a completion between two texts: it must parse with both, if there is
    anything in its place with which they do. That is found by trying simple ones, such
    as nothing, a name, `pass` or a clause.

    Args:
      prefix: in front of the completion.
      suffix: following it.
      language: as for `frame_of_program`.

    Raises:
      InputError: for a language that there is not.
    """
    tried = (prefix + filler + suffix for filler in _fillers(prefix, suffix))
    is_code = SIGNS_OF_CODE.search(f"{prefix}\n{suffix}") is not None
    what = "the text around the hole, with anything simple in it,"
    around = Frame(before=prefix, after=suffix)
    return _judged(around, tried, language, is_code, what)


def frame_of_prompt(prompt: str, language: str | None = None) -> Frame:
    """The frame of a completion that follows a prompt. It is not required to parse.

    Raises:
      InputError: for a language that there is not.
    """
    if language == TEXT:
        return Frame(before=prompt)
    if language is None:
        if not SIGNS_OF_CODE.search(prompt) or not can_be_continued(prompt):
            return Frame(before=prompt, reason="the prompt is no Python")
        language = "python"
    if reason := missing_parser(language):
        return Frame(before=prompt, reason=reason)
    return Frame(before=prompt, language=language)


def _judged(
    around: Frame,
    examples: Iterable[str],
    language: str | None,
    is_code: bool,
    what: str,
) -> Frame:
    """A frame that is judged in a language, and required if one of the examples of the
    whole parses."""
    if language == TEXT:
        return replace(around, reason=f"the language is {TEXT}")
    judged = language or "python"
    if reason := missing_parser(judged):
        return replace(around, reason=reason)
    first: Fault | None = None
    for example in examples if language or is_code else ():
        found = fault(example, judged, compiles=False)
        if found is None:
            compiles = fault(example, judged) is None
            return replace(around, language=judged, required=True, compiles=compiles)
        first = first or found
    if language is None:
        reason = f"{what} does not look like Python; name its language"
        return replace(around, reason=reason)
    reason = f"{what} does not parse as {language}: {first}"
    return replace(around, language=language, reason=reason)


# What may stand in a hole, roughly the most frequent first.
FILLERS = (
    *(
        "",
        "x",
        "pass",
        "x, x",
        "x: x",
        "x = x",
        "x in x",
        "x in x:",
        "x:",
        "x():",
        ":",
        "()",
    ),
    ")",
    "x)",
    "]",
    "}",
    ")\n",
    "]\n",
    "}\n",
    "x for x in x",
    "x;",
    "x,",
    "{}",
    "x {}",
    "x() {}",
    "x: x,",
    "else:",
    "x\n",
    "pass\n",
    "x()\n",
    "finally:\n    pass\n",
    "x:\n    pass\n",
    "def x():\n    pass\n",
    "x: x\n",
)


def _fillers(prefix: str, suffix: str) -> Iterator[str]:
    """Fillers between two texts: each of `FILLERS`, as it is and indented as the
    lines around it are."""
    yield from FILLERS
    line = prefix[prefix.rfind("\n") + 1 :]
    if line.strip():
        return
    above = next((x for x in reversed(prefix.splitlines()) if x.strip()), "")
    below = next((x for x in suffix.splitlines() if x.strip()), "")
    found = [_indentation(above), _indentation(below)]
    deeper = [f"{_indentation(above)}{step}" for step in ("    ", "\t", "  ")]
    for indentation in dict.fromkeys([*deeper, *found]):
        if not indentation.startswith(line) or indentation == line:
            continue
        more = indentation[len(line) :]
        for filler in FILLERS[1:]:
            yield more + filler.replace("\n    ", f"\n{indentation}    ")


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
