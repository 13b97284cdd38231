"""Tokenizers of Hugging Face models: the ids that `transformers` gives, text that never
becomes a special token, files that come back as they were."""

import json
import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from published_tokenizers import (
    COMPOSED,
    LLAMA_FLAGGED,
    MAKERS,
    QWEN_FLAGGED,
    QWEN_UNFLAGGED,
    SOURCES,
    TEXTS,
    Files,
    byte_level,
    edited,
    files_of,
    reference,
)

from seedjax.errors import InputError
from seedjax.text.huggingface import HuggingFaceTokenizer
from seedjax.text.loading import load_tokenizer
from seedjax.text.prompts import continuation
from seedjax.text.sentencepiece import train_tokenizer
from seedjax.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def files() -> dict[str, Files]:
    return {name: make() for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def opened(files) -> dict[str, HuggingFaceTokenizer]:
    return {name: HuggingFaceTokenizer(content) for name, content in files.items()}


@pytest.fixture(scope="module")
def tokenizer(opened) -> HuggingFaceTokenizer:
    return opened["qwen"]


# Text ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_ids_are_those_of_transformers(name, files, opened, tmp_path):
    theirs, ours = reference(files[name], tmp_path), opened[name]
    texts = [*TEXTS, *SOURCES]
    for text, tokens in zip(texts, ours.encode_batch(texts), strict=True):
        assert tokens == theirs.encode(text, add_special_tokens=False), text
        assert continuation(tokens, ours.special) == theirs.encode(text), text
    assert ours.vocab_size == len(theirs)


@given(st.text(), st.sampled_from([*QWEN_FLAGGED, *QWEN_UNFLAGGED, *TEXTS]), st.text())
def test_any_text_comes_back(tokenizer, before, middle, after):
    text = before + middle + after
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.byte_lengths[tokens].sum() == len(text.encode())
    assert not set(tokens) & set(tokenizer.special.ids)


def test_text_that_spells_a_special_token_is_text(files, tokenizer):
    library = tokenizers.Tokenizer.from_str(files["qwen"]["tokenizer.json"].decode())
    library.encode_special_tokens = True  # the library's own way
    for spelling in QWEN_FLAGGED:
        text = f"a {spelling}b"
        wanted = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == wanted and len(wanted) > 5
    # Which leaves out what the file does not flag, as Qwen's the tokens for infilling.
    assert len(library.encode("<|fim_prefix|>").ids) == 1
    tokens = tokenizer.encode("<|fim_prefix|>")
    assert len(tokens) > 5 and tokenizer.special.fim_prefix not in tokens


def test_an_added_token_that_is_not_special_is_text_of_one_id(tokenizer):
    tokens = tokenizer.encode("<tool_call>{}</tool_call>")
    assert len(tokens) <= 4
    assert tokenizer.decode(tokens) == "<tool_call>{}</tool_call>"
    assert tokenizer.byte_lengths[tokens[0]] == len("<tool_call>")


def test_llama_2s_bytes(opened):
    ours = opened["llama2"]
    tokens = ours.encode("def Z\u00e9")
    pieces = [" def", " ", "Z", "\u00c3", "\u00a9"]
    lengths = [len(piece.encode("latin-1")) for piece in pieces]
    assert ours.byte_lengths[tokens].tolist() == lengths
    # What stands before a text nobody knows, so the space stays.
    assert ours.decode(tokens) == " def Z\u00e9"
    assert ours.decode(tokens[:-1]) == " def Z\ufffd"
    assert ours.decode(ours.encode("<s>")) == " <s>"
    assert not set(ours.encode("<s></s><unk>")) & {0, 1, 2}


def test_bytes_that_are_no_utf8_are_replaced(tokenizer):
    first = tokenizer.encode("😀")[:1]
    assert tokenizer.byte_lengths[first].sum() < 4
    assert tokenizer.decode(first) == "\ufffd"


def test_decode_skips_special_ids_and_spell_names_them(tokenizer):
    special = tokenizer.special
    tokens = [special.fim_prefix, *tokenizer.encode("x = 1"), special.eos]
    assert tokenizer.decode(np.array(tokens)) == "x = 1"
    assert tokenizer.spell(tokens) == "<|fim_prefix|>x = 1<|im_end|>"
    assert (tokenizer.byte_lengths[[*special.ids]] == 0).all()


@pytest.mark.parametrize("token", [-1, 10**6])
def test_unknown_ids_are_refused(tokenizer, token):
    with pytest.raises(InputError, match="no id"):
        tokenizer.decode([token])


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode_batch(["fine", "a\ud800b"])
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode_chat([{"role": "user", "content": "\udfff"}])


def test_white_space_is_known(tokenizer):
    assert all(map(tokenizer.is_whitespace, tokenizer.encode("\n        \t")))
    assert not any(map(tokenizer.is_whitespace, tokenizer.encode("def")))
    assert not tokenizer.is_whitespace(tokenizer.special.eos)


def test_batches_equal_single_texts(tokenizer):
    texts = [*TEXTS, *SOURCES]
    alone = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == alone
    assert tokenizer.encode_batch(texts, threads=2) == alone
    assert tokenizer.encode_batch([]) == []


def test_what_the_file_cuts_off_and_fills_up_is_left_alone(files):
    library = tokenizers.Tokenizer.from_str(files["qwen"]["tokenizer.json"].decode())
    library.enable_truncation(4)
    library.enable_padding(length=9)
    strict = HuggingFaceTokenizer(files_of(library))
    assert strict.decode(strict.encode(SOURCES[0])) == SOURCES[0]


def test_a_byte_without_a_token_is_not_lost(files):
    layout = json.loads(files["qwen"]["tokenizer.json"])
    layout["model"]["vocab"].pop("Z")
    layout["model"]["merges"] = []
    lacking = HuggingFaceTokenizer({"tokenizer.json": json.dumps(layout).encode()})
    assert lacking.decode(lacking.encode("xY")) == "xY"
    with pytest.raises(InputError, match="no token for the byte 0x5A"):
        lacking.encode("xYZ")


def test_ids_that_nothing_stands_for(files):
    layout = json.loads(files["qwen"]["tokenizer.json"])
    layout["added_tokens"][-1]["id"] += 7
    gaps = HuggingFaceTokenizer({"tokenizer.json": json.dumps(layout).encode()})
    assert gaps.vocab_size == 408 + 7
    assert gaps.special.fim_suffix == 407 + 7
    assert gaps.decode([410]) == "" and gaps.byte_lengths[410] == 0


# Chats --------------------------------------------------------------------------

CHAT = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "été = <1>\n "},
    {"role": "assistant", "content": "<tool_call>f</tool_call>"},
    {"role": "user", "content": "Go on"},
]


@pytest.mark.parametrize("name", ["qwen", "llama3"])
@pytest.mark.parametrize("prompt", [True, False])
def test_chats_are_those_of_transformers(name, prompt, files, opened, tmp_path):
    theirs = reference(files[name], tmp_path)
    ours = opened[name].encode_chat(CHAT, add_generation_prompt=prompt)
    assert ours == theirs.apply_chat_template(
        CHAT, add_generation_prompt=prompt, return_dict=False
    )
    assert ours.count(opened[name].special.end_of_turn) == 4


@pytest.mark.parametrize("name", ["qwen", "llama3"])
@settings(deadline=None, max_examples=50)  # the first one compiles the template
@given(st.data())
def test_messages_spell_no_special_tokens(name, opened, data):
    """Whatever is written or where it is cut in two, the ids of special tokens are
    those of a chat of harmless words."""
    ours = opened[name]
    tokens = [*QWEN_FLAGGED, "<|fim_middle|>", *LLAMA_FLAGGED]
    parts = st.lists(st.sampled_from([*tokens, "<|", "|>", "<", "eot_id|>", "x", " "]))
    contents = ["".join(data.draw(parts)) for _ in range(2)]
    chat = [{"role": "user", "content": content} for content in contents]
    harmless = [{"role": "user", "content": "x"}] * 2

    def special(messages):
        ids = ours.encode_chat(messages)
        return [i for i in ids if ours.byte_lengths[i] == 0]

    assert special(chat) == special(harmless)
    text = ours.decode(ours.encode_chat(chat))
    assert all(content.strip() in text for content in contents)


def test_templates_that_put_tokens_together(files):
    library = byte_level()
    library.add_special_tokens(["<|user|>", "<|end|>", "<|endoftext|>"])
    ours = HuggingFaceTokenizer(files_of(library, chat_template=COMPOSED))
    chat = [{"role": "user", "content": "Say |> and <|."}]
    tokens = ours.encode_chat(chat)
    assert tokens[0] == 400 and tokens.count(401) == 1
    assert ours.spell(tokens) == "<|user|>\nSay |> and <|.<|end|>\n"
    for attack in ("<|end|>", "<|user|>", "<|endoftext|>"):
        with pytest.raises(InputError, match="cannot be told apart"):
            ours.encode_chat([{"role": "user", "content": f"a{attack}"}])


def test_where_templates_stand(files):
    plain = edited(files["qwen"], "tokenizer_config.json", chat_template=None)
    chat = [{"role": "user", "content": "hi"}]
    with pytest.raises(InputError, match="no chat template, so it cannot chat"):
        HuggingFaceTokenizer(plain).encode_chat(chat)
    several = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "by default {{ messages[0].content }}"},
    ]
    named = edited(plain, "tokenizer_config.json", chat_template=several)
    ours = HuggingFaceTokenizer(named)
    assert ours.decode(ours.encode_chat(chat)) == "by default hi"
    ours = HuggingFaceTokenizer(named | {"chat_template.jinja": b"in a file"})
    assert ours.chat_template == "in a file"
    ours = HuggingFaceTokenizer(
        edited(named, "tokenizer_config.json", chat_template=several[:1])
    )
    assert ours.chat_template is None


def test_what_templates_read_besides(files):
    source = "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ mood }}{{ tools }}"
    ours = HuggingFaceTokenizer(
        edited(files["qwen"], "tokenizer_config.json", chat_template=source)
    )
    chat = [{"role": "user", "content": "hi"}]
    tokens = ours.encode_chat(chat, variables={"mood": "<|im_end|>"})
    assert tokens[:2] == [402, 400] and tokens.count(402) == 1
    assert ours.decode(tokens) == "<|im_end|>None"


def test_messages_that_the_template_refuses(tokenizer):
    with pytest.raises(InputError, match="does not take these messages: no critics"):
        tokenizer.encode_chat([{"role": "critic", "content": "Hm"}])


# Files --------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_saved_and_pickled_tokenizers_are_the_same(name, files, opened, tmp_path):
    ours = opened[name]
    assert isinstance(ours, Tokenizer)
    ours.save(tmp_path / "deep" / "folder")
    written = {p.name: p.read_bytes() for p in (tmp_path / "deep/folder").iterdir()}
    assert written == files[name]
    for copy in (
        load_tokenizer(tmp_path / "deep" / "folder"),
        pickle.loads(pickle.dumps(ours)),
    ):
        assert isinstance(copy, HuggingFaceTokenizer)
        assert copy.fingerprint == ours.fingerprint
        assert copy.encode(SOURCES[0]) == ours.encode(SOURCES[0])
        assert copy.special == ours.special
        assert copy.vocab_size == ours.vocab_size
        np.testing.assert_array_equal(copy.byte_lengths, ours.byte_lengths)
        if ours.chat_template:
            assert copy.encode_chat(CHAT) == ours.encode_chat(CHAT)


def test_fingerprints_tell_tokenizers_apart(opened):
    assert len({ours.fingerprint for ours in opened.values()}) == len(opened)


def test_tokenizer_json_goes_before_a_sentencepiece_model(files, tmp_path):
    train_tokenizer(SOURCES, tmp_path, vocab_size=400)
    assert load_tokenizer(tmp_path).infill_order == "suffix_prefix_middle"
    (tmp_path / "tokenizer.json").write_bytes(files["llama2"]["tokenizer.json"])
    assert isinstance(load_tokenizer(tmp_path), HuggingFaceTokenizer)
