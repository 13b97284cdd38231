"""Holes and edits in the words of other people's clients, as plain texts.

Editors that know a model by its name write its fill-in-the-middle tokens into the
prompt themselves. They mean nothing to another model, so that the two sides are taken
out of them; `sentinels.toml` lists the layouts. Mercury's clients write what is to be
edited between tags.
"""

import functools
import re
from dataclasses import dataclass
from typing import NamedTuple

from seedjax.files.package import package_table
from seedjax.server.errors import ApiError


class Hole(NamedTuple):
    """Text before and after a hole."""

    prefix: str
    suffix: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the two sides of a hole stand in a prompt."""

    name: str
    prefix: str
    suffix: str
    middle: str
    suffix_first: bool = False

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the whole of such a prompt."""
        sides = [
            f"{re.escape(self.prefix)}(?P<prefix>.*)",
            f"{re.escape(self.suffix)}(?P<suffix>.*)",
        ]
        ordered = "".join(reversed(sides) if self.suffix_first else sides)
        return re.compile(f".*?{ordered}{re.escape(self.middle)}", re.DOTALL)


@functools.cache
def layouts() -> tuple[Layout, ...]:
    """The known layouts."""
    found = package_table("seedjax.server", "sentinels.toml")["layout"]
    return tuple(Layout(**each) for each in found)


def hole_in(prompt: str) -> Hole | None:
    """The two sides of the hole that a prompt spells with another model's
    fill-in-the-middle tokens; None if it spells none.

    `<fim_prefix>a = <fim_suffix>\\nb<fim_middle>` has the sides `a = ` and `\\nb`.
    """
    for layout in layouts():
        if found := layout.pattern.fullmatch(prompt):
            return Hole(found["prefix"], found["suffix"])
    return None


def cut_at_dedent(text: str, indent: int) -> str:
    """The text before the first line, but its first one, that holds something and is
    indented by less than `indent` characters."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines[1:], 1):
        kept = line.lstrip(" \t")
        if kept.strip() and len(line) - len(kept) < indent:
            return "".join(lines[:number])
    return text


CURSOR = "<|cursor|>"
NO_EDIT = "None"  # what clients take for "leave it as it is"


class EditRequest(NamedTuple):
    """An edit of some code, in its file.

    Attributes:
      code: to be edited, without the cursor's mark.
      instruction: what the rest of the message amounts to, for the model.
    """

    code: str
    instruction: str


def edit_in(message: str) -> EditRequest:
    """The edit that a message with Mercury's tags describes.

    Raises:
      ApiError: if there is no code to edit in it.
    """
    code = _tagged(message, "code_to_edit")
    if code is None:
        message = (
            "the message holds no <|code_to_edit|> ... <|/code_to_edit|>; put the code "
            "to edit between these tags"
        )
        raise ApiError(400, message, param="messages", code="invalid_value")
    history = _tagged(message, "edit_diff_history") or ""
    rest = re.sub(r"<\|(\w+)\|>.*?<\|/\1\|>", "", message, flags=re.DOTALL).strip()
    instruction = rest or "Continue the change: " + " ".join(history.split())[-400:]
    return EditRequest(code.replace(CURSOR, ""), instruction)


def update_in(message: str) -> EditRequest:
    """The edit that a message with Mercury's tags of an update describes: code, and a
    snippet in which a comment such as "... existing code ..." stands for what stays.

    Raises:
      ApiError: if one of the two is missing.
    """
    code, snippet = (
        _tagged(message, tag) for tag in ("original_code", "update_snippet")
    )
    if code is None or snippet is None:
        message = (
            "the message holds no <|original_code|> ... <|/original_code|> with "
            "<|update_snippet|> ... <|/update_snippet|>; put code and update between "
            "these tags"
        )
        raise ApiError(400, message, param="messages", code="invalid_value")
    stays = 'Merge this update; "... existing code ..." stands for what does not change'
    return EditRequest(code, f"{stays}:\n{snippet}")


def _tagged(message: str, tag: str) -> str | None:
    """The text between <|tag|> and <|/tag|>, without the line breaks next to them."""
    found = re.search(rf"<\|{tag}\|>\n?(.*?)\n?<\|/{tag}\|>", message, re.DOTALL)
    return None if found is None else found[1]
