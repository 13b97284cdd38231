"""Tokenizers: lossless on any text, deterministic, picklable, strict about input."""

import pickle
import sysconfig
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.text.loading import load_tokenizer
from seedjax.text.sentencepiece import (
    SentencePieceTokenizer,
    sample_texts,
    train_tokenizer,
)
from seedjax.text.tokenizer import SpecialTokens

STDLIB = Path(sysconfig.get_path("stdlib"))
TRAINING = ("heapq.py", "textwrap.py", "json/decoder.py", "bisect.py", "shlex.py")
VOCAB_SIZE = 600


def training_texts() -> list[str]:
    return [(STDLIB / name).read_text(encoding="utf-8") for name in TRAINING]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return train_tokenizer(training_texts(), vocab_size=VOCAB_SIZE)


AWKWARD = (
    *("", " ", "\n", "\r\n", "\r", "\t", "\0", "\x0b\x0c", "\ufeff", "\uffff", "\x85"),
    *("\u2581", "\u2581\u2581 \u2581", "a\u2581b c", "\u2580\u2585", "e\u0301", "ﬁ"),
    *("<mask>", "<pad>", "<bos>", "<eos>", "<fim_prefix>", "<0x41>", "<unk>", "<s>"),
    *("😀 👩‍👩‍👧", "\U0010ffff", "   x", "x   ", "\n\n  \n", "def f():\n\treturn 1\n"),
    *("٣٤ 1234567890", "ſ", "ﷺ", "\u200b\u00a0\u3000"),
)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(), st.sampled_from(AWKWARD), st.text())
def test_any_text_comes_back(tokenizer, before, middle, after):
    text = before + middle + after
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.byte_lengths[tokens].sum() == len(text.encode())
    assert not set(tokens) & set(astuple(tokenizer.special))


def test_every_file_of_the_standard_library_comes_back(tokenizer):
    texts = [
        data.decode()
        for path in sorted(STDLIB.glob("*.py"))
        if is_utf8(data := path.read_bytes())
    ]
    assert len(texts) > 100
    for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(tokens) == text


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_batches_equal_single_texts(tokenizer):
    texts = ["def f(x):\n    return x\n", "", "a\u2581b", "  x"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(t) for t in texts]
    assert tokenizer.encode_batch([]) == []


def test_half_a_surrogate_pair_is_refused(tokenizer):
    for text in ("a\ud800b", "\udfff\u2581"):
        with pytest.raises(InputError, match="surrogate"):
            tokenizer.encode(text)
        with pytest.raises(InputError, match="surrogate"):
            tokenizer.encode_batch(["fine", text])


def test_special_ids_are_the_denoisers_defaults(tokenizer):
    special, config = tokenizer.special, DenoiserConfig.__dataclass_fields__
    assert special.mask == config["mask_token_id"].default
    assert special.pad == config["pad_token_id"].default
    assert special.bos == config["bos_token_id"].default
    assert (special.eos,) == config["eos_token_ids"].default
    assert astuple(special) == tuple(range(len(astuple(special))))


def test_special_tokens_may_be_missing():
    special = SpecialTokens(mask=0, eos=7)
    assert special.ids == (0, 7)
    assert special.require("mask", "denoise") == 0
    with pytest.raises(InputError, match="no fim_prefix token, so it cannot infill"):
        special.require("fim_prefix", "infill")


def test_no_chats(tokenizer):
    with pytest.raises(InputError, match="no chat template, so it cannot chat"):
        tokenizer.encode_chat([{"role": "user", "content": "x"}])


def test_decode_skips_special_ids_and_spell_names_them(tokenizer):
    special = tokenizer.special
    tokens = [special.bos, *tokenizer.encode("x = 1"), special.mask, special.eos]
    assert tokenizer.decode(tokens) == "x = 1"
    assert tokenizer.spell(tokens) == "<bos>x = 1<mask><eos>"


def test_bytes_that_are_no_utf8_are_replaced(tokenizer):
    first_byte = tokenizer.encode("😀")[:1]
    assert tokenizer.byte_lengths[first_byte].sum() == 1
    assert tokenizer.decode(first_byte) == "\ufffd"


@pytest.mark.parametrize("token", [-1, VOCAB_SIZE, 10**9])
def test_unknown_ids_are_refused(tokenizer, token):
    with pytest.raises(InputError, match="no id"):
        tokenizer.decode([token])


def test_white_space_is_known(tokenizer):
    (newline,) = tokenizer.encode("\n")
    spaces = tokenizer.encode("        ")
    assert tokenizer.is_whitespace(newline)
    assert all(map(tokenizer.is_whitespace, spaces))
    assert len(spaces) < 8, "indentation has no pieces of its own"
    assert not any(map(tokenizer.is_whitespace, tokenizer.encode("def")))
    assert not tokenizer.is_whitespace(tokenizer.special.eos)


def test_digits_are_split_and_lines_end_alone(tokenizer):
    assert len(tokenizer.encode("1234")) == 4
    (newline,) = tokenizer.encode("\n")
    assert tokenizer.encode("\n\n\n") == [newline] * 3


def test_training_is_deterministic():
    again = [train_tokenizer(training_texts(), vocab_size=VOCAB_SIZE) for _ in "ab"]
    assert again[0].fingerprint == again[1].fingerprint
    other = train_tokenizer(training_texts()[:3], vocab_size=VOCAB_SIZE)
    assert other.fingerprint != again[0].fingerprint


def test_saved_and_pickled_tokenizers_are_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "deep" / "folder")
    text = "class A:\n    pass\n"
    for copy in (
        load_tokenizer(tmp_path / "deep" / "folder"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.encode(text) == tokenizer.encode(text)
        assert copy.special == tokenizer.special
        assert copy.vocab_size == tokenizer.vocab_size == VOCAB_SIZE


def test_missing_and_damaged_tokenizers_are_input_errors(tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.model is missing, and so is"):
        load_tokenizer(tmp_path)
    tokenizer.save(tmp_path)
    model = tmp_path / "tokenizer.model"
    model.write_bytes(model.read_bytes()[:2000])
    with pytest.raises(InputError, match="SentencePiece"):
        load_tokenizer(tmp_path)
    model.write_bytes(b"")
    with pytest.raises(InputError):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("vocab_size", [10, 100_000])
def test_impossible_vocabularies_are_input_errors(vocab_size):
    with pytest.raises(InputError, match="vocabulary size"):
        train_tokenizer(training_texts(), vocab_size=vocab_size)


def test_nothing_to_learn_from_is_an_input_error():
    with pytest.raises(InputError):
        train_tokenizer([], vocab_size=VOCAB_SIZE)


def test_samples_are_bounded_ordered_and_seeded():
    texts = [f"{i:04d}" for i in range(1000)]
    sample = sample_texts(iter(texts), 400, seed=1)
    assert 50 <= len(sample) <= 100
    assert sample == sorted(sample)
    assert sample == sample_texts(texts, 400, seed=1) != sample_texts(texts, 400, 2)
    assert max(sample) > "0500" > min(sample)
    assert sample_texts(texts, 10**6, seed=1) == texts
