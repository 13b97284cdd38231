"""What `generate`, `infill` and `edit` share: sampler options, and how an answer is
shown."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import streams
from seedjax.cli.progress import Status
from seedjax.cli.source import Source
from seedjax.errors import InputError, RefusedError
from seedjax.files.text import read_json_object, write_text
from seedjax.inference.frames import TEXT, Frame
from seedjax.inference.syntax import language_of

if TYPE_CHECKING:
    from seedjax.inference.compiled import OnBlock
    from seedjax.inference.exported import ExportedSampler
    from seedjax.inference.model import Generation, Model
    from seedjax.sampling.recipe import SamplerConfig
    from seedjax.sampling.trace import TraceStep


def defaults_of_mini() -> dict[str, Any]:
    """Sampler fields of the bundled model, from its directory (JAX is not needed)."""
    file = Path(__file__).parents[1] / "bundled" / "mini" / "config.json"
    if not file.exists():
        return {}
    read = read_json_object(file)
    sampler, policy = read["sampler"], read["sampler"]["policy"]
    block = sampler["block_size"] or read["denoiser"]["block_size"]
    order = "left" if policy["kind"] == "LeftToRight" else "confidence"
    known = {"block_size": block, "order": order}
    return sampler | {"threshold": policy.get("threshold")} | known


MINI = defaults_of_mini()


def by_default(field: str) -> str:
    """The end of a help text: the value without the option."""
    value = MINI.get(field)
    shown = f"{value:g}" if isinstance(value, float) else value
    return "Default: the model's" + ("." if value is None else f"; mini: {shown}.")


# Without these options, what the model's own recipe says holds.
MaxNewTokens = Annotated[
    int | None,
    typer.Option(help=f"Longest answer, in tokens. {by_default('max_new_tokens')}"),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="0 takes the most probable token; above 0 draws. "
        + by_default("temperature")
    ),
]
TopK = Annotated[int | None, typer.Option(help="Draw among the K most probable.")]
TopP = Annotated[
    float | None,
    typer.Option(
        help=f"Draw among the most probable that hold this share. {by_default('top_p')}"
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Decide all tokens that are at least this sure. " + by_default("threshold")
    ),
]
Order = Annotated[
    str | None,
    typer.Option(
        help="confidence decides the surest tokens first, left only what follows on "
        "what is decided. " + by_default("order")
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        help="What a block sees: decided, canvas, canvas_prefix_cache or "
        "canvas_dual_cache. " + by_default("context")
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="Instead: refine each block in this many steps.")
]
BlockSize = Annotated[
    int | None,
    typer.Option(help=f"Tokens decided together. {by_default('block_size')}"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="path.to.field=value of the sampler's recipe; may be repeated. "
        """As policy='{"kind": "EntropyBound", "bound": 0.2}'.""",
    ),
]
IgnoreEos = Annotated[
    bool, typer.Option("--ignore-eos", help="Write exactly --max-new-tokens tokens.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        help="End the answer where TEXT begins, which is left out; may be repeated. "
        r"A line break is $'\n' in bash.",
        metavar="TEXT",
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        help="Of the program, to see whether it parses; text for no check. Default: "
        "the file's suffix says, or Python if it parses as such."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Print a result that is refused all the same.")
]
Trace = Annotated[
    Path | None, typer.Option(help="Write one JSON line a refinement step to FILE.")
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Show the refinement steps in the terminal.")
]
Logprobs = Annotated[
    bool,
    typer.Option(
        "--logprobs",
        help="With --json: the tokens, and the logarithm of each one's probability.",
    ),
]


def sampler_overrides(
    recipe: "SamplerConfig",
    *,
    max_new_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    threshold: float | None,
    order: str | None,
    steps: int | None,
    block_size: int | None,
    context: str | None,
    settings: list[str] | None,
    ignore_eos: bool,
    trace: bool,
    logprobs: bool = False,
) -> dict[str, Any]:
    """Fields of a model's recipe that were given on the command line."""
    from seedjax.config import override

    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "threshold": threshold,
        "order": order,
        "steps": steps,
        "block_size": block_size,
        "context": context,
    }
    given = {name: value for name, value in given.items() if value is not None}
    given["trace"] = trace
    if logprobs:
        given["logprobs"] = True
    if ignore_eos:
        given["eos"] = {"kind": "IgnoreEos"}
    changed = override(recipe, settings or [])
    for setting in settings or []:
        name = setting.partition("=")[0].strip().split(".")[0]
        if name in given and name != "trace":
            raise InputError(f"--set {setting} and an option of its own say {name}")
        given[name] = getattr(changed, name)
    return given


@contextlib.contextmanager
def shown_at_work(
    model: "Model", status: Status, *, watch: bool, before: str = ""
) -> Iterator["OnBlock | None"]:
    """What is waited for goes to the status line; with `watch`, the denoising steps are
    shown as they come, by the function that this gives."""
    model.announce_to(status.show)
    if not watch:
        yield None
        return
    from seedjax.cli.watch import Watcher

    with Watcher(model.tokenizer, before=before) as watcher:

        def on_block(steps: "list[TraceStep]") -> None:
            status.close()
            watcher.show(steps)

        yield on_block


def check_logprobs(logprobs: bool, *, json: bool) -> None:
    """Raises `InputError` where log-probabilities would be printed nowhere."""
    if logprobs and not json:
        raise InputError("--logprobs is for --json; add that, or drop --logprobs")


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
    json: bool,
    trace: Path | None,
) -> None:
    """Prints an answer between the text that stands before and after it, or `diff` in
    its place; with `--json`, `more` beside its numbers."""
    if trace is not None:
        write_trace(answer, model, trace)
    if json:
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


def write_trace(
    answer: "Generation", model: "Model | ExportedSampler", path: Path
) -> None:
    """One JSON line a refinement step: block, step, positions in the answer, token ids,
    their pieces and the model's confidence in each."""
    from seedjax.files.output import json_lines_with, replaced_file
    from seedjax.sampling.trace import to_json_line

    lines = []
    for step in answer.trace or []:
        pieces = [model.tokenizer.spell([token]) for token in step.tokens]
        lines.append(to_json_line(step, pieces=pieces) + "\n")
    is_ours = json_lines_with("block", "step", "positions", "tokens")
    with replaced_file(path, is_ours=is_ours, option="") as partial:
        write_text(partial, "".join(lines))
