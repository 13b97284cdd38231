"""`seedjax edit`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import answer, options, progress
from seedjax.cli.source import how_to_apply, name_in_diff, unified_diff
from seedjax.errors import InputError


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
    model: options.Model = "mini",
    quantization: options.Quantization = None,
    adapter: options.Adapter = None,
    device: options.Device = None,
    dtype: options.DType = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest answer, in tokens; default: 64 more than the program has, "
            "or the model's own default if that is more."
        ),
    ] = None,
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
    """Change a program as told, and print the whole of it. The file stays as it is.

    A result that does not parse, where the program did, is decoded again more
    carefully, and refused if that does not help (exit code 3).

    Example: seedjax edit --file total.py --diff --instruction
    "The function should be called add_up."

    The diff is for `git apply`, `patch -p1` or `patch -p0` in the current folder.
    """
    if diff and watch:
        raise InputError("give --diff or --watch, not both")
    answer.check_logprobs(logprobs, json=json)
    source = options.read_source(code, file, "code")
    language = answer.language_of_text(language, file)
    with progress.waiting(f"loading {model}") as status:
        options.start_jax(compile_cache=not no_compile_cache)
        from seedjax.inference.checked import edit_checked
        from seedjax.inference.frames import frame_of_program
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
        shown = answer.shown_at_work(loaded, status, watch=watch and not json)
        with shown as on_block:
            result = edit_checked(
                loaded,
                source.text,
                instruction,
                language=language,
                seed=seed,
                stop=stop,
                on_block=on_block,
                **overrides,
            )
    answer.check(frame_of_program(source.text, language), result, force=force)
    after = source.rewritten(result.texts[0])
    if after == source.whole:
        print("the program stays as it is", file=sys.stderr)
    name = "code" if file is None else name_in_diff(file)
    if diff and file is not None and (hint := how_to_apply(name)):
        print(hint, file=sys.stderr)
    answer.show(
        dataclasses.replace(result, texts=[after]),
        loaded,
        diff=unified_diff(source.whole, after, name) if diff else None,
        json=json,
        trace=trace,
    )
