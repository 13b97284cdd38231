"""The picture of on-policy learning."""

from collections.abc import Mapping
from pathlib import Path

from seedjax.plotting import Curve, draw_curves, open_pyplot, save
from seedjax.train.metrics import read_jsonl

SEED_DIFFUSION_GAIN = 423  # percent, arXiv 2508.02193, Fig. 2a


def plot_speedup(logs: Mapping[str, Path], target: Path) -> None:
    """Tokens per forward pass over the steps of on-policy learning, as the gain over
    the start, and pass@1 below; the gain of the paper stands above as a number.
    Nothing is drawn where there are no logs."""
    if not logs:
        return
    gains, rates = [], []
    for number, (title, log) in enumerate(logs.items()):
        lines = [line for line in read_jsonl(log) if "pass_at_1" in line]
        steps = [line["step"] for line in lines]
        speeds = [line["tokens_per_forward"] for line in lines]
        gain = [100 * (speed / speeds[0] - 1) for speed in speeds]
        gains.append(Curve(xs=steps, ys=gain, label=title, colour=number))
        rate = [100 * line["pass_at_1"] for line in lines]
        rates.append(Curve(xs=steps, ys=rate, label=title, colour=number))
    figure, (above, below) = open_pyplot().subplots(
        2, 1, figsize=(8, 5.4), dpi=140, sharex=True, layout="constrained"
    )
    draw_curves(above, gains)
    draw_curves(below, rates)
    # The paper's gain would press the curves against the axis.
    above.set_title(
        f"Seed Diffusion, Fig. 2a, after 35,000 steps: +{SEED_DIFFUSION_GAIN} %",
        fontsize=8,
        loc="right",
        color="0.4",
    )
    above.set(ylabel="gain in tokens per forward pass (%)")
    below.set(xlabel="steps of on-policy learning", ylabel="pass@1 (%)")
    save(figure, target)
