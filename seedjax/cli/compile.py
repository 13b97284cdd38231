"""`seedjax compile`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from seedjax.cli import options, progress, streams
from seedjax.cli.decoding import MaxNewTokens, Temperature


@options.writes("compile", sources=("model",))
def compile(
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    model: options.Model = "mini",
    quantization: options.Quantization = None,
    platforms: Annotated[
        str, typer.Option(help="What to lower for, with commas between.")
    ] = "cpu,cuda,tpu",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Prompts that are answered together.")
    ] = 1,
    max_prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Longest prompt, in tokens.")
    ] = 256,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    json: options.Json = False,
) -> None:
    """Write a model's sampler as a program that runs without the model's code.

    Example: seedjax compile runs/sampler --platforms cpu,tpu --max-new-tokens 128
    """
    options.start_jax(compile_cache=False)
    from seedjax.inference.exported import RECORD, export_sampler
    from seedjax.inference.loading import load

    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }
    with progress.waiting(f"loading {model}") as status:
        loaded = load(model, quantization=quantization, report=status.report)
        status.show("compiling")
        path = export_sampler(
            loaded,
            out,
            platforms=[name.strip() for name in platforms.split(",") if name.strip()],
            batch_size=batch_size,
            max_prompt_tokens=max_prompt_tokens,
            **{name: value for name, value in given.items() if value is not None},
        )
    if json:
        streams.print_json({"path": str(path), "record": str(path / RECORD)})
    else:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        streams.print_text(f"{path}: {size / 2**20:.1f} MiB, for {platforms}")
