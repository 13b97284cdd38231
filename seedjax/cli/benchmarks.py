"""`seedjax eval suites | fetch | verify`, and what all of `seedjax eval` shares."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import options, progress, streams

if TYPE_CHECKING:
    from seedjax.sandbox.sandbox import Sandbox
    from seedjax.tasks.suite import Problem, Suite

Suites = Annotated[
    str,
    typer.Option("--suite", help="Suites with commas between; mbxp means all mbxp_*."),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder with the problems; default: $SEEDJAX_EVAL_DATA."),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only the first N problems of each suite.")
]
Isolation = Annotated[
    str,
    typer.Option(
        help="auto (the strongest), bubblewrap, namespaces; or rlimits, which accepts "
        "that as well."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judging:
    """A command that runs completions of suites against their tests."""

    limit: Limit = None
    data: Data = None
    workers: options.Workers = None
    isolation: Isolation = "auto"
    accept_weak_isolation: options.AcceptWeak = False
    json: options.Json = False
    quiet: Quiet = False

    def sandboxes(self) -> "Sandboxes":
        """Makes a sandbox for each suite; see `Sandboxes`."""
        return Sandboxes(self.workers, self.isolation, self.accept_weak_isolation)

    def read(self, names: str) -> "list[tuple[Suite, list[Problem]]]":
        """The suites of `--suite`, with their problems; see `read_suites`."""
        return read_suites(names, self.data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completing(Judging):
    """A command whose model completes problems of suites, which are judged."""

    model: options.Model = "mini"
    quantization: options.Quantization = None
    mesh: options.Mesh = None
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 16
    seed: options.Seed = 0
    force: options.Force = False
    no_compile_cache: options.NoCompileCache = False


def suites(
    data: Data = None,
    json: options.Json = False,
) -> None:
    """List the suites: problems, licence, and whether they are here.

    Example: seedjax eval suites
    """
    from seedjax.sandbox.runtimes import missing
    from seedjax.tasks.data import data_folder, how_to_get, is_found
    from seedjax.tasks.suites import SUITES

    folder = data_folder(data)
    rows = [
        {
            "name": suite.name,
            "title": suite.title,
            "family": suite.family,
            "problems": suite.num_problems,
            "language": suite.language,
            "metric": suite.metric,
            "licence": suite.source.licence,
            "project": suite.source.project,
            "version": suite.source.version,
            "found": is_found(suite, folder),
            "how": None if is_found(suite, folder) else how_to_get(suite, folder),
            "missing_runtime": missing(suite.language),
        }
        for suite in SUITES.values()
    ]
    if json:
        streams.print_json({"data": str(folder), "suites": rows})
        return
    from rich.table import Table

    table = Table("suite", "problems", "language", "licence", "here", box=None)
    for row in rows:
        able = "no runtime" if row["missing_runtime"] else "yes"
        here = able if row["found"] else "no"
        cells = (row[name] for name in ("name", "problems", "language", "licence"))
        table.add_row(*map(str, cells), here)
    streams.print_table(table, width=120)
    streams.print_text(
        f"problems are looked for in {folder}; `seedjax eval fetch NAME` gets them"
    )


def fetch(
    suite: Annotated[str, typer.Argument(help="Suites with commas between, or all.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder for them; default: your cache folder.")
    ] = None,
    json: options.Json = False,
    quiet: Quiet = False,
) -> None:
    """Download the problems of suites, and check them.

    Example: seedjax eval fetch humaneval,mbpp
    """
    from seedjax.evaluate.folder import make_folder
    from seedjax.tasks import data as data_module
    from seedjax.tasks.suites import SUITES, find_suites

    if data is not None:
        make_folder(data)
    folder = data_module.data_folder(data)
    chosen = list(SUITES.values()) if suite == "all" else find_suites(suite)
    done = []
    with progress.bar(quiet=quiet) as report:
        for number, found in enumerate(chosen):
            report("fetching suites", number, len(chosen))
            # Of all, those that have an address for every file.
            if suite == "all" and {*found.source.files} - {*found.source.urls}:
                if not data_module.is_found(found, folder):
                    print(data_module.how_to_get(found, folder), file=sys.stderr)
                continue
            data_module.fetch(found, folder)
            done.append(found.name)
    if json:
        streams.print_json({"data": str(folder), "fetched": done})
    else:
        streams.print_text(f"{folder}: {len(done)} suites are here")


@options.grouped
def verify(
    suite: Annotated[str, typer.Argument(help="Suites with commas between, or all.")],
    judging: Judging,
) -> None:
    """Check suites against themselves: reference answers pass, wrong ones do not. Exit
    code 1 if there is a difference that is not known.

    Example: seedjax eval verify humaneval
    """
    from seedjax.evaluate.verify import verify as verify_suite
    from seedjax.tasks.data import data_folder, is_found
    from seedjax.tasks.suites import SUITES

    if suite == "all":
        folder = data_folder(judging.data)
        suite = ",".join(n for n, s in SUITES.items() if is_found(s, folder))
    sandboxes = judging.sandboxes()
    rows: list[dict[str, Any]] = []
    with progress.bar(quiet=judging.quiet) as report:
        for found, problems in judging.read(suite):
            problems = problems[: judging.limit]
            began = time.perf_counter()
            with sandboxes(found) as sandbox:
                verified = verify_suite(found, problems, sandbox, report)
            seconds = time.perf_counter() - began
            more = {"good": verified.is_good, "wall_seconds": seconds}
            rows.append(dataclasses.asdict(verified) | more)
    if judging.json:
        streams.print_json({"suites": rows})
    else:
        print_verified(rows)
    if not all(row["good"] for row in rows):
        raise typer.Exit(1)


class Sandboxes:
    """Makes sandboxes by the options.

    Raises:
      InputError: when it is made, if only weak isolation can be had and that was not
        accepted.
    """

    def __init__(self, workers: int | None, isolation: str, accept_weak: bool):
        from seedjax.sandbox.sandbox import require_isolation

        self._workers, self._isolation = workers, isolation
        self._accept_weak = accept_weak
        require_isolation(accept_weak, isolation)

    def __call__(self, suite: "Suite") -> "Sandbox":
        from seedjax.sandbox.sandbox import Sandbox

        return Sandbox(
            self._workers,
            suite.limits,
            self._isolation,
            accept_weak_isolation=self._accept_weak,
        )


def read_suites(names: str, data: Path | None) -> "list[tuple[Suite, list[Problem]]]":
    """The suites of `--suite`, with their problems, before anything is computed."""
    from seedjax.tasks.data import data_folder, read_problems
    from seedjax.tasks.suites import find_suites

    folder = data_folder(data)
    return [(suite, read_problems(suite, folder)) for suite in find_suites(names)]


def print_verified(rows: list[dict[str, Any]]) -> None:
    """A table of suites that were checked against themselves, and all that is not as it
    should be."""
    from rich.table import Table

    table = Table(
        "suite",
        "problems",
        "references pass",
        "wrong answers pass",
        "seconds",
        box=None,
    )
    for row in rows:
        table.add_row(
            row["suite"],
            str(row["num_problems"]),
            f"{row['references_passed']} of {row['num_references']}",
            f"{row['wrong_passed']} of {row['num_wrong']}",
            f"{row['wall_seconds']:.1f}",
        )
    streams.print_table(table, width=120)
    for row in rows:
        for why in row["not_run"]:
            streams.print_text(f"{row['suite']}: not run: {why}")
        for found in row["unexpected"]:
            known = "known" if found["known"] else "NEW"
            streams.print_text(
                f"{row['suite']}: {found['problem_id']}: {found['answer']}: "
                f"{found['reason']} ({known})"
            )
