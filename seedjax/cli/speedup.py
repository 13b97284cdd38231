"""`seedjax lab speedup`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from seedjax.cli import options, progress, streams
from seedjax.files.text import read_text

if TYPE_CHECKING:
    from seedjax.tasks.lab.tasks import TaskName


@options.writes("lab speedup", sources=("model", "against"))
def speedup(
    model: options.Model = "mini",
    against: Annotated[
        str, typer.Option(help="The model to compare with, e.g. the ar arm.")
    ] = "runs/lab/ar_2",
    task: Annotated[
        str, typer.Option(help="generate, infill, repair or edit.")
    ] = "generate",
    n: Annotated[int, typer.Option("--n", min=1, help="Tasks of each tier.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="How often all take turns.")] = 5,
    quantized: Annotated[
        bool,
        typer.Option(help="In int8 as well, with `seedjax[quant]`."),
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder for the comparison.")] = Path(
        "runs/speedup"
    ),
    workers: options.Workers = None,
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Compare two models on tasks of the lab, one at a time, each as fast as it can:
    tokens a second, tokens a forward pass, time of a forward pass, pass@1.

    Example: seedjax lab speedup --model mini --against runs/lab/ar_2
    """
    from seedjax.sandbox.sandbox import require_isolation

    require_isolation(accept_weak_isolation)
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.evaluate.speedup import (
        PRECISIONS,
        best_of,
        speed_up,
        time_models,
        write_comparison,
    )
    from seedjax.tasks.lab.tasks import exam

    chosen = [p for p in PRECISIONS if quantized or p.quantization is None]
    with progress.waiting("loading") as status:
        timed = time_models(
            [model, against],
            exam(n, kinds=[cast("TaskName", task)]),
            precisions=chosen,
            rounds=rounds,
            workers=workers,
            accept_weak_isolation=accept_weak_isolation,
            advance=status.show,
        )
    report = write_comparison(timed, model, against, out, task=task)
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
