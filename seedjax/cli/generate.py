"""`seedjax generate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedjax.cli import answer, options, progress
from seedjax.errors import InputError, RefusedError
from seedjax.inference.frames import frame_of_prompt

if TYPE_CHECKING:
    from seedjax.sampling.grammar.build import Grammar


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; - reads standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the prompt from a file.")
    ] = None,
    model: options.Model = "mini",
    quantization: options.Quantization = None,
    adapter: options.Adapter = None,
    device: options.Device = None,
    dtype: options.DType = None,
    max_new_tokens: answer.MaxNewTokens = None,
    temperature: answer.Temperature = None,
    top_k: answer.TopK = None,
    top_p: answer.TopP = None,
    threshold: answer.Threshold = None,
    order: answer.Order = None,
    steps: answer.Steps = None,
    block_size: answer.BlockSize = None,
    context: answer.Context = None,
    settings: answer.Settings = None,
    stop: answer.Stop = None,
    language: answer.Language = None,
    ignore_eos: answer.IgnoreEos = False,
    regex: Annotated[
        str | None, typer.Option(help="The answer matches this regular expression.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="The answer is JSON of the schema in FILE.")
    ] = None,
    compiled: Annotated[
        Path | None,
        typer.Option(
            help="Directory that `seedjax compile` wrote, in place of a model."
        ),
    ] = None,
    force: answer.Force = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    logprobs: answer.Logprobs = False,
    watch: answer.Watch = False,
    trace: answer.Trace = None,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Continue a text.

    Example: seedjax generate --file digit_sum.py --max-new-tokens 64 --watch
    """
    answer.check_logprobs(logprobs, json=json)
    source = options.read_source(prompt, file, "prompt")
    text = source.text
    frame = frame_of_prompt(text, answer.language_of_text(language, file))
    if not text:
        raise InputError("the prompt is empty; give it at least one character")
    with progress.waiting(f"loading {compiled or model}") as status:
        options.start_jax(compile_cache=not no_compile_cache)
        from seedjax.inference.generation import judged

        if compiled is not None:
            options.refuse_others(
                {"prompt", "file", "compiled", "max_new_tokens", "seed", "json"}
                | {"stop", "language", "no_compile_cache"},
                "a compiled sampler's recipe is fixed; drop {}, or give it to `seedjax "
                "compile` where that takes it",
            )
            from seedjax.inference.exported import load_exported

            exported = load_exported(compiled)
            result = exported.generate(
                text, max_new_tokens=max_new_tokens, seed=seed, stop=stop
            )
            result = answer.in_form_of(source, judged(result, [frame]))
            status.close()
            answer.show(result, exported, before=source.whole, json=json, trace=None)
            return
        from seedjax.inference.loading import load

        loaded = load(
            model,
            quantization=quantization,
            adapter=adapter,
            device=device,
            dtype=dtype,
            report=status.report,
        )
        overrides = answer.sampler_overrides(
            loaded.sampler,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            threshold=threshold,
            order=order,
            steps=steps,
            block_size=block_size,
            context=context,
            settings=settings,
            ignore_eos=ignore_eos,
            trace=watch or trace is not None,
            logprobs=logprobs,
        )
        grammar = read_grammar(regex, json_schema)
        with answer.shown_at_work(
            loaded, status, watch=watch and not json, before=source.whole
        ) as on_block:
            result = loaded.generate(
                text,
                seed=seed,
                stop=stop,
                grammar=grammar,
                on_block=on_block,
                **overrides,
            )
    constrained = regex is not None or json_schema is not None
    if not result.fits[0] and not force:
        raise RefusedError(
            f"the completion of {result.new_tokens[0]} tokens does not match the "
            "grammar; give more --max-new-tokens, or --force to print it"
        )
    result = answer.in_form_of(source, judged(result, [frame]))
    answer.show(
        result,
        loaded,
        before=source.whole,
        more={"fits": result.fits[0]} if constrained else {},
        json=json,
        trace=trace,
    )


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
