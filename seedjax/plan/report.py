"""Plans for reading: tables, and speeds against tokens per forward pass."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from seedjax.chips import chip_of
from seedjax.evaluate.report.writer import markdown_table
from seedjax.plan.case import Case
from seedjax.plan.figures import Figures, Pass
from seedjax.plan.measured import Measurement
from seedjax.plan.search import Estimate
from seedjax.plotting import COLOURS, open_pyplot, save

ASSUMPTIONS = """\
Seconds are lower bounds: arithmetic at the chip's peak, bytes at the bandwidth of its
memory, and what it sends at the bandwidth of one mesh axis, each as if the others were
hidden by it. Launches of kernels, and work between programs, are not in them.
Operations are the products of matrices before compilation, recomputation included.
Rows hold one document each: pairs of chunks that attention masks whole are not counted.
A step of training must send each split parameter for the forward pass and, of a layer,
again for the backward pass, sums of gradients, which are float32 but for those of
layers, and sums over `tensor` (seedjax/plan/exchange.py).
Chips are as their makers publish them (seedjax/chips.toml)."""

REST = {"temporaries": "0.75", "results": "0.45"}
"""Greys of what is not an argument."""

PAPER_TOKENS_PER_SECOND = 2146
"""Of Seed Diffusion Preview on H20 GPUs (arXiv 2508.02193, abstract)."""
PAPER_SPEEDUP = 5.4
"""Over an autoregressive model of its size (the same)."""


def name_of(case: Case) -> str:
    """Chips, mesh and weights, or of training the length of rows."""
    where = ", ".join(part for part in (case.topology, case.mesh) if part)
    if case.num_layers and not case.config:
        where += f", {case.num_layers} layer{'s' * (case.num_layers > 1)}"
    if case.program == "train":
        adapter = f", LoRA rank {case.lora_rank}" if case.lora_rank else ""
        return f"{where}: {case.batch_size} rows of {case.length}{adapter}"
    return f"{where}: {case.weights}, prefix {case.prefix}, rows {case.batch_size}"


def table(figures: Sequence[Figures]) -> str:
    """The figures in Markdown, a line per pass."""
    head = (
        *("plan", "pass", "HBM, GiB", "of", "GB moved", "over least", "TFLOP"),
        *("ms at least", "bound by", "collectives", "sent over least", "copied"),
    )
    rows = [_row(each, part) for each in figures for part in each.passes]
    rows += [_unread(each) for each in figures if not each.passes]
    return markdown_table(head, rows)


def _row(figures: Figures, part: Pass) -> tuple[str, ...]:
    collectives = ", ".join(
        f"{c.count} {c.operation} over {c.axes} of {_size(c.num_bytes)}"
        for c in part.collectives
    )
    return (
        name_of(figures.case),
        part.name,
        f"{figures.hbm_bytes / 2**30:.2f}",
        f"{figures.memory_size / 2**30:.2f}",
        f"{part.hbm_bytes / 1e9:.2f}",
        f"{part.over_least:.2f}" if part.over_least else "-",
        f"{part.operations / 1e12:.2f}" if part.operations else "-",
        f"{1e3 * part.seconds.total:.2f}",
        part.seconds.bound_by,
        collectives or "none",
        f"{part.sent_over_least:.2f}" if part.sent_over_least else "-",
        f"{len(part.copied)} arguments" if part.copied else "nothing",
    )


def _size(num_bytes: int) -> str:
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / 1e9:.2f} GB"


def _unread(figures: Figures) -> tuple[str, ...]:
    return (
        name_of(figures.case),
        figures.case.program,
        f"{figures.hbm_bytes / 2**30:.2f}",
        f"{figures.memory_size / 2**30:.2f}",
        *("-",) * 5,
        f"not read: {figures.unread}",
        *("-",) * 2,
    )


def sampling_pairs(figures: Sequence[Figures]) -> list[tuple[Figures, Figures]]:
    """Forward passes over a block, each with the autoregressive step beside it."""
    steps = {name_of(each.case): each for each in figures if each.case.program == "ar"}
    return [
        (each, steps[name_of(each.case)])
        for each in figures
        if each.case.program == "block" and name_of(each.case) in steps
    ]


def tokens_per_forward(figures: Figures, tokens_per_second: int | float) -> float:
    """Tokens that a forward pass over a block has to decode for a speed of a row."""
    return tokens_per_second * figures.passes[0].seconds.total


def sampling_table(figures: Sequence[Figures]) -> str:
    """The speed that decoding by blocks has to reach, in Markdown; empty without pairs.

    Tokens per forward pass at which a row is as fast as the autoregressive step, as
    many times faster as the paper says, and as fast as it says.
    """
    rows = []
    for block, step in sampling_pairs(figures):
        slow, fast = block.passes[0].seconds.total, step.passes[0].seconds.total
        rows.append(
            (
                name_of(block.case),
                f"{1 / fast:.0f}",
                f"{1 / slow:.0f}",
                f"{slow / fast:.2f}",
                f"{PAPER_SPEEDUP * slow / fast:.1f}",
                f"{tokens_per_forward(block, PAPER_TOKENS_PER_SECOND):.1f}",
            )
        )
    if not rows:
        return ""
    head = (
        "plan",
        "autoregressive tokens/s",
        "block forwards/s",
        "tokens/forward to break even",
        f"for {PAPER_SPEEDUP}x",
        f"for {PAPER_TOKENS_PER_SECOND} tokens/s",
    )
    return markdown_table(head, rows)


def search_table(estimates: Sequence[Estimate]) -> str:
    """Alternatives of a plan in Markdown, the best first."""
    head = (
        *("mesh", "remat", "rows", "figures of", "HBM, GiB", "of", "ms at least"),
        *("bound by", "tokens/s at most", "fits"),
    )
    rows = []
    for each in estimates:
        known = each.seconds.total < math.inf
        seconds = (
            f"{1e3 * each.seconds.total:.1f}",
            each.seconds.bound_by,
            f"{each.tokens_per_second:.0f}",
        )
        row = (
            each.case.mesh or "one device",
            each.case.remat,
            str(each.case.batch_size),
            each.basis,
            f"{each.hbm_bytes / 2**30:.2f}" if known else "-",
            f"{each.memory_size / 2**30:.2f}",
            *(seconds if known else ("-",) * 3),
            each.note or ("yes" if each.fits else "no"),
        )
        rows.append(row)
    return markdown_table(head, rows)


def growth_table(figures: Sequence[Figures], field: str) -> str:
    """How compile time, memory and bytes grow with a field of the plans."""
    head = (
        *("plan", field, "compile, s", "HBM, GiB", "temporaries, GiB"),
        *("GB moved", "over least", "ms at least"),
    )
    rows = []
    for each in figures:
        part = each.passes[0] if each.passes else None
        row = (
            f"{each.case.topology}, {each.case.program}",
            str(getattr(each.case, field)),
            f"{each.compile_seconds:.0f}",
            f"{each.hbm_bytes / 2**30:.2f}",
            f"{each.temporary_bytes / 2**30:.2f}",
            f"{part.hbm_bytes / 1e9:.2f}" if part else "-",
            f"{part.over_least:.2f}" if part and part.over_least else "-",
            f"{1e3 * part.seconds.total:.2f}" if part else "-",
        )
        rows.append(row)
    return markdown_table(head, rows)


def measured_table(measurements: Sequence[Measurement]) -> str:
    """Predicted and measured seconds in Markdown."""
    head = (
        *("program", "model", "shape", "MB moved", "GFLOP", "ms at least", "bound by"),
        *("ms, median", "ms, fastest", "fastest / least"),
    )
    rows = []
    for each in measurements:
        case, part = each.figures.case, each.figures.passes[0]
        training = f"{case.batch_size} rows of {case.length}"
        sampling = f"block {case.block_size}, prefix {case.prefix}"
        row = (
            case.program,
            case.model,
            training if case.program == "train" else sampling,
            f"{part.hbm_bytes / 1e6:.0f}",
            f"{part.operations / 1e9:.2f}",
            f"{1e3 * each.predicted:.2f}",
            part.seconds.bound_by,
            f"{1e3 * each.seconds:.2f}",
            f"{1e3 * each.fastest:.2f}",
            f"{each.ratio:.2f}",
        )
        rows.append(row)
    return markdown_table(head, rows)


def plot_growth(figures: Sequence[Figures], field: str, target: Path) -> None:
    """Draws memory, bytes moved and seconds to compile against a field."""
    pyplot = open_pyplot()
    drawing, axes = pyplot.subplots(1, 3, figsize=(12.6, 3.8), layout="constrained")
    groups: dict[str, list[Figures]] = {}
    for each in figures:
        groups.setdefault(f"{each.case.topology}, {each.case.program}", []).append(each)
    least = all(each.least_bytes for each in figures)
    panels: tuple[tuple[str, Callable[[Figures], float]], ...] = (
        ("GiB of a device's memory", lambda each: each.hbm_bytes / 2**30),
        (
            "bytes moved, over the least" if least else "GB moved",
            lambda each: _moved(each, least),
        ),
        ("seconds to compile, one run", lambda each: each.compile_seconds),
    )
    for axis, (title, value) in zip(axes, panels, strict=True):
        for number, (name, group) in enumerate(groups.items()):
            xs = [getattr(each.case, field) for each in group]
            ys = [value(each) for each in group]
            axis.plot(xs, ys, marker="o", color=COLOURS[number], label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(xs, [str(x) for x in xs], fontsize=7)
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel(field)
        axis.set_ylabel(title)
    drawing.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    save(drawing, target)


def _moved(figures: Figures, least: bool) -> float:
    part = figures.passes[0]
    return part.over_least if least else part.hbm_bytes / 1e9


def plot_measured(measurements: Sequence[Measurement], target: Path) -> None:
    """Draws measured against predicted milliseconds, a point for each case."""
    pyplot = open_pyplot()
    drawing, axes = pyplot.subplots(figsize=(5.6, 4.6), layout="constrained")
    for number, each in enumerate(measurements):
        case, x, y = each.figures.case, 1e3 * each.predicted, 1e3 * each.fastest
        shape = case.length if case.program == "train" else case.prefix
        axes.scatter(
            x, y, color=COLOURS[number], label=f"{case.program}, {case.model}, {shape}"
        )
    bounds = [each.predicted for each in measurements]
    ends = [1e3 * min(bounds), 1e3 * max(each.fastest for each in measurements)]
    axes.plot(ends, ends, color="black", linewidth=1, label="at the bound")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("ms at least, predicted")
    axes.set_ylabel("ms of the fastest call")
    axes.legend(fontsize=7, frameon=False)
    save(drawing, target)


def plot_search(estimates: Sequence[Estimate], target: Path) -> None:
    """Draws tokens per second against memory, a point for each alternative."""
    pyplot = open_pyplot()
    drawing, axes = pyplot.subplots(figsize=(7.2, 4.6), layout="constrained")
    drawn = [each for each in estimates if each.seconds.total < math.inf]
    for number, basis in enumerate(("formulas", "2 and 4 layers")):
        group = [each for each in drawn if each.basis == basis]
        if not group:
            continue
        axes.scatter(
            [each.hbm_bytes / 2**30 for each in group],
            [each.tokens_per_second for each in group],
            color=COLOURS[number],
            s=14 if basis == "formulas" else 36,
            label=f"{basis} (bound)" if basis == "formulas" else f"compiled, {basis}",
        )
    axes.axvline(drawn[0].memory_size / 2**30, color="black", linewidth=1)
    axes.set_xlabel("GiB of a device's memory (line: all of it)")
    axes.set_ylabel("tokens per second, at most")
    axes.set_ylim(0, 1.1 * max(each.tokens_per_second for each in drawn))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    drawing.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save(drawing, target)


def plot(figures: Sequence[Figures], target: Path) -> None:
    """Draws tokens per second against tokens per forward pass where plans sample, and
    the memory of a device by category."""
    pyplot = open_pyplot()
    pairs = sampling_pairs(figures)
    width = 2 if pairs else 1
    figure, axes = pyplot.subplots(
        1, width, figsize=(5.6 * width, 4.2), squeeze=False, layout="constrained"
    )
    _plot_memory(axes[0][0], figures)
    if pairs:
        _plot_speeds(axes[0][1], pairs)
    save(figure, target)


def _plot_memory(axes, figures: Sequence[Figures]) -> None:
    names = sorted({name for each in figures for name, _ in each.held})
    names += ["temporaries", "results"]
    labels = [f"{name_of(each.case)} ({each.case.program})" for each in figures]
    left = [0.0] * len(figures)
    for number, name in enumerate(names):
        sizes = [_category(each, name) / 2**30 for each in figures]
        colour = REST.get(name, COLOURS[number % len(COLOURS)])
        axes.barh(labels, sizes, left=left, label=name, color=colour, height=0.6)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    for place, each in enumerate(figures):
        size = each.memory_size / 2**30
        axes.plot([size] * 2, [place - 0.4, place + 0.4], color="black")
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set_xlabel("GiB of a device's memory (line: all of it)")
    axes.figure.legend(loc="outside lower left", ncols=4, fontsize=7, frameon=False)


def _category(figures: Figures, name: str) -> int:
    if name == "temporaries":
        return figures.temporary_bytes
    if name == "results":
        return figures.output_bytes
    return dict(figures.held).get(name, 0)


def _plot_speeds(axes, pairs: Sequence[tuple[Figures, Figures]]) -> None:
    per_forward = (1, 16)
    for number, (block, step) in enumerate(pairs):
        colour = COLOURS[number % len(COLOURS)]
        speeds = [n / block.passes[0].seconds.total for n in per_forward]
        axes.plot(per_forward, speeds, color=colour)
        case = block.case
        title = chip_of(case.topology).title.split(" 80GB")[0]
        axes.annotate(
            f"{title}, {case.weights}",
            (per_forward[1], speeds[1]),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
            color=colour,
        )
        alone = 1 / step.passes[0].seconds.total
        axes.plot(per_forward, [alone] * 2, color=colour, linestyle=":")
    axes.set_xlabel("tokens per forward pass (dotted: autoregressive)")
    axes.set_ylabel("tokens per second of a row, at most")
    axes.set_xlim(0, 24)  # room for the names
    axes.set_xticks(range(0, 17, 4))
    axes.set_ylim(bottom=0)
