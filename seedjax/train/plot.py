"""Loss curves of one or several runs as a PNG."""

from collections.abc import Sequence
from pathlib import Path

from seedjax.errors import InputError
from seedjax.train.metrics import read_jsonl


def plot_runs(
    runs: Sequence[Path],
    target: Path,
    *,
    labels: Sequence[str] = (),
    floors: dict[str, float] | None = None,
) -> None:
    """Draws training loss and held-out bits per byte over tokens seen.

    Args:
      runs: training output directories, each with a metrics.jsonl.
      target: the PNG to write.
      labels: names for the legend; the directories' names if empty.
      floors: horizontal lines on the held-out panel, by name (bits per byte).

    Raises:
      InputError: when a directory holds no metrics.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 4), dpi=140)
    for index, directory in enumerate(runs):
        lines = read_jsonl(directory / "metrics.jsonl")
        if not lines:
            raise InputError(
                f"no metrics.jsonl with finished lines in {str(directory)!r}"
            )
        label = labels[index] if labels else directory.name
        steps = [line for line in lines if "loss" in line]
        evaluations = [line for line in lines if "heldout_bits_per_byte" in line]
        left.plot(
            [line["tokens"] / 1e6 for line in steps],
            smooth([line["loss"] for line in steps]),
            label=label,
        )
        right.plot(
            [line["tokens"] / 1e6 for line in evaluations],
            [line["heldout_bits_per_byte"] for line in evaluations],
            marker=".",
            label=label,
        )
    for name, bits in (floors or {}).items():
        right.axhline(bits, linestyle="--", color="grey", label=f"{name} ({bits:.2f})")
    left.set(xlabel="tokens seen (millions)", ylabel="training loss (nats per token)")
    right.set(xlabel="tokens seen (millions)", ylabel="held-out bits per byte")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    pyplot.close(figure)


def smooth(values: Sequence[float], decay: float = 0.9) -> list[float]:
    """Exponential moving average, corrected for its start."""
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average = decay * average + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        smoothed.append(average / weight)
    return smoothed
