"""The report of an ablation: a page of tables, and pictures."""

import importlib.metadata
import math
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jax

from seedjax.evaluate.report.table import number
from seedjax.evaluate.report.writer import render
from seedjax.evaluate.score import Score, pool
from seedjax.files.text import write_text
from seedjax.posttrain.plot import plot_speedup
from seedjax.reproduce import figures
from seedjax.reproduce.arms import START, Arm, Budget
from seedjax.reproduce.examine import ORDERS, SCORES, TRACE, Cell, Order, read_scores
from seedjax.tasks.lab.tasks import TASKS, TIERS

MEANINGS = {
    "ar": "next-token prediction, continued",
    "mask": "diffusion on whole sequences, masks only",
    "substitute": "the same, then masks and substitutions",
    "levenshtein": "the same, then masks, insertions and deletions",
    "block": "block diffusion, masks only",
    "block_edit": "block diffusion, then masks and substitutions",
    "unshifted": "as e, each position answers for its own token",
    "scratch": "as b from random weights, for three times as many steps",
    "supervised": "f, and as many steps of the same as i, j and k together take",
    "sharpened": "f, then certainty-forcing on its own decodes",
    "ordered": "f, then constrained order on its own decodes",
    "on_policy": "j, then on-policy step reduction",
    "ar_more": "a, and as many steps more as h",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """An arm that was examined."""

    arm: Arm
    folder: Path
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        return f"{self.arm_title}, {self.run}"

    @property
    def arm_title(self) -> str:
        """The arm without its seed."""
        return f"({self.arm.label}) {self.arm.name}"

    @property
    def run(self) -> str:
        """The name of a run among those of its arm."""
        return f"seed {self.arm.seed}"

    @property
    def orders(self) -> list[Order]:
        """The orders of unmasking that it was examined in."""
        return [o for o in ORDERS if any(cell.order == o for cell in self.cells)]

    def thresholds(self, order: Order) -> list[float | None]:
        """Decode settings of an order, from one token per step to the boldest."""
        found = {cell.threshold for cell in self.cells if cell.order == order}
        return sorted(found, key=lambda t: -math.inf if t is None else -t)

    def total(
        self,
        threshold: float | None,
        order: Order = "left",
        *,
        task: str | None = None,
        tier: int | None = None,
        part: str = "standard",
    ) -> Score | None:
        """The cells of a setting added up; None if there are none."""
        chosen = [
            cell.score
            for cell in self.cells
            if (cell.order, cell.threshold) == (order, threshold)
            and cell.slice == part
            and task in (None, cell.task)
            and tier in (None, cell.tier)
        ]
        return pool(chosen) if chosen else None

    def curve(self, order: Order = "left") -> list[tuple[float, float]]:
        """Tokens per forward and pass@1 over the four tasks, a point a setting."""
        totals = [self.total(t, order) for t in self.thresholds(order)]
        return [(t.tokens_per_forward or 0.0, t.pass_rate) for t in totals if t]


def area_under(curve: Iterable[tuple[float, float]]) -> float:
    """Area under pass@1 (in percent) against tokens per forward, from 1 on, where each
    speed counts with the best pass@1 at that speed or a higher one (after the AUP of
    d3LLM, arXiv 2601.07568, without its weighting)."""
    points = sorted(curve)
    area, before = 0.0, 1.0
    for index, (speed, _) in enumerate(points):
        best = max(rate for _, rate in points[index:])
        area += max(0.0, speed - before) * 100 * best
        before = max(before, speed)
    return area


def collect(out: Path, plan: Budget) -> list[Result]:
    """The arms of a budget that have been examined."""
    found = []
    for arm in plan.arms:
        cells = read_scores(out / arm.folder / SCORES)
        if cells:
            found.append(Result(arm=arm, folder=out / arm.folder, cells=tuple(cells)))
    return found


def write_report(out: Path, plan: Budget) -> Path:
    """Writes report.md and its pictures into `out`."""
    results = collect(out, plan)
    figures.plot_quality(
        {
            (result.title, order): result.curve(order)
            for result in results
            for order in result.orders
        },
        out / "quality.png",
    )
    folders: dict[str, dict[str, Path]] = {}
    for result in results:
        folders.setdefault(result.arm_title, {})[result.run] = result.folder
    figures.plot_losses(folders, out / "losses.png")
    learned = [result for result in results if result.arm.name == "on_policy"]
    plot_speedup(
        {result.title: result.folder / "metrics.jsonl" for result in learned},
        out / "speedup.png",
    )
    traces = {
        result.title: result.folder / TRACE
        for result in results
        if (result.folder / TRACE).exists()
    }
    figures.plot_orders(traces, out / "orders.png")
    report = out / "report.md"
    write_text(report, page(out, plan, results))
    return report


def page(out: Path, plan: Budget, results: list[Result]) -> str:
    """The page, as Markdown."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax")
    )
    known = dict.fromkeys((r.arm.name, r.arm.label) for r in results)
    start = read_scores(out / START / SCORES)
    cells = [cell.score for cell in start if cell.slice == "standard"]
    return render(
        "ablation.md",
        plan=plan,
        command=f"seedjax lab reproduce --budget {plan.name} --out {out.name}",
        device=jax.devices()[0],
        python=platform.python_version(),
        versions=versions,
        arms=(
            ["arm", "seed", *TASKS, "all", "95 % interval"]
            + [f"generate {tier}" for tier in TIERS],
            [row_of_arm(result) for result in results],
        ),
        meanings=[f"({label}) {MEANINGS[name]}" for name, label in known],
        claims=claims(results),
        settings=(
            ["arm", "seed", "order", "decode", "pass@1", "tokens/forward"]
            + ["text/forward", "tokens/s", "valid", "repetitive", "empty", "AUP"],
            [row for result in results for row in rows_of_settings(result)],
        ),
        slices=(
            ["arm", "seed"]
            + [f"paraphrase {task}" for task in TASKS]
            + [f"longer {task}" for task in TASKS],
            [row_of_slices(result) for result in results],
        ),
        has_on_policy=any(result.arm.name == "on_policy" for result in results),
        start_rate=percent(pool(cells)) if cells else "",
    )


def percent(score: Score | None) -> str:
    return "-" if score is None else f"{100 * score.pass_rate:.1f}"


def row_of_arm(result: Result) -> list[str]:
    whole = result.total(None)
    assert whole is not None
    low, high = whole.intervals[1]
    return [
        f"({result.arm.label}) {result.arm.name}",
        str(result.arm.seed),
        *(percent(result.total(None, task=task)) for task in TASKS),
        percent(whole),
        f"{100 * low:.1f} to {100 * high:.1f}",
        *(percent(result.total(None, task="generate", tier=t)) for t in TIERS),
    ]


def rows_of_settings(result: Result) -> list[list[str]]:
    rows = []
    settings = [(o, t) for o in result.orders for t in result.thresholds(o)]
    for order, threshold in settings:
        score = result.total(threshold, order)
        assert score is not None
        rows.append(
            [
                f"({result.arm.label}) {result.arm.name}",
                str(result.arm.seed),
                order,
                "one token per step" if threshold is None else f"threshold {threshold}",
                percent(score),
                number(score.tokens_per_forward),
                number(score.text_per_forward),
                number(score.tokens_per_second, 0),
                number(100 * (score.valid_rate or 0.0), 1),
                number(100 * score.repetition_rate, 1),
                number(100 * score.empty_rate, 1),
                f"{area_under(result.curve(order)):.0f}" if threshold is None else "",
            ]
        )
    return rows


def row_of_slices(result: Result) -> list[str]:
    return [
        f"({result.arm.label}) {result.arm.name}",
        str(result.arm.seed),
        *(
            percent(result.total(None, task=task, part=part))
            for part in ("paraphrase", "longer")
            for task in TASKS
        ),
    ]


def claims(results: list[Result]) -> list[str]:
    """The hypotheses, each with the difference found and its 95 % interval."""
    lines = []
    for text, first, second, task in (
        ("(c) against (a) on generate, expected: -2 or more", "c", "a", "generate"),
        ("(f) against (a) on generate, expected: -2 or more", "f", "a", "generate"),
        ("(c) against (b) on repair, expected: +5 or more", "c", "b", "repair"),
        ("(d) against (b) on repair, expected: +5 or more", "d", "b", "repair"),
        ("(f) against (e) on repair, the same on blocks", "f", "e", "repair"),
        ("(j) against (f) on generate, expected: more", "j", "f", "generate"),
        ("(k) against (f) on generate, expected: -2 or more", "k", "f", "generate"),
        ("(k) against (l) on generate, expected: -1 or more", "k", "l", "generate"),
    ):
        one, other = (pooled(results, label, task) for label in (first, second))
        if one is None or other is None:
            continue
        difference, half = difference_of_rates(one, other)
        lines.append(
            f"* {text}: {100 * difference:+.1f} points, plus or minus {100 * half:.1f} "
            f"({percent(one)} against {percent(other)}, seeds together)"
        )
    for label in ("c", "f", "h", "i", "j", "k"):
        found = [r for r in results if r.arm.label == label]
        speeds = [speed_at_no_loss(r) for r in found]
        if speeds:
            lines.append(
                f"* Tokens per forward of ({label}) at no more than 1 point below its "
                f"own one-token pass@1: {statistics.mean(speeds):.2f} "
                f"({', '.join(f'{speed:.2f}' for speed in speeds)} by seed)"
            )
    return lines or ["Not enough arms to compare."]


def pooled(results: list[Result], label: str, task: str) -> Score | None:
    """An arm's score on a task at one token per step, over its seeds."""
    scores = [r.total(None, task=task) for r in results if r.arm.label == label]
    found = [score for score in scores if score is not None]
    return pool(found) if found else None


def difference_of_rates(one: Score, other: Score) -> tuple[float, float]:
    """Difference of two pass rates and half the width of its 95 % interval (Newcombe
    1998, the wider side)."""
    difference = one.pass_rate - other.pass_rate
    low, high = one.intervals[1]
    other_low, other_high = other.intervals[1]
    down = math.hypot(one.pass_rate - low, other_high - other.pass_rate)
    up = math.hypot(high - one.pass_rate, other.pass_rate - other_low)
    return difference, max(down, up)


def speed_at_no_loss(result: Result, loss: float = 0.01) -> float:
    """The most tokens per forward at which pass@1 is at most `loss` below that of one
    token per step."""
    careful = result.total(None)
    assert careful is not None
    kept = [
        speed
        for speed, rate in result.curve()
        if rate >= careful.pass_rate - loss - 1e-9
    ]
    return max(kept)
