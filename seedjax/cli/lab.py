"""`seedjax lab make | reproduce`."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import options, progress, reproduce, streams
from seedjax.errors import InputError
from seedjax.progress import counter

if TYPE_CHECKING:
    from seedjax.tasks.lab import Task

app = typer.Typer(
    help="Verifiable coding tasks to train and test small models on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


app.command("reproduce")(reproduce.reproduce)


@app.command("make")
def make(
    task: Annotated[
        str, typer.Option(help="generate, infill, repair, edit, or all of them.")
    ] = "generate",
    split: Annotated[
        str, typer.Option(help="train or test; no program is in both.")
    ] = "test",
    tier: Annotated[
        str, typer.Option(help="1, 2 or 3 steps a program, or all in turns.")
    ] = "all",
    part: Annotated[
        str,
        typer.Option(
            "--slice",
            help="Of the test split: standard, paraphrase (words never trained on), "
            "longer (4 steps) or names (none of the lab's).",
        ),
    ] = "standard",
    n: Annotated[
        int, typer.Option("--n", min=1, help="Tasks to write; of each, with all.")
    ] = 100,
    out: Annotated[
        Path, typer.Option(help="File to write, in a folder that exists.")
    ] = Path("tasks.jsonl"),
    force: options.ForceFile = False,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Write tasks as JSON lines in HumanEval's fields: a completion is right if the
    program with it passes `check` of the test.

    Example: seedjax lab make --task repair --tier 2 --n 50 --out repair.jsonl
    """
    from seedjax.tasks.lab import TASKS, make_tasks, write_tasks
    from seedjax.tasks.lab.tasks import check_set

    names: Any = TASKS if task == "all" else (task,)
    chosen: Any = {"split": split, "part": part, "tier": read_tier(tier)}
    for name in names:
        check_set(name, **chosen)
    if part == "longer" and tier != "all":
        raise InputError(f"the slice longer has a tier of its own; drop --tier {tier}")
    sets = [make_tasks(name, n, seed=seed, **chosen) for name in names]
    tasks = itertools.chain.from_iterable(zip(*sets, strict=True))
    tiers: Counter[int] = Counter()
    with progress.bar() as report:
        advance = counter(report, "lab make", n * len(names))
        count = write_tasks(out, count_tiers(tasks, tiers, advance), force=force)
    if json:
        written = {
            "path": str(out),
            "count": count,
            "tiers": dict(sorted(tiers.items())),
        }
        chosen = {"task": task, "split": split, "slice": part, "seed": seed}
        streams.print_json(written | chosen)
    else:
        listed = ", ".join(f"{tiers[tier]} of tier {tier}" for tier in sorted(tiers))
        streams.print_text(f"{out}: {count} tasks ({listed})")


def read_tier(text: str) -> int | None:
    """The tier that an option names; None for all of them."""
    if text == "all":
        return None
    if text not in ("1", "2", "3"):
        raise InputError(f"--tier is {text!r}; it must be 1, 2, 3 or all")
    return int(text)


def count_tiers(
    tasks: "Iterable[Task]", tiers: Counter[int], advance: Callable[[int], None]
) -> "Iterator[Task]":
    """The tasks as they come, counted by tier."""
    for task in tasks:
        tiers[task.tier] += 1
        yield task
        advance(1)
