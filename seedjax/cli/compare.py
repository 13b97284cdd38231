"""`seedjax eval compare`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import benchmarks, options, progress, streams
from seedjax.errors import InputError
from seedjax.files.text import read_text


@options.writes("eval compare", sources=("model", "against"))
def compare(
    against: Annotated[
        str, typer.Option(help="The model to compare with, e.g. the ar arm.")
    ],
    model: options.Model = "mini",
    suite: benchmarks.Suites = "lab_generate",
    limit: benchmarks.Limit = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often all take turns.")] = 5,
    quantized: Annotated[
        bool,
        typer.Option(help="In int8 as well, with `seedjax[quant]`."),
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder for the comparison.")] = Path(
        "runs/speedup"
    ),
    data: benchmarks.Data = None,
    workers: options.Workers = None,
    isolation: benchmarks.Isolation = "auto",
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Compare the speed of two models on one suite, a problem at a time, each in its
    fastest precision: tokens per second, tokens per forward pass, time of a forward
    pass, pass@1.

    Example: seedjax eval compare --model mini --against runs/lab/ar_2
    """
    sandbox = benchmarks.Sandboxes(workers, isolation, accept_weak_isolation)
    suites = benchmarks.read_suites(suite, data)
    if len(suites) != 1:
        raise InputError(f"--suite {suite} names {len(suites)} suites; give one")
    ((found, problems),) = suites
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.evaluate.compare import (
        PRECISIONS,
        best_of,
        speed_up,
        time_models,
        write_comparison,
    )

    with progress.waiting("loading") as status:
        timed = time_models(
            [model, against],
            found,
            problems[:limit],
            sandbox=sandbox,
            precisions=[p for p in PRECISIONS if quantized or p.quantization is None],
            rounds=rounds,
            advance=status.show,
        )
    report = write_comparison(timed, model, against, out, suite=found.name)
    if json:
        fast, base = best_of(timed, model), best_of(timed, against)
        streams.print_json(
            {
                "report": str(report),
                "speed_up": speed_up(fast, base),
                "timed": [entry.to_dict() for entry in timed],
            }
        )
    else:
        streams.print_text(read_text(report))
