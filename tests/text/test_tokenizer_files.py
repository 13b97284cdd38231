"""Files of Hugging Face tokenizers: special tokens by their published names, faults
that are named."""

import json

import pytest
import tokenizers
from published_tokenizers import (
    MAKERS,
    SEED_CODER,
    SOURCES,
    TEXTS,
    Files,
    byte_level,
    edited,
    qwen,
    reference,
)

from seedjax.errors import InputError
from seedjax.text.huggingface import HuggingFaceTokenizer
from seedjax.text.huggingface_files import add_token
from seedjax.text.loading import load_tokenizer
from seedjax.text.prompts import infilling
from seedjax.text.tokenizer import SpecialTokens


@pytest.fixture(scope="module")
def files() -> dict[str, Files]:
    return {name: make() for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def opened(files) -> dict[str, HuggingFaceTokenizer]:
    return {name: HuggingFaceTokenizer(content) for name, content in files.items()}


@pytest.fixture(scope="module")
def tokenizer(opened) -> HuggingFaceTokenizer:
    return opened["qwen"]


def test_special_tokens_by_their_published_names(opened):
    ids = {name: ours.special for name, ours in opened.items()}
    assert ids["qwen"] == SpecialTokens(
        **{"pad": 400, "eos": 402, "end_of_turn": 402},
        **{"fim_prefix": 405, "fim_middle": 406, "fim_suffix": 407},
    )
    assert ids["seed_coder"] == SpecialTokens(
        **{"bos": 400, "pad": 401, "eos": 402, "mask": 403},
        **{"fim_suffix": 404, "fim_prefix": 405, "fim_middle": 406},
    )
    assert ids["llama3"] == SpecialTokens(bos=400, eos=401, end_of_turn=401)
    assert ids["llama2"] == SpecialTokens(bos=1, eos=2)
    orders = {name: ours.infill_order for name, ours in opened.items()}
    assert orders.pop("seed_coder") == "suffix_prefix_middle"
    assert set(orders.values()) == {"prefix_suffix_middle"}


def test_seed_coders_order(opened):
    ours = opened["seed_coder"]
    before, after = ours.encode_batch(["f(", ")"])
    prompt = infilling(before, after, ours.special, ours.infill_order)
    bos, suffix, prefix, middle = (SEED_CODER[i] for i in (0, 4, 5, 6))
    assert ours.spell(prompt) == f"{bos}{suffix}){prefix}f({middle}"


@pytest.mark.parametrize(
    "spelling", ["<|mask|>", "<[MASK_TOKEN]>", "<|mdm_mask|>", "[MASK]", "<mask>"]
)
def test_masks_by_their_published_names(files, spelling):
    library = tokenizers.Tokenizer.from_str(files["qwen"]["tokenizer.json"].decode())
    library.add_tokens([spelling])
    ours = HuggingFaceTokenizer({"tokenizer.json": library.to_str().encode()})
    assert ours.special.mask == library.token_to_id(spelling) == ours.vocab_size - 1
    assert ours.special.mask not in ours.encode(spelling)
    library.add_tokens(["<|MASK|>"])  # which of the two?
    ours = HuggingFaceTokenizer({"tokenizer.json": library.to_str().encode()})
    assert ours.special.mask is None


def test_the_caller_knows_better(files, tmp_path):
    told = {"mask": 401, "eos": 400, "end_of_turn": None}
    ours = HuggingFaceTokenizer(files["qwen"], told)
    special = ours.special
    assert (special.mask, special.eos, special.end_of_turn) == (401, 400, None)
    assert special.fim_prefix == 405
    ours.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.special == special
    assert loaded.fingerprint == ours.fingerprint
    assert loaded.fingerprint != HuggingFaceTokenizer(files["qwen"]).fingerprint
    assert ours.with_special({"mask": None}).special.mask is None
    assert ours.with_special({"mask": None}).special.eos == 400


def test_ids_that_cannot_be_special(files, tokenizer):
    with pytest.raises(InputError, match="mask is id 408, .* from 0 to 407"):
        tokenizer.with_special({"mask": 408})
    with pytest.raises(InputError, match="'masc' is no special token"):
        tokenizer.with_special({"masc": 400})
    for text in ("x", "ret"):
        (ordinary, *_rest) = tokenizer.encode(text)
        with pytest.raises(InputError, match="it is the ordinary token"):
            tokenizer.with_special({"mask": ordinary})
    with pytest.raises(InputError, match="eos_token is '<eos>', which the tokenizer"):
        HuggingFaceTokenizer(
            edited(files["qwen"], "tokenizer_config.json", eos_token="<eos>")
        )


def test_ends_of_answers(files, tokenizer):
    assert tokenizer.eos_token_ids == (402, 400)
    for listed, wanted in (([400, 402], (400, 402)), (401, (401, 402, 400))):
        content = json.dumps({"eos_token_id": listed}).encode()
        more = files["qwen"] | {"generation_config.json": content}
        assert HuggingFaceTokenizer(more).eos_token_ids == wanted


def test_tokens_that_end_an_infill_are_ends(files):
    """Padding after the middle and the next file's name, which no config lists; an
    ordinary text that is spelled alike, and the mask, are none."""
    layout = json.loads(files["qwen"]["tokenizer.json"])
    last = max(token["id"] for token in layout["added_tokens"])
    spellings = ("<|fim_pad|>", "<|file_sep|>", "<|end|>", "<|strange|>", "<fim_pad>")
    for number, spelling in enumerate(spellings, last + 1):
        layout = add_token(layout, spelling, number)
    layout["added_tokens"][-1]["special"] = False
    more = files["qwen"] | {"tokenizer.json": json.dumps(layout).encode()}
    tokenizer = HuggingFaceTokenizer(more, {"mask": last + 3})
    assert tokenizer.eos_token_ids == (402, 400, last + 1, last + 2)


def test_a_token_more(files, tokenizer, tmp_path):
    more = tokenizer.add_special_token("mask", "<|mask|>")
    assert more.special.mask == tokenizer.vocab_size == more.vocab_size - 1
    assert more.encode("a <|mask|>") == tokenizer.encode("a <|mask|>")
    more.save(tmp_path)
    theirs = reference({}, tmp_path)
    assert theirs.encode("<|mask|>") == [more.special.mask]
    for spelling in ("<|mask|>", "", "<|im_end|>", "x"):
        with pytest.raises(InputError, match="cannot be a new token's spelling"):
            more.add_special_token("mask", spelling)


def test_tokens_that_only_older_files_name(files, tmp_path):
    """`tokenizer_config.json` may hold more than `tokenizer.json`."""
    entry = {"content": "<|mask|>", "special": True, "normalized": False}
    config = json.loads(files["qwen"]["tokenizer_config.json"])
    added = json.loads(files["qwen"]["tokenizer.json"])["added_tokens"]
    decoder = {str(token["id"]): token for token in added} | {"408": entry}
    more = files["qwen"] | {
        "tokenizer_config.json": json.dumps(
            {**config, "added_tokens_decoder": decoder}
        ).encode()
    }
    ours = HuggingFaceTokenizer(more)
    assert ours.special.mask == 408
    assert reference(more, tmp_path).encode("<|mask|>") == [408]


def test_dreams_files(tmp_path):
    """Vocabulary and merges, and the class says how text is cut."""
    transformers = pytest.importorskip("transformers", reason="the reference")
    layout = json.loads(byte_level().to_str())["model"]
    merges = [tuple(merge) for merge in layout["merges"]]
    theirs = transformers.Qwen2Tokenizer(vocab=layout["vocab"], merges=merges)
    decoder = {"400": {"content": "<|endoftext|>", "special": True}}
    config = {"tokenizer_class": "DreamTokenizer", "added_tokens_decoder": decoder}
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    given = {
        "vocab.json": json.dumps(layout["vocab"]),
        "merges.txt": "\n".join(lines),
        "tokenizer_config.json": json.dumps({**config, "eos_token": "<|endoftext|>"}),
    }
    for name, content in given.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    ours = load_tokenizer(tmp_path)
    assert ours.special == SpecialTokens(eos=400)
    for text in [*TEXTS, *SOURCES]:
        assert ours.encode(text) == theirs.encode(text)
    # Composed, as Qwen's normalizer does.
    assert ours.decode(ours.encode("e\u0301")) == "\u00e9"
    config["tokenizer_class"] = "OtherTokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="the tokenizer is a 'OtherTokenizer'"):
        load_tokenizer(tmp_path)


def broken(files: Files) -> dict[str, Files]:
    """Files, by what is wrong with them."""
    layout = json.loads(files["tokenizer.json"])
    twice = [*layout["added_tokens"], {"id": 400, "content": "<|twice|>"}]
    merges = [["nothing", "known"], *layout["model"]["merges"]]
    word_pieces = {"type": "WordPiece", "vocab": {}}
    space = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    two = [{"SpecialToken": {"id": "<|im_end|>"}}] * 2
    first = {
        "type": "TemplateProcessing",
        "single": two,
        "special_tokens": {"<|im_end|>": {"ids": [402]}},
    }
    config = "tokenizer_config.json"
    return {
        "tokenizer.json is missing, and so is vocab.json": {},
        "tokenizer.json: not JSON": {"tokenizer.json": b'{"model": '},
        "tokenizer.json holds no JSON object": {"tokenizer.json": b"[]"},
        "tokenizer.json holds no model": {"tokenizer.json": b"{}"},
        "which is not UTF-8": {"tokenizer.json": b'{"model": "\xff"}'},
        "is a WordPiece model": edited(files, model=word_pieces),
        "holds no ids": edited(files, model={"type": "BPE"}),
        "is damaged .*out of vocab": edited(
            files, model={**layout["model"], "merges": merges}
        ),
        "known are byte-level": edited(files, decoder=space),
        "call id 400 '<.endoftext.>' and '<.twice.>'": edited(
            files, added_tokens=twice
        ),
        "is damaged .KeyError: 'id'": edited(files, added_tokens=[{}]),
        "post_processor is 7; expected dict": edited(files, post_processor=7),
        r"puts tokens \[402, 402\] before": edited(files, post_processor=first),
        "tokenizer_config.json: not JSON": {**files, config: b"}"},
        "chat_template is 7; expected str": edited(files, config, chat_template=7),
        "chat_template.jinja:1: byte 0": {
            **files,
            "chat_template.jinja": b"\xff",
        },
    }


@pytest.mark.parametrize("message", broken(qwen()))
def test_damaged_files_are_input_errors(message, files, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        HuggingFaceTokenizer(broken(files["qwen"])[message])
    assert "\n" not in str(caught.value)


def test_the_directory_is_named(files, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(files["qwen"]["tokenizer.json"][:999])
    with pytest.raises(InputError, match=f"tokenizer at {tmp_path}: .* not JSON"):
        load_tokenizer(tmp_path)
