"""`seedjax generate`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import answer, options
from seedjax.errors import InputError


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; - reads standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the prompt from a file.")
    ] = None,
    model: options.Model = "mini",
    max_new_tokens: answer.MaxNewTokens = None,
    temperature: answer.Temperature = None,
    top_k: answer.TopK = None,
    top_p: answer.TopP = None,
    threshold: answer.Threshold = None,
    order: answer.Order = None,
    steps: answer.Steps = None,
    block_size: answer.BlockSize = None,
    context: answer.Context = None,
    ignore_eos: answer.IgnoreEos = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    watch: answer.Watch = False,
    trace: answer.Trace = None,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Continue a text.

    Example: seedjax generate "def gcd(a, b):" --max-new-tokens 64 --watch
    """
    text = options.read_text(prompt, file, "prompt")
    if not text:
        raise InputError("the prompt is empty; give it at least one character")
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.model import load

    loaded = load(model)
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
        ignore_eos=ignore_eos,
        trace=watch or trace is not None,
    )
    result = loaded.generate(text, seed=seed, **overrides)
    answer.show(result, loaded, before=text, json=json, watch=watch, trace=trace)
