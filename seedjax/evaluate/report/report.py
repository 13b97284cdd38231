"""Runs beside each other and beside the paper: Markdown, JSON and a page.

DIR/**/run.json ─▶ Run ─▶ report.json, report.md, index.html
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.evaluate.folder import (
    PROBLEMS,
    RUN,
    SCORE,
    TRACES,
    VERDICTS,
    all_samples,
    read_run,
)
from seedjax.evaluate.report.page import make_page
from seedjax.evaluate.report.paper import columns, speeds
from seedjax.evaluate.report.pictures import beside_picture, quality_picture
from seedjax.evaluate.report.table import HEAD, cells, problems_of, remarks
from seedjax.evaluate.samples import Sample
from seedjax.evaluate.score import Score
from seedjax.evaluate.statistics import accuracy_under_parallelism
from seedjax.files.output import writes
from seedjax.files.text import (
    markdown_code,
    markdown_text,
    read_json_lines,
    read_json_object,
    write_text,
)

MARKDOWN, JSON, PAGE = "report.md", "report.json", "index.html"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A folder that was scored.

    Attributes:
      folder: where it is.
      record: what `run.json` says.
      score: what `score.json` says.
      problems: what was asked, by problem.
      samples: all answers.
      verdicts: by problem, sample and try.
      traces: the steps of a few problems, by problem.
    """

    folder: Path
    record: Mapping[str, Any]
    score: Score
    problems: Mapping[str, Mapping[str, Any]]
    samples: Sequence[Sample]
    verdicts: Mapping[tuple[str, int, int], Mapping[str, Any]]
    traces: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def model(self) -> str:
        """Its short name."""
        return Path(self.record["model"]).name or self.record["model"]

    @property
    def recipe(self) -> str:
        return self.record["settings"]["recipe"]

    @property
    def is_point(self) -> bool:
        """Whether it belongs to a sweep: one greedy answer a problem."""
        name = self.recipe
        return name == "single" or name.startswith("threshold-")


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The scored runs in and below some folders, in order of suite, model and recipe.

    Raises:
      InputError: for a folder that is not there, or no scored run at all.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {str(folder)!r}")
        for record in sorted(folder.rglob(RUN)):
            if (record.parent / SCORE).exists():
                found[record.parent.resolve()] = read_folder(record.parent)
    if not found:
        listed = ", ".join(str(folder) for folder in folders)
        raise InputError(
            f"no scored run in {listed}; `seedjax eval run` makes one, and `seedjax "
            "eval score` scores answers of other systems"
        )
    return sorted(found.values(), key=lambda r: (r.score.suite, r.model, r.recipe))


def read_folder(folder: Path) -> Run:
    """One scored run.

    Raises:
      InputError: for a file in it that is damaged.
    """
    problems = {line["problem_id"]: line for line in _lines(folder / PROBLEMS)}
    verdicts = {
        (line["problem_id"], line["sample"], line["turn"]): line
        for line in _lines(folder / VERDICTS)
    }
    traces: dict[str, list[Mapping[str, Any]]] = {}
    for line in _lines(folder / TRACES):
        traces.setdefault(line["problem_id"], []).append(line)
    return Run(
        folder=folder,
        record=read_run(folder),
        score=Score.from_dict(read_json_object(folder / SCORE)),
        problems=problems,
        samples=all_samples(folder),
        verdicts=verdicts,
        traces=traces,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [line.values for line in read_json_lines(path)] if path.exists() else []


@writes("eval report")
def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Writes the report over all runs in some folders; returns the page.

    Raises:
      InputError: for no runs, or a folder that cannot be written to.
    """
    runs = find_runs(folders)
    found = report(runs)
    write_text(out / JSON, json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_text(out / MARKDOWN, markdown(found))
    pictures = {
        "quality": quality_picture(runs_as_points(runs)),
        "beside": beside_picture(found["beside"]),
    }
    write_text(out / PAGE, make_page(found, browsed(runs), pictures))
    return out / PAGE


def report(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything but the answers, as JSON values."""
    return {
        "runs": [
            {
                "model": run.model,
                "recipe": run.recipe,
                "title": run.record["title"],
                "folder": str(run.folder),
                "settings": run.record["settings"],
                "machine": run.record["machine"],
                "score": run.score.to_dict(),
            }
            for run in runs
        ],
        "curves": curves(runs),
        "beside": beside(runs),
        "speeds": [dataclasses.asdict(speed) for speed in speeds()],
    }


def runs_as_points(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Where the runs stand in quality and speed, as far as both were measured."""
    return [
        {
            "model": run.model,
            "suite": run.score.suite + (f", {part}" if run.score.is_part else ""),
            "recipe": run.recipe,
            "speed": run.score.tokens_per_forward,
            "rate": run.score.pass_at[1],
            "interval": run.score.intervals[1],
        }
        for run in runs
        for part in [problems_of(run.score.to_dict())]
        if 1 in run.score.pass_at and run.score.tokens_per_forward
    ]


def curves(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The sweeps: points in order of speed, and AUP over them. What accuracy counts in
    full is the best of all sweeps over the suite."""
    found: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for run in runs:
        speed = run.score.tokens_per_forward
        if run.is_point and speed and 1 in run.score.pass_at:
            name = run.score.suite, run.model, run.score.problems
            found.setdefault(name, []).append((speed, run.score.pass_at[1]))
    best: dict[tuple[str, int], float] = {}
    for (suite, _, count), points in found.items():
        top = max(rate for _, rate in points)
        best[suite, count] = max(top, best.get((suite, count), 0.0))
    return [
        {
            "suite": suite,
            "model": model,
            "problems": count,
            "points": sorted(points),
            "aup": accuracy_under_parallelism(points, best=best[suite, count]),
        }
        for (suite, model, count), points in found.items()
    ]


def beside(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Printed scores of the benchmarks that were run, with ours among them. Ours are of
    one model and recipe; over several suites they are means weighted by problems, and
    there only if all of them were run."""
    tables = []
    for column in columns():
        ours: dict[str, dict[str, Run]] = {}
        for run in runs:
            if run.score.suite in column.suites and 1 in run.score.pass_at:
                ours.setdefault(f"{run.model}, {run.recipe}", {})[run.score.suite] = run
        full = {
            n: found for n, found in ours.items() if len(found) == len(column.suites)
        }
        if not full:
            continue
        tables.append(
            {
                "title": column.title,
                "condition": column.condition,
                "source": column.source,
                "printed": dict(column.scores),
                "misprints": dict(column.misprints),
                "ours": {name: _mean(found.values()) for name, found in full.items()},
            }
        )
    return tables


def _mean(runs: Any) -> dict[str, Any]:
    scores = [run.score for run in runs]
    count = sum(score.problems for score in scores)
    rate = sum(score.problems * score.pass_at[1] for score in scores) / count
    totals = [score.suite_problems or score.problems for score in scores]
    return {"score": 100 * rate, "problems": count, "suite_problems": sum(totals)}


def browsed(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the page's browser shows: all answers of all runs, with their verdicts."""
    return [
        {
            "name": f"{run.score.suite}: {run.model}, {run.recipe}",
            "problems": [_browsed_problem(run, name) for name in run.problems],
        }
        for run in runs
    ]


def _browsed_problem(run: Run, name: str) -> dict[str, Any]:
    answers = []
    for sample in run.samples:
        if sample.problem_id != name:
            continue
        verdict = run.verdicts.get(sample.key, {})
        answers.append(
            {
                "sample": sample.sample,
                "turn": sample.turn,
                "text": sample.text,
                "answer": "" if sample.answer == sample.text else sample.answer,
                "tokens": sample.tokens,
                "forwards": sample.forwards,
                "finished": sample.finished,
                "passed": verdict.get("passed"),
                "reason": verdict.get("reason", "not run"),
                "message": verdict.get("message", ""),
                "output": verdict.get("output", "")[-2000:],
            }
        )
    steps = [
        [step["block"], step["step"], step["positions"], step["pieces"]]
        for step in run.traces.get(name, ())
    ]
    known = run.problems[name]
    asked = {k: v for k, v in known.items() if k != "problem_id"}
    if "asked" in known:
        # Not the fields of the problem, of which a model is shown some.
        form = run.record["settings"].get("form", "")
        asked = {f"the model was given ({form})": known["asked"]}
    return {"id": name, "asked": asked, "answers": answers, "steps": steps}


def markdown(found: Mapping[str, Any]) -> str:
    """The report as text."""
    lines = ["# Scores", "", *table(HEAD, [cells(entry) for entry in found["runs"]])]
    said = [remark for entry in found["runs"] for remark in remarks(entry)]
    lines += ["", *(f"- {markdown_text(remark)}" for remark in said)]
    if found["curves"]:
        lines += ["", "## Quality against speed", ""]
        rows = [
            [
                curve["suite"],
                curve["model"],
                f"{curve['aup']:.1f}",
                "; ".join(f"{s:.2f}: {100 * r:.1f} %" for s, r in curve["points"]),
            ]
            for curve in found["curves"]
        ]
        head = ("suite", "model", "AUP", "tokens a forward: pass@1")
        lines += table(head, rows)
    for column in found["beside"]:
        lines += ["", f"## {column['title']} beside what is printed", ""]
        lines += [f"{column['condition']}. {column['source']}.", ""]
        rows = [
            [
                name,
                f"{ours['score']:.1f}",
                f"here, {problems_of({'left_out': {}} | ours)} problems",
            ]
            for name, ours in column["ours"].items()
        ]
        rows += [
            [name, f"{score:.1f}", column["misprints"].get(name, "")]
            for name, score in column["printed"].items()
        ]
        lines += table(("system", "score", ""), rows, bold=len(column["ours"]))
    lines += ["", "## Settings", ""]
    for entry in found["runs"]:
        settings = entry["settings"]
        name = f"{settings['suite']}, {entry['model']}, {entry['recipe']}"
        title = markdown_text(f"{name}: {entry['title']}")
        lines += [f"- {title}; {markdown_code(json.dumps(settings))}"]
    return "\n".join(lines) + "\n"


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, bold: int = 0
) -> list[str]:
    """Lines of a Markdown table of texts; of the first `bold` rows the first cell is
    bold."""
    escaped = [list(map(markdown_text, row)) for row in rows]
    for row in escaped[:bold]:
        row[0] = f"**{row[0]}**"
    body = [f"| {' | '.join(row)} |" for row in [head, *escaped]]
    return [body[0], "|" + "---|" * len(head), *body[1:]]
