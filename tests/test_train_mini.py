"""The script that trains the bundled model: its commands hold, and each stage starts
from one before it."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

from seedjax.checkpoints.model_directory import read_model_directory, resolve_model
from seedjax.config import override
from seedjax.posttrain.config import OnPolicyConfig
from seedjax.posttrain.recording import RecordConfig
from seedjax.train.config import load_config

ROOT = Path(__file__).parents[1]
RECORDS = """#!/usr/bin/env bash
printf '%s\\037' "$@" >> "$RECORD"
echo >> "$RECORD"
"""


def commands(tmp_path: Path) -> list[list[str]]:
    """The arguments of each call of seedjax, of which nothing is run."""
    (tmp_path / "scripts").mkdir()
    for name in ("train_mini", "on_cpu"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    fake = tmp_path / "venv" / "bin" / "seedjax"
    fake.parent.mkdir(parents=True)
    fake.write_text(RECORDS)
    fake.chmod(0o755)
    record = tmp_path / "record"
    subprocess.run(
        [tmp_path / "scripts" / "train_mini"],
        env={
            **os.environ,
            "SEEDJAX_VENV": str(tmp_path / "venv"),
            "RECORD": str(record),
        },
        check=True,
    )
    return [line.split("\x1f")[:-1] for line in record.read_text().splitlines()]


def following(words: list[str], flag: str) -> list[str]:
    return [b for a, b in zip(words, words[1:], strict=False) if a == flag]


def test_stages_follow_from_one_another(tmp_path):
    made = {"runs/lab/start"}  # by `lab reproduce`, below its --out
    for words in commands(tmp_path):
        uses = following(words, "--model") + following(words, "--trajectories")
        if words[:2] == ["posttrain", "average"]:
            uses += [word for word in words[2:] if word.startswith("runs/")][:-1]
        if words[0] == "train":
            (path,) = following(words, "--config")
            run = load_config(ROOT / path, following(words, "--set"))
            uses += [run.init_from, run.data.corpus or run.init_from]
        if words[:2] == ["posttrain", "trajectories"]:
            override(RecordConfig(), following(words, "--set"))
        if words[:2] == ["posttrain", "on-policy"]:
            override(OnPolicyConfig(), following(words, "--set"))
        missing = [name for name in uses if name not in made]
        assert not missing, (words, missing)
        made.update(following(words, "--out"))
    assert len(made) > 9
    assert "runs/everyday" in made


def test_everyday_is_what_its_config_trains():
    run = load_config(ROOT / "configs/mini_everyday.py")
    shipped = read_model_directory(resolve_model("everyday")).denoiser
    same = {"dtype": shipped.dtype, "layer_loop": shipped.layer_loop}
    assert dataclasses.replace(run.model, **same) == shipped
    before = load_config(ROOT / "configs/mini_everyday_next.py")
    causal = dataclasses.replace(run.model, attention="causal")
    assert before.model == causal
    for data in before.data, run.data:
        assert data.everyday > 0.5 and data.corpus_rate > 0
