"""What a run starts from lies on its mesh from the first."""

import dataclasses

import jax
import numpy as np
import pytest

from seedjax.checkpoints.weights import WeightReader
from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.nn import denoiser
from seedjax.sharding import make_mesh
from seedjax.train.config import RunConfig, load_config, trainable_shape
from seedjax.train.start import initial_params
from seedjax.train.state import params_shardings

CONFIG = """
import dataclasses
from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.train.config import RunConfig
from seedjax.nn.presets import PRESETS

def get_config():
    model = dataclasses.replace(PRESETS["tiny"], layer_loop="scan", remat="layer")
    return RunConfig(
        model=model, objective=BlockDiffusion(), data=DataConfig(corpus="corpus")
    )
"""


@pytest.fixture
def run(monkeypatch):
    """Starts from `mini`, its layers scanned, whatever the data."""
    monkeypatch.setattr("seedjax.train.start.check_tokenizer", lambda *_: None)
    model = dataclasses.replace(trainable_shape("mini"), layer_loop="scan")
    return RunConfig(
        model=model,
        objective=BlockDiffusion(),
        data=DataConfig(corpus="none"),
        init_from="mini",
    )


def test_weights_are_read_into_their_shards(run, monkeypatch):
    read = {}
    plain = WeightReader.read

    def watched(self, name, index=None):
        values = plain(self, name, index)
        read.setdefault(name, []).append(values.size)
        return values

    monkeypatch.setattr(WeightReader, "read", watched)
    mesh = make_mesh("fsdp=8")
    params = initial_params(run, mesh)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.shape[0] == run.model.num_layers
    assert read["layers_3.mlp.up.kernel"] == [kernel[0].size // 8] * 8
    shardings = params_shardings(run.model, mesh)
    assert jax.tree.all(
        jax.tree.map(
            lambda leaf, place: leaf.sharding.is_equivalent_to(place, leaf.ndim),
            params,
            shardings,
        )
    )
    unrolled = dataclasses.replace(run.model, layer_loop="unroll")
    whole = initial_params(dataclasses.replace(run, model=unrolled))
    jax.tree.map(np.testing.assert_array_equal, params, denoiser.stack_layers(whole))


def test_a_start_is_computed_as_the_file_says(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    model = load_config(path, init_from="mini").model
    assert (model.layer_loop, model.remat) == ("scan", "layer")
    assert model.hidden_size == trainable_shape("mini").hidden_size
    settings = ["model.remat=none"]
    assert load_config(path, settings, init_from="mini").model.remat == "none"
