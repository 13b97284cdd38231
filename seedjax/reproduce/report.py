"""The report of an ablation: a page of tables, and pictures."""

import importlib.metadata
import math
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from seedjax.evaluate import figures
from seedjax.evaluate.lab_scoring import ORDERS, Order, Score
from seedjax.evaluate.statistics import wilson_interval
from seedjax.files.text import write_text
from seedjax.posttrain.plot import plot_speedup
from seedjax.reproduce.arms import START, Arm, Budget
from seedjax.reproduce.examine import SCORES, TRACE, Cell, read_scores
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
        """What tells runs of one arm apart."""
        return f"seed {self.arm.seed}"

    @property
    def orders(self) -> list[Order]:
        """The orders of decisions that it was asked in."""
        return [o for o in ORDERS if any(cell.order == o for cell in self.cells)]

    def thresholds(self, order: Order) -> list[float | None]:
        """Decode settings of an order, from one token a step to the boldest."""
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
        return add_scores(chosen) if chosen else None

    def curve(self, order: Order = "left") -> list[tuple[float, float]]:
        """Tokens per forward and pass@1 over the four tasks, a point a setting."""
        totals = [self.total(t, order) for t in self.thresholds(order)]
        return [(t.tokens_per_forward, t.pass_rate) for t in totals if t]


def add_scores(scores: Sequence[Score]) -> Score:
    """Scores of several sets of tasks as one. Rates are weighted by tasks, tokens per
    forward and per second likewise."""
    tasks = sum(score.tasks for score in scores)

    def mean(name: str) -> float:
        return sum(getattr(s, name) * s.tasks for s in scores) / tasks

    return Score(
        tasks=tasks,
        passed=sum(score.passed for score in scores),
        tokens_per_forward=mean("tokens_per_forward"),
        text_per_forward=mean("text_per_forward"),
        tokens_per_second=mean("tokens_per_second"),
        valid_rate=mean("valid_rate"),
        repetition_rate=mean("repetition_rate"),
        empty_rate=mean("empty_rate"),
    )


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
    write_text(report, "\n".join(lines_of_report(out, plan, results)) + "\n")
    return report


def lines_of_report(out: Path, plan: Budget, results: list[Result]) -> list[str]:
    """The page, line by line."""
    device = jax.devices()[0]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax")
    )
    lines = [
        f"# Ablation, budget {plan.name}",
        "",
        *(
            [
                "**This budget shows that everything runs. Its models have learned "
                "nothing, and no number below proves anything.**",
                "",
            ]
            if plan.name == "smoke"
            else []
        ),
        f"`seedjax lab reproduce --budget {plan.name} --out {out.name}`",
        "",
        f"Device {device.platform} ({device.device_kind}), Python "
        f"{platform.python_version()}, {versions}. Model: {plan.model.num_layers} "
        f"layers of {plan.model.hidden_size}, {plan.model.vocab_size} pieces. The "
        f"start takes {2 * plan.start_steps} steps, each arm {plan.arm_steps} more, "
        f"{plan.batch_size} rows of 256 tokens a step. {plan.tasks} tasks of each kind "
        "and tier, temperature 0, no task in training. pass@1 in percent.",
        "",
        "## Arms, at one token a step from the left",
        "",
        *table(
            ["arm", "seed", *TASKS, "all", "95 % interval"]
            + [f"generate {tier}" for tier in TIERS],
            [row_of_arm(result) for result in results],
        ),
        "",
        *(
            f"* ({label}) {MEANINGS[name]}"
            for name, label in dict.fromkeys((r.arm.name, r.arm.label) for r in results)
        ),
        "",
        "## Claims",
        "",
        *claims(results),
        "",
        "## Decode settings",
        "",
        "Tokens per forward count every denoiser call of a row: the prefill, and all "
        "steps; a commit rides on a step. The order left decides only what follows "
        "on what is decided, confidence the surest first. AUP is the area under pass@1 "
        "against tokens per forward, from 1.",
        "",
        *table(
            [
                "arm",
                "seed",
                "order",
                "decode",
                "pass@1",
                "tokens/forward",
                "text/forward",
            ]
            + ["tokens/s", "valid", "repetitive", "empty", "AUP"],
            [row for result in results for row in rows_of_settings(result)],
        ),
        "",
        "![pass@1 against tokens per forward](quality.png)",
        "",
        "![training loss](losses.png)",
        "",
        "![order of commits](orders.png)",
        "",
        *(
            ["![speed-up over on-policy training](speedup.png)", ""]
            if any(result.arm.name == "on_policy" for result in results)
            else []
        ),
        "## Further slices, at one token a step from the left",
        "",
        "Words never trained on; compositions longer than any trained on.",
        "",
        *table(
            ["arm", "seed"]
            + [f"paraphrase {task}" for task in TASKS]
            + [f"longer {task}" for task in TASKS],
            [row_of_slices(result) for result in results],
        ),
    ]
    start = out / START / SCORES
    if start.exists():
        cells = [c.score for c in read_scores(start) if c.slice == "standard"]
        if cells:
            rate = percent(add_scores(cells))
            lines += ["", f"The common start passes {rate} % of the same tasks."]
    return lines


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return [
        "| " + " | ".join(cells) + " |"
        for cells in (header, ["---"] * len(header), *rows)
    ]


def percent(score: Score | None) -> str:
    return "-" if score is None else f"{100 * score.pass_rate:.1f}"


def row_of_arm(result: Result) -> list[str]:
    whole = result.total(None)
    assert whole is not None
    low, high = whole.interval
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
                "one token a step" if threshold is None else f"threshold {threshold}",
                percent(score),
                f"{score.tokens_per_forward:.2f}",
                f"{score.text_per_forward:.2f}",
                f"{score.tokens_per_second:.0f}",
                f"{100 * score.valid_rate:.1f}",
                f"{100 * score.repetition_rate:.1f}",
                f"{100 * score.empty_rate:.1f}",
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
    """What was to be tested, with the difference found and its 95 % interval."""
    lines = []
    for text, first, second, task in (
        ("(c) against (a) on generate, wanted: -2 or more", "c", "a", "generate"),
        ("(f) against (a) on generate, wanted: -2 or more", "f", "a", "generate"),
        ("(c) against (b) on repair, wanted: +5 or more", "c", "b", "repair"),
        ("(d) against (b) on repair, wanted: +5 or more", "d", "b", "repair"),
        ("(f) against (e) on repair, the same on blocks", "f", "e", "repair"),
        ("(j) against (f) on generate, wanted: more", "j", "f", "generate"),
        ("(k) against (f) on generate, wanted: -2 or more", "k", "f", "generate"),
        ("(k) against (l) on generate, wanted: -1 or more", "k", "l", "generate"),
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
    """An arm's score on a task at one token a step, over its seeds."""
    scores = [r.total(None, task=task) for r in results if r.arm.label == label]
    found = [score for score in scores if score is not None]
    return add_scores(found) if found else None


def difference_of_rates(one: Score, other: Score) -> tuple[float, float]:
    """Difference of two pass rates and half the width of its 95 % interval (Newcombe
    1998, the wider side)."""
    difference = one.pass_rate - other.pass_rate
    low, high = one.interval
    other_low, other_high = wilson_interval(other.passed, other.tasks)
    down = math.hypot(one.pass_rate - low, other_high - other.pass_rate)
    up = math.hypot(high - one.pass_rate, other.pass_rate - other_low)
    return difference, max(down, up)


def speed_at_no_loss(result: Result, loss: float = 0.01) -> float:
    """The most tokens per forward at which pass@1 is at most `loss` below that of one
    token a step."""
    careful = result.total(None)
    assert careful is not None
    kept = [
        speed
        for speed, rate in result.curve()
        if rate >= careful.pass_rate - loss - 1e-9
    ]
    return max(kept)
