"""An autoregressive checkpoint becomes a denoiser and is trained on."""

import json

import numpy as np
import pytest
from checkpoints import config_of, tensors_of, write_checkpoint
from published_tokenizers import qwen

from seedjax.checkpoints.model_directory import read_model_directory
from seedjax.convert.importing import convert
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.text.loading import load_tokenizer
from seedjax.train.config import load_config
from seedjax.train.run import train

CONFIG = """
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.tasks.lab.stream import LabConfig
from seedjax.nn.presets import preset
from seedjax.train.config import RunConfig

def get_config():
    return RunConfig(
        model=preset("mini"),
        objective=BlockDiffusion(),
        data=LabConfig(vocabulary={vocabulary!r}, batch_size=2, sequence_length=256,
                       repair=0.0, edit=0.0),
        num_steps=3, eval_batches=1, eval_samples=1, infill_spans=0, log_every=1,
    )
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A tiny Qwen2 with Qwen's kind of tokenizer, which has no beginning of texts."""
    folder = tmp_path_factory.mktemp("start")
    files = qwen()
    vocabulary = json.loads(files["tokenizer.json"])
    ids = {*vocabulary["model"]["vocab"].values()}
    ids |= {token["id"] for token in vocabulary["added_tokens"]}
    rows = max(ids) + 1
    config = config_of("qwen2") | {"vocab_size": rows, "max_position_embeddings": 512}
    config |= {"bos_token_id": rows - 1, "eos_token_id": rows - 1, "pad_token_id": None}
    tensors = tensors_of("qwen2")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rng = np.random.default_rng(3)
        tensors[name] = rng.standard_normal((rows, 32), np.float32) * np.float32(0.3)
    write_checkpoint(folder / "qwen", "qwen2", tensors=tensors, config=config)
    for name, content in files.items():
        (folder / "qwen" / name).write_bytes(content)
    settings = ["block_size=4", "dtype=float32"]
    convert(folder / "qwen", folder / "model", as_denoiser=True, assignments=settings)
    return folder / "model", rows


def test_the_mask_is_a_new_row_with_a_piece_of_its_own(start):
    folder, rows = start
    denoiser = read_model_directory(folder).denoiser
    assert (denoiser.vocab_size, denoiser.mask_token_id) == (rows + 1, rows)
    assert (denoiser.attention, denoiser.block_size) == ("block_causal", 4)
    tokenizer = load_tokenizer(folder / "tokenizer")
    assert tokenizer.special.mask == rows
    assert tokenizer.special.bos == rows - 1
    assert tokenizer.encode("<|mask|>") != [rows]


@pytest.mark.slow
def test_training_goes_on_from_it(start, tmp_path):
    folder, _ = start
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(vocabulary=str(folder)))
    run = load_config(config, init_from=str(folder))
    assert run.model.hidden_size == 32 and run.model.param_dtype == "float32"
    result = train(run, tmp_path / "run")
    assert result.finished and np.isfinite(result.heldout_bits_per_byte)
    trained, given = load(str(tmp_path / "run")), load(str(folder))
    assert trained.config.mask_token_id == given.config.mask_token_id
    moved = np.abs(
        np.asarray(trained.params["embedding"], np.float32)
        - np.asarray(given.params["embedding"], np.float32)
    )
    assert 0 < moved.max() < 0.5
    assert trained.generate("def f():", max_new_tokens=8).new_tokens[0] <= 8


def test_a_start_that_is_no_model(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(vocabulary="mini"))
    with pytest.raises(InputError, match="no directory"):
        load_config(config, init_from=str(tmp_path / "nothing"))
