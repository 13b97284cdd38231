"""`seedjax lab policies`: one model, every way to decode it.

A curve is a policy at several settings, a point a setting: pass@1 over the tasks of the
lab against tokens per forward pass. What is finished is in `policies.jsonl`, a line a
setting, and is not measured again. A folder is of one model.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.evaluate.figures import plot_curves
from seedjax.evaluate.lab_scoring import (
    Score,
    answer_tasks,
    check_answers,
    score_answers,
)
from seedjax.files.output import writes
from seedjax.files.text import (
    format_json_line,
    open_for_writing,
    read_json_lines,
    write_text,
)
from seedjax.inference.model import Model
from seedjax.progress import Progress, counter, silent
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.credit import Credit
from seedjax.sampling.policy import (
    ConfidenceFactor,
    ConfidenceThreshold,
    EntropyBound,
    FixedCount,
    LeftToRight,
    Policy,
    PositionThreshold,
)
from seedjax.sampling.recipe import Speculation
from seedjax.sampling.revision import AnyRevision, Revoke, TokenEdits
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import exam

LINES = "policies.jsonl"
REPORT = "policies.md"
FIGURE = "policies.png"

Settings = Sequence[tuple[str, Mapping[str, Any]]]
"""Decode settings: what each is called, and the fields of the recipe that it sets."""


def _with(policies: Sequence[Policy], **more: Any) -> Settings:
    settings = []
    for policy in policies:
        said = [
            f"{field.name} {getattr(policy, field.name)}"
            for field in dataclasses.fields(policy)
            if field.name != "by"
        ]
        settings.append((", ".join(said), {"policy": policy} | more))
    return settings


def curves_of(block_size: int) -> dict[str, Settings]:
    """All policies at several settings, for a model with blocks of this size."""
    thresholds = (0.99, 0.95, 0.9, 0.8, 0.6)
    sure = [ConfidenceThreshold(threshold=t) for t in thresholds]
    steps = sorted({block_size, *(max(1, block_size // n) for n in (2, 3, 4))})
    edits: AnyRevision = TokenEdits(threshold=0.9, extra_steps=2)
    revoke: AnyRevision = Revoke(threshold=0.1, extra_steps=2)
    return {
        "left to right": _with([LeftToRight(threshold=t) for t in (None, *thresholds)]),
        "fixed count": _with([FixedCount(steps_per_block=n) for n in steps]),
        "confidence": _with(sure),
        "margin": _with(
            [ConfidenceThreshold(threshold=t, by="margin") for t in thresholds]
        ),
        "confidence factor": _with(
            [ConfidenceFactor(factor=f) for f in (0.05, 0.2, 0.5, 1.0)]
        ),
        "entropy bound": _with([EntropyBound(bound=b) for b in (0.02, 0.1, 0.3, 0.8)]),
        "position": _with(
            [PositionThreshold(first=f, last=0.99) for f in (0.95, 0.8, 0.5)]
        ),
        "credit": _with(sure[:4], credit=Credit()),
        "token edits": _with(sure[1:], revision=edits),
        "revoke": _with(sure[1:], revision=revoke),
        "one block ahead": _with(
            [LeftToRight(threshold=t) for t in thresholds[:4]],
            ahead=WorkAhead(threshold=0.95),
        ),
        "speculation": [
            (f"draft_tokens {n}", {"speculation": Speculation(draft_tokens=n)})
            for n in (2, 4, 8)
        ],
    }


@writes("lab policies")
def compare_policies(
    model: Model,
    out: Path,
    *,
    identity: str,
    count: int = 20,
    curves: Sequence[str] = (),
    workers: int | None = None,
    accept_weak_isolation: bool = False,
    report: Progress = silent,
) -> Path:
    """Measures what is missing in `out`, and writes report and figure over all that is
    there.

    Args:
      model: block-causal or bidirectional.
      out: folder for lines, report and figure.
      identity: what tells the model from all others, in the lines: the digest of its
        weights, and their precision.
      count: tasks of each kind and tier.
      curves: names of the policies to measure; empty for all that the model takes.
      workers: processes that run answers; None for one a core.
      accept_weak_isolation: see `Sandbox`.
      report: counts the answers, over all settings.

    Returns:
      The report.

    Raises:
      InputError: for a causal model, an unknown policy, or a folder that holds lines
        of another model or precision, or over another number of tasks.
    """
    if model.config.attention == "causal":
        raise InputError("a causal model has no policies; give a diffusion model")
    known = curves_of(model.sampler.tokens_per_block(model.config))
    if model.config.logit_alignment != "shifted":
        known.pop("speculation")
    if unknown := [name for name in curves if name not in known]:
        raise InputError(f"unknown policy {unknown[0]!r}; there are {', '.join(known)}")
    found = read_lines(out / LINES)
    tasks = exam(count)
    if any(line.get("model") != identity for line in found):
        raise InputError(
            f"{out / LINES} is of another model or precision; give another --out"
        )
    if any(line["score"]["tasks"] != len(tasks) for line in found):
        raise InputError(f"{out / LINES} is over another number of tasks; give --n")
    have = {(line["curve"], line["setting"]) for line in found}
    wanted = [
        (name, setting, recipe)
        for name in curves or known
        for setting, recipe in known[name]
        if (name, setting) not in have
    ]
    with (
        Sandbox(workers, accept_weak_isolation=accept_weak_isolation) as sandbox,
        open_for_writing(out / LINES, append=True) as file,
    ):
        advance = counter(report, "lab policies", len(wanted) * len(tasks))
        for name, setting, recipe in wanted:
            answers = answer_tasks(model, tasks, recipe=recipe, advance=advance)
            passed = check_answers(sandbox, tasks, answers)
            score = score_answers(model, tasks, answers, passed)
            line = {
                "model": identity,
                "curve": name,
                "setting": setting,
                "score": dataclasses.asdict(score),
            }
            file.write(format_json_line(line))
            file.flush()
    return write_report(out)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What was measured so far; a last line that was cut off is left out, of the file
    too."""
    if not path.exists():
        return []
    lines = [line.values for line in read_json_lines(path, unfinished=True)]
    write_text(path, "".join(map(format_json_line, lines)))
    return lines


def write_report(out: Path) -> Path:
    """The table and the figure over the lines of a folder."""
    curves: dict[str, list[tuple[str, Score]]] = {}
    for line in read_lines(out / LINES):
        score = Score(**line["score"])
        curves.setdefault(line["curve"], []).append((line["setting"], score))
    rows = [
        "| policy | setting | pass@1 | 95 % interval | tokens a forward | tokens a "
        "second | valid | repeating |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, points in curves.items():
        for setting, score in points:
            low, high = score.interval
            rows.append(
                f"| {name} | {setting} | {100 * score.pass_rate:.1f} % "
                f"| {100 * low:.1f} to {100 * high:.1f} "
                f"| {score.tokens_per_forward:.2f} | {score.tokens_per_second:.0f} "
                f"| {100 * score.valid_rate:.1f} % "
                f"| {100 * score.repetition_rate:.1f} % |"
            )
    report = out / REPORT
    write_text(report, "\n".join(rows) + "\n")
    plot_curves(
        {
            name: sorted((s.tokens_per_forward, s.pass_rate) for _, s in points)
            for name, points in curves.items()
        },
        out / FIGURE,
    )
    return report
