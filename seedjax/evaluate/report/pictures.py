"""The pictures of a report, as SVG that takes the colours of the page it stands in."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from seedjax.evaluate.statistics import wilson_interval
from seedjax.plotting import COLOURS, Curve, draw_curves, open_pyplot, small_multiples

INK = "#010203"  # stands for the colour of text, which the page chooses


def _settings() -> dict[str, Any]:
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
    return {
        **{name: INK for name in (*inked, "ytick.color", "grid.color")},
        "text.parse_math": False,  # a name may hold "$"
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
    """pass@1 against tokens per forward pass: a panel a suite, a curve a model, named
    where it ends. Empty if there is nothing to draw."""
    if not points:
        return ""
    models = list(dict.fromkeys(point["model"] for point in points))
    suites = list(dict.fromkeys(point["suite"] for point in points))
    pyplot = open_pyplot()
    with pyplot.rc_context(_settings()):
        columns = min(3, len(suites))
        rows = -(-len(suites) // columns)
        figure, grid = pyplot.subplots(
            rows,
            columns,
            figsize=(9, 0.6 + 2.6 * rows),
            squeeze=False,
            sharex=True,
            layout="constrained",
        )
        for axes, suite in zip(grid.flat, suites, strict=False):
            curves = []
            for number, model in enumerate(models):
                chosen = sorted(
                    (p["speed"], 100 * p["rate"], *(100 * end for end in p["interval"]))
                    for p in points
                    if (p["model"], p["suite"]) == (model, suite)
                )
                if not chosen:
                    continue
                speeds, rates, lows, highs = zip(*chosen, strict=True)
                axes.vlines(
                    speeds,
                    lows,
                    highs,
                    color=COLOURS[number % len(COLOURS)],
                    linewidth=0.7,
                )
                curves.append(Curve(xs=speeds, ys=rates, label=model, colour=number))
            draw_curves(axes, curves)
            axes.set_title(suite, fontsize=9, loc="left")
            axes.margins(x=0.12)
        for axes in list(grid.flat)[len(suites) :]:
            axes.remove()
        figure.supxlabel("tokens per forward pass", fontsize=9)
        figure.supylabel("pass@1 (%), with 95 % intervals", fontsize=9)
        return _as_svg(figure)


def policies_picture(points: Mapping[str, Sequence[tuple[float, int, int]]]) -> Any:
    """A sweep over policies: pass@1 against tokens per forward pass, a panel
    per policy with its Wilson intervals, the curves of the others in grey.

    Args:
      points: by policy: tokens per forward pass, problems passed, problems.
    """
    groups = {}
    for name, chosen in points.items():
        speeds, passed, counts = zip(*sorted(chosen), strict=True)
        rates = [100 * p / n for p, n in zip(passed, counts, strict=True)]
        groups[name] = [Curve(xs=speeds, ys=rates)]
    figure = small_multiples(
        groups,
        xlabel="tokens per forward pass",
        ylabel="pass@1 (%), with 95 % intervals",
        columns=5,
    )
    for axes, chosen in zip(figure.axes, points.values(), strict=True):
        for speed, num_passed, count in chosen:
            low, high = wilson_interval(num_passed, count)
            axes.vlines(speed, 100 * low, 100 * high, color=COLOURS[0], linewidth=0.7)
    return figure


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
                colour = COLOURS[number % len(COLOURS)]
                is_part = ours["problems"] < ours["suite_problems"]
                axes.scatter(
                    [ours["score"]],
                    [row],
                    s=60,
                    marker="D",
                    edgecolors=colour,
                    facecolors="none" if is_part else colour,
                    zorder=3,
                )
        axes.scatter([], [], s=22, color="0.55", label="printed, any system")
        axes.scatter([], [], s=60, marker="D", color=COLOURS[0], label="here")
        hollow = {"edgecolors": COLOURS[0], "facecolors": "none"}
        axes.scatter([], [], s=60, marker="D", label="here, of a part", **hollow)
        axes.set_yticks(list(rows), [column["title"] for column in tables])
        axes.invert_yaxis()
        axes.set(xlabel="score (%)")
        axes.grid(alpha=0.2, axis="x")
        axes.legend(
            frameon=False,
            fontsize=8,
            ncols=3,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
        )
        return _as_svg(figure)
