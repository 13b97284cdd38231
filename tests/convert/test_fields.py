"""Every field of a published config is used, known to be harmless, or refused by name;
none of a wrong type or size passes or ends in a traceback."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedjax.convert.families import FAMILIES, recognise
from seedjax.convert.fields import NEUTRAL, harmless_fields
from seedjax.convert.recipe import read_denoiser
from seedjax.convert.shapes import WRITERS
from seedjax.errors import InputError
from tests.convert.checkpoints import EOS, MASK, config_of

CONFIGS = (
    *("llama", "qwen2", "qwen3", "qwen3-moe", "stable-diffcoder", "dream"),
    *("fast-dllm-v2", "sdar", "sdar-moe", "llada", "llada-moe", "llada2"),
    *("coda", "illada"),
)


def read(family, config, *assignments, **options):
    return read_denoiser(
        FAMILIES[family], config, assignments=list(assignments), **options
    )


def refused(match, family, config, *assignments, **options):
    with pytest.raises(InputError, match=match):
        read(family, config, *assignments, **options)


@pytest.mark.parametrize(
    ("class_name", "family", "experts"),
    [
        ("LlamaConfig", "llama", None),
        ("MistralConfig", "llama", None),
        ("Qwen2Config", "qwen2", None),
        ("Qwen2Config", "dream", None),
        ("Qwen3Config", "qwen3", None),
        ("Qwen3Config", "sdar", None),
        ("Qwen3MoeConfig", "qwen3-moe", 128),
    ],
)
def test_what_transformers_writes_is_read(class_name, family, experts):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, class_name)(eos_token_id=2)
    written = json.loads(config.to_json_string(use_diff=False))
    told = ("max_positions=4096",) if class_name == "MistralConfig" else ()
    denoiser = read(family, written, *told).denoiser
    assert denoiser.num_layers == config.num_hidden_layers
    assert denoiser.rope_theta == 10_000.0 and denoiser.norm_eps == 1e-6
    assert (denoiser.moe and denoiser.moe.num_experts) == experts
    read(family, json.loads(config.to_json_string()) | {"eos_token_id": 2}, *told)


def test_old_fields_of_transformers_are_harmless():
    old = {"torchscript": False, "top_k": 50, "is_decoder": False, "pruned_heads": {}}
    assert read("llama", config_of("llama") | old).ignored == ()


def test_a_window_is_refused_unless_no_position_is_beyond_it():
    config = config_of("llama") | {"sliding_window": 64}
    refused("sliding_window=64.*--set max_positions=64", "llama", config)
    assert read("llama", config, "max_positions=64").denoiser.max_positions == 64
    refused("sliding_window=64", "llama", config, "max_positions=65")
    for more in (
        {"sliding_window": 256},
        {"sliding_window": None},
        {"use_sliding_window": False},
        {"layer_types": ["full_attention"] * 2},
    ):
        assert read("llama", config | more).denoiser.max_positions == 256
    sliding = ["full_attention", "sliding_attention"]
    refused("sliding_window=64", "llama", config | {"layer_types": sliding})


def test_the_end_of_a_sequence_never_becomes_the_mask():
    config = config_of("llama")
    refused("say mask_token_id.*as-denoiser", "llama", config, "attention=block_causal")
    refused("say mask_token_id", "qwen2", config, "attention=bidirectional")
    told = ("attention=block_causal", "mask_token_id=90")
    assert read("llama", config, *told).denoiser.mask_token_id == 90
    refused("ends a sequence", "llama", config, told[0], f"mask_token_id={EOS}")
    refused("ends a sequence", "sdar", config_of("sdar") | {"mask_token_id": EOS})


def test_the_mask_of_a_drafter_of_pard():
    config = config_of("llama") | {"pard_token": MASK, "spd_type": "pard"}
    assert read("llama", config).denoiser.mask_token_id == MASK
    assert read("llama", config, "mask_token_id=7").denoiser.mask_token_id == 7
    refused("pard_token is '5'; expected the id", "llama", config | {"pard_token": "5"})
    # PARD-2 adds the target's hidden states to its input.
    refused("spd_type='pard2'", "llama", config | {"spd_type": "pard2"})


@pytest.mark.parametrize("family", ["llada", "dream", "sdar", "llada2", "llada-moe"])
def test_what_the_user_sets_is_not_looked_for_elsewhere(family):
    """Neither in the files, whatever they hold, nor among the family's own ids, which
    lie beyond a small vocabulary."""
    config = config_of(family)
    del config["mask_token_id"], config["pad_token_id"], config["eos_token_id"]
    refused("say which id ends a sequence; set eos_token_ids", family, config)
    refused("say mask_token_id, an id below 96", family, config, "eos_token_ids=[3]")
    told = ("mask_token_id=90", "eos_token_ids=[3]")
    denoiser = read(family, config, *told).denoiser
    assert (denoiser.mask_token_id, denoiser.eos_token_ids) == (90, (3,))
    assert denoiser.pad_token_id == 3
    keys = {
        *("max_position_embeddings", "max_sequence_length", "rms_norm_eps"),
        *("n_layers", "num_hidden_layers", "vocab_size", "embedding_size"),
        *("tie_word_embeddings", "weight_tying", "block_size", "rope_theta"),
    }
    more = {"max_positions=512", "norm_eps=0.001", "num_layers=2", "vocab_size=96"}
    more |= {"tie_embeddings=true", "block_size=8", "rope_theta=5e5"}
    if family == "llada-moe":  # its list of layers is as long as the file says
        keys -= {"num_hidden_layers"}
    for wrong in (None, "x", -1, 10**30, {"a": []}):
        damaged = config | {key: wrong for key in keys if key in config}
        damaged |= {"mask_token_id": wrong, "eos_token_id": wrong}
        denoiser = read(family, damaged, *told, *more).denoiser
        assert denoiser.max_positions == 512 and denoiser.norm_eps == 0.001
        assert denoiser.num_layers == 2 and denoiser.vocab_size == 96
        assert denoiser.tie_embeddings and denoiser.rope_theta == 5e5
        assert denoiser.mask_token_id == 90 and denoiser.block_size == 8
        refused("config.json: ", family, damaged, *told)
    refused("num_heads is 0; expected an integer from 1", family, config, "num_heads=0")
    refused("num_heads is 'x'; expected int", family, config, "num_heads=x")
    refused("set eos_token_ids", family, config, told[0], "eos_token_ids=[]")


def test_llada_moe_takes_its_routing_weights_as_they_are():
    """As its own code does, whatever its config says."""
    more = {"norm_topk_prob": True, "routed_scaling_factor": 2.5}
    moe = read("llada-moe", config_of("llada-moe") | more).denoiser.moe
    assert not moe.normalize and moe.scale == 1.0
    told = read("llada-moe", config_of("llada-moe") | more, "moe.scale=2.5").denoiser
    assert told.moe.scale == 2.5
    with pytest.raises(InputError, match="normalizes or scales"):
        WRITERS["llada-moe"](told)


def test_transformers_5_calls_experts_local():
    config = config_of("qwen3-moe")
    config["num_local_experts"] = config.pop("num_experts")
    del config["rope_theta"]
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    denoiser = read("qwen3-moe", config).denoiser
    assert denoiser.moe.num_experts == 8 and denoiser.rope_theta == 5e5
    both = config | {"num_experts": 8}
    assert read("qwen3-moe", both).denoiser.moe.num_experts == 8
    refused("num_local_experts is 8", "qwen3-moe", config | {"num_experts": 4})


def test_ends_of_the_tokenizer_come_last():
    config = config_of("llama")
    ends = read("llama", config, ends=(7, EOS, 500, 9)).denoiser.eos_token_ids
    assert ends == (EOS, 7, 9)
    sdar = read("sdar", config_of("sdar"), ends=(config_of("sdar")["mask_token_id"],))
    assert sdar.denoiser.eos_token_ids == (EOS,)


def test_block_sizes_in_the_files_are_used():
    for name in ("block_size", "bd_size"):
        assert read("sdar", config_of("sdar") | {name: 16}).denoiser.block_size == 16
    refused("must agree", "sdar", config_of("sdar") | {"block_size": 8, "bd_size": 4})
    causal = config_of("llama") | {"block_size": 16}
    refused("does not know: block_size=16", "llama", causal)


@pytest.mark.parametrize("family", CONFIGS)
def test_fields_that_change_the_network_are_refused_by_name(family):
    config = config_of(family)
    for name in NEUTRAL:
        refused(name, family, config | {name: {"strange": 7}})
    for name, value in {
        "attention_sinks": True,
        "embedding_scale": 12.0,
        "layer_norm_eps": 1e-3,
        "partial_rotary": 0.5,
    }.items():
        changed = config | {name: value}
        refused(f"{name}={value}.*--ignore-field {name}", family, changed)
        assert read(family, changed, ignore=[name]).ignored == (name,)
    refused("no field 'nothing'", family, config, ignore=["nothing"])


def test_no_field_is_in_two_lists():
    assert not harmless_fields() & NEUTRAL.keys()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.just(10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["", "2", "full_attention", "silu", "nan"]),
    st.lists(st.one_of(st.integers(-3, 3), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(
        st.sampled_from(["rope_type", "factor", "rope_theta", "x"]),
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3)),
        max_size=2,
    ),
)
MORE = (
    *("rope_scaling", "rope_parameters", "layer_types", "eos_token_id", "head_dim"),
    *("sliding_window", "partial_rotary_factor", "moe_layer_freq", "block_size"),
    *("num_local_experts", "mask_token_id", "architectures", "vocab_size"),
)


@settings(max_examples=250, deadline=None, database=None)
@given(st.sampled_from(CONFIGS), st.data())
def test_a_value_of_any_kind_is_read_or_refused(family, data):
    config = config_of(family)
    name = data.draw(st.sampled_from([*config, *MORE]))
    config[name] = data.draw(JUNK)
    generation = {"eos_token_id": data.draw(JUNK)} if data.draw(st.booleans()) else {}
    try:
        recognise(config)
        denoiser = read_denoiser(FAMILIES[family], config, generation=generation)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert 0 < denoiser.denoiser.rope_theta < float("inf")
