"""Who scans its layers and who writes them out."""

import dataclasses
import json
import shutil

import jax
import pytest

from seedjax.checkpoints.model_directory import bundled_models
from seedjax.inference.loading import load
from seedjax.nn.layer_loop import choose_layer_loop, with_layer_loop


@pytest.mark.parametrize(
    ("platform", "purpose", "expected"),
    [
        ("cpu", "training", "unroll"),
        ("cuda", "training", "scan"),
        ("cuda", "decoding", "unroll"),
        ("tpu", "decoding", "scan"),
    ],
)
def test_choice_by_platform_and_purpose(platform, purpose, expected, tiny_config):
    assert choose_layer_loop(platform, purpose).layer_loop == expected
    assert with_layer_loop(tiny_config, platform, purpose).layer_loop == expected
    explicit = dataclasses.replace(tiny_config, layer_loop="scan")
    assert with_layer_loop(explicit, platform, purpose) == explicit


def test_loaded_model_has_the_loop_of_its_platform(tmp_path, monkeypatch):
    """The layers of a model directory are stored apart, whatever they run as."""
    folder = tmp_path / "model"
    shutil.copytree(bundled_models()["mini"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["denoiser"]["layer_loop"] = "auto"
    (folder / "config.json").write_text(json.dumps(config))
    on_cpu = load(str(folder))
    assert on_cpu.config.layer_loop == "unroll" and "layers_0" in on_cpu.params
    assert "written out" in str(on_cpu)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    on_tpu = load(str(folder))
    assert on_tpu.config.layer_loop == "scan" and "layers" in on_tpu.params
    assert "scanned" in str(on_tpu)
