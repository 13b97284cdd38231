"""The picture of on-policy learning."""

import json

from seedjax.posttrain.plot import plot_speedup


def test_the_picture_of_on_policy_learning(tmp_path):
    log, picture = tmp_path / "metrics.jsonl", tmp_path / "speedup.png"
    lines = [
        {"step": 0, "pass_at_1": 0.8, "tokens_per_forward": 1.5},
        {"step": 5, "loss": 1.0},
        {"step": 10, "pass_at_1": 0.79, "tokens_per_forward": 3.0},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot_speedup({}, picture)
    assert not picture.exists()
    plot_speedup({"(k) on_policy": log}, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
