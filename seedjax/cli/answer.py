"""How `generate`, `infill` and `edit` show a completion."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedjax.cli import streams
from seedjax.cli.decoding import Showing
from seedjax.cli.progress import Status
from seedjax.cli.source import Source
from seedjax.errors import RefusedError
from seedjax.files.text import write_text
from seedjax.inference.frames import TEXT, Frame
from seedjax.inference.syntax import language_of

if TYPE_CHECKING:
    from seedjax.inference.compiled import OnBlock
    from seedjax.inference.exported import ExportedSampler
    from seedjax.inference.model import Generation, Model
    from seedjax.sampling.trace import TraceStep

TRACE_FIELDS = ("block", "step", "positions", "tokens")  # of a line, among others


@contextlib.contextmanager
def shown_at_work(
    model: "Model", status: Status, showing: Showing, *, before: str = ""
) -> Iterator["OnBlock | None"]:
    """The status line says what the model is doing; with `--watch`, the denoising steps
    are shown as they come, by the function that this gives."""
    if showing.trace is not None:
        from seedjax.files.replacing import check_file, json_lines_with

        is_ours = json_lines_with(*TRACE_FIELDS)
        check_file(showing.trace, is_ours=is_ours, option="")
    model.announce_to(status.show)
    if not showing.watch:
        yield None
        return
    from seedjax.cli.watch import Watcher

    with Watcher(model.tokenizer, before=before) as watcher:

        def on_block(steps: "list[TraceStep]") -> None:
            status.close()
            watcher.show(steps)

        yield on_block


def report(answer: "Generation") -> dict[str, Any]:
    """The numbers of an answer to one prompt, as `--json` prints them."""
    more: dict[str, Any] = {}
    if answer.logprobs is not None:
        more = {"tokens": answer.tokens[0], "logprobs": answer.logprobs[0]}
    return {
        "text": answer.texts[0],
        "finish_reason": answer.finish_reason[0],
        "parses": answer.parses[0] if answer.parses else None,
        "prompt_tokens": answer.prompt_tokens[0],
        "new_tokens": answer.new_tokens[0],
        "forwards": answer.forwards,
        "tokens_per_forward": answer.tokens_per_forward,
        "seconds": answer.seconds,
        "compile_seconds": answer.compile_seconds,
        "tokens_per_second": answer.tokens_per_second,
    } | more


def language_of_text(language: str | None, file: Path | None) -> str | None:
    """The language that is given, or that a file's suffix stands for: plain text for a
    suffix of none; None if nothing says what it is."""
    if language is not None or file is None:
        return language
    return language_of(file) or TEXT


def check(frame: Frame, result: "Generation", *, force: bool) -> None:
    """Refuses a result that its frame objects to, and says on standard error what was
    not checked.

    Raises:
      RefusedError: if there is an objection, without `force`.
    """
    cut_off = result.finish_reason[0] == "length"
    objection = frame.objection(result.texts[0], cut_off=cut_off)
    if objection is not None and not force:
        raise RefusedError(f"{objection}; --force prints it")
    if objection is not None:
        print(f"seedjax: {objection}", file=sys.stderr)
    elif not frame.required and frame.reason:
        print(f"seedjax: not checked: {frame.reason}", file=sys.stderr)


def in_form_of(source: Source, result: "Generation") -> "Generation":
    """A result whose text has the line ends of the text that it stands in."""
    texts = [source.in_its_form(text) for text in result.texts]
    return dataclasses.replace(result, texts=texts)


def show(
    answer: "Generation",
    model: "Model | ExportedSampler",
    *,
    before: str = "",
    after: str = "",
    diff: str | None = None,
    more: Mapping[str, Any] | None = None,
    showing: Showing,
) -> None:
    """Prints an answer between the text that stands before and after it, or `diff` in
    its place; with `--json`, `more` beside its numbers. A line on standard error says
    so where code that may be anything does not parse."""
    if showing.trace is not None:
        write_trace(answer, model, showing.trace)
    if showing.json:
        result = report(answer) | dict(more or {})
        if after:
            result["completed"] = before + answer.texts[0] + after
        if diff is not None:
            result["diff"] = diff
        streams.print_json(result)
        return
    if diff is not None:
        streams.write(diff)
    else:
        streams.print_text(before + answer.texts[0] + after)
    print(
        f"{answer.new_tokens[0]} tokens in {answer.forwards} forward passes, "
        f"{answer.tokens_per_second:.0f} tokens/s "
        f"({answer.seconds:.2f} s, compiling {answer.compile_seconds:.1f} s)",
        file=sys.stderr,
    )
    if answer.parses[:1] == [False]:
        print("seedjax: the completion does not parse", file=sys.stderr)


def write_trace(
    answer: "Generation", model: "Model | ExportedSampler", path: Path
) -> None:
    """One JSON line a denoising step: block, step, positions in the answer, token ids,
    their pieces and the model's confidence in each."""
    from seedjax.files.replacing import json_lines_with, replaced_file
    from seedjax.sampling.trace import to_json_line

    lines = []
    for step in answer.trace or []:
        pieces = [model.tokenizer.spell([token]) for token in step.tokens]
        lines.append(to_json_line(step, pieces=pieces) + "\n")
    is_ours = json_lines_with(*TRACE_FIELDS)
    with replaced_file(path, is_ours=is_ours, option="") as partial:
        write_text(partial, "".join(lines))
