"""A run in words: its line of the table of scores, and remarks beside it."""

from collections.abc import Mapping
from typing import Any


def percent(rate: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if rate is None else f"{100 * rate:.1f} %"


def number(value: float | None, digits: int = 2) -> str:
    """A number; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def problems_of(score: Mapping[str, Any]) -> str:
    """How many problems a score is of, and of how many there are: "first 64 of 164"."""
    count, total = score["problems"], score.get("suite_problems")
    if total is None or count >= total:
        return str(count)
    return f"{count} of {total}" if score["left_out"] else f"first {count} of {total}"


HEAD = (
    "suite",
    "model",
    "recipe",
    "pass@1",
    "95 % interval",
    "problems",
    "tokens/forward",
    "forwards",
    "tokens/s",
    "first block",
    "mean length",
    "empty",
    "repeating",
    "valid",
    "cut off",
)


def cells(entry: Mapping[str, Any]) -> list[str]:
    """A run's line of the table under `HEAD`."""
    score = entry["score"]
    rate, ends = score.get("pass@1"), score.get("pass@1 interval")
    first = score["first_block_seconds"]
    return [
        score["suite"],
        entry["model"],
        entry["recipe"],
        "not run" if score["not_run"] else percent(rate),
        "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}",
        problems_of(score),
        number(score["tokens_per_forward"]),
        number(score["forwards"], 0),
        number(score["tokens_per_second"], 0),
        "-" if first is None else f"{1000 * first:.1f} ms",
        number(score["mean_tokens"], 1),
        percent(score["empty_rate"]),
        percent(score["repetition_rate"]),
        percent(score["valid_rate"]),
        percent(score["unfinished_rate"]),
    ]


def remarks(entry: Mapping[str, Any]) -> list[str]:
    """Remarks on a run beside its numbers."""
    score, found = entry["score"], []
    name = f"{score['suite']}, {entry['model']}, {entry['recipe']}"
    if score["not_run"]:
        found.append(f"{name}: not run: {score['not_run']}")
    elif score.get("is_part"):
        found.append(
            f"{name}: of {problems_of(score)} problems, so not to be compared with "
            "scores of the whole suite"
        )
    for why, count in score["left_out"].items():
        found.append(f"{name}: {count} problems are left out: {why}")
    if score["isolation"] == "rlimits":
        found.append(f"{name}: programs were held by resource limits alone")
    if score["first_try"] is not None:
        found.append(f"{name}: {percent(score['first_try'])} at the first try")
    if score["well_formed_rate"] is not None:
        found.append(f"{name}: {percent(score['well_formed_rate'])} well formed")
    if score["excess_code"] is not None:
        found.append(f"{name}: excess code {score['excess_code']:.1f} %")
    more = {k: v for k, v in score.items() if k.startswith("pass@") and " " not in k}
    if len(more) > 1:
        listed = ", ".join(f"{k} {percent(v)}" for k, v in more.items())
        found.append(f"{name}: {listed}, of {score['samples']} samples")
    return found
