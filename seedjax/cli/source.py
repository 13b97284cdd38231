"""A user's text as a model sees it, and what a model wrote in the form of that text.

    bytes ─▶ Source ─text─▶ model ─completion─▶ Source.rewritten ─▶ unified_diff
             byte order mark,                   the same mark,
             "\\r\\n" dropped                     the same line ends

A model sees "\\n" alone and no byte order mark. What it leaves as it was stays so to
the byte, so that the diff of an edit holds the edit and nothing else.
"""

import difflib
import io
import os
from dataclasses import dataclass
from pathlib import Path

MARK = "\ufeff"  # a byte order mark, decoded
NO_LINE_END = "\\ No newline at end of file\n"


@dataclass(frozen=True)
class Source:
    """A text as it stands in its file.

    Attributes:
      whole: with its byte order mark and line ends.
    """

    whole: str

    @property
    def mark(self) -> str:
        """The byte order mark, if there is one."""
        return MARK if self.whole.startswith(MARK) else ""

    @property
    def text(self) -> str:
        """The text as a model sees it: lines that end in "\\n", without the mark."""
        return self.whole.removeprefix(MARK).replace("\r\n", "\n")

    @property
    def line_end(self) -> str:
        """The end of most lines."""
        windows = self.whole.count("\r\n")
        return "\r\n" if 2 * windows > self.whole.count("\n") else "\n"

    def in_its_form(self, text: str) -> str:
        """A text that a model wrote to stand in this one, with its line ends."""
        return text.replace("\n", self.line_end)

    def rewritten(self, text: str) -> str:
        """A text that a model wrote in place of this one, in this one's form.

        Lines that are in both keep their ends; others get that of the line whose place
        they take, or of most lines. The last line ends as it does here.

        Args:
          text: with lines that end in "\\n".
        """
        if not text:
            return ""
        ends_whole = self.text.endswith("\n") or not self.text
        if text.endswith("\n") != ends_whole and self.text:
            text = text + "\n" if ends_whole else text.removesuffix("\n")
        old = _lines(self.whole.removeprefix(MARK))
        new = _lines(text)
        ends = [self.line_end] * len(new)
        matcher = difflib.SequenceMatcher(
            None, [_content(x) for x in old], [_content(x) for x in new], autojunk=False
        )
        for _, i, old_stop, j, new_stop in matcher.get_opcodes():
            for number in range(min(old_stop - i, new_stop - j)):
                line = old[i + number]
                ends[j + number] = line[len(_content(line)) :] or self.line_end
        lines = [
            line.removesuffix("\n") + end if line.endswith("\n") else line
            for line, end in zip(new, ends, strict=True)
        ]
        return self.mark + "".join(lines)


def _lines(text: str) -> list[str]:
    """The lines of a text with their ends. Unlike `str.splitlines`, no other character
    than "\\n" ends a line here, as for `patch` and git."""
    return list(io.StringIO(text, newline="\n"))


def _content(line: str) -> str:
    """A line without its end."""
    if line.endswith("\r\n"):
        return line[:-2]
    return line.removesuffix("\n")


def unified_diff(before: str, after: str, name: str) -> str:
    """The change from one text to another, nothing if they are equal.

    `git apply`, `patch -p1` and `patch -p0` all read it from the folder that `name` is
    relative to, for "./" is a prefix that one strips and the other goes through.

    Example: `"--- ./code\\n+++ ./code\\n@@ -1 +1 @@\\n-a\\n+b\\n"`.

    Args:
      before: the text in the file.
      after: what it becomes.
      name: of the file, see `name_in_diff`.
    """
    header = _quoted(f"./{name}")
    lines = difflib.unified_diff(_lines(before), _lines(after), header, header)
    return "".join(
        line if line.endswith("\n") else f"{line}\n{NO_LINE_END}" for line in lines
    )


def name_in_diff(file: Path, folder: Path | None = None) -> str:
    """A file's name relative to a folder, links followed, for neither `patch` nor git
    goes through them.

    Args:
      file: the file.
      folder: where the diff is to be applied; None is the current one.
    """
    place = os.path.realpath(folder or os.curdir)
    return Path(os.path.relpath(os.path.realpath(file), place)).as_posix()


def how_to_apply(name: str) -> str | None:
    """How a diff of a file is applied, where `patch` alone does not find it."""
    if name.startswith("../"):
        return (
            f"{name} is outside of this folder; apply the diff with `patch {name}` or "
            "`git apply --unsafe-paths`"
        )
    return "apply the diff with `patch -p1` or `git apply`" if "/" in name else None


def _quoted(name: str) -> str:
    """A file's name in a diff's header, quoted as git quotes it if it must be. A tab
    ends a name with blanks in it."""
    raw = os.fsencode(name)
    try:
        raw.decode()
        plain = all(byte >= 0x20 and byte not in b'"\\\x7f' for byte in raw)
    except UnicodeDecodeError:
        plain = False
    if plain and not name.endswith(" "):
        return f"{name}\t" if " " in name else name
    return f'"{"".join(map(_escaped, raw))}"'


def _escaped(byte: int) -> str:
    if byte in b'"\\':
        return f"\\{byte:c}"
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}"
