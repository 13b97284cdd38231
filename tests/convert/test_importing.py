"""What is refused and why, what is read once, what a start of a denoiser gets."""

import json

import ml_dtypes
import numpy as np
import pytest
from checkpoints import (
    LAYERS,
    MASK,
    ROWS,
    WIDTH,
    config_of,
    shapes_of,
    tensors_of,
    write_checkpoint,
)
from safetensors.numpy import save_file

from seedjax.checkpoints.manifest import named_leaves
from seedjax.config import DenoiserConfig
from seedjax.convert.checkpoint import open_checkpoint
from seedjax.convert.families import FAMILIES, family_named, recognise
from seedjax.convert.importing import convert, load_params
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.nn.denoiser import num_parameters


def refused(folder, match, **arguments):
    with pytest.raises(InputError, match=match) as caught:
        open_checkpoint(folder, **arguments)
    assert "\n" not in str(caught.value)


def with_config(folder, family, **changes):
    return write_checkpoint(folder, family, config=config_of(family) | changes)


def test_all_faulty_tensors_are_named(tmp_path):
    tensors = tensors_of("sdar")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((3, WIDTH), np.float32)
    tensors["model.layers.0.adapter.weight"] = np.zeros((1,), np.float32)
    folder = write_checkpoint(tmp_path / "a", "sdar", tensors=tensors)
    refused(folder, r"missing: model\.norm\.weight")
    refused(folder, r"left over: model\.layers\.0\.adapter\.weight")
    refused(folder, r"up_proj\.weight \[3, 32\] \(expected \[48, 32\]\)")


def test_derived_tensors_may_be_there(tmp_path):
    tensors = tensors_of("llama")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    with open_checkpoint(write_checkpoint(tmp_path / "a", "llama", tensors=tensors)):
        pass


def test_tensors_that_are_not_finite_are_all_named(tmp_path):
    tensors = tensors_of("llama")
    names = ["model.norm.weight", "model.layers.1.mlp.down_proj.weight"]
    for name in names:
        tensors[name].flat[1] = np.nan
    folder = write_checkpoint(tmp_path / "a", "llama", tensors=tensors)
    with pytest.raises(InputError) as caught:
        convert(folder, tmp_path / "out")
    assert all(name in str(caught.value) for name in names)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture 'GPT2LMHeadModel'"),
        ({"architectures": []}, "names the architectures"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"use_sliding_window": True, "sliding_window": 16}, "sliding_window=16"),
        ({"sliding_window": 16}, "sliding_window=16, .*--set max_positions=16"),
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"num_hidden_layers": None}, "num_hidden_layers is None; expected an integer"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"vocab_size": 155136}, "seed-coder or stable-diffcoder"),
        ({"pad_token_id": 5000}, "outside of the 96 rows"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(tmp_path, changes, match):
    refused(with_config(tmp_path / "a", "llama", **changes), match)


def test_what_nobody_says_is_asked_for(tmp_path):
    architecture = {"architectures": ["A2DQwen3LMHeadModel"]}
    folder = with_config(tmp_path / "a", "qwen3", **architecture, mask_token_id=None)
    refused(folder, "say attention; set it")
    refused(folder, "say mask_token_id", assignments=["attention=bidirectional"])
    told = ["attention=bidirectional", f"mask_token_id={MASK}"]
    with open_checkpoint(folder, assignments=told) as checkpoint:
        assert checkpoint.config.attention == "bidirectional"
        assert checkpoint.config.mask_token_id == MASK


def test_a_mask_in_a_plain_qwen2_config_is_ambiguous(tmp_path):
    folder = with_config(tmp_path / "a", "qwen2", mask_token_id=MASK)
    refused(folder, "qwen2 or open-dcoder")
    with open_checkpoint(folder, family="open-dcoder") as checkpoint:
        assert checkpoint.config.logit_alignment == "shifted"
        assert checkpoint.config.mask_token_id == MASK


def test_a_tied_head_may_be_stored_but_not_differ(tmp_path):
    tensors = tensors_of("fast-dllm-v2")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    folder = write_checkpoint(tmp_path / "a", "fast-dllm-v2", tensors=tensors)
    with open_checkpoint(folder) as checkpoint:
        assert "head" not in load_params(checkpoint)
    tensors["lm_head.weight"][0, 0] += 1
    folder = write_checkpoint(tmp_path / "b", "fast-dllm-v2", tensors=tensors)
    refused(folder, "ties the output head")


def test_an_untied_head_must_be_there(tmp_path):
    tensors = tensors_of("sdar")
    del tensors["lm_head.weight"]
    folder = write_checkpoint(tmp_path / "a", "sdar", tensors=tensors)
    refused(folder, "missing: lm_head.weight")


def test_every_tensor_is_read_once(tmp_path):
    """Fused projections too, though three of ours come from one of theirs."""
    folder = write_checkpoint(tmp_path / "a", "llada2")
    with open_checkpoint(folder) as checkpoint:
        source, counts = (
            checkpoint.tensors._source,
            dict.fromkeys(shapes_of("llada2"), 0),
        )
        read = source.read

        def counting(name):
            counts[name] += 1
            return read(name)

        source.read = counting
        load_params(checkpoint)
        assert checkpoint.tensors._held == {}
    assert set(counts.values()) == {1}


def test_fused_rows_are_queries_then_keys_then_values(tmp_path):
    tensors = tensors_of("llada2")
    with open_checkpoint(write_checkpoint(tmp_path / "a", "llada2")) as checkpoint:
        params = load_params(checkpoint)
    fused = tensors["model.layers.1.attention.query_key_value.weight"]
    attention = params["layers_1"]["attention"]
    for role, rows in {"query": (0, 32), "key": (32, 48), "value": (48, 64)}.items():
        np.testing.assert_array_equal(attention[role]["kernel"], fused[slice(*rows)])


def test_projections_that_other_tools_have_fused(tmp_path):
    """Phi-3's and vLLM's names: queries, keys, values; and gate, up."""
    apart = tensors_of("qwen3")
    fused = dict(apart)
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        for name, parts in (
            ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj")),
            ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            last = ("self_attn.v_proj",) if "qkv" in name else ()
            rows = [fused.pop(f"{layer}.{part}.weight") for part in (*parts, *last)]
            fused[f"{layer}.{name}.weight"] = np.concatenate(rows)
    told = [f"mask_token_id={MASK}"]
    plain = write_checkpoint(tmp_path / "plain", "qwen3")
    other = write_checkpoint(tmp_path / "fused", "qwen3", tensors=fused)
    with (
        open_checkpoint(plain, assignments=told) as one,
        open_checkpoint(other, assignments=told) as two,
    ):
        assert len(two.tensors) == len(one.tensors) > 20
        for name in one.tensors:
            np.testing.assert_array_equal(one.tensors[name], two.tensors[name])


def test_an_open_mask_is_the_tokenizer_s(tmp_path):
    """dllm adds the mask to the tokenizer; no config says its id."""
    name = "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1"
    folder = write_checkpoint(tmp_path / name, "a2d-qwen3")
    refused(folder, "family a2d-qwen3-bd3lm say mask_token_id; set it")
    files = json.loads((folder / "tokenizer.json").read_text())
    mask = dict(files["added_tokens"][0], id=MASK, content="<|mask|>")
    files["added_tokens"].append(mask)
    (folder / "tokenizer.json").write_text(json.dumps(files))
    names = json.loads((folder / "tokenizer_config.json").read_text())
    names["mask_token"] = "<|mask|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    with open_checkpoint(folder) as checkpoint:
        settled = {s.field: (s.value, s.origin) for s in checkpoint.settled}
        assert checkpoint.config.attention == "block_causal"
    assert settled["mask_token_id"] == (MASK, "tokenizer")


def test_llada_calls_the_gate_ff_proj_and_two_things_ff_out(tmp_path):
    tensors = tensors_of("llada")
    with open_checkpoint(write_checkpoint(tmp_path / "a", "llada")) as checkpoint:
        params = load_params(checkpoint)
    block = "model.transformer.blocks.0"
    mlp = params["layers_0"]["mlp"]
    np.testing.assert_array_equal(
        mlp["gate"]["kernel"], tensors[f"{block}.ff_proj.weight"]
    )
    np.testing.assert_array_equal(
        mlp["down"]["kernel"], tensors[f"{block}.ff_out.weight"]
    )
    np.testing.assert_array_equal(
        params["head"], tensors["model.transformer.ff_out.weight"]
    )


@pytest.mark.representative("bfloat16-bfloat16")
@pytest.mark.parametrize(
    ("stored", "held"),
    [
        (np.float32, "float32"),
        (np.float16, "float32"),
        (ml_dtypes.bfloat16, "bfloat16"),
    ],
)
def test_weights_keep_their_precision(tmp_path, stored, held):
    tensors = {n: v.astype(stored) for n, v in tensors_of("llama").items()}
    folder = write_checkpoint(tmp_path / "a", "llama", tensors=tensors)
    assert convert(folder, tmp_path / "out").dtype == held
    params = named_leaves(load(str(tmp_path / "out")).params)
    table = params["embedding"]
    assert table.dtype == held
    np.testing.assert_array_equal(table, tensors["model.embed_tokens.weight"])


@pytest.mark.slow
def test_a_precision_that_is_asked_for_is_kept(tmp_path):
    tensors = {n: v.astype(ml_dtypes.bfloat16) for n, v in tensors_of("llama").items()}
    folder = write_checkpoint(tmp_path / "a", "llama", tensors=tensors)
    for dtype, held in {"float32": "float32", "int8": "bfloat16"}.items():
        convert(folder, tmp_path / dtype, dtype=dtype)
        model = load(str(tmp_path / dtype))
        assert model.params["embedding"].dtype == model.config.param_dtype == held


def test_sharded_files_give_the_same(tmp_path):
    whole = write_checkpoint(tmp_path / "whole", "sdar")
    parts = write_checkpoint(tmp_path / "parts", "sdar")
    (parts / "model.safetensors").unlink()
    tensors, places = tensors_of("sdar"), {}
    for number in range(3):
        chosen = {n: t for i, (n, t) in enumerate(tensors.items()) if i % 3 == number}
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        save_file(chosen, parts / file)
        places |= dict.fromkeys(chosen, file)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (parts / "model.safetensors.index.json").write_text(index)
    loaded = []
    for folder in (whole, parts):
        with open_checkpoint(folder) as checkpoint:
            loaded.append(named_leaves(load_params(checkpoint)))
    assert loaded[0].keys() == loaded[1].keys()
    for name, values in loaded[0].items():
        np.testing.assert_array_equal(values, loaded[1][name], name)


def test_an_autoregressive_checkpoint_becomes_the_start_of_a_denoiser(tmp_path):
    """There are spare rows behind the tokenizer's 80 ids: the first becomes the mask's;
    its norm is that of a trained row."""
    folder = write_checkpoint(tmp_path / "a", "llama")
    done = convert(folder, tmp_path / "out", as_denoiser=True)
    model = load(str(tmp_path / "out"))
    assert model.config.attention == "block_causal"
    assert model.config.logit_alignment == "shifted"
    assert model.config.mask_token_id == 80
    assert model.tokenizer.special.mask == 80
    given = tensors_of("llama")["model.embed_tokens.weight"]
    table = np.asarray(model.params["embedding"])
    np.testing.assert_array_equal(np.delete(table, 80, 0), np.delete(given, 80, 0))
    norms = np.linalg.norm(given[:80], axis=1)
    assert norms.min() * 0.5 < np.linalg.norm(table[80]) < norms.max() * 2
    assert {s.field: s.origin for s in done.settled}["mask_token_id"] == (
        "start of a denoiser"
    )


def test_a_converted_model_becomes_a_start_too(tmp_path):
    """As its checkpoint would have; a denoiser is refused, as there."""
    folder = write_checkpoint(tmp_path / "a", "llama")
    told = {"as_denoiser": True, "assignments": ["block_size=4"]}
    convert(folder, tmp_path / "causal")
    for source, out in ((folder, "one"), (tmp_path / "causal", "two")):
        convert(source, tmp_path / out, **told)
    with (
        open_checkpoint(tmp_path / "one") as one,
        open_checkpoint(tmp_path / "two") as two,
    ):
        assert one.config == two.config and two.config.attention == "block_causal"
        assert one.tokenizer.fingerprint == two.tokenizer.fingerprint
        for name in one.tensors:
            np.testing.assert_array_equal(one.tensors[name], two.tensors[name])
    refused(tmp_path / "two", "denoiser already", as_denoiser=True)


def test_a_full_table_grows_by_the_mask(tmp_path):
    config = config_of("llama") | {"vocab_size": 80}
    tensors = tensors_of("llama")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:80]
    folder = write_checkpoint(tmp_path / "a", "llama", tensors=tensors, config=config)
    convert(folder, tmp_path / "out", as_denoiser=True)
    model = load(str(tmp_path / "out"))
    assert model.config.vocab_size == 81 and model.config.mask_token_id == 80
    assert model.params["embedding"].shape == (81, WIDTH)
    assert model.params["head"].shape == (81, WIDTH)


def test_a_denoiser_is_no_start(tmp_path):
    folder = write_checkpoint(tmp_path / "a", "sdar")
    refused(folder, "denoiser already", as_denoiser=True)


def test_unknown_family_and_missing_files(tmp_path):
    with pytest.raises(InputError, match="unknown family 'gpt'; there are"):
        family_named("gpt")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "config.json'; give a directory")
    folder = write_checkpoint(tmp_path / "a", "llama")
    (folder / "config.json").write_text("{")
    refused(folder, "not JSON")


def test_the_table_agrees_with_itself():
    """Every family's recipe is one that our sampler takes, and it recognises itself
    unless its architecture is another's first."""
    for family in FAMILIES.values():
        found = recognise({"architectures": [family.architecture]})
        assert found.layout == family.layout
        assert set(family.unsaid) <= {"attention", "mask_token_id"}
        diffusion = family.denoiser.get("attention") != "causal"
        known = "mask_token_id" in family.ids or "mask_token_id" in family.unsaid
        assert known == diffusion, family.name


def test_a_checkpoint_is_known_by_its_name_where_families_share_an_architecture():
    config = {"architectures": ["LLaDA2MoeModelLM"]}
    for name, family in (
        ("", "llada2"),
        ("inclusionAI/LLaDA2.0-mini", "llada2"),
        ("inclusionAI/LLaDA2.1-mini", "llada2.1"),
        ("/hub/models--inclusionAI--LLaDA2.1-flash/snapshots/abc", "llada2.1"),
        ("downloads/llada2.1-mini", "llada2.1"),
    ):
        assert recognise(config, name).name == family
    for name, family in (
        ("models/Qwen3-0.6B-a2d", "a2d-qwen3"),  # which does not say how it attends
        ("dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1", "a2d-qwen3-mdlm"),
        ("TIDE-dllm/distill-LLaDA2-TIDE_Cross", "a2d-qwen3-bd3lm"),
        ("pretrained_models/OPDLM-0.6B", "opdlm"),
    ):
        config = {"architectures": ["A2DQwen3LMHeadModel"]}
        assert recognise(config, name).name == family
    for family in FAMILIES.values():
        for checkpoint in family.checkpoints:
            found = recognise({"architectures": [family.architecture]}, checkpoint)
            assert found is family or family.name in ("open-dcoder", "seed-coder")
    edits = FAMILIES["llada2.1"].sampler["revision"]
    assert edits == {"kind": "TokenEdits", "threshold": 0.5, "extra_steps": 16}


PUBLISHED = {
    # family -> the released config's shape, and the number of parameters it has
    "stable-diffcoder": ((155136, 4096, 32, 32, 8, 128, 14336, False), 8_250_462_208),
    "llada": ((126464, 4096, 32, 32, 32, 128, 12288, False), 8_015_581_184),
    "dream": ((152064, 3584, 28, 28, 4, 128, 18944, False), 7_615_616_512),
    "sdar": ((151936, 4096, 36, 32, 8, 128, 12288, False), 8_190_735_360),
    "fast-dllm-v2": ((152064, 3584, 28, 28, 4, 128, 18944, False), 7_615_616_512),
    "coda": ((151936, 2048, 28, 16, 8, 128, 6144, False), 2_031_739_904),
    "illada": ((155136, 4096, 32, 32, 8, 128, 14336, True), 7_615_025_152),
    "qwen2": ((151936, 1536, 28, 12, 2, 128, 8960, True), 1_543_714_304),
    "llama": ((49152, 576, 30, 9, 3, 64, 1536, True), 134_515_008),
}


@pytest.mark.representative("stable-diffcoder", "dream")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_the_published_number_of_parameters(name):
    shape, published = PUBLISHED[name]
    rows, width, layers, heads, kv_heads, head_dim, mlp, tied = shape
    layout = FAMILIES[name].layout
    config = DenoiserConfig(
        vocab_size=rows,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_size=mlp,
        tie_embeddings=tied,
        attention_bias=layout == "qwen2",
        qk_norm=layout == "qwen3",
    )
    assert num_parameters(config) == published
    assert ROWS < rows
