"""The pictures of the ablation's report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from seedjax.files.text import read_json_lines
from seedjax.plotting import COLOURS, Curve, open_pyplot, save, small_multiples
from seedjax.reproduce.examine import Order
from seedjax.train.metrics import read_jsonl
from seedjax.train.plot import loss_curve


def plot_quality(
    curves: Mapping[tuple[str, Order], Sequence[tuple[float, float]]], target: Path
) -> None:
    """pass@1 against tokens per forward pass, a panel an arm and a marker a decode
    setting; where the most confident tokens are unmasked first, dashed.

    Args:
      curves: points of each run (its title) and order.
      target: the PNG to write.
    """
    groups: dict[str, list[Curve]] = {}
    for (title, order), points in curves.items():
        by_confidence = order != "left"
        groups.setdefault(title, []).append(
            Curve(
                xs=[speed for speed, _ in points],
                ys=[100 * rate for _, rate in points],
                colour=int(by_confidence),
                dashed=by_confidence,
            )
        )
    figure = small_multiples(
        groups,
        xlabel="tokens per forward pass (prefill and commits counted); blue, solid: "
        "from the left; orange, dashed: by confidence; grey: the other arms",
        ylabel="pass@1 over the four tasks (%)",
    )
    save(figure, target)


def plot_losses(folders: Mapping[str, Mapping[str, Path]], target: Path) -> None:
    """Training loss of each arm over its steps, a panel an arm, a ring where the edit
    stage begins, whose loss is another one.

    Args:
      folders: the folder of each run (such as "seed 2") of each arm.
      target: the PNG to write.
    """
    groups = {}
    for arm, runs in folders.items():
        groups[arm] = [
            loss_curve(read_jsonl(folder / "metrics.jsonl"), label=run, colour=number)
            for number, (run, folder) in enumerate(runs.items())
        ]
    figure = small_multiples(
        groups,
        xlabel="steps",
        ylabel="training loss (nats per supervised token)",
        columns=3,
        log=True,
    )
    save(figure, target)


def plot_orders(traces: Mapping[str, Path], target: Path) -> None:
    """Where tokens were unmasked, and in which step: a panel an arm or policy, one
    completion of the same task each, a token a place. Steps alternate in colour."""
    shown = dict(list(traces.items())[:4])
    figure, panels = open_pyplot().subplots(
        max(1, len(shown)),
        1,
        figsize=(10, 2.4 * max(1, len(shown))),
        dpi=140,
        squeeze=False,
        layout="constrained",
    )
    for axes, (title, path) in zip(panels[:, 0], shown.items(), strict=False):
        records = [line.values for line in read_json_lines(path)]
        for step, record in enumerate(records, start=1):
            for place, piece in zip(record["positions"], record["pieces"], strict=True):
                axes.annotate(
                    _visible(piece),
                    (place, step),
                    fontsize=6,
                    rotation=45,
                    color=COLOURS[step % 2],
                    ha="center",
                    va="center",
                )
        places = [place for record in records for place in record["positions"]]
        axes.set(
            xlim=(-1, max(places, default=0) + 1),
            ylim=(len(records) + 1, 0),
            ylabel="step",
        )
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_title(title, fontsize=8, loc="left", parse_math=False)
        axes.grid(alpha=0.25)
    figure.supxlabel("place in the completion (tokens)", fontsize=9)
    save(figure, target)


def _visible(piece: str) -> str:
    """A token as it can be seen: line breaks and blanks have signs."""
    shown = piece.replace("\u2581", " ").replace("\n", "\u21b5")
    return shown.strip() or "\u2423" * max(1, len(shown))
