"""`seedjax infill`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import answer, options, progress
from seedjax.cli.decoding import Decoding, Showing
from seedjax.errors import InputError

HOLE = "<FILL>"


@options.grouped
def infill(
    text: Annotated[
        str | None,
        typer.Argument(help=f"Text with {HOLE} in it; - reads standard input."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the text from a file.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(help="Tokens in the hole, exactly; default: the model chooses."),
    ] = None,
    *,
    loading: options.Loading,
    decoding: Decoding,
    showing: Showing,
) -> None:
    """Fill in the hole in a text.

    A completion with which the text does not parse, where it would with something
    simple in the hole, is decoded again more carefully, and refused if that does not
    help (exit code 3).

    Example: seedjax infill --file evens.py --length 24
    """
    source = options.read_source(text, file, "text")
    prefix, hole, suffix = source.text.partition(HOLE)
    if not hole or HOLE in suffix:
        holes = source.text.count(HOLE)
        raise InputError(f"the text has {holes} holes; mark exactly one with {HOLE}")
    language = answer.language_of_text(showing.language, file)
    with progress.waiting(f"loading {loading.model}") as status:
        model = loading.load(status)
        from seedjax.inference.checked import infill_checked
        from seedjax.inference.frames import frame_of_hole

        overrides = decoding.overrides(model.sampler, **showing.overrides)
        with answer.shown_at_work(model, status, showing, before=prefix) as on_block:
            result = infill_checked(
                model,
                prefix,
                suffix,
                length=length,
                language=language,
                on_block=on_block,
                **overrides,
            )
    frame = frame_of_hole(prefix, suffix, language)
    answer.check(frame, result, force=showing.force)
    before, _, after = source.whole.partition(HOLE)
    answer.show(
        answer.in_form_of(source, result),
        model,
        before=before,
        after=after,
        showing=showing,
    )
