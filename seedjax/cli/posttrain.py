"""`seedjax posttrain trajectories | constrained-order | on-policy | sharpen | ...`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import options, progress, streams
from seedjax.errors import InputError
from seedjax.progress import counter

if TYPE_CHECKING:
    from seedjax.train.config import RunConfig

app = typer.Typer(
    help="Make a denoiser faster, smaller or better liked.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Config = Annotated[
    Path | None,
    typer.Option(help="A Python file with get_config(), instead of the default."),
]
Out = Annotated[Path, typer.Option(help="Output directory.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="path.to.field=value; may be repeated."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Recorded = Annotated[
    str,
    typer.Option("--trajectories", help="Folder that `posttrain trajectories` wrote."),
]
Mesh = Annotated[str, typer.Option(help="Devices per axis, e.g. data=2,tensor=2.")]
Lora = Annotated[
    str,
    typer.Option(help="Train an adapter instead, e.g. rank=8 or rank=8,alpha=16."),
]


@app.command("trajectories")
@options.writes("posttrain trajectories", sources=("model",))
def trajectories(
    out: Out,
    model: options.Model = "mini",
    config: Config = None,
    assignments: Set = None,
    mesh: Mesh = "",
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
) -> None:
    """Decode prompts of the lab and keep what passes its tests, with its order.

    Given again, it goes on where it stopped.

    Example: seedjax posttrain trajectories --model mini --out runs/decodes --set
    num_prompts=2000
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.recording import RecordConfig, record
    from seedjax.tasks.lab.stream import LabConfig

    default = RecordConfig(model=model, tasks=LabConfig(vocabulary=model))
    recipe = _chosen(RecordConfig, lambda: default, config, assignments)
    with progress.bar() as report:
        manifest = record(
            recipe,
            out,
            mesh=mesh,
            accept_weak_isolation=accept_weak_isolation,
            report=report,
        )
    found = {
        "directory": str(out),
        "prompts": manifest.prompts,
        "trajectories": manifest.trajectories,
    }
    if json:
        streams.print_json(found)
    else:
        streams.print_text(
            f"{manifest.trajectories} decodes of {manifest.prompts} prompts in {out}"
        )


@app.command("constrained-order")
@options.writes("train", sources=("model", "recorded"))
def constrained_order(
    out: Out,
    recorded: Recorded = "",
    model: options.Model = "mini",
    config: Config = None,
    assignments: Set = None,
    lora: Lora = "",
    resume: Resume = False,
    mesh: Mesh = "",
    json: options.Json = False,
) -> None:
    """Fine-tune on kept decodes, in their own order.

    Example: seedjax posttrain constrained-order --model mini --trajectories
    runs/decodes --out runs/ordered
    """
    from seedjax.posttrain import recipes

    def default() -> "RunConfig":
        return recipes.constrained_order(model, _given(recorded, "--trajectories"))

    _train(default, config, assignments, out, lora, resume, mesh, json)


@app.command("sharpen")
@options.writes("train", sources=("model", "recorded"))
def sharpen(
    out: Out,
    recorded: Recorded = "",
    model: options.Model = "mini",
    config: Config = None,
    assignments: Set = None,
    lora: Lora = "",
    resume: Resume = False,
    mesh: Mesh = "",
    json: options.Json = False,
) -> None:
    """Fine-tune on kept decodes and make the model surer of what it gets right.

    Example: seedjax posttrain sharpen --model mini --trajectories runs/decodes --out
    runs/sharp
    """
    from seedjax.posttrain import recipes

    def default() -> "RunConfig":
        return recipes.sharpening(model, _given(recorded, "--trajectories"))

    _train(default, config, assignments, out, lora, resume, mesh, json)


@app.command("distill")
@options.writes("train", sources=("teacher",))
def distill(
    out: Out,
    teacher: Annotated[str, typer.Option(help="Model to learn from.")] = "mini",
    layers: Annotated[
        int | None, typer.Option(min=1, help="Of the student; default: half.")
    ] = None,
    config: Config = None,
    assignments: Set = None,
    resume: Resume = False,
    mesh: Mesh = "",
    json: options.Json = False,
) -> None:
    """Train a smaller model on a teacher's distributions.

    Example: seedjax posttrain distill --teacher mini --layers 2 --out runs/student
    """
    from seedjax.posttrain import recipes

    def default() -> "RunConfig":
        return recipes.distillation(teacher, num_layers=layers)

    _train(default, config, assignments, out, "", resume, mesh, json)


@app.command("prune")
@options.writes("posttrain prune", sources=("model",))
def prune(
    out: Out,
    model: options.Model = "mini",
    pattern: Annotated[str, typer.Option(help="2:4 or magnitude.")] = "2:4",
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the weights that go; 2:4: half.")
    ] = 0.5,
    steps: Annotated[
        int, typer.Option(min=0, help="To train what is left; 0 for none.")
    ] = 500,
    config: Config = None,
    assignments: Set = None,
    resume: Resume = False,
    mesh: Mesh = "",
    json: options.Json = False,
) -> None:
    """Set weights to zero, and train the others. The pruned start is in OUT/pruned.

    Example: seedjax posttrain prune --model mini --pattern 2:4 --out runs/sparse
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain import recipes
    from seedjax.posttrain.prune import prune_model, sparsity

    if pattern not in ("2:4", "magnitude"):
        raise InputError(f"--pattern is {pattern!r}; it must be 2:4 or magnitude")
    if pattern == "2:4":
        options.refuse(
            {"share"}, "2:4 is half of the weights; drop {}, or --pattern magnitude"
        )
    if steps == 0:
        options.refuse(
            {"config", "assignments", "resume", "mesh"},
            "with --steps 0 nothing is trained; drop {}",
        )
    start = out if steps == 0 else out / "pruned"
    if not (resume and (start / "config.json").exists()):
        found = prune_model(model, start, pattern=pattern, share=share)  # type: ignore[arg-type]
        zeros = sparsity(found.params)
        if steps == 0:
            if json:
                streams.print_json({"directory": str(out), "zeros": zeros})
            else:
                streams.print_text(
                    f"{zeros:.1%} of the projections' weights are zero; {out}"
                )
            return
    given = [f"num_steps={steps}", *(assignments or ())]
    _train(
        lambda: recipes.pruned(str(start)), config, given, out, "", resume, mesh, json
    )


@app.command("average")
@options.writes("posttrain average", sources=("models",))
def average(
    models: Annotated[list[str], typer.Argument(help="Two or more, of one shape.")],
    out: Out,
    shares: Annotated[
        list[float] | None,
        typer.Option(
            "--share", min=0.0, help="Of each model, in their order; default: equal."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Average the weights of models that were trained one from another.

    Example: seedjax posttrain average runs/left runs/names --out runs/mean
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.average import average_models

    average_models(models, out, shares=shares)
    if json:
        streams.print_json({"directory": str(out), "models": models})
    else:
        streams.print_text(f"the mean of {len(models)} models; {out}")


@app.command("widen")
@options.writes("posttrain widen", sources=("model",))
def widen(
    out: Out,
    model: options.Model = "mini",
    factor: Annotated[int, typer.Option(min=2, help="How many times as wide.")] = 2,
    add_layers: Annotated[
        int, typer.Option(min=0, help="Layers more, which add nothing at first.")
    ] = 0,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Make a wider model that computes the same, to train it further.

    Example: seedjax posttrain widen --model mini --factor 3 --out runs/wide
    """
    options.start_jax(compile_cache=True)
    from seedjax.nn.denoiser import num_parameters
    from seedjax.posttrain.widen import widen_model

    wide = widen_model(model, out, factor=factor, more_layers=add_layers, seed=seed)
    count = num_parameters(wide.config)
    if json:
        streams.print_json({"directory": str(out), "parameters": count})
    else:
        streams.print_text(
            f"{count:,} parameters; go on with: seedjax train --init-from {out} ..."
        )


@app.command("on-policy")
@options.writes("train", sources=("model",))
def on_policy(
    out: Out,
    model: options.Model = "mini",
    config: Config = None,
    assignments: Set = None,
    resume: Resume = False,
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
) -> None:
    """Make decodes shorter: roll out, run the tests, prefer short decodes that pass.

    Example: seedjax posttrain on-policy --model mini --out runs/fast
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.config import OnPolicyConfig
    from seedjax.posttrain.on_policy import learn_on_policy
    from seedjax.tasks.lab.stream import LabConfig

    default = OnPolicyConfig(init_from=model, tasks=LabConfig(vocabulary=model))
    recipe = _recipe(OnPolicyConfig, lambda: default, config, assignments, out, resume)
    result = learn_on_policy(
        recipe, out, resume=resume, accept_weak_isolation=accept_weak_isolation
    )
    if json:
        streams.print_json(result._asdict() | {"directory": str(out)})
        return
    before, after = result.before, result.after
    streams.print_text(
        f"{out}: pass@1 {before['pass_at_1']:.3f} -> {after['pass_at_1']:.3f}, tokens "
        f"per forward {before['tokens_per_forward']:.2f} -> "
        f"{after['tokens_per_forward']:.2f}"
        + ("" if result.finished else "; stopped, continue with --resume")
    )


@app.command("critic")
@options.writes("posttrain critic", sources=("model",))
def critic(
    out: Out,
    model: options.Model = "mini",
    config: Config = None,
    assignments: Set = None,
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
) -> None:
    """Train a head on the model's hidden states that foretells whether an answer passes
    its tests, for `on-policy --set critic=OUT`.

    Example: seedjax posttrain critic --model mini --out runs/critic
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.critic import CriticConfig, learn_critic
    from seedjax.tasks.lab.stream import LabConfig

    default = CriticConfig(model=model, tasks=LabConfig(vocabulary=model))
    recipe = _chosen(CriticConfig, lambda: default, config, assignments)
    with progress.bar() as report:
        advance = counter(report, "answering", recipe.num_tasks)
        result = learn_critic(
            recipe,
            out,
            accept_weak_isolation=accept_weak_isolation,
            advance=advance,
        )
    if json:
        streams.print_json({"directory": str(out)} | result._asdict())
    else:
        streams.print_text(
            f"{out}: of {result.answers} answers that it has not seen, "
            f"{result.passed:.1%} passed; it tells {result.accuracy:.1%} right, AUC "
            f"{result.auc:.3f}, calibration error {result.calibration_error:.3f}"
        )


@app.command("preference")
@options.writes("train", sources=("model", "feedback"))
def preference(
    out: Out,
    feedback: Annotated[
        str, typer.Option(help="JSON lines: prompt, answer, accepted.")
    ] = "",
    model: options.Model = "mini",
    config: Config = None,
    assignments: Set = None,
    resume: Resume = False,
    json: options.Json = False,
) -> None:
    """Learn from answers that were accepted and rejected.

    Example: seedjax posttrain preference --feedback feedback.jsonl --out runs/liked
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.preference import PreferenceConfig, learn_preferences

    def default() -> PreferenceConfig:
        return PreferenceConfig(
            init_from=model, feedback=_given(feedback, "--feedback")
        )

    recipe = _recipe(PreferenceConfig, default, config, assignments, out, resume)
    ended = learn_preferences(recipe, out, resume=resume)
    if json:
        found = {"directory": str(out), "step": ended.step, "finished": ended.finished}
        streams.print_json(found)
    else:
        streams.print_text(
            f"{ended.step} steps; try: seedjax generate --model {out} ..."
        )


def _given(value: str, option: str) -> str:
    if not value:
        raise InputError(f"{option} is missing; give it, or a --config that has it")
    return value


def _recipe(
    kind: type,
    default: Callable[[], Any],
    config: Path | None,
    assignments: list[str] | None,
    out: Path,
    resume: bool,
) -> Any:
    """The recipe of a run: that of the run in `out` where it is resumed, else of a
    file, else the default, with assignments."""
    from seedjax.config import from_dict
    from seedjax.files.text import read_json_object

    record = out / "run.json"
    if resume and record.exists() and config is None and not assignments:
        return from_dict(kind, read_json_object(record))
    return _chosen(kind, default, config, assignments)


def _chosen(
    kind: type,
    default: Callable[[], Any],
    config: Path | None,
    assignments: list[str] | None,
) -> Any:
    """The recipe of a file, else the default, with assignments."""
    from seedjax.config import override
    from seedjax.train.config import run_config_file

    recipe = default() if config is None else run_config_file(config, kind)
    return override(recipe, assignments or ())


def _train(
    default: Callable[[], "RunConfig"],
    config: Path | None,
    assignments: list[str] | None,
    out: Path,
    lora: str,
    resume: bool,
    mesh: str,
    json: bool,
) -> None:
    """A stage that is a run of the trainer."""
    options.start_jax(compile_cache=True)
    from seedjax.cli.train import lora_assignment, show_result
    from seedjax.train.config import RunConfig
    from seedjax.train.run import train

    given = [*lora_assignment(lora), *(assignments or ())]
    run = _recipe(RunConfig, default, config, given, out, resume)
    show_result(train(run, out, resume=resume, mesh=mesh), out, json=json)
