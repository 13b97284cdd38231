"""Templates and tables of Markdown, with which every report is written.

Templates are files of Jinja in `templates/`. In those that end in .html every value is
escaped, unless it is `Markup`; in those of Markdown a value is escaped where the filter
`text` or `code` says so.
"""

import functools
from collections.abc import Sequence
from typing import Any

from seedjax.files.package import package_text
from seedjax.files.text import markdown_code, markdown_text

TEMPLATES = "seedjax.evaluate.report.templates"


@functools.cache
def _environment() -> Any:
    # Jinja takes a while to import, and few commands write a report.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read_template),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters |= {"text": markdown_text, "code": markdown_code}
    environment.globals["table"] = markdown_table
    return environment


def read_template(name: str) -> str:
    """A file of the templates, as it is."""
    return package_text(TEMPLATES, name)


def render(name: str, **values: Any) -> str:
    """A template with these values; in Markdown, `table` makes one."""
    return _environment().get_template(name).render(values)


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, bold: int = 0
) -> str:
    """A Markdown table of texts, which are escaped; of the first `bold` rows the first
    cell is bold. Without a line break at its end."""
    escaped = [list(map(markdown_text, row)) for row in rows]
    for row in escaped[:bold]:
        row[0] = f"**{row[0]}**"
    lines = [f"| {' | '.join(row)} |" for row in [head, *escaped]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
