"""Models written as Hugging Face checkpoints: what came in goes out."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
from checkpoints import MASK, config_of, tensors_of, write_checkpoint
from safetensors.numpy import load_file
from test_parity import NUMPY, OPEN, TORCH, torch_logits, torch_model

from seedjax.checkpoints.manifest import named_leaves
from seedjax.checkpoints.model_directory import bundled_models, read_model_directory
from seedjax.convert.checkpoint import open_checkpoint
from seedjax.convert.exporting import export, published_config
from seedjax.convert.families import family_named
from seedjax.convert.importing import convert, load_params
from seedjax.errors import InputError
from seedjax.inference.loading import load

# The tokenizer of the tests has an ordinary piece where Stable-DiffCoder has its mask.
SETTINGS = [f"mask_token_id={MASK}"]


def read_all(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


@pytest.mark.representative(
    "bfloat16-llada", "bfloat16-stable-diffcoder", "bfloat16-llada2"
)
@pytest.mark.parametrize("family", [*TORCH, *NUMPY])
@pytest.mark.parametrize(
    "stored", [pytest.param(np.float32, marks=pytest.mark.slow), ml_dtypes.bfloat16]
)
def test_a_round_trip_changes_no_bit(tmp_path, family, stored):
    given = {
        # Biases of routers are float32 in the published files.
        name: values if "expert_bias" in name else values.astype(stored)
        for name, values in tensors_of(family).items()
    }
    folder = write_checkpoint(tmp_path / "in", family, tensors=given)
    told = [*SETTINGS, *OPEN.get(family, [])]
    convert(folder, tmp_path / "model", assignments=told)
    done = export(tmp_path / "model", tmp_path / "out", max_file_bytes=20_000)
    assert done.family == family
    written = read_all(tmp_path / "out")
    assert written.keys() == given.keys()
    for name, values in given.items():
        assert written[name].dtype == values.dtype
        np.testing.assert_array_equal(written[name], values, name)
    assert len(done.files) > 1
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == given.keys()
    sizes = sum(v.nbytes for v in given.values())
    assert index["metadata"]["total_size"] == sizes
    # Nothing of the original config is lost, and it reads as the same model.
    config = json.loads((tmp_path / "out/config.json").read_text())
    for key, value in config_of(family).items():
        if value is not None and key not in ("torch_dtype", "mask_token_id"):
            assert config[key] == value, key
    first, again = (_opened(f, told) for f in (folder, tmp_path / "out"))
    assert first[0] == again[0]
    for name, values in first[1].items():
        np.testing.assert_array_equal(values, again[1][name], name)
    tokenizers = [f / "tokenizer.json" for f in (folder, tmp_path / "out")]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()


def _opened(folder, told=SETTINGS):
    with open_checkpoint(folder, assignments=told) as checkpoint:
        return checkpoint.config, named_leaves(load_params(checkpoint))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "qwen3-moe"])
def test_transformers_loads_what_was_exported(tmp_path, family):
    original = torch_model(tmp_path / "in", family)
    import transformers

    convert(tmp_path / "in", tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager", dtype="float32"
    ).eval()
    tokens = np.random.default_rng(0).integers(4, 80, (1, 9))
    positions, sees = np.arange(9)[None], np.tri(9, dtype=bool)[None]
    logits = [torch_logits(m, tokens, positions, sees) for m in (original, loaded)]
    np.testing.assert_array_equal(*logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("abc")["input_ids"] == [2, 68, 69, 70]


def test_a_model_of_ours_is_exported_under_a_family(tmp_path):
    """`mini` is block-causal with shifted logits in the Llama layout, which no family
    is: one must be named, and what the files do not say given again on reading."""
    with pytest.raises(InputError, match="name the family"):
        export("mini", tmp_path / "out")
    export("mini", tmp_path / "out", family="stable-diffcoder")
    own = read_model_directory(bundled_models()["mini"]).denoiser
    same = (
        "logit_alignment=shifted",
        f"mask_token_id={own.mask_token_id}",
        f"block_size={own.block_size}",
    )
    with open_checkpoint(tmp_path / "out", assignments=same) as checkpoint:
        ends = (*own.eos_token_ids, checkpoint.tokenizer.special.end_of_turn)
        assert checkpoint.config.eos_token_ids == ends
        read = dataclasses.replace(
            checkpoint.config,
            param_dtype="float32",
            eos_token_ids=own.eos_token_ids,
            layer_loop=own.layer_loop,
        )
        assert read == own
        params = named_leaves(load_params(checkpoint))
    for name, values in named_leaves(load("mini").params).items():
        np.testing.assert_array_equal(values, params[name].astype(np.float32), name)
    assert (tmp_path / "out/tokenizer.model").exists()


def test_what_a_layout_cannot_say_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "in", "sdar")
    convert(folder, tmp_path / "model")
    with pytest.raises(InputError, match="llama cannot say qk_norm=True"):
        export(tmp_path / "model", tmp_path / "out", family="llama")
    with pytest.raises(InputError, match="no experts"):
        export(tmp_path / "model", tmp_path / "out", family="llada2")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(InputError, match="is there already"):
        export(tmp_path / "model", tmp_path / "full")
    with pytest.raises(InputError, match="unknown family"):
        export(tmp_path / "model", tmp_path / "out", family="gpt")


@pytest.mark.parametrize(
    ("field", "value"),
    [("qk_norm", True), ("attention_bias", True), ("rope_fraction", 0.5)],
)
def test_a_plain_layout_cannot_say(field, value):
    own = read_model_directory(bundled_models()["mini"]).denoiser
    llama = family_named("llama")
    assert published_config(llama, own, {}, "float32")["hidden_size"] == own.hidden_size
    changed = dataclasses.replace(own, **{field: value})
    with pytest.raises(InputError, match=f"cannot say {field}="):
        published_config(llama, changed, {}, "float32")
