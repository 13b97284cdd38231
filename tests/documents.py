"""Documents as a reader uses them: the commands and the Python of their code blocks."""

import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from markdown_it import MarkdownIt

import seedjax.cli

# Programs that a document may call; `shell_commands` only notes how.
PROGRAMS = (
    *("seedjax", "pip", "python", "pytest", "patch", "git", "bash", "time"),
    *("curl", "ruff", "mypy", "mkdocs", "pre-commit", ".ci/run"),
)
SCRIPTS = Path(__file__).parent.parent / "scripts"
INLINE = re.compile(r"`((?:seedjax|scripts/on_cpu) [^`]+)`", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
      language: its info string's first word.
      text: what stands in it.
      line: where it begins in the document, from 1.
      shown: the block of language "text" right after it: what it prints; else None.
    """

    language: str
    text: str
    line: int
    shown: str | None


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document but those that show what another one prints."""
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    fences = [
        (number, token) for number, token in enumerate(tokens) if token.type == "fence"
    ]
    found = []
    for place, (number, token) in enumerate(fences):
        language = token.info.split()[0] if token.info.split() else ""
        if language == "text":
            continue
        following = fences[place + 1] if place + 1 < len(fences) else None
        shown = None
        if following is not None and following[0] == number + 1:
            shown = following[1].content if following[1].info == "text" else None
        found.append(Block(language, token.content, token.map[0] + 2, shown))
    return found


def shell_commands(text: str, folder: Path) -> list[list[str]]:
    """The commands of a shell block as bash passes them to the programs that it calls,
    which are not run. What else the block does, such as writing a file, is done in
    `folder`."""
    log = folder / ".commands"
    log.write_bytes(b"")
    names = [
        *PROGRAMS,
        *(f"scripts/{p.name}" for p in SCRIPTS.iterdir() if p.is_file()),
        "scripts/launch/submit",
    ]
    note = (
        'note() { printf "%s\\0" "$@" >> "$LOG"; printf "\\1\\0" >> "$LOG"; '
        "[ -t 0 ] || cat > /dev/null; }\n"
    )
    stubs = "".join(f'function {name} {{ note {name} "$@"; }}\n' for name in names)
    subprocess.run(
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f"LOG={shlex.quote(str(log))}\n{note}{stubs}{text}",
        ],
        cwd=folder,
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    calls = log.read_bytes().decode().split("\0\1\0")
    log.unlink()
    return [call.split("\0") for call in calls if call]


def inline_commands(document: Path) -> Iterator[list[str]]:
    """Commands that stand in a sentence, as `seedjax ...` between backticks; "..." and
    what follows on it is left out."""
    for match in INLINE.finditer(document.read_text(encoding="utf-8")):
        words = shlex.split(" ".join(match[1].split()))
        yield words[: words.index("...")] if "..." in words else words


@functools.cache
def whole_command():
    """The commands of seedjax, built once."""
    return typer.main.get_command(seedjax.cli.app)


def parse(command: list[str]) -> None:
    """Parses a command of seedjax down to the values of its options; raises what
    `typer` raises where it does not exist or takes no such option."""
    arguments = command[1:]
    if "--help" in arguments or not arguments:
        arguments = [a for a in arguments if a != "--help"]
        if not arguments:
            return
        check_options = False
    else:
        check_options = True
    group = whole_command()
    context = group.make_context("seedjax", arguments[:1])
    name, rest, inner = arguments[0], arguments[1:], group
    while True:
        found = inner.get_command(context, name)
        assert found is not None, f"there is no command {name!r} in {command}"
        if not hasattr(found, "get_command"):
            if check_options:
                found.make_context(name, list(rest), parent=context)
            return
        if not rest or rest[0].startswith("-"):
            # A group that works by itself, such as `eval --model mini`.
            if check_options:
                found.make_context(name, list(rest), parent=context)
            return
        inner, name, rest = found, rest[0], rest[1:]
