"""Pages of the documentation site that are made when it is built, and its last check.

mkdocs calls the functions named `on_...` (`hooks` in mkdocs.yml). Nothing that they
make is stored: the reference comes from docstrings and from the command line itself,
the notebook's page from the notebook with its outputs.
"""

import inspect
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import seedjax.cli

LOG = logging.getLogger("mkdocs.hooks.docs_pages")  # a warning fails a strict build
ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "seedjax"
ROW = re.compile(r"^\| \d+ \| ((?:`\w+` ?)+) \|", re.MULTILINE)
# What a browser fetches by itself: scripts, pictures, frames, style sheets, imports.
LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data)="
    r"[\"']?(?:https?:)?//[^\"' >]+"
    r"|<link\b(?![^>]*\brel=[\"']?(?:canonical|next|prev)\b)[^>]*\bhref="
    r"[\"']?(?:https?:)?//[^\"' >]+"
    r"|(?:@import\s+|url\()[\"']?(?:https?:)?//[^\"')]+"
)


def rooms() -> list[str]:
    """The rooms of the package, in the order of the architecture page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return [room for row in ROW.findall(page) for room in re.findall(r"\w+", row)]


def modules(room: str) -> Iterator[str]:
    """The modules of a room with their full names; private ones are left out."""
    paths = [PACKAGE / f"{room}.py", *sorted((PACKAGE / room).rglob("*.py"))]
    for path in filter(Path.exists, paths):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name == "__init__.py":
            parts = parts[:-1]
        if path.read_text(encoding="utf-8").strip() and "_" not in parts[-1][:1]:
            yield ".".join(parts)


def room_page(room: str) -> str:
    """The reference of one room."""
    listed = "\n\n".join(f"::: {name}" for name in modules(room))
    return f"---\nsearch:\n  boost: 0.5\n---\n\n# `seedjax.{room}`\n\n{listed}\n"


def python_page() -> str:
    """What `import seedjax` offers, name by name, with links to the rooms' pages."""
    first = ("load", "Model", "Generation", "Engine", "SamplerConfig")
    names = [*first, *sorted(set(seedjax._HOMES) - set(first), key=str.lower)]
    rows = []
    for name in names:
        value = getattr(seedjax, name)
        if not callable(value):
            rows.append(f"| `{name}` | a table: {', '.join(value)} |")
            continue
        meaning = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
        rows.append(
            f"| [`{name}`][{seedjax._HOMES[name]}.{name}] | {escaped(meaning)} |"
        )
    return (
        "# Python\n\nThe public names, all attributes of `seedjax`. Each is imported "
        "when it is first used.\n\n| name | |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def cli_page() -> str:
    """The reference of every command, from the command line's own help."""
    lines = [
        "# Command line",
        "",
        "Every command has `--help`, and `--json`, which prints one JSON object on "
        "standard output. Exit codes: 0 done; 2 the input is at fault; 3 the result is "
        "refused; 1 anything else.",
        "",
    ]
    group = typer.main.get_command(seedjax.cli.app)
    for words, command in leaves(group, ("seedjax",)):
        lines += [f"## `{' '.join(words)}`", "", *help_text(command.help or ""), ""]
        rows = [option_row(p) for p in command.params if not p.hidden]
        lines += ["| option | meaning | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple, Any]]:
    """All commands that run something, with the words that call them."""
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
    for name, inner in (below or {}).items():
        yield from leaves(inner, (*words, name))


def help_text(text: str) -> list[str]:
    """The help of a command as Markdown; its example as a code block."""
    found = []
    for paragraph in text.strip().split("\n\n"):
        one_line = " ".join(paragraph.split())
        if one_line.startswith("Example: "):
            found += ["```bash", one_line.removeprefix("Example: "), "```", ""]
        else:
            found += [escaped(one_line), ""]
    return found


def escaped(text: str) -> str:
    """Plain text as it stands in a cell of a Markdown table."""
    for character in "|*_[":
        text = text.replace(character, f"\\{character}")
    return text.replace("<", "&lt;")


def option_row(option: Any) -> str:
    """A row of a command's table of options."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.param_type_name == "argument":
        names = f"`{option.opts[0].upper()}`"
    default = option.default
    shown = "" if default in (None, False, (), []) or callable(default) else default
    meaning = " ".join((getattr(option, "help", None) or "").split())
    meaning = escaped(meaning)
    if option.required:
        meaning = f"{meaning} Required."
    return f"| {names} | {meaning} | {f'`{shown}`' if shown != '' else ''} |"


def notebook_page(path: Path) -> str:
    """A notebook with its outputs as Markdown: texts, and pictures in SVG or PNG."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                LOG.warning("%s: a cell ended with %s", path.name, output["ename"])
            data = output.get("data", {})
            if "image/png" in data:
                image = "".join(data["image/png"]).strip().replace("\n", "")
                parts.append(f"![](data:image/png;base64,{image})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def on_config(config: Any) -> Any:
    """Lists a page for each room under Reference."""
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    pages = [{room: f"reference/{room}.md"} for room in rooms()]
    reference.append({"Rooms": pages})
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the pages that are made."""
    from mkdocs.structure.files import File

    made = {
        "reference/python.md": python_page(),
        "reference/commands.md": cli_page(),
        "tour.md": notebook_page(ROOT / "docs" / "tour.ipynb"),
        **{f"reference/{room}.md": room_page(room) for room in rooms()},
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_post_build(*, config: Any) -> None:
    """Warns of everything that the built site would fetch from elsewhere."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            text = path.read_text(encoding="utf-8")
            for found in LOADS.findall(text):
                LOG.warning("%s fetches %s", path.relative_to(config.site_dir), found)
