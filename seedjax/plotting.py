"""Matplotlib as all pictures of this package use it: without a screen, legends never
among the data, every curve named where it ends.

Two ways to show many curves: `small_multiples`, a panel per group with the others in
  grey, and `label_ends`, which writes names beside the ends of a few curves.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedjax.files.replacing import check_file, replaced_file

SOFTWARE = "seedjax"  # in the text of a PNG that we have drawn

# Distinct on white and on black, and to the colour-blind.
COLOURS = ("#2f7ed8", "#d9822b", "#2a9d6f", "#c2528b", "#8a6fd1", "#7f8c3a")
CONTEXT = "0.82"  # the grey of what a panel is compared with
LABEL_GAP = 9.0  # points between the middles of two names


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a picture.

    Attributes:
      xs, ys: its points, as many of one as of the other.
      label: name written beside its end; none if empty.
      colour: index into `COLOURS`.
      dashed: whether the line is dashed.
      points: whether each point has a marker.
      edits_from: x from which on the training is the edit stage's, which is marked;
        None for no such stage.
    """

    xs: Sequence[int | float]
    ys: Sequence[int | float]
    label: str = ""
    colour: int = 0
    dashed: bool = False
    points: bool = True
    edits_from: int | float | None = None


def open_pyplot() -> Any:
    """The module `matplotlib.pyplot`, which takes long to import."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, target: Path) -> None:
    """Writes a figure into a file of ours, whose folder is made, and forgets it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = target.suffix[1:] or "png"
    metadata = {"Software": SOFTWARE} if kind == "png" else None
    with replaced_file(target, force=True) as partial:
        figure.savefig(partial, bbox_inches="tight", format=kind, metadata=metadata)
    open_pyplot().close(figure)


@contextmanager
def replaced_picture(target: Path, *, force: bool = False) -> Iterator[Path]:
    """`output.replaced_file` for a picture, which takes the place of one of ours."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(target, force=force, is_ours=_is_drawn_here) as file:
        yield file


def check_picture(target: Path, *, force: bool = False) -> None:
    """Raises what `replaced_picture` would, before the work."""
    target.parent.mkdir(parents=True, exist_ok=True)
    check_file(target, force=force, is_ours=_is_drawn_here)


def _is_drawn_here(head: bytes) -> bool:
    return b"Software\0" + SOFTWARE.encode() in head


def small_multiples(
    groups: Mapping[str, Sequence[Curve]],
    *,
    xlabel: str,
    ylabel: str,
    columns: int = 4,
    log: bool = False,
    width: float = 9.6,
) -> Any:
    """A figure with a panel for each group of curves, the curves of all other groups in
    grey. All panels have the scales of the data.

    Args:
      groups: the curves of each panel, by the panel's title.
      xlabel: of all panels.
      ylabel: of all panels.
      columns: panels side by side, at most.
      log: whether the vertical scale is logarithmic.
      width: of the figure, in inches.
    """
    count = max(1, len(groups))
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = open_pyplot().subplots(
        rows,
        columns,
        figsize=(width, 0.5 + 0.72 * width / max(columns, 2) * rows),
        dpi=140,
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    panels = list(grid.flat)
    for axes, (title, curves) in zip(panels, groups.items(), strict=False):
        for other, others in groups.items():
            if other != title:
                for curve in others:
                    _draw(axes, curve, colour=CONTEXT)
        for curve in curves:
            _draw(axes, curve)
        axes.set_title(title, fontsize=8, loc="left", parse_math=False)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
        if log:
            axes.set_yscale("log")
        axes.margins(x=0.12)
        label_ends(axes, curves)
    for axes in panels[len(groups) :]:
        axes.remove()
    # The lowest panel of a column that is not full shows the scale.
    for axes in panels[: len(groups)][-columns:]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel(xlabel, fontsize=8)
    figure.supylabel(ylabel, fontsize=8)
    return figure


def draw_curves(axes: Any, curves: Sequence[Curve]) -> None:
    """Draws a few curves into one panel, each named beside its end."""
    for curve in curves:
        _draw(axes, curve)
    axes.grid(alpha=0.25)
    label_ends(axes, curves)


def label_ends(axes: Any, curves: Sequence[Curve]) -> None:
    """Writes the names of curves to the right of the panel, where they end, moved apart
    where these are less than a line of text apart. The scales of the panel have to be
    what they will be."""
    named = [curve for curve in curves if curve.label and len(curve.xs)]
    if not named:
        return
    axes.autoscale_view()
    per_point = axes.figure.dpi / 72
    heights = [
        axes.transData.transform((c.xs[-1], c.ys[-1]))[1] / per_point for c in named
    ]
    placed = spread(heights, LABEL_GAP)
    for curve, height, place in zip(named, heights, placed, strict=True):
        axes.annotate(
            curve.label,
            (1.0, curve.ys[-1]),
            xycoords=("axes fraction", "data"),
            xytext=(4, place - height),
            textcoords="offset points",
            color=COLOURS[curve.colour % len(COLOURS)],
            fontsize=7,
            va="center",
            annotation_clip=False,
            parse_math=False,  # a run's name may hold "$"
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart so that no two are nearer than `gap`, their order and their
    mean kept. Heights 0, 1 and 20 with a gap of 9 give -4, 5 and 20.
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    groups: list[list[int]] = []
    middles: list[float] = []
    for index in order:
        groups.append([index])
        middles.append(heights[index])
        # Neighbouring groups that would overlap become one around their mean.
        while len(groups) > 1 and middles[-1] - middles[-2] < gap * (
            (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last, before = groups.pop(), groups.pop()
            a, b = middles.pop(), middles.pop()
            middles.append(
                (a * len(last) + b * len(before)) / (len(last) + len(before))
            )
            groups.append(before + last)
    placed = [0.0] * len(heights)
    for group, middle in zip(groups, middles, strict=True):
        for place, index in enumerate(group):
            placed[index] = middle + gap * (place - (len(group) - 1) / 2)
    return placed


def _draw(axes: Any, curve: Curve, *, colour: str | None = None) -> None:
    shown = colour or COLOURS[curve.colour % len(COLOURS)]
    axes.plot(
        curve.xs,
        curve.ys,
        color=shown,
        linestyle="--" if curve.dashed else "-",
        marker="o" if curve.points and colour is None else None,
        markersize=3.5,
        linewidth=1.3 if colour is None else 0.8,
        zorder=3 if colour is None else 1,
    )
    if curve.edits_from is not None and colour is None:
        _mark_edits(axes, curve, shown)


def _mark_edits(axes: Any, curve: Curve, colour: str) -> None:
    """A ring where the edit stage begins, whose loss is another one than before."""
    inside = [
        (x, y)
        for x, y in zip(curve.xs, curve.ys, strict=True)
        if curve.edits_from is not None and x >= curve.edits_from
    ]
    if not inside:
        return
    axes.plot(
        *inside[0],
        marker="o",
        markersize=7,
        markerfacecolor="none",
        markeredgecolor=colour,
        linestyle="none",
        zorder=4,
    )
    axes.annotate(
        "edits",
        inside[0],
        xytext=(0, 7),
        textcoords="offset points",
        fontsize=6.5,
        color=colour,
        ha="center",
    )
