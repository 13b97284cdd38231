"""`seedjax lab score`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options, progress, streams
from seedjax.errors import InputError
from seedjax.files.text import format_json_line, write_text
from seedjax.progress import counter


def score(
    tasks: Annotated[
        Path, typer.Option(help="Task file that `seedjax lab make` wrote.")
    ],
    model: options.Model = "mini",
    quantization: options.Quantization = None,
    adapter: options.Adapter = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Decide all tokens that are this sure; default: one token a step.",
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option(help="left or confidence: which tokens are decided first."),
    ] = "left",
    out: Annotated[
        Path | None, typer.Option(help="Write every answer as a JSON line to FILE.")
    ] = None,
    force: options.ForceFile = False,
    workers: options.Workers = None,
    accept_weak_isolation: options.AcceptWeak = False,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Answer tasks at temperature 0 and run their tests.

    Example: seedjax lab score --tasks tasks.jsonl --model mini --threshold 0.9
    """
    from seedjax.files.output import check_file, json_lines_with, replaced_file
    from seedjax.tasks.lab.tasks import read_tasks

    if order not in ("left", "confidence"):
        raise InputError(f"--order is {order!r}; it must be left or confidence")
    guard: dict[str, Any] = {
        "sources": [tasks],
        "force": force,
        "is_ours": json_lines_with("task_id", "passed", "answer", "forwards"),
    }
    if out is not None:
        check_file(out, **guard)
    found = read_tasks(tasks)
    options.start_jax(compile_cache=not no_compile_cache)
    from rich.table import Table

    from seedjax.evaluate.lab_scoring import (
        answer_tasks,
        check_answers,
        check_references,
        score_answers,
    )
    from seedjax.inference.loading import load
    from seedjax.sandbox.sandbox import Sandbox

    opened = Sandbox(workers, accept_weak_isolation=accept_weak_isolation)
    with progress.bar() as report, opened as sandbox:
        loaded = load(model, quantization=quantization, adapter=adapter, report=report)
        check_references(sandbox, found)
        answers = answer_tasks(
            loaded,
            found,
            threshold=threshold,
            order=order,  # type: ignore[arg-type]
            advance=counter(report, "lab score", len(found)),
        )
        report("running programs", 0, 0)
        passed = check_answers(sandbox, found, answers)
    if out is not None:
        lines = [
            {
                "task_id": task.task_id,
                "passed": right,
                "answer": answer.text,
                "forwards": answer.forwards,
            }
            for task, answer, right in zip(found, answers, passed, strict=True)
        ]
        with replaced_file(out, **guard) as partial:
            write_text(partial, "".join(map(format_json_line, lines)))
    groups: dict[str, list[int]] = {}
    for number, task in enumerate(found):
        groups.setdefault(f"{task.task} tier {task.tier}", []).append(number)
        groups.setdefault(f"{task.task}", []).append(number)
    results = {
        name: score_answers(
            loaded,
            [found[n] for n in chosen],
            [answers[n] for n in chosen],
            [passed[n] for n in chosen],
        )
        for name, chosen in sorted(groups.items())
    }
    if json:
        streams.print_json(
            {
                "model": model,
                "threshold": threshold,
                "order": order,
                "scores": {
                    name: dataclasses.asdict(result)
                    | {"pass_at_1": result.pass_rate, "interval": result.interval}
                    for name, result in results.items()
                },
            }
        )
        return
    table = Table("", "pass@1", "95 % interval", "tasks", "tokens/forward", box=None)
    for name, result in results.items():
        low, high = result.interval
        table.add_row(
            name,
            f"{100 * result.pass_rate:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
            str(result.tasks),
            f"{result.tokens_per_forward:.2f}",
        )
    streams.print_table(table)
