"""The pictures of a report, as SVG that takes the colours of the page it stands in."""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from seedjax.plotting import open_pyplot

INK = "#010203"  # stands for the colour of text, which the page chooses
# Colours that are told apart on white and on black, and by the colour-blind.
COLOURS = ("#2f7ed8", "#d9822b", "#2a9d6f", "#c2528b", "#8a6fd1", "#7f8c3a")


def _settings() -> dict[str, Any]:
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
    return {
        **{name: INK for name in (*inked, "ytick.color", "grid.color")},
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "seedjax",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
    }


def _as_svg(figure) -> str:
    """The figure without a background, its ink left to the page."""
    target = io.StringIO()
    figure.savefig(
        target,
        format="svg",
        transparent=True,
        bbox_inches="tight",
        metadata={"Date": None},
    )
    open_pyplot().close(figure)
    text = target.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def quality_picture(points: Sequence[Mapping[str, Any]]) -> str:
    """pass@1 against tokens per forward: a colour a model, a marker a suite. Runs of
    one model and suite are joined. Empty if there is nothing to draw."""
    if not points:
        return ""
    pyplot = open_pyplot()
    with pyplot.rc_context(_settings()):
        figure, axes = pyplot.subplots(figsize=(8, 4.4))
        models = list(dict.fromkeys(point["model"] for point in points))
        suites = list(dict.fromkeys(point["suite"] for point in points))
        markers = dict(zip(suites, itertools.cycle("osD^vP*X<>hp"), strict=False))
        for model, suite in itertools.product(models, suites):
            chosen = sorted(
                (p["speed"], 100 * p["rate"], *(100 * end for end in p["interval"]))
                for p in points
                if (p["model"], p["suite"]) == (model, suite)
            )
            if not chosen:
                continue
            speeds, rates, lows, highs = zip(*chosen, strict=True)
            below = [
                max(0.0, rate - low) for rate, low in zip(rates, lows, strict=True)
            ]
            above = [
                max(0.0, top - rate) for rate, top in zip(rates, highs, strict=True)
            ]
            axes.errorbar(
                speeds,
                rates,
                yerr=[below, above],
                color=COLOURS[models.index(model) % len(COLOURS)],
                marker=markers[suite],
                markersize=5,
                linewidth=1.2,
                elinewidth=0.6,
                label=f"{model}, {suite}",
            )
        axes.set(xlabel="tokens a forward pass", ylabel="pass@1 (%)")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize=8)
        return _as_svg(figure)


def beside_picture(tables: Sequence[Mapping[str, Any]]) -> str:
    """Our scores among the printed ones: a row a benchmark, a dot a system. Empty if
    there is nothing to draw."""
    if not tables:
        return ""
    pyplot = open_pyplot()
    with pyplot.rc_context(_settings()):
        figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.38 * len(tables)))
        rows = range(len(tables))
        for row, column in zip(rows, tables, strict=True):
            printed = list(column["printed"].values())
            axes.scatter(printed, [row] * len(printed), s=22, color="0.55", zorder=2)
            for number, ours in enumerate(column["ours"].values()):
                axes.scatter(
                    [ours["score"]],
                    [row],
                    s=60,
                    marker="D",
                    color=COLOURS[number % len(COLOURS)],
                    zorder=3,
                )
        axes.scatter([], [], s=22, color="0.55", label="printed, any system")
        axes.scatter([], [], s=60, marker="D", color=COLOURS[0], label="here")
        axes.set_yticks(list(rows), [column["title"] for column in tables])
        axes.invert_yaxis()
        axes.set(xlabel="score (%)", xlim=(-2, 102))
        axes.grid(alpha=0.2, axis="x")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        return _as_svg(figure)
