"""Traces of chosen steps."""

import gzip
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from seedjax.errors import InputError
from seedjax.profiling import Profile, StepProfiler, parse_profile, traced


def step_names(directory: Path) -> list[str]:
    """The numbers of the steps in a trace, in order."""
    (file,) = directory.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [event for event in events if event.get("name") == "step"]
    return [event["args"]["step_num"] for event in sorted(steps, key=lambda e: e["ts"])]


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("runs/trace", Profile("runs/trace")),
        ("runs/trace:20-24", Profile("runs/trace", 20, 24)),
        ("gs://bucket/trace:0-0", Profile("gs://bucket/trace", 0, 0)),
        ("gs://bucket/trace", Profile("gs://bucket/trace")),
    ],
)
def test_a_profile_is_a_folder_and_steps(text, profile):
    assert parse_profile(text) == profile


@pytest.mark.parametrize("text", ["", "runs:9-5"])
def test_what_is_no_profile(text):
    with pytest.raises(InputError):
        parse_profile(text)


def test_the_chosen_steps_are_traced(tmp_path):
    profiler = StepProfiler(Profile(str(tmp_path / "trace"), 1, 2))
    for number in range(10, 15):
        with profiler.step(number):
            result = jnp.zeros(4) + number
        profiler.finish(result)
    assert step_names(tmp_path / "trace") == ["11", "12"]


def test_a_loop_that_ends_early_leaves_a_trace(tmp_path):
    profiler = StepProfiler(Profile(str(tmp_path), 0, 9))
    with profiler.step(3):
        jax.block_until_ready(jnp.zeros(2) + 1)
    profiler.close()
    assert step_names(tmp_path) == ["3"]


def test_without_a_profile_nothing_is_traced():
    profiler = StepProfiler(None)
    with profiler.step(0):
        pass
    profiler.finish(jnp.zeros(1))
    profiler.close()


def test_a_file_is_no_place_for_a_trace(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="choose another"),
        traced(str(tmp_path / "file")),
    ):
        pass
