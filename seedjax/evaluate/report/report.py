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
from seedjax.evaluate.complete import Completion
from seedjax.evaluate.folder import (
    PROBLEMS,
    RUN,
    SCORE,
    TRACES,
    VERDICTS,
    all_completions,
    read_run,
)
from seedjax.evaluate.report.page import make_page
from seedjax.evaluate.report.paper import columns, speeds
from seedjax.evaluate.report.pictures import beside_picture, quality_picture
from seedjax.evaluate.report.table import HEAD, cells, problems_of, remarks
from seedjax.evaluate.report.writer import render
from seedjax.evaluate.score import Score
from seedjax.evaluate.statistics import accuracy_under_parallelism
from seedjax.files.output import writes
from seedjax.files.text import (
    read_json_lines,
    read_json_object,
    write_json,
    write_text,
)

MARKDOWN, JSON, PAGE = "report.md", "report.json", "index.html"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A folder that was scored.

    Attributes:
      folder: where it is.
      record: of `run.json`.
      score: of `score.json`.
      problems: fields and prompt, by id.
      completions: all of them.
      verdicts: by problem, sample and try.
      traces: the steps of a few problems, by problem.
    """

    folder: Path
    record: Mapping[str, Any]
    score: Score
    problems: Mapping[str, Mapping[str, Any]]
    completions: Sequence[Completion]
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
    def curve(self) -> str | None:
        """The model and the policy of the sweep that it belongs to; None for no
        sweep. Thresholds in the model's own order go without a policy's name."""
        if kind := self.record["settings"].get("curve"):
            return f"{self.model}, {kind}"
        name = self.recipe
        return self.model if name == "single" or name.startswith("threshold-") else None


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
        completions=all_completions(folder),
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
    write_json(out / JSON, found)
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
            "model": run.curve or run.model,
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
        if run.curve and speed and 1 in run.score.pass_at:
            name = run.score.suite, run.curve, run.score.problems
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


def pooled_points(runs: Sequence[Run]) -> dict[str, list[tuple[float, int, int]]]:
    """Tokens per forward pass, problems passed and problems of each recipe, pooled over
    its suites, by policy."""
    found: dict[str, dict[str, list[Score]]] = {}
    for run in runs:
        if run.score.tokens_per_forward and 1 in run.score.pass_at:
            policy = run.record["settings"].get("curve") or run.recipe.split("-")[0]
            recipes = found.setdefault(policy.replace("-", " "), {})
            recipes.setdefault(run.recipe, []).append(run.score)
    return {
        policy: [_pooled(scores) for scores in recipes.values()]
        for policy, recipes in found.items()
    }


def _pooled(scores: Sequence[Score]) -> tuple[float, int, int]:
    forwards = sum(score.forwards or 0 for score in scores)
    tokens = sum(
        (score.tokens_per_forward or 0.0) * (score.forwards or 0) for score in scores
    )
    passed = sum(round(score.pass_at[1] * score.problems) for score in scores)
    return tokens / forwards, passed, sum(score.problems for score in scores)


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
    """Data of the page's browser: all answers of all runs, with their verdicts."""
    return [
        {
            "name": f"{run.score.suite}: {run.model}, {run.recipe}",
            "problems": [_browsed_problem(run, name) for name in run.problems],
        }
        for run in runs
    ]


def _browsed_problem(run: Run, name: str) -> dict[str, Any]:
    answers = []
    for sample in run.completions:
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
    given = {k: v for k, v in known.items() if k != "problem_id"}
    # Runs of before have "asked".
    if prompt := known.get("prompt_text", known.get("asked")):
        # Not the fields of the problem, of which a model is shown some.
        form = run.record["settings"].get("form", "")
        given = {f"the prompt of the model ({form})": prompt}
    return {"id": name, "prompt": given, "answers": answers, "steps": steps}


def markdown(found: Mapping[str, Any]) -> str:
    """The report as text."""
    return render(
        "report.md",
        head=HEAD,
        scores=[cells(entry) for entry in found["runs"]],
        remarks=[remark for entry in found["runs"] for remark in remarks(entry)],
        curves=[
            (
                curve["suite"],
                curve["model"],
                f"{curve['aup']:.1f}",
                "; ".join(f"{s:.2f}: {100 * r:.1f} %" for s, r in curve["points"]),
            )
            for curve in found["curves"]
        ],
        cards=[_card(column) for column in found["beside"]],
        settings=[
            {
                "title": f"{entry['settings']['suite']}, {entry['model']}, "
                f"{entry['recipe']}: {entry['title']}",
                "record": json.dumps(entry["settings"]),
            }
            for entry in found["runs"]
        ],
    )


def _card(column: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark's printed scores, with ours first."""
    ours = [
        (
            name,
            f"{score['score']:.1f}",
            f"here, {problems_of({'left_out': {}} | score)} problems",
        )
        for name, score in column["ours"].items()
    ]
    printed = [
        (name, f"{score:.1f}", column["misprints"].get(name, ""))
        for name, score in column["printed"].items()
    ]
    return {
        "title": column["title"],
        "source": f"{column['condition']}. {column['source']}.",
        "rows": ours + printed,
        "ours": len(ours),
    }
