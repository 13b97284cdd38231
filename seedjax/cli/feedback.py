"""`seedjax feedback export`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options, streams
from seedjax.cli.serve import EXTRA
from seedjax.errors import InputError

app = typer.Typer(
    help="Completions that users of `seedjax serve` accepted and rejected.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def group() -> None:
    """Completions that users of `seedjax serve` accepted and rejected."""


@app.command("export")
def export(
    store: Annotated[Path, typer.Argument(help="File of `seedjax serve --feedback`.")],
    out: Annotated[
        Path, typer.Option(help="File to write, in a folder that exists.")
    ] = Path("feedback.jsonl"),
    force: options.ForceFile = False,
    json: options.Json = False,
) -> None:
    """Write stored choices as JSON lines, for `seedjax posttrain preference`.

    Example: seedjax feedback export choices.db --out feedback.jsonl
    """
    try:
        from seedjax.server import feedback
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; {EXTRA}") from None
    accepted, rejected = feedback.export(store, out, force=force)
    if json:
        counts = {"accepted": accepted, "rejected": rejected}
        streams.print_json({"path": str(out)} | counts)
    else:
        streams.print_text(
            f"{out}: {accepted} accepted and {rejected} rejected completions; go on "
            f"with: seedjax posttrain preference --feedback {out} ..."
        )
