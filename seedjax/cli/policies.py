"""`seedjax lab policies`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options, progress, streams
from seedjax.files.text import read_text


@options.writes("lab policies", sources=("model",))
def policies(
    model: options.Model = "mini",
    quantization: options.Quantization = None,
    out: Annotated[Path, typer.Option(help="Folder for table and figure.")] = Path(
        "runs/policies"
    ),
    n: Annotated[
        int, typer.Option("--n", min=1, help="Tasks of each kind and tier.")
    ] = 20,
    only: Annotated[
        str, typer.Option(help="Only these policies, with commas between.")
    ] = "",
    workers: options.Workers = None,
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Measure every way to decode a model: pass@1 against tokens per forward pass.

    What is measured already is kept; give the command again after an interruption.

    Example: seedjax lab policies --model mini --n 20 --out runs/policies
    """
    from seedjax.sandbox.sandbox import require_isolation

    require_isolation(accept_weak_isolation)
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.checkpoints.model_directory import model_digest, resolve_model
    from seedjax.evaluate.policies import compare_policies, read_lines
    from seedjax.inference.loading import load

    names = [name.strip() for name in only.split(",") if name.strip()]
    identity = f"{model_digest(resolve_model(model))} {quantization or 'as stored'}"
    with progress.bar() as bar:
        report = compare_policies(
            load(model, quantization=quantization, report=bar),
            out,
            identity=identity,
            count=n,
            curves=names,
            workers=workers,
            accept_weak_isolation=accept_weak_isolation,
            report=bar,
        )
    if json:
        lines = read_lines(report.parent / "policies.jsonl")
        streams.print_json({"report": str(report), "lines": lines})
    else:
        streams.print_text(read_text(report))
