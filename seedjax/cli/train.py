"""`seedjax train`."""

import contextlib
import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedjax.cli import options, stopping, streams
from seedjax.errors import InputError

if TYPE_CHECKING:
    from seedjax.train.config import RunConfig
    from seedjax.train.run import TrainResult


@options.many_processes
def train(
    config: Annotated[
        Path | None, typer.Option(help="A Python file with get_config(); see configs/.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Output directory, then a model; gs://, s3:// or az:// too."),
    ] = Path("runs/model"),
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
    lora: Annotated[
        str,
        typer.Option(help="Train an adapter of --init-from, e.g. rank=8,alpha=16."),
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
    profile: Annotated[
        str | None,
        typer.Option(
            help="Write an XProf trace of these steps of the process, such as 5-9.",
            metavar="DIR[:FIRST-LAST]",
        ),
    ] = None,
    hang_minutes: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="End with the stacks of all threads if no step is done for as long; "
            "longer than compiling and evaluating. 0: never.",
        ),
    ] = 0.0,
    stop_code: Annotated[
        int,
        typer.Option(
            min=0,
            max=255,
            help="Exit code of a run that a signal stopped before its last step.",
        ),
    ] = 0,
    force: options.Force = False,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Train a model.

    Example: seedjax train --config configs/mini.py --out runs/mini --set num_steps=200
    """
    if plot:
        options.refuse_others(
            {"plot", "out", "force", "json"}, "--plot trains nothing; drop {}"
        )
        from seedjax.plotting import replaced_picture
        from seedjax.train.plot import plot_runs, unigram_floor

        target = out if out.suffix == ".png" else Path("curves.png")
        with replaced_picture(target, force=force) as partial:
            plot_runs(plot, partial, floors=unigram_floor(plot[0]))
        if json:
            streams.print_json({"plot": str(target)})
        else:
            streams.print_text(str(target))
        return
    if config is None and not resume:
        raise InputError(
            "no --config; give a file such as configs/mini.py, or --resume"
        )
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.files.output import claimed
    from seedjax.files.remote import address_of, mirrored
    from seedjax.profiling import parse_profile
    from seedjax.train.config import RunConfig, load_config
    from seedjax.train.directory import resumed_recipe
    from seedjax.train.run import train as run_training

    if config is None and (assignments or init_from or lora or seed is not None):
        raise InputError(
            "--set, --init-from, --lora and --seed go with --config; a resumed run "
            "keeps its recipe"
        )
    with contextlib.ExitStack() as stack:
        address, folder = address_of(out), out
        if address:
            folder = stack.enter_context(mirrored(address))
        if config is None:
            run = resumed_recipe(folder, RunConfig)
        else:
            given = [*lora_assignment(lora), *(assignments or ())]
            given += [] if seed is None else [f"seed={seed}"]
            run = load_config(config, given, init_from=init_from)
        read = [run.init_from, run.teacher]
        stack.enter_context(
            claimed(folder, "train", sources=read, force=force, resume=resume)
        )
        run = show_instructions(run)
        result = run_training(
            run,
            folder,
            resume=resume,
            mesh=mesh,
            tensorboard=tensorboard,
            stop=stack.enter_context(stopping.stop_on_signal()),
            profile=None if profile is None else parse_profile(profile),
            hang_minutes=hang_minutes,
            checkpoints=f"{address}/checkpoints" if address else None,
        )
        show_result(result, folder, place=address or str(out), json=json)
    if not result.finished:
        raise typer.Exit(stop_code)


def show_instructions(run: "RunConfig") -> "RunConfig":
    """The recipe with the tokenizer of its instructions; says on standard error how
    many rows of their file are used.

    Raises:
      InputError: if the file cannot be used.
    """
    from seedjax.data.instructions import InstructionConfig, prepare
    from seedjax.processes import is_first
    from seedjax.train.config import with_vocabulary

    run = with_vocabulary(run)
    if isinstance(run.data, InstructionConfig) and is_first():
        print(f"{run.data.path}: {prepare(run.data)}", file=sys.stderr)
    return run


def lora_assignment(description: str) -> list[str]:
    """`--lora rank=8,alpha=16` as an assignment of `--set`; none for none.

    Raises:
      InputError: for what is no name=number.
    """
    if not description:
        return []
    values: dict[str, float] = {}
    for part in description.split(","):
        name, _, value = part.partition("=")
        try:
            values[name.strip()] = float(value) if "." in value else int(value)
        except ValueError:
            raise InputError(
                f"--lora part {part!r} is not NAME=NUMBER, as in rank=8,alpha=16"
            ) from None
    return [f"lora={json_module.dumps(values)}"]


def show_result(
    result: "TrainResult", folder: Path, *, place: str = "", json: bool
) -> None:
    """Says how a run ended, and where its time went.

    Args:
      result: of the run.
      folder: where its files are now.
      place: where they will be; that folder if empty.
      json: print one JSON object.
    """
    from seedjax.train.goodput import describe_goodput, goodput
    from seedjax.train.metrics import read_jsonl

    seconds = goodput(read_jsonl(folder / "metrics.jsonl"))
    if json:
        bits = result.heldout_bits_per_byte
        streams.print_json(
            {
                "directory": place or str(folder),
                "step": result.step,
                "finished": result.finished,
                "heldout_bits_per_byte": bits if bits == bits else None,
                "seconds": seconds,
            }
        )
        return
    streams.print_text(describe_goodput(seconds))
    if result.finished:
        where = place or folder
        streams.print_text(
            f"trained {result.step} steps; try: seedjax generate --model {where} ..."
        )
    else:
        streams.print_text(f"stopped at step {result.step}; continue with --resume")
