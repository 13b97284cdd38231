"""The pictures of a report."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from seedjax.plotting import open_pyplot, save
from seedjax.scoring import Order
from seedjax.train.metrics import read_jsonl
from seedjax.train.plot import smooth


def plot_quality(
    curves: Mapping[tuple[str, Order], Sequence[tuple[float, float]]], target: Path
) -> None:
    """pass@1 against tokens per forward; a marker for each decode setting. A model has
    one colour; decisions by confidence are dashed."""
    figure, axes = open_pyplot().subplots(figsize=(8, 4.8), dpi=140)
    colours: dict[str, str] = {}
    for (title, order), curve in curves.items():
        colour = colours.setdefault(title, f"C{len(colours) % 10}")
        axes.plot(
            [speed for speed, _ in curve],
            [100 * rate for _, rate in curve],
            color=colour,
            linestyle="-" if order == "left" else "--",
            marker="o",
            markersize=4,
            linewidth=1.2,
            label=title if order == "left" else None,
        )
    axes.set(
        xlabel="tokens per forward pass (prefill and commits counted)",
        ylabel="pass@1 over the four tasks (%)",
        ylim=(0, 100),
    )
    axes.grid(alpha=0.3)
    if curves:
        axes.plot([], [], color="0.4", linestyle="--", label="by confidence")
        axes.legend(frameon=False, fontsize=8)
    save(figure, target)


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], target: Path
) -> None:
    """pass@1 against tokens per forward, a curve a policy, a marker a setting."""
    figure, axes = open_pyplot().subplots(figsize=(8, 5.2), dpi=140)
    markers = itertools.cycle("osD^vP*X<>hp")
    colours = open_pyplot().get_cmap("tab20", max(len(curves), 1))
    for number, (title, curve) in enumerate(curves.items()):
        axes.plot(
            [speed for speed, _ in curve],
            [100 * rate for _, rate in curve],
            marker=next(markers),
            color=colours(number),
            markersize=5,
            linewidth=1.1,
            label=title,
        )
    axes.set(
        xlabel="tokens per forward pass (prefill and commits counted)",
        ylabel="pass@1 over the four tasks (%)",
    )
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    save(figure, target)


def plot_losses(folders: Mapping[str, Path], target: Path) -> None:
    """Training loss and held-out bits per byte of each arm over its steps."""
    figure, (left, right) = open_pyplot().subplots(1, 2, figsize=(11, 4.2), dpi=140)
    for title, folder in folders.items():
        lines = read_jsonl(folder / "metrics.jsonl")
        trained = [line for line in lines if "loss" in line]
        scored = [line for line in lines if "heldout_bits_per_byte" in line]
        left.plot(
            [line["step"] for line in trained],
            smooth([line["loss"] for line in trained]),
            linewidth=1.2,
            label=title,
        )
        right.plot(
            [line["step"] for line in scored],
            [line["heldout_bits_per_byte"] for line in scored],
            marker=".",
            linewidth=1.2,
        )
    left.set(xlabel="steps", ylabel="training loss (nats per asked token)")
    right.set(
        xlabel="steps", ylabel="bits per byte of test answers (a bound for diffusion)"
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_yscale("log")
    if folders:
        left.legend(frameon=False, fontsize=7)
    save(figure, target)


def plot_orders(traces: Mapping[str, Path], target: Path) -> None:
    """Where tokens were committed, and when: a panel an arm, one answer to the same
    task each, a dot a token."""
    shown = dict(list(traces.items())[:4])
    figure, panels = open_pyplot().subplots(
        max(1, len(shown)),
        1,
        figsize=(10, 2.2 * max(1, len(shown))),
        dpi=140,
        squeeze=False,
    )
    for axes, (title, path) in zip(panels[:, 0], shown.items(), strict=False):
        step = 0
        for line in path.read_text().splitlines():
            record = json.loads(line)
            step += 1
            axes.scatter(record["positions"], [step] * len(record["positions"]), s=14)
            for place, piece in zip(record["positions"], record["pieces"], strict=True):
                axes.annotate(
                    piece.strip() or ("\u21b5" if "\n" in piece else ""),
                    (place, step),
                    fontsize=4.5,
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                )
        axes.set_title(title, fontsize=8, loc="left")
        axes.set(xlabel="place in the answer (tokens)", ylabel="step")
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
    save(figure, target)
