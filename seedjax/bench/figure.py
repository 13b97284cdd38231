"""The files of a report, with its picture: how fast answers come, and how far forward
passes are from what the machine can do."""

from pathlib import Path

from seedjax.bench.report import Report, Row, milliseconds
from seedjax.files.output import writes
from seedjax.files.text import write_json, write_text
from seedjax.plotting import open_pyplot, save

COLOURS = {"seedjax": "C0", "torch": "C1", "transformers": "C2"}


@writes("bench", out="directory")
def write_report(report: Report, directory: Path) -> None:
    """Writes bench.json, bench.md and bench.png into `directory`, which is made."""
    write_json(directory / "bench.json", report.to_dict())
    write_text(directory / "bench.md", report.markdown())
    plot_report(report, directory / "bench.png")


def plot_report(report: Report, target: Path) -> None:
    """Draws tokens per second of the decodes, and milliseconds of the forward passes
    with their bounds, a bar a line."""
    decodes = [row for row in report.rows if row.line.writes]
    forwards = [row for row in report.rows if not row.line.writes]
    panels = [rows for rows in (decodes, forwards) if rows]
    figure, axes = open_pyplot().subplots(
        len(panels),
        1,
        figsize=(9, 1.6 + 0.32 * len(report.rows) + 0.6 * len(panels)),
        dpi=140,
        squeeze=False,
        gridspec_kw={"height_ratios": [len(rows) + 1.5 for rows in panels]},
    )
    for panel, rows in zip(axes[:, 0], panels, strict=True):
        _bars(panel, rows)
    machine = report.machine
    figure.suptitle(
        f"{report.model}, {report.parameters / 1e6:.1f} M parameters; "
        f"{machine['processor']}, {machine['cores']} cores; "
        f"median of {report.rounds} rounds, load {report.load[0]:.1f}",
        fontsize=8,
        parse_math=False,
    )
    save(figure, target)


def _bars(panel, rows: list[Row]) -> None:
    writes = rows[0].line.writes
    places = range(len(rows))
    values, spread = [], []
    for row in rows:
        seconds = row.timing.seconds
        tokens = row.new_tokens or 0
        scaled = [tokens / s if writes else 1000 * s for s in seconds]
        value = tokens / row.timing.median if writes else 1000 * row.timing.median
        values.append(value)
        spread.append((value - min(scaled), max(scaled) - value))
    panel.barh(
        places,
        values,
        xerr=list(zip(*spread, strict=True)),
        color=[COLOURS[row.line.library] for row in rows],
        error_kw={"elinewidth": 0.8, "ecolor": "0.3"},
        height=0.7,
    )
    for place, row, value in zip(places, rows, values, strict=True):
        text = f"{value:,.0f}" if writes else milliseconds(value / 1000)
        if row.roof is not None:
            bound = 1000 * row.roof.seconds
            panel.plot([bound, bound], [place - 0.4, place + 0.4], color="black")
            text += f" ({row.fraction:.0%})"
        panel.annotate(
            text,
            (value + spread[place][1], place),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
        )
    panel.set_yticks(places, labels=[row.line.label for row in rows], fontsize=7)
    panel.invert_yaxis()
    panel.set_xlabel(
        "new tokens per second"
        if writes
        else "ms per forward pass; black: the bound of the roofline (share reached)",
        fontsize=8,
    )
    panel.tick_params(axis="x", labelsize=7)
    panel.grid(axis="x", alpha=0.3)
    panel.margins(x=0.12, y=0.02)
