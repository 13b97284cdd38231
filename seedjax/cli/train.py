"""`seedjax train`."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options
from seedjax.errors import InputError


def train(
    config: Annotated[
        Path | None, typer.Option(help="A Python file with get_config(); see configs/.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output directory, then a model.")] = Path(
        "runs/model"
    ),
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="path.to.field=value; may be repeated."),
    ] = None,
    init_from: Annotated[
        str,
        typer.Option(
            "--init-from", help="A model to start from, in its shape; see `convert`."
        ),
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything random: --set seed=.")
    ] = None,
    mesh: Annotated[
        str, typer.Option(help="Devices per axis, e.g. data=2,fsdp=2,tensor=2.")
    ] = "",
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            help="Plot the curves of these runs to --out (a PNG); no training."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard event files too.")
    ] = False,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Train a model.

    Example: seedjax train --config configs/mini.py --out runs/mini --set num_steps=200
    """
    if plot:
        from seedjax.train.plot import plot_runs, unigram_floor

        target = out if out.suffix == ".png" else Path("curves.png")
        plot_runs(plot, target, floors=unigram_floor(plot[0]))
        if json:
            options.print_json({"plot": str(target)})
        else:
            print(target)
        return
    if config is None and not resume:
        raise InputError(
            "no --config; give a file such as configs/mini.py, or --resume"
        )
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.train.config import load_config
    from seedjax.train.loop import resumed_config
    from seedjax.train.loop import train as run_training

    if config is None:
        if assignments or init_from or seed is not None:
            raise InputError(
                "--set, --init-from and --seed go with --config; a resumed run keeps "
                "its recipe"
            )
        run = resumed_config(out)
    else:
        given = [*(assignments or ()), *([] if seed is None else [f"seed={seed}"])]
        run = load_config(config, given, init_from=init_from)
    result = run_training(run, out, resume=resume, mesh=mesh, tensorboard=tensorboard)
    if json:
        bits = result.heldout_bits_per_byte
        options.print_json(
            {
                "directory": str(result.directory),
                "step": result.step,
                "finished": result.finished,
                "heldout_bits_per_byte": bits if bits == bits else None,
            }
        )
    elif result.finished:
        print(f"trained {result.step} steps; try: seedjax generate --model {out} ...")
    else:
        print(f"stopped at step {result.step}; continue with --resume")
