"""`seedjax lab reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options, progress, stopping, streams


@options.writes("lab reproduce", sources=("vocabulary",))
def reproduce(
    budget: Annotated[
        str, typer.Option(help="smoke (minutes, shows that it runs) or full (hours).")
    ] = "smoke",
    out: Annotated[Path, typer.Option(help="Folder for arms and report.")] = Path(
        "runs/lab"
    ),
    arms: Annotated[
        str, typer.Option(help="Only these, by folder name, with commas between.")
    ] = "",
    vocabulary: Annotated[
        str, typer.Option(help="Whose tokenizer: a model or a tokenizer's folder.")
    ] = "mini",
    workers: options.Workers = None,
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Train and examine the arms of the ablation, and write the report.

    What is finished already is kept: give the command again after an interruption, or
    with other --arms on another machine that shares the folder.

    Example: seedjax lab reproduce --budget smoke --out runs/lab_smoke
    """
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.reproduce.run import reproduce as run

    names = [name.strip() for name in arms.split(",") if name.strip()]
    with progress.bar() as bar, stopping.stop_on_signal() as stop:
        report = run(
            budget,
            out,
            vocabulary=vocabulary,
            arms=names,
            workers=workers,
            accept_weak_isolation=accept_weak_isolation,
            report=bar,
            stop=stop,
        )
    if json:
        streams.print_json(
            {"finished": report is not None, "report": report and str(report)}
        )
    elif report is None:
        streams.print_text("stopped; give the same command again to go on")
    else:
        streams.print_text(str(report))
