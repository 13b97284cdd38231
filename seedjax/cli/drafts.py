"""`seedjax posttrain completions | draft`: adapters that draft for a causal model."""

from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options, progress, stopping
from seedjax.cli.stage import Output, ResumableStage, required


@options.one_process
@options.writes("posttrain completions", sources=("model", "prompts"))
@options.grouped
def completions(
    *,
    model: options.Model = "smollm2",
    prompts: Annotated[
        Path, typer.Option(help="JSON lines: prompt, or messages of a conversation.")
    ],
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest completion.")
    ] = 128,
    quantization: Annotated[
        str | None, typer.Option(help="As of `seedjax generate`.")
    ] = None,
    output: Output,
) -> None:
    """Write a model's own greedy completions, for `posttrain draft`.

    Given again, it goes on where it stopped.

    Example: seedjax posttrain completions --model smollm2 --prompts prompts.jsonl --out
    runs/own
    """
    options.start_jax(compile_cache=True)
    from seedjax.inference.loading import load
    from seedjax.posttrain.completions import write_own_completions

    with progress.bar() as report:
        count = write_own_completions(
            load(model, quantization=quantization),
            prompts,
            output.out,
            max_new_tokens=max_new_tokens,
            report=report,
        )
    output.show({"completions": count}, f"{count} completions in {output.out}")


@options.one_process
@options.writes("train", sources=("model", "own"))
@options.grouped
def draft(
    *,
    model: options.Model = "smollm2",
    own: Annotated[
        str,
        typer.Option("--completions", help="Folder of `posttrain completions`."),
    ] = "",
    stage: ResumableStage,
) -> None:
    """Train a gated adapter that drafts the next tokens of a causal model, for it to
    check: the same text in fewer forward passes. It is in OUT/adapter.

    Example: seedjax posttrain draft --model smollm2 --completions runs/own --out
    runs/draft
    """
    options.start_jax(compile_cache=True)
    from seedjax.posttrain.draft import DraftConfig, learn_drafts

    def default() -> DraftConfig:
        given = required(own, "--completions")
        return DraftConfig(model=model, completions=given)

    recipe = stage.recipe(DraftConfig, default)
    with stopping.stop_on_signal() as stop:
        ended = learn_drafts(recipe, stage.out, resume=stage.resume, stop=stop)
    rate = ended.scores.get("tokens_per_pass")
    expected = "" if rate is None else f", {rate:.2f} tokens per pass expected"
    stage.show(
        {"step": ended.step, "finished": ended.finished} | dict(ended.scores),
        f"{ended.step} steps{expected}; try: seedjax generate --model {recipe.model} "
        f"--adapter {stage.out}/adapter ...",
    )
