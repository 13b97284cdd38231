"""Whole runs: they learn, stop in good order, and resume as if nothing had happened."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.train.config import RunConfig, load_config
from seedjax.train.directory import resumed_recipe
from seedjax.train.metrics import JsonlWriter, TensorBoardWriter, read_jsonl
from seedjax.train.plot import plot_runs
from seedjax.train.run import train

PROGRAM = """
import json, sys
from seedjax.cli.stopping import stop_on_signal
from seedjax.config import from_dict
from seedjax.train.config import RunConfig
from seedjax.train.run import train
run = from_dict(RunConfig, json.load(open(sys.argv[1])))
with stop_on_signal() as stop:
    train(run, sys.argv[2], resume="--resume" in sys.argv, stop=stop)
"""


def start(run, out, *flags: str) -> subprocess.Popen:
    """A training run in a process of its own, on one device."""
    recipe = out.parent / f"{out.name}.json"
    recipe.write_text(json.dumps(to_dict(run)))
    environment = os.environ | {"XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(recipe), str(out), *flags],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return errors


def wait_for_step(out, step: int) -> None:
    """Waits until a running process has logged `step`."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        lines = read_jsonl(out / "metrics.jsonl")
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"no step {step} in {out}")


def losses(out) -> dict[int, float]:
    lines = read_jsonl(out / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def heldout(out) -> list[float]:
    lines = read_jsonl(out / "metrics.jsonl")
    return [
        line["heldout_bits_per_byte"]
        for line in lines
        if "tokens" in line and "heldout_bits_per_byte" in line
    ]


@pytest.fixture
def long_run(tiny_run):
    """Long enough to be interrupted: 120 steps, checkpoints every 40, both stages."""
    return dataclasses.replace(tiny_run, num_steps=120, eval_every=40, edit_start=0.5)


@pytest.mark.slow
def test_killed_run_resumes_bit_for_bit(long_run, tmp_path):
    """SIGKILL in mid-run, then --resume: same batches, same losses, same scores as a
    run that was left alone."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(long_run, whole))
    process = start(long_run, cut)
    wait_for_step(cut, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert max(losses(cut)) < 120, "the run was over before it was killed"
    finish(start(long_run, cut, "--resume"))

    assert losses(cut) == losses(whole)
    assert heldout(cut) == heldout(whole)
    ours, theirs = (sorted((d / "params").glob("*.safetensors")) for d in (cut, whole))
    assert [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]


@pytest.mark.slow
def test_sigterm_saves_and_exits_cleanly(long_run, tmp_path):
    out = tmp_path / "run"
    process = start(long_run, out)
    wait_for_step(out, 20)
    process.send_signal(signal.SIGTERM)
    assert "saving what is done" in finish(process)
    last = max(losses(out))
    assert 20 <= last < 120
    assert (out / "checkpoints" / str(last)).is_dir()
    assert (out / "config.json").exists()  # a model already
    assert resumed_recipe(out, RunConfig).num_steps == 120


def test_run_learns_and_is_a_model(tiny_run, tmp_path):
    """A tiny model memorises: the loss falls well below that of guessing by frequency,
    and what was written loads and generates."""
    import seedjax

    model = dataclasses.replace(tiny_run.model, num_layers=1)
    run = dataclasses.replace(
        tiny_run, model=model, num_steps=60, eval_every=60, infill_spans=2
    )
    result = train(run, tmp_path / "run")
    assert result.finished and result.step == 60
    curve = losses(tmp_path / "run")
    assert curve[48] < curve[1] - 1.0
    model = seedjax.load(str(tmp_path / "run"))
    answer = model.generate("def f(x):\n", max_new_tokens=8, seed=0)
    assert answer.new_tokens[0] <= 8 and answer.forwards >= 1
    assert "objective | BlockDiffusion" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
def test_a_directory_belongs_to_one_run(tiny_run, tmp_path):
    out = tmp_path / "run"
    short = dataclasses.replace(tiny_run, num_steps=2, eval_every=2)
    train(short, out, mesh="data=8")
    with pytest.raises(InputError, match="already holds a run; continue it with"):
        train(short, out)
    other = dataclasses.replace(short, seed=1)
    with pytest.raises(
        InputError, match=r"differs from the config at seed \(run 0, con"
    ):
        train(other, out, resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        resumed_recipe(tmp_path / "nowhere", RunConfig)


@pytest.mark.slow
def test_init_from_checks_shape_and_tokenizer(tiny_run, tmp_path):
    short = dataclasses.replace(tiny_run, num_steps=2, eval_every=2)
    train(short, tmp_path / "first", mesh="data=8")
    again = dataclasses.replace(short, init_from=str(tmp_path / "first"))
    assert train(again, tmp_path / "second", mesh="data=8").finished
    wider = dataclasses.replace(again.model, mlp_size=64)
    with pytest.raises(InputError, match="mlp"):
        train(
            dataclasses.replace(again, model=wider), tmp_path / "third", mesh="data=8"
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "AttributeError"),
        ("def get_config():\n    return 3", "did not return a RunConfig"),
        ("def get_config(:", "SyntaxError"),
    ],
)
def test_bad_config_file(text, message, tmp_path):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "c.py")
    with pytest.raises(InputError, match="no config file"):
        load_config(tmp_path / "missing.py")


@pytest.mark.parametrize(
    "name",
    [
        *("mini", "mini_left", "python_ar", "python_block"),
        *("sft", "sft_lora", "sft_8b", "adapt_smollm2"),
    ],
)
def test_shipped_configs_load(name, request):
    path = request.config.rootpath / "configs" / f"{name}.py"
    assert load_config(path, ["num_steps=7"]).num_steps == 7
    with pytest.raises(InputError, match="did you mean 'num_steps'"):
        load_config(path, ["num_step=7"])


def test_metrics_file_is_cut_back_on_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": float(step), "tokens": step})
    writer.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # cut short by a crash
    writer = JsonlWriter(path, resume_step=2)
    writer.write(3, {"loss": 30.0, "tokens": 3})
    writer.close()
    assert [line["loss"] for line in read_jsonl(path)] == [1.0, 2.0, 30.0]


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = TensorBoardWriter(tmp_path)
    writer.write(3, {"loss": 1.5, "stage": "mask"})
    writer.close()
    events = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"loss" in events and b"stage" not in events


def test_plot_draws_a_png(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    for step in range(1, 30):
        writer.write(step, {"loss": 5.0 / step, "tokens": step * 100})
    writer.write(29, {"heldout_bits_per_byte": 2.0, "tokens": 2900})
    writer.close()
    plot_runs([tmp_path], tmp_path / "plot.png", floors={"unigram": 2.7})
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="no metrics.jsonl"):
        plot_runs([tmp_path / "nothing"], tmp_path / "plot.png")
