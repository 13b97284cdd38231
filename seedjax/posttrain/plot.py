"""The picture of on-policy learning."""

from collections.abc import Mapping
from pathlib import Path

from seedjax.plotting import open_pyplot, save
from seedjax.train.metrics import read_jsonl

SEED_DIFFUSION_GAIN = 423  # percent, arXiv 2508.02193, Fig. 2a


def plot_speedup(logs: Mapping[str, Path], target: Path) -> None:
    """Tokens per forward pass over the steps of on-policy learning, as the gain over
    the start, and pass@1 below; the paper's gain after all of its steps as a line.
    Nothing is drawn where there are no logs."""
    if not logs:
        return
    figure, (above, below) = open_pyplot().subplots(
        2, 1, figsize=(8, 5.4), dpi=140, sharex=True, height_ratios=(2, 1)
    )
    for title, log in logs.items():
        lines = [line for line in read_jsonl(log) if "pass_at_1" in line]
        steps = [line["step"] for line in lines]
        speeds = [line["tokens_per_forward"] for line in lines]
        gains = [100 * (speed / speeds[0] - 1) for speed in speeds]
        (drawn,) = above.plot(steps, gains, marker="o", markersize=4, label=title)
        rates = [100 * line["pass_at_1"] for line in lines]
        below.plot(steps, rates, marker="o", markersize=4, color=drawn.get_color())
    above.axhline(
        SEED_DIFFUSION_GAIN,
        color="0.5",
        linestyle="--",
        label=f"Seed Diffusion, Fig. 2a, after 35,000 steps: +{SEED_DIFFUSION_GAIN} %",
    )
    above.set(ylabel="gain in tokens per forward pass (%)")
    below.set(xlabel="steps of on-policy learning", ylabel="pass@1 (%)", ylim=(0, 100))
    above.legend(frameon=False, fontsize=8)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    save(figure, target)
