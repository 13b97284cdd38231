"""`seedjax edit`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import answer, options, progress
from seedjax.cli.decoding import Decoding, Showing
from seedjax.cli.source import how_to_apply, name_in_diff, unified_diff
from seedjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class EditDecoding(Decoding):
    """How an edit is decoded: its budget follows the program."""

    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest answer, in tokens; default: 64 more than the program has, "
            "or the model's own default if that is more."
        ),
    ] = None


@options.grouped
def edit(
    instruction: Annotated[str, typer.Option(help="What to change, in words.")],
    code: Annotated[
        str | None,
        typer.Argument(help="The program to change; - reads standard input."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the program from a file.")
    ] = None,
    diff: Annotated[
        bool,
        typer.Option("--diff", help="Print a unified diff instead of the program."),
    ] = False,
    *,
    loading: options.Loading,
    decoding: EditDecoding,
    showing: Showing,
) -> None:
    """Change a program by an instruction, and print the whole of it; the file stays.

    A result that does not parse, where the program did, is decoded again more
    carefully, and refused if that does not help (exit code 3).

    Example: seedjax edit --file total.py --diff --instruction
    "The function should be called add_up."

    The diff is for `git apply`, `patch -p1` or `patch -p0` in the current folder.
    """
    if diff and showing.watch:
        raise InputError("give --diff or --watch, not both")
    source = options.read_source(code, file, "code")
    language = answer.language_of_text(showing.language, file)
    with progress.waiting(f"loading {loading.model}") as status:
        model = loading.load(status)
        from seedjax.inference.checked import edit_checked
        from seedjax.inference.frames import frame_of_program

        overrides = decoding.overrides(model.sampler, **showing.overrides)
        with answer.shown_at_work(model, status, showing) as on_block:
            result = edit_checked(
                model,
                source.text,
                instruction,
                language=language,
                on_block=on_block,
                **overrides,
            )
    frame = frame_of_program(source.text, language)
    answer.check(frame, result, force=showing.force)
    after = source.rewritten(result.texts[0])
    if after == source.whole:
        print("the program stays as it is", file=sys.stderr)
    name = "code" if file is None else name_in_diff(file)
    if diff and file is not None and (hint := how_to_apply(name)):
        print(hint, file=sys.stderr)
    answer.show(
        dataclasses.replace(result, texts=[after]),
        model,
        diff=unified_diff(source.whole, after, name) if diff else None,
        showing=showing,
    )
