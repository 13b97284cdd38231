"""`seedjax eval run | sweep | score | compare | report | suites | fetch | verify`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from seedjax.cli import benchmarks, compare, options, progress, streams
from seedjax.errors import InputError
from seedjax.files.output import claimed, paths

if TYPE_CHECKING:
    from seedjax.evaluate.run import Choices, Finished
    from seedjax.evaluate.score import Score


class RunByDefault(typer.core.TyperGroup):
    """`seedjax eval --model ...` without a command's name is `seedjax eval run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault,
    help="Scores of benchmarks, with frozen settings, and speed in the same table.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command("suites")(benchmarks.suites)
app.command("fetch")(benchmarks.fetch)
app.command("verify")(benchmarks.verify)
app.command("compare")(compare.compare)


@app.command("run")
@options.many_processes
@options.grouped
def run(
    suite: benchmarks.Suites,
    completing: benchmarks.Completing,
    adapter: options.Adapter = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper, careful, fast, default; single, or a policy with its number: "
            "threshold-0.9, confidence-0.8."
        ),
    ] = "paper",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; default: evaluation/MODEL-RECIPE."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Completions of a problem; default: the recipe's."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Default: the recipe's.")
    ] = None,
    known_length: Annotated[
        bool, typer.Option("--known-length", help="Give the length of holes away.")
    ] = False,
    shard: Annotated[
        str, typer.Option(help="I/N: the I-th of N parts of the problems, from 1.")
    ] = "1/1",
    traces: Annotated[
        int, typer.Option(min=0, help="Problems whose every step is kept.")
    ] = 4,
) -> None:
    """Complete the problems of suites and score the completions. A run that was cut
    off goes on where it was.

    Example: seedjax eval run --model mini --suite humaneval --recipe fast
    """
    from seedjax.evaluate.recipes import find_recipe
    from seedjax.evaluate.run import Choices

    found = find_recipe(recipe)
    folder = out or Path("evaluation") / f"{Path(completing.model).name}-{recipe}"
    choices = Choices(
        model_name=completing.model,
        recipe=found,
        samples=samples,
        temperature=temperature,
        limit=completing.limit,
        rows=completing.rows,
        seed=completing.seed,
        known_length=known_length,
        quantization=completing.quantization,
        adapter=adapter,
        shard=read_shard(shard),
        traced=traces,
    )
    read = [completing.model, adapter, suite.split(",")]
    finished = run_all(suite, folder, {folder: choices}, completing, read)
    print_finished([done for _, done in finished], completing.json)


@app.command("sweep")
@options.many_processes
@options.grouped
def sweep(
    suite: benchmarks.Suites,
    completing: benchmarks.Completing,
    thresholds: Annotated[
        str,
        typer.Option(help="With commas between; single is one token per step."),
    ] = "single,0.99,0.95,0.9,0.8,0.6",
    policies: Annotated[
        str,
        typer.Option(
            help="In place of thresholds: all, or policies with commas between, such "
            "as left-to-right,revoke,confidence-0.8."
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Default: evaluation/MODEL-sweep.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the curves into this PNG, pooled over the suites."),
    ] = None,
) -> None:
    """Score a model at several thresholds, or under several policies: pass@1 against
    tokens per forward pass, and the area under that (AUP).

    Example: seedjax eval sweep --model mini --suite lab --out sweep
    """
    from seedjax.evaluate.recipes import point, points_for
    from seedjax.evaluate.run import Choices

    if plot is not None:
        from seedjax.plotting import check_picture

        check_picture(plot, force=completing.force)
    model = completing.model
    folder = out or Path("evaluation") / f"{Path(model).name}-sweep"
    if policies:
        points = points_for(policies, model)
    else:
        values = map(read_threshold, thresholds.split(","))
        points = [point("threshold", value) for value in values]
    planned = {
        folder / point.name: Choices(
            model_name=model,
            recipe=point,
            limit=completing.limit,
            rows=completing.rows,
            seed=completing.seed,
            quantization=completing.quantization,
            traced=0,
            first_block=not policies,
        )
        for point in points
    }
    read = [model, suite.split(",")]
    finished = run_all(suite, folder, planned, completing, read)
    from seedjax.evaluate.report.report import curves, pooled_points, read_folder

    runs = [read_folder(done.folder) for _, done in finished]
    found = curves(runs)
    if plot is not None:
        from seedjax.evaluate.report.pictures import policies_picture
        from seedjax.plotting import replaced_picture, save

        with replaced_picture(plot, force=completing.force) as partial:
            save(policies_picture(pooled_points(runs)), partial)
    if completing.json:
        streams.print_json({"curves": found})
        return
    print_scores([done.score for _, done in finished], recipes=[n for n, _ in finished])
    for curve in found:
        name = f"{curve['suite']}, {curve['model']}"
        streams.print_text(f"{name}: AUP {curve['aup']:.1f}")


@app.command("score")
@options.writes("eval", sources=("samples",), shared=True)
@options.grouped
def score(
    suite: benchmarks.Suites,
    judging: benchmarks.Judging,
    samples: Annotated[
        Path,
        typer.Option(help="JSON lines with task_id and completion, solution or text."),
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the system, for the report.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep score and verdicts there, for a report.")
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Cut answers out by the suite's rule, all of them."),
    ] = False,
) -> None:
    """Score completions of any system.

    Example: seedjax eval score --suite humaneval --samples samples.jsonl
    """
    from seedjax.evaluate.external import read_external
    from seedjax.evaluate.score import score_completions
    from seedjax.tasks.suites import find_suites

    if len(chosen := find_suites(suite)) != 1:
        raise InputError(f"--suite {suite} names {len(chosen)} suites; give one")
    ((found, problems),) = judging.read(suite)
    problems = problems[: judging.limit]
    answers = read_external(samples, found, problems, raw=raw)
    sandboxes = judging.sandboxes()
    with progress.bar(quiet=judging.quiet) as report:
        result, verdicts = score_completions(
            found,
            problems,
            answers,
            lambda: sandboxes(found),
            measured=False,
            report=report,
        )
    if out is not None:
        from seedjax.evaluate.folder import keep_external

        keep_external(
            out / found.name,
            found,
            problems,
            answers,
            result,
            verdicts,
            name=name or samples.name.partition(".")[0],
            file=samples,
        )
    if judging.json:
        streams.print_json({"scores": [result.to_dict()]})
    else:
        print_scores([result])


@app.command("report")
@options.writes("eval report", sources=("folders",), may_be_inside=True)
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with runs in or below them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    json: options.Json = False,
) -> None:
    """Put runs beside each other and beside the paper: Markdown, JSON and a page with
    every answer.

    Example: seedjax eval report evaluation --out report
    """
    from seedjax.evaluate.report.report import find_runs, write_report

    page = write_report(folders, out)
    if json:
        count = len(find_runs(folders))
        streams.print_json({"page": str(page), "runs": count})
    else:
        streams.print_text(str(page))


def read_shard(text: str) -> tuple[int, int]:
    """I/N as two numbers."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise InputError(f"--shard is {text!r}; it must be like 1/4")
    return int(part), int(parts)


def read_threshold(text: str) -> float | None:
    """A threshold of a sweep; None for one token per step."""
    if text.strip() == "single":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"--thresholds has {text!r}; it takes numbers in [0, 1] and single"
        ) from None


def run_all(
    names: str,
    out: Path,
    planned: "dict[Path, Choices]",
    completing: benchmarks.Completing,
    read: list[Any],
) -> "list[tuple[str, Finished]]":
    """Runs every suite of `names` under every choice, each in a folder of its own below
    `out`; returns the names of the recipes and how the runs ended."""
    sandbox = completing.sandboxes()
    with claimed(out, "eval", sources=paths(read), force=completing.force, shared=True):
        suites = completing.read(names)
        options.start_jax(compile_cache=not completing.no_compile_cache)
        import jax

        from seedjax.evaluate.run import run_suite
        from seedjax.inference.loading import load
        from seedjax.sharding import make_mesh

        first, mesh = next(iter(planned.values())), completing.mesh
        finished = []
        with progress.bar(quiet=completing.quiet) as report:
            loaded = load(
                first.model_name,
                quantization=first.quantization,
                adapter=first.adapter,
                # Of several processes, each completes problems of its own.
                mesh=None if mesh is None else make_mesh(mesh, jax.local_devices()),
                report=report,
            )
            for folder, choices in planned.items():
                for suite, problems in suites:
                    done = run_suite(
                        loaded,
                        suite,
                        problems,
                        folder / suite.name,
                        choices,
                        sandbox=sandbox,
                        report=report,
                    )
                    finished.append((choices.recipe.name, done))
    return finished


def print_finished(finished: "list[Finished]", json: bool) -> None:
    """Prints how runs ended."""
    if json:
        streams.print_json(
            {
                "runs": [
                    {
                        "folder": str(done.folder),
                        "samples": done.samples,
                        "total": done.total,
                        "score": done.score and done.score.to_dict(),
                    }
                    for done in finished
                ]
            }
        )
        return
    for done in finished:
        if done.score is None:
            streams.print_text(
                f"{done.folder}: {done.samples} of {done.total} samples; the shard "
                "that finishes last scores them all"
            )
    print_scores([done.score for done in finished])


def print_scores(
    scores: "list[Score | None] | list[Score]", recipes: list[str] | None = None
) -> None:
    """A table of scores, with remarks below."""
    from rich.table import Table

    from seedjax.evaluate.report.table import number, percent, problems_of

    head = ["suite", "recipe"] if recipes else ["suite"]
    head += ["pass@1", "95 % interval", "problems", "tokens/forward", "tokens/s"]
    table = Table(*head, "empty", "repeating", box=None)
    for place, score in enumerate(scores):
        if score is None:
            continue
        low, high = score.intervals.get(1, (0.0, 0.0))
        row = [score.suite, recipes[place]] if recipes else [score.suite]
        table.add_row(
            *row,
            percent(score.pass_at.get(1)),
            f"{100 * low:.1f} to {100 * high:.1f}" if 1 in score.pass_at else "-",
            problems_of(score.to_dict()),
            number(score.tokens_per_forward),
            number(score.tokens_per_second, 0),
            percent(score.empty_rate),
            percent(score.repetition_rate),
        )
    streams.print_table(table, width=120)
    for score in scores:
        if score is None:
            continue
        for k, rate in score.pass_at.items():
            if k > 1:
                streams.print_text(f"{score.suite}: pass@{k} {percent(rate)}")
        if score.not_run:
            print(f"{score.suite}: not run: {score.not_run}", file=sys.stderr)
        for why, count in score.left_out.items():
            print(
                f"{score.suite}: {count} problems are left out: {why}", file=sys.stderr
            )
