"""`seedjax posttrain trajectories | constrained-order | on-policy | sharpen | ...`."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax import processes
from seedjax.cli import drafts, options, progress, stopping
from seedjax.cli.stage import (
    Mesh,
    Output,
    ResumableStage,
    Stage,
    TrainerStage,
    required,
)
from seedjax.errors import InputError
from seedjax.progress import counter

if TYPE_CHECKING:
    from seedjax.train.config import RunConfig

app = typer.Typer(
    help="Make a denoiser faster, smaller or preference-tuned.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Recorded = Annotated[
    str,
    typer.Option("--trajectories", help="Folder that `posttrain trajectories` wrote."),
]
Problems = Annotated[
    Path | None,
    typer.Option(help="JSON lines: problems of your own in place of the lab's."),
]
Lora = Annotated[
    str,
    typer.Option(help="Train an adapter instead, e.g. rank=8 or rank=8,alpha=16."),
]


@app.command("trajectories")
@options.many_processes
@options.writes("posttrain trajectories", sources=("model",))
@options.grouped
def trajectories(
    *,
    model: options.Model = "mini",
    problems: Problems = None,
    stage: Stage,
    mesh: Mesh = "",
    accept_weak_isolation: options.AcceptWeak = False,
) -> None:
    """Decode prompts of the lab and keep what passes its tests, with its order.

    Given again, it goes on where it stopped.

    Example: seedjax posttrain trajectories --model mini --out runs/decodes --set
    num_prompts=2000
    """
    options.start_jax(compile_cache=True)
    from dataclasses import replace

    from seedjax.posttrain.recording import RecordConfig, record

    tasks = _tasks(problems, model, accept_weak_isolation)
    default = RecordConfig(model=model, tasks=tasks)
    if problems is not None:
        default = replace(default, num_prompts=len(tasks.problems("train")))
    recipe = stage.recipe(RecordConfig, lambda: default)
    with progress.bar() as report:
        manifest = record(
            recipe,
            stage.out,
            mesh=mesh,
            accept_weak_isolation=accept_weak_isolation,
            report=report,
        )
    prompts, kept = manifest.prompts, manifest.trajectories
    stage.show(
        {"prompts": prompts, "trajectories": kept},
        f"{kept} decodes of {prompts} prompts in {stage.out}",
    )


@app.command("constrained-order")
@options.many_processes
@options.writes("train", sources=("model", "recorded"))
@options.grouped
def constrained_order(
    *,
    model: options.Model = "mini",
    recorded: Recorded = "",
    stage: TrainerStage,
    lora: Lora = "",
) -> None:
    """Fine-tune on kept decodes, in their own order.

    Example: seedjax posttrain constrained-order --model mini --trajectories
    runs/decodes --out runs/ordered
    """
    from seedjax.cli.train import lora_assignment
    from seedjax.posttrain import recipes

    def default() -> "RunConfig":
        return recipes.constrained_order(model, required(recorded, "--trajectories"))

    stage.train(default, *lora_assignment(lora))


@app.command("sharpen")
@options.many_processes
@options.writes("train", sources=("model", "recorded"))
@options.grouped
def sharpen(
    *,
    model: options.Model = "mini",
    recorded: Recorded = "",
    stage: TrainerStage,
    lora: Lora = "",
) -> None:
    """Fine-tune on kept decodes and raise the model's confidence where it is right.

    Example: seedjax posttrain sharpen --model mini --trajectories runs/decodes --out
    runs/sharp
    """
    from seedjax.cli.train import lora_assignment
    from seedjax.posttrain import recipes

    def default() -> "RunConfig":
        return recipes.sharpening(model, required(recorded, "--trajectories"))

    stage.train(default, *lora_assignment(lora))


@app.command("distill")
@options.many_processes
@options.writes("train", sources=("teacher",))
@options.grouped
def distill(
    *,
    teacher: Annotated[str, typer.Option(help="Model to learn from.")] = "mini",
    layers: Annotated[
        int | None, typer.Option(min=1, help="Of the student; default: half.")
    ] = None,
    stage: TrainerStage,
) -> None:
    """Train a smaller model on a teacher's distributions.

    Example: seedjax posttrain distill --teacher mini --layers 2 --out runs/student
    """
    from seedjax.posttrain import recipes

    stage.train(lambda: recipes.distillation(teacher, num_layers=layers))


@app.command("prune")
@options.many_processes
@options.writes("posttrain prune", sources=("model",))
@options.grouped
def prune(
    *,
    model: options.Model = "mini",
    pattern: Annotated[str, typer.Option(help="2:4 or magnitude.")] = "2:4",
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the weights that go; 2:4: half.")
    ] = 0.5,
    steps: Annotated[
        int, typer.Option(min=0, help="To train what is left; 0 for none.")
    ] = 500,
    stage: TrainerStage,
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
    start = stage.out if steps == 0 else stage.out / "pruned"
    if not (stage.resume and (start / "config.json").exists()):
        found = prune_model(model, start, pattern=pattern, share=share)  # type: ignore[arg-type]
        processes.share(None)  # the first process has written it
        if steps == 0:
            zeros = sparsity(found.params)
            shown = f"{zeros:.1%} of the projections' weights are zero; {stage.out}"
            stage.show({"zeros": zeros}, shown)
            return
    stage.train(lambda: recipes.pruned(str(start)), f"num_steps={steps}")


@app.command("average")
@options.one_process
@options.writes("posttrain average", sources=("models",))
@options.grouped
def average(
    models: Annotated[list[str], typer.Argument(help="Two or more, of one shape.")],
    *,
    shares: Annotated[
        list[float] | None,
        typer.Option(
            "--share", min=0.0, help="Of each model, in their order; default: equal."
        ),
    ] = None,
    output: Output,
) -> None:
    """Average the weights of models that were trained one from another.

    Example: seedjax posttrain average runs/left runs/names --out runs/mean
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.average import average_models

    average_models(models, output.out, shares=shares)
    output.show({"models": models}, f"the mean of {len(models)} models; {output.out}")


@app.command("widen")
@options.one_process
@options.writes("posttrain widen", sources=("model",))
@options.grouped
def widen(
    *,
    model: options.Model = "mini",
    factor: Annotated[int, typer.Option(min=2, help="How many times as wide.")] = 2,
    add_layers: Annotated[
        int, typer.Option(min=0, help="Layers more, which add nothing at first.")
    ] = 0,
    seed: options.Seed = 0,
    output: Output,
) -> None:
    """Make a wider model that computes the same, to train it further.

    Example: seedjax posttrain widen --model mini --factor 3 --out runs/wide
    """
    options.start_jax(compile_cache=True)
    from seedjax.nn.denoiser import num_parameters
    from seedjax.posttrain.widen import widen_model

    out = output.out
    wide = widen_model(model, out, factor=factor, more_layers=add_layers, seed=seed)
    count = num_parameters(wide.config)
    output.show(
        {"parameters": count},
        f"{count:,} parameters; go on with: seedjax train --init-from {out} ...",
    )


@app.command("on-policy")
@options.many_processes
@options.writes("train", sources=("model",))
@options.grouped
def on_policy(
    *,
    model: options.Model = "mini",
    problems: Problems = None,
    stage: ResumableStage,
    mesh: Mesh = "",
    accept_weak_isolation: options.AcceptWeak = False,
) -> None:
    """Make decodes shorter: roll out, run the tests, prefer short decodes that pass.

    Example: seedjax posttrain on-policy --model mini --out runs/fast
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.config import OnPolicyConfig
    from seedjax.posttrain.on_policy import learn_on_policy

    tasks = _tasks(problems, model, accept_weak_isolation)
    default = OnPolicyConfig(init_from=model, tasks=tasks)
    recipe = stage.recipe(OnPolicyConfig, lambda: default)
    with stopping.stop_on_signal() as stop:
        result = learn_on_policy(
            recipe,
            stage.out,
            resume=stage.resume,
            mesh=mesh,
            accept_weak_isolation=accept_weak_isolation,
            stop=stop,
        )
    _show_scores(stage, result)


@app.command("match-teacher")
@options.one_process
@options.writes("train", sources=("teacher", "init_from"))
@options.grouped
def match_teacher(
    *,
    teacher: Annotated[
        str, typer.Option(help="Autoregressive model to learn from.")
    ] = "smollm2",
    init_from: Annotated[
        str, typer.Option(help="Student to go on from; default: the teacher's weights.")
    ] = "",
    problems: Problems = None,
    stage: ResumableStage,
    accept_weak_isolation: options.AcceptWeak = False,
) -> None:
    """Make an autoregressive model decode blocks: the student decodes, and learns what
    the teacher says of the tokens, in the states that they were unmasked in.

    Example: seedjax posttrain match-teacher --teacher smollm2 --problems problems.jsonl
    --set mask_token_id=16 --out runs/adapted
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain import match_teacher as stages

    tasks = _tasks(problems, teacher, accept_weak_isolation)
    if problems is None:  # what a model of text takes
        tasks = dataclasses.replace(
            tasks, generate=1.0, infill=0.0, repair=0.0, edit=0.0
        )
    default = stages.MatchTeacherConfig(
        teacher=teacher, init_from=init_from, tasks=tasks
    )
    recipe = stage.recipe(stages.MatchTeacherConfig, lambda: default)
    with stopping.stop_on_signal() as stop:
        result = stages.match_teacher(
            recipe,
            stage.out,
            resume=stage.resume,
            accept_weak_isolation=accept_weak_isolation,
            stop=stop,
        )
    _show_scores(stage, result)


app.command("completions")(drafts.completions)
app.command("draft")(drafts.draft)


@app.command("critic")
@options.many_processes
@options.writes("posttrain critic", sources=("model",))
@options.grouped
def critic(
    *,
    model: options.Model = "mini",
    problems: Problems = None,
    stage: Stage,
    accept_weak_isolation: options.AcceptWeak = False,
) -> None:
    """Train a head on the model's hidden states that predicts whether a completion
    passes its tests, for `on-policy --set critic=OUT`.

    Example: seedjax posttrain critic --model mini --out runs/critic
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.critic import CriticConfig, learn_critic

    tasks = _tasks(problems, model, accept_weak_isolation)
    default = CriticConfig(model=model, tasks=tasks)
    recipe = stage.recipe(CriticConfig, lambda: default)
    with progress.bar() as report:
        advance = counter(report, "completing", recipe.num_tasks)
        result = learn_critic(
            recipe,
            stage.out,
            accept_weak_isolation=accept_weak_isolation,
            advance=advance,
        )
    stage.show(
        result._asdict(),
        f"{stage.out}: of {result.answers} held-out completions {result.passed:.1%} "
        f"passed; it predicts {result.accuracy:.1%} correctly, AUC {result.auc:.3f}, "
        f"calibration error {result.calibration_error:.3f}",
    )


@app.command("preference")
@options.many_processes
@options.writes("train", sources=("model", "feedback"))
@options.grouped
def preference(
    *,
    model: options.Model = "mini",
    feedback: Annotated[
        str, typer.Option(help="JSON lines: prompt, completion, accepted.")
    ] = "",
    stage: ResumableStage,
    mesh: Mesh = "",
) -> None:
    """Learn from completions that were accepted and rejected.

    Example: seedjax posttrain preference --feedback feedback.jsonl --out runs/liked
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.preference import PreferenceConfig, learn_preferences

    def default() -> PreferenceConfig:
        given = required(feedback, "--feedback")
        return PreferenceConfig(init_from=model, feedback=given)

    recipe = stage.recipe(PreferenceConfig, default)
    with stopping.stop_on_signal() as stop:
        ended = learn_preferences(
            recipe, stage.out, resume=stage.resume, mesh=mesh, stop=stop
        )
    stage.show(
        {"step": ended.step, "finished": ended.finished},
        f"{ended.step} steps; try: seedjax generate --model {stage.out} ...",
    )


def _tasks(problems: Path | None, model: str, accept_weak_isolation: bool) -> Any:
    """The lab, or the problems of a file, whose tests are tried on empty answers: those
    that pass are named on standard error.

    Raises:
      InputError: if the file holds no problems, or only weak isolation can be had.
    """
    from seedjax.tasks.lab.stream import LabConfig

    if problems is None:
        return LabConfig(vocabulary=model)
    from seedjax.sandbox.sandbox import Sandbox
    from seedjax.tasks.problems import (
        ProblemConfig,
        passing_when_empty,
        read_problems,
    )

    found = read_problems(problems)
    with Sandbox(accept_weak_isolation=accept_weak_isolation) as sandbox:
        empty = passing_when_empty(found, sandbox)
    if empty and processes.is_first():
        more = f" and {len(empty) - 3} more" * (len(empty) > 3)
        print(
            f"warning: {', '.join(empty[:3])}{more} of {problems} pass on an empty "
            "answer; from these a model learns to write nothing",
            file=sys.stderr,
        )
    return ProblemConfig(path=str(problems), vocabulary=model)


def _show_scores(stage: Stage, result: Any) -> None:
    """Shows the scores before and after a run."""
    before, after = result.before, result.after
    stage.show(
        result._asdict() | {"directory": str(stage.out)},
        f"{stage.out}: pass@1 {before['pass_at_1']:.3f} -> {after['pass_at_1']:.3f}, "
        f"tokens per forward pass {before['tokens_per_forward']:.2f} -> "
        f"{after['tokens_per_forward']:.2f}"
        + ("" if result.finished else "; stopped, continue with --resume"),
    )
