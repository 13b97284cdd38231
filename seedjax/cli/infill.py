"""`seedjax infill`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import answer, options, progress
from seedjax.errors import InputError

HOLE = "<FILL>"


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
    force: answer.Force = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    logprobs: answer.Logprobs = False,
    watch: answer.Watch = False,
    trace: answer.Trace = None,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Fill in the hole in a text.

    A completion with which the text does not parse, where it would with something
    simple in the hole, is decoded again more carefully, and refused if that does not
    help (exit code 3).

    Example: seedjax infill --file evens.py --length 24
    """
    answer.check_logprobs(logprobs, json=json)
    source = options.read_source(text, file, "text")
    prefix, hole, suffix = source.text.partition(HOLE)
    if not hole or HOLE in suffix:
        holes = source.text.count(HOLE)
        raise InputError(f"the text has {holes} holes; mark exactly one with {HOLE}")
    language = answer.language_of_text(language, file)
    with progress.waiting(f"loading {model}") as status:
        options.start_jax(compile_cache=not no_compile_cache)
        from seedjax.inference.checked import infill_checked
        from seedjax.inference.frames import frame_of_hole
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
            ignore_eos=False,
            trace=watch or trace is not None,
            logprobs=logprobs,
        )
        with answer.shown_at_work(
            loaded, status, watch=watch and not json, before=prefix
        ) as on_block:
            result = infill_checked(
                loaded,
                prefix,
                suffix,
                length=length,
                language=language,
                seed=seed,
                stop=stop,
                on_block=on_block,
                **overrides,
            )
    answer.check(frame_of_hole(prefix, suffix, language), result, force=force)
    before, _, after = source.whole.partition(HOLE)
    answer.show(
        answer.in_form_of(source, result),
        loaded,
        before=before,
        after=after,
        json=json,
        trace=trace,
    )
