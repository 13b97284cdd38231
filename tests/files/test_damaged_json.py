"""JSON of right syntax and wrong values: one line that names the field, never more."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedjax.checkpoints.model_directory import bundled_models, read_model_directory
from seedjax.config import DenoiserConfig, check_fields, coerce, from_dict
from seedjax.errors import InputError
from seedjax.text.huggingface import HuggingFaceTokenizer

JUNK = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.just(10**400)),
    *(st.floats(), st.text(max_size=3), st.just([1]), st.just({"kind": [1]})),
    st.dictionaries(st.text(max_size=2), st.integers(-1, 3), max_size=2),
    st.lists(st.one_of(st.none(), st.text(max_size=2), st.integers(-2, 2)), max_size=2),
)
ADDED = {"id": 256, "content": "<|mask|>", "special": True}
LETTERS = [chr(i) for i in [*range(33, 127), *range(161, 173), *range(174, 256)]]
LETTERS += [chr(256 + i) for i in range(256 - len(LETTERS))]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
TOKENIZER = {
    "tokenizer.json": {
        "added_tokens": [ADDED],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
            "special_tokens": {"<s>": {"ids": [256]}},
        },
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "vocab": {letter: i for i, letter in enumerate(LETTERS)},
            "merges": [],
        },
    },
    "tokenizer_config.json": {
        "eos_token": {"content": "<|mask|>"},
        "added_tokens_decoder": {"256": {"content": "<|mask|>"}},
        "additional_special_tokens": ["<|mask|>"],
        "chat_template": [{"name": "default", "template": "x"}],
    },
    "generation_config.json": {"eos_token_id": [256]},
    "special_ids.json": {"mask": 256},
}


def places(value, path=()):
    """The paths of all values in a JSON value; letters of the vocabulary count once."""
    yield path
    if path[-1:] == ("vocab",):
        yield (*path, "a")
    elif isinstance(value, dict | list):
        for key, inner in (
            value.items() if isinstance(value, dict) else enumerate(value)
        ):
            yield from places(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.mark.slow
@settings(max_examples=250, deadline=None, database=None)
@given(st.data())
def test_a_tokenizer_with_any_value_is_opened_or_refused(data):
    assert (
        HuggingFaceTokenizer(
            {name: json.dumps(content).encode() for name, content in TOKENIZER.items()}
        ).special.mask
        == 256
    )
    path = data.draw(st.sampled_from([p for p in places(TOKENIZER) if p]))
    content = changed(TOKENIZER, path, data.draw(JUNK))
    files = {name: json.dumps(values).encode() for name, values in content.items()}
    try:
        tokenizer = HuggingFaceTokenizer(files)
        assert "ab" in tokenizer.decode(tokenizer.encode("ab"))
    except InputError as error:
        assert "\n" not in str(error)


@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_a_model_directory_with_any_value_is_read_or_refused(tmp_path_factory, data):
    config = json.loads((bundled_models()["mini"] / "config.json").read_text())
    path = data.draw(st.sampled_from([p for p in places(config) if p]))
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    text = json.dumps(changed(config, path, data.draw(JUNK)))
    (folder / "config.json").write_text(text)
    try:
        read_model_directory(folder)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, 0, -1.0])
def test_a_base_of_the_rotary_frequencies_is_a_number_above_0(value):
    shape = {"vocab_size": 9, "hidden_size": 4, "num_layers": 1, "num_heads": 1}
    shape |= {"num_kv_heads": 1, "head_dim": 4, "mlp_size": 4}
    with pytest.raises(InputError, match="rope_theta"):
        from_dict(DenoiserConfig, shape | {"rope_theta": value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("num_layers", 10**9), ("vocab_size", 10**12), ("hidden_size", 1 << 40)),
        *(("num_heads", 10**9), ("head_dim", 1 << 33), ("mlp_size", 1 << 50)),
        *(("block_size", 1 << 40), ("max_positions", 1 << 40), ("norm_eps", 0.0)),
        *(("norm_eps", float("nan")), ("norm_eps", 2.0), ("norm_eps", 1e-300)),
        *(("rope_theta", 1e-300), ("init_scale", float("nan"))),
    ],
)
def test_sizes_beyond_any_model_are_refused(field, value):
    shape = {"vocab_size": 9, "hidden_size": 4, "num_layers": 1, "num_heads": 1}
    shape |= {"num_kv_heads": 1, "head_dim": 4, "mlp_size": 4}
    with pytest.raises(InputError, match=field):
        from_dict(DenoiserConfig, shape | {field: value})
    with pytest.raises(InputError, match=field):
        DenoiserConfig(**shape | {field: value})


def test_experts_of_all_layers_are_bounded_together():
    shape = {"vocab_size": 9, "hidden_size": 4, "num_layers": 1000, "num_heads": 1}
    shape |= {"num_kv_heads": 1, "head_dim": 4, "mlp_size": 4}
    moe = {"num_experts": 1000, "num_selected": 2, "expert_size": 4}
    with pytest.raises(InputError, match="num_experts is 1000.*over all 1000 layers"):
        from_dict(DenoiserConfig, shape | {"moe": moe})


def test_fields_are_named():
    kinds = {"ids": list[int] | None, "name": str}
    check_fields({"name": "a", "more": 1}, kinds, "x.json")
    for values, message in (
        ({"name": 1}, "x.json: name is 1; expected str"),
        ({"name": "a", "ids": [1, "2"]}, r"x.json: ids is \[1, '2'\]"),
        ({}, "x.json: name is None"),
    ):
        with pytest.raises(InputError, match=message):
            check_fields(values, kinds, "x.json")
    with pytest.raises(InputError, match="kind"):
        coerce(DenoiserConfig | None, {"kind": [1]}, "x")


@pytest.mark.parametrize("field", ["base", "base_digest", "lora", "weights"])
def test_an_adapter_without_a_field(tmp_path, field):
    from seedjax.checkpoints.adapters import FILE, load_adapter

    base = bundled_models()["mini"]
    whole = {"format": 1, "lora": {}, "base": "mini", "base_digest": "", "weights": {}}
    for value in (None, [1], 3):
        (tmp_path / FILE).write_text(json.dumps(whole | {field: value}))
        with pytest.raises(InputError, match=f"{FILE}: {field} is"):
            load_adapter(tmp_path, read_model_directory(base))


def test_an_exported_sampler_without_a_field(tmp_path, monkeypatch):
    jax_export = pytest.importorskip("jax.export")
    from seedjax.inference.exported import FORMAT, load_exported

    monkeypatch.setattr(jax_export, "deserialize", lambda raw: None)
    (tmp_path / "program.bin").write_bytes(b"")
    shutil.copytree(bundled_models()["mini"] / "tokenizer", tmp_path / "tokenizer")
    for more, field in (({}, "platforms"), ({"platforms": ["cpu"]}, "batch_size")):
        (tmp_path / "program.json").write_text(json.dumps({"format": FORMAT} | more))
        with pytest.raises(InputError, match=f"program.json: {field} is None"):
            load_exported(tmp_path)


def test_a_token_that_is_only_declared_does_not_exist():
    config = TOKENIZER["tokenizer_config.json"] | {"pad_token": "[PAD]"}
    files = TOKENIZER | {"tokenizer_config.json": config}
    opened = HuggingFaceTokenizer({n: json.dumps(v).encode() for n, v in files.items()})
    assert opened.special.pad is None
    files["tokenizer_config.json"] = config | {"eos_token": "</s>"}
    with pytest.raises(InputError, match="eos_token is '</s>'"):
        HuggingFaceTokenizer({n: json.dumps(v).encode() for n, v in files.items()})


def test_no_blank_of_a_text_is_lost_beside_an_added_token():
    tool = {"id": 257, "content": "<tool>", "lstrip": True, "rstrip": True}
    layout = TOKENIZER["tokenizer.json"] | {"added_tokens": [ADDED, tool]}
    files = TOKENIZER | {"tokenizer.json": layout}
    opened = HuggingFaceTokenizer({n: json.dumps(v).encode() for n, v in files.items()})
    text = "a   <tool>\n  b"
    assert 257 in opened.encode(text) and opened.decode(opened.encode(text)) == text
