"""Loss curves of one or several runs as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedjax.config import check_fields
from seedjax.data.unigram import unigram_bits_per_byte
from seedjax.errors import InputError
from seedjax.files.text import read_json_object
from seedjax.plotting import Curve, draw_curves, open_pyplot, save
from seedjax.train.metrics import read_jsonl


def plot_runs(
    runs: Sequence[Path],
    target: Path,
    *,
    floors: dict[str, float] | None = None,
) -> None:
    """Draws training loss and held-out bits per byte over tokens seen, those of the
    model that a run started from included; a ring marks where an edit stage begins.

    Args:
      runs: training output directories, each with a metrics.jsonl.
      target: the PNG to write.
      floors: horizontal lines on the held-out panel, by name (bits per byte).

    Raises:
      InputError: when a directory holds no metrics.
    """
    losses, evaluated = [], []
    for number, directory in enumerate(runs):
        lines = read_jsonl(directory / "metrics.jsonl")
        if not lines:
            raise InputError(
                f"no metrics.jsonl with finished lines in {str(directory)!r}"
            )
        before = tokens_of_start(directory)
        losses.append(
            loss_curve(lines, label=directory.name, colour=number, tokens_before=before)
        )
        scored = [line for line in lines if "heldout_bits_per_byte" in line]
        evaluated.append(
            Curve(
                xs=[(before + line["tokens"]) / 1e6 for line in scored],
                ys=[line["heldout_bits_per_byte"] for line in scored],
                label=directory.name,
                colour=number,
            )
        )
    figure, (left, right) = open_pyplot().subplots(
        1, 2, figsize=(10.5, 4), dpi=140, layout="constrained"
    )
    draw_curves(left, losses)
    for name, bits in (floors or {}).items():
        right.axhline(bits, linestyle="--", color="grey", linewidth=1)
        right.annotate(
            f"{name} ({bits:.2f})",
            (0.0, bits),
            xycoords=("axes fraction", "data"),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7,
            color="grey",
        )
    draw_curves(right, evaluated)
    left.set(xlabel="tokens seen (millions)", ylabel="training loss (nats per token)")
    right.set(xlabel="tokens seen (millions)", ylabel="held-out bits per byte")
    save(figure, target)


def loss_curve(
    lines: Sequence[Mapping[str, Any]],
    *,
    label: str,
    colour: int,
    tokens_before: int | None = None,
) -> Curve:
    """The smoothed training loss of a run's metrics, with a mark where the edit stage
    begins: its loss is another one.

    Args:
      lines: of metrics.jsonl.
      label: name of the curve.
      colour: its number.
      tokens_before: draws over millions of tokens, this many seen before the run; None
        draws over steps.
    """

    def place(line: Mapping[str, Any]) -> int | float:
        if tokens_before is None:
            return line["step"]
        return (tokens_before + line["tokens"]) / 1e6

    steps = [line for line in lines if "loss" in line]
    edits = [place(line) for line in steps if line.get("stage") == "edit"]
    return Curve(
        xs=[place(line) for line in steps],
        ys=smooth([line["loss"] for line in steps]),
        label=label,
        colour=colour,
        points=False,
        edits_from=edits[0] if edits else None,
    )


def tokens_of_start(directory: Path) -> int:
    """Tokens that the model which a run started from had seen; 0 for random weights, or
    when that model is not where run.json says."""
    record = directory / "run.json"
    if not record.exists():
        return 0
    run = read_json_object(record)
    check_fields(run, {"init_from": str | None}, str(record))
    start = Path(run.get("init_from") or "nothing")
    config = start / "config.json"
    if not config.exists():
        return 0
    values = read_json_object(config)
    check_fields(values, {"provenance": dict}, str(config))
    check_fields(values["provenance"], {"tokens": int | None}, str(config))
    return values["provenance"].get("tokens") or 0


def unigram_floor(directory: Path) -> dict[str, float]:
    """The held-out bits per byte of guessing by frequency on a run's corpus, by name;
    empty when the corpus is not where run.json says, or the held-out text is the lab's.
    """
    record = directory / "run.json"
    if not record.exists():
        return {}
    run = read_json_object(record)
    check_fields(run, {"data": dict}, str(record))
    data = run["data"]
    check_fields(data, {"corpus": str | None, "kind": str}, f"{record}: data")
    corpus = Path(data.get("corpus") or "nothing")
    if data["kind"] == "LabConfig" or not (corpus / "manifest.json").exists():
        return {}
    return {"unigram": unigram_bits_per_byte(corpus)}


def smooth(values: Sequence[float], decay: float = 0.9) -> list[float]:
    """Exponential moving average, corrected for its start."""
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average = decay * average + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        smoothed.append(average / weight)
    return smoothed
