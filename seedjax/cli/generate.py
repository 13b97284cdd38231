"""`seedjax generate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedjax.cli import answer, options, progress
from seedjax.cli.decoding import Decoding, Showing
from seedjax.cli.source import Source
from seedjax.errors import InputError, RefusedError
from seedjax.inference.frames import Frame, frame_of_prompt

if TYPE_CHECKING:
    from seedjax.sampling.grammar.build import Grammar


@options.grouped
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; - reads standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the prompt from a file.")
    ] = None,
    *,
    loading: options.Loading,
    decoding: Decoding,
    ignore_eos: Annotated[
        bool,
        typer.Option("--ignore-eos", help="Write exactly --max-new-tokens tokens."),
    ] = False,
    regex: Annotated[
        str | None,
        typer.Option(help="The completion matches this regular expression."),
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="The completion is JSON of the schema in FILE.")
    ] = None,
    compiled: Annotated[
        Path | None,
        typer.Option(
            help="Directory that `seedjax compile` wrote, in place of a model."
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Decode once more, and write an XProf trace of it to this folder.",
            metavar="DIR",
        ),
    ] = None,
    showing: Showing,
) -> None:
    """Continue a text.

    Example: seedjax generate --file digit_sum.py --max-new-tokens 64 --watch
    """
    source = options.read_source(prompt, file, "prompt")
    text = source.text
    frame = frame_of_prompt(text, answer.language_of_text(showing.language, file))
    if not text:
        raise InputError("the prompt is empty; give it at least one character")
    grammar = read_grammar(regex, json_schema)
    if compiled is not None:
        generate_compiled(compiled, source, frame, loading, decoding, showing)
        return
    with progress.waiting(f"loading {loading.model}") as status:
        model = loading.load(status)
        more = {"eos": {"kind": "IgnoreEos"}} if ignore_eos else {}
        overrides = decoding.overrides(model.sampler, **more, **showing.overrides)
        with answer.shown_at_work(
            model, status, showing, before=source.whole
        ) as on_block:
            result = model.generate(
                text, grammar=grammar, on_block=on_block, **overrides
            )
        if profile is not None:
            from seedjax.profiling import traced

            with traced(profile):  # the decode above has compiled everything
                model.generate(text, grammar=grammar, **overrides)
    if not result.fits[0] and not showing.force:
        raise RefusedError(
            f"the completion of {result.new_tokens[0]} tokens does not match the "
            "grammar; give more --max-new-tokens, or --force to print it"
        )
    from seedjax.inference.generation import judged

    answer.show(
        answer.in_form_of(source, judged(result, [frame])),
        model,
        before=source.whole,
        more={} if grammar is None else {"fits": result.fits[0]},
        showing=showing,
    )


def generate_compiled(
    directory: Path,
    source: Source,
    frame: Frame,
    loading: options.Loading,
    decoding: Decoding,
    showing: Showing,
) -> None:
    """Continues a text by a sampler that `seedjax compile` wrote."""
    options.refuse_others(
        {"prompt", "file", "compiled", "max_new_tokens", "seed", "json"}
        | {"stop", "language", "no_compile_cache"},
        "a compiled sampler's recipe is fixed; drop {}, or give it to `seedjax "
        "compile` where that takes it",
    )
    with progress.waiting(f"loading {directory}"):
        options.start_jax(compile_cache=not loading.no_compile_cache)
        from seedjax.inference.exported import load_exported
        from seedjax.inference.generation import judged

        exported = load_exported(directory)
        result = exported.generate(
            source.text,
            max_new_tokens=decoding.max_new_tokens,
            seed=decoding.seed,
            stop=decoding.stop,
        )
    result = answer.in_form_of(source, judged(result, [frame]))
    answer.show(result, exported, before=source.whole, showing=showing)


def read_grammar(regex: str | None, json_schema: Path | None) -> "Grammar | None":
    """The grammar that the options name, if any."""
    from seedjax.sampling.grammar.build import JsonSchema, Regex

    if regex is not None and json_schema is not None:
        raise InputError("give --regex or --json-schema, not both")
    if regex is not None:
        return Regex(pattern=regex)
    if json_schema is not None:
        return JsonSchema(schema=options.read_text(None, json_schema, "schema"))
    return None
