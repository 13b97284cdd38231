"""`seedjax bench`."""

import json as json_module
import sys
from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options, progress, streams
from seedjax.errors import InputError


@options.writes("bench", sources=("model",))
def bench(
    model: Annotated[
        str | None,
        typer.Option("--model", help="A bundled model's name or a model directory."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Instead: random weights in this shape (`seedjax models`)."),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="Any of prefill, block, decode, no_cache, python_loop, ar, with "
            "commas between; torch:decode is PyTorch's. Default: prefill, block, "
            "decode, ar, as far as the model can."
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Rows; as all lists, with commas.")] = "1",
    block: Annotated[
        str | None, typer.Option(help="Block sizes; default: the model's.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Prompt tokens.")] = "512",
    new: Annotated[str, typer.Option(help="New tokens; ends are ignored.")] = "256",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16; default: the model's.")
    ] = None,
    quantize: Annotated[
        str, typer.Option(help="none, int8_weights, int8, fp8 (`seedjax[quant]`).")
    ] = "none",
    steps: Annotated[
        str | None,
        typer.Option(
            help="Steps a block; default: the model's own policy, 8 with --preset."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="A policy as JSON, may be given again; instead of --steps."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="torch: measure PyTorch and transformers as well."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often all lines take turns.")
    ] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Write bench.json, bench.md, bench.png there.")
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measure prefill, block forward and decodes on this device, and how far they are
    from what it can do.

    Every combination of the lists is a line, and all lines take turns. Weights of a
    preset are random, so its steps per block are fixed. Single tokens of any model
    after a cache: --measure block --block 1.

    Example: seedjax bench --preset small --dtype float32,bfloat16 --against torch
    """
    if model is not None and preset is not None:
        raise InputError("got --model and --preset; give one of them")
    if against not in (None, "torch"):
        raise InputError(f"--against is {against!r}; it must be torch")
    if policy and steps is not None:
        raise InputError("got --steps and --policy; give one of them")
    lists = {
        name: _numbers(text, name)
        for name, text in (("batch", batch), ("prefix", prefix), ("new", new))
    }
    options.start_jax(compile_cache=False)  # compile time is one of the figures
    from seedjax.bench.figure import write_report
    from seedjax.bench.report import terminal_report
    from seedjax.bench.run import bench as run
    from seedjax.bench.source import Source
    from seedjax.bench.sweep import Sweep, parse_dtype, parse_quantization
    from seedjax.sampling.policy import FixedCount
    from seedjax.sampling.recipe import SamplerConfig

    if preset is not None:
        source = Source.from_preset(preset, seed=seed)
    else:
        source = Source.from_model(model or "mini", seed=seed)
    config = source.config
    policies: list = [None]
    if policy:
        policies = [
            SamplerConfig().vary(policy=_json(text, "--policy")).policy
            for text in policy
        ]
    elif steps is not None or preset is not None:
        policies = [
            FixedCount(steps_per_block=count)
            for count in _numbers(steps or "8", "steps")
        ]
    measures = _parts(measure or "")
    if not measures:
        causal = config.attention == "causal"
        measures = ["prefill", "ar"] if causal else ["prefill", "block", "decode", "ar"]
    sweep = Sweep(
        measures=tuple(measures),
        batches=lists["batch"],
        blocks=_numbers(block or str(config.block_size), "block"),
        prefixes=lists["prefix"],
        news=lists["new"],
        dtypes=tuple(map(parse_dtype, _parts(dtype or config.dtype))),
        quantizations=tuple(map(parse_quantization, _parts(quantize))),
        policies=tuple(policies),
        against_torch=against is not None,
        rounds=rounds,
    )
    with progress.waiting("loading") as status:
        report = run(source, sweep, report=status.report)
    if out is not None:
        write_report(report, out)
    for warning in report.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    if json:
        streams.print_json(report.to_dict())
    else:
        streams.print_table(*terminal_report(report), width=150)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, name: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in _parts(text))
    except ValueError:
        numbers = ()
    if not numbers:
        raise InputError(
            f"--{name} is {text!r}; it must be whole numbers with commas between"
        )
    return numbers


def _json(text: str, name: str):
    try:
        return json_module.loads(text)
    except json_module.JSONDecodeError as error:
        raise InputError(f"{name} is {text!r}, which is not JSON: {error}") from None
