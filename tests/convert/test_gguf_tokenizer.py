import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from seedjax.convert.gguf_tokenizer import tokenizer_config, tokenizer_json
from seedjax.errors import InputError

PATH = Path("some/model.gguf")
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = [chr(b) for b in BYTES] + [chr(256 + i) for i in range(256 - len(BYTES))]


def metadata(pre="smollm", **fields):
    """Of a file with single bytes, three longer tokens and special ones."""
    tokens = ["<|bos|>", "<|eos|>", *LETTERS, "in", "ing", "Ġx", "<tool>", "[PAD262]"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *[1] * 259, 4, 5],
        "tokenizer.ggml.merges": ["i n", "Ġ x", "in g"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    } | {f"tokenizer.{name}": value for name, value in fields.items()}


def built(fields) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(tokenizer_json(fields, PATH)))


def pieces(tokenizer, text) -> list[str]:
    """How a text is cut before merging."""
    return [
        text[begin:end]
        for _, (begin, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text)
    ]


CODE = "if  x1 == 1234:\n        we'LL(  7)"


@pytest.mark.parametrize(
    ("pre", "wanted"),
    [
        (  # every digit alone, and a space before a digit with the spaces before it
            "smollm",
            "if| | x|1| ==| |1|2|3|4|:|\n       | we|'|LL|(|  |7|)",
        ),
        (  # every digit alone, a sign and line breaks behind it together
            "qwen2",
            "if| | x|1| ==| |1|2|3|4|:\n|       | we|'LL|(| | |7|)",
        ),
        (  # up to three digits
            "llama-bpe",
            "if| | x|1| ==| |123|4|:\n|       | we|'LL|(| | |7|)",
        ),
        (  # signs from words first, then three digits at a time
            "default",
            "if| | x|1| |==| |123|4|:|\n       | we|'|LL|(| | |7|)",
        ),
    ],
)
def test_text_is_cut_as_the_name_says(pre, wanted):
    assert "|".join(pieces(built(metadata(pre)), CODE)) == wanted


@pytest.mark.parametrize("pre", ["smollm", "qwen2", "llama-bpe", "default"])
def test_text_survives(pre):
    tokenizer = built(metadata(pre))
    for text in (CODE, "ä€😀\t\r\n\x00", "<tool> x<|eos|>in", "  ", "١٢٣²"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_merges_and_special_tokens():
    tokenizer = built(metadata())
    encoded = tokenizer.encode("sing x<|eos|><tool>in[PAD262]")
    assert encoded.tokens[:5] == ["s", "ing", "Ġx", "<|eos|>", "<tool>"]
    assert encoded.tokens[5:] == ["in", *"[PAD", *"262", "]"]
    assert encoded.ids[3] == 1
    assert tokenizer.decode(encoded.ids[:5]) == "sing x<tool>"  # <tool> is no control
    assert tokenizer.get_vocab_size() == 262  # without llama.cpp's filler
    assert tokenizer.id_to_token(262) is None


def test_characters_are_composed_for_qwen_only():
    split = "e\u0301"
    decoded = {
        pre: (t := built(metadata(pre))).decode(t.encode(split).ids)
        for pre in ("qwen2", "smollm")
    }
    assert decoded == {"qwen2": "\u00e9", "smollm": split}


@pytest.mark.parametrize(
    ("pre", "fields", "wanted"),
    [
        ("smollm", {}, ["in"]),
        ("llama-bpe", {}, ["<|bos|>", "in"]),
        ("llama-bpe", {"ggml.add_bos_token": False}, ["in"]),
        ("qwen2", {"ggml.add_bos_token": True}, ["<|bos|>", "in"]),
        (
            "smollm",
            {"ggml.add_bos_token": True, "ggml.add_eos_token": True},
            ["<|bos|>", "in", "<|eos|>"],
        ),
        ("qwen2", {"ggml.add_bos_token": True, "ggml.bos_token_id": None}, ["in"]),
    ],
)
def test_tokens_around_a_text(pre, fields, wanted):
    tokenizer = built(metadata(pre, **fields))
    assert tokenizer.encode("in").tokens == wanted
    assert tokenizer.encode("in", add_special_tokens=False).tokens == ["in"]


def test_llama_takes_a_word_that_is_a_token():
    # "ing" cannot be merged from "in" and "g" here.
    fields = {"ggml.merges": ["i n"], "ggml.add_bos_token": False}
    assert built(metadata("llama-bpe", **fields)).encode("ing").tokens == ["ing"]
    assert built(metadata("qwen2", **fields)).encode("ing").tokens == ["in", "g"]


def test_config():
    fields = {"ggml.padding_token_id": 0, "chat_template": "{{ 1 }}"}
    assert tokenizer_config(metadata(**fields)) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|bos|>",
        "chat_template": "{{ 1 }}",
    }


def test_no_tokenizer():
    assert tokenizer_json({"general.architecture": "llama"}, PATH) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"ggml.pre": "deepseek-coder"},
            "pre-tokenizer 'deepseek-coder'; expected smol",
        ),
        ({"ggml.pre": None}, "pre-tokenizer None; expected"),
        ({"ggml.model": "llama"}, "a tokenizer of model 'llama'; expected 'gpt2'"),
        ({"ggml.add_space_prefix": True}, "puts a space before each text"),
        ({"ggml.token_type": [1]}, "263 tokens but kinds of 1"),
        ({"ggml.eos_token_id": 263}, "special ids beyond its 263 tokens"),
        ({"ggml.merges": ["i n", "a b"]}, "the merge 'a b' of what is no token"),
        ({"ggml.merges": ["in"]}, "the merge 'in' of what is no token"),
        ({"ggml.tokens": ["a"] * 263}, "a token twice"),
    ],
)
def test_tokenizers_that_are_not_read(fields, reason):
    with pytest.raises(InputError, match=reason) as info:
        tokenizer_json(metadata(**fields), PATH)
    assert str(PATH) in str(info.value) and "\n" not in str(info.value)
