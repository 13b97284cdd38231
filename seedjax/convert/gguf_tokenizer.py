"""The tokenizer inside a GGUF file, as a Hugging Face tokenizer.json.

A GGUF file holds the tokens, their kinds and the merges of a byte-level BPE. Of how
text is cut before merging it holds a name; the patterns of the names are here.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seedjax.errors import InputError

# Kinds of tokens (llama.cpp's LLAMA_TOKEN_TYPE_*).
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5

ADVICE = (
    "put tokenizer.json and tokenizer_config.json of the original model into a folder, "
    "and give it with --tokenizer"
)

_Piece = dict[str, Any]


def _split(pattern: str) -> _Piece:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _byte_level(*, use_regex: bool, trim_offsets: bool = True) -> _Piece:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": trim_offsets,
        "use_regex": use_regex,
    }


def _word_pattern(most_digits: str) -> str:
    """How GPT-4's relatives cut text, with so many digits at a time."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        + most_digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


# How text is cut, by the name in `tokenizer.ggml.pre`.
PRE_TOKENIZERS: Mapping[str, tuple[_Piece, ...]] = MappingProxyType(
    {
        # Single digits, then as GPT-2 did.
        "smollm": (
            {"type": "Digits", "individual_digits": True},
            _byte_level(use_regex=True),
        ),
        "qwen2": (_split(_word_pattern("")), _byte_level(use_regex=False)),
        "llama-bpe": (_split(_word_pattern("{1,3}")), _byte_level(use_regex=False)),
        # llama.cpp's own, for models that state no other: punctuation, then as GPT-2
        # did, then numbers in threes.
        "default": (
            _split(r"[\p{P}$+<=>^~|]+"),
            _split(
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
                r"|\s+(?!\S)"
            ),
            _split(r"\p{N}+"),
            _split(r"[0-9][0-9][0-9]"),
            _byte_level(use_regex=False),
        ),
    }
)


def tokenizer_json(metadata: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The content of a tokenizer.json, for the library `tokenizers`.

    Args:
      metadata: of a GGUF file.
      path: of that file, for messages.

    Returns:
      None if the file holds no tokenizer.

    Raises:
      InputError: if the tokenizer is no byte-level BPE, cuts text in a way that is not
        known here, or contradicts itself.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not tokens:
        return None
    pre = _known_pre_tokenizer(metadata, path)
    kinds = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [merge.split(" ") for merge in metadata.get("tokenizer.ggml.merges", ())]
    unknown = [
        merge
        for merge in merges
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys()
    ]
    fault = None
    if len(kinds) != len(tokens):
        fault = f"{len(tokens)} tokens but kinds of {len(kinds)}"
    elif len(vocabulary) < len(tokens):
        fault = "a token twice"
    elif any(not 0 <= i < len(tokens) for i in _named_ids(metadata).values()):
        fault = f"special ids beyond its {len(tokens)} tokens"
    elif unknown:
        fault = f"the merge {' '.join(unknown[0])!r} of what is no token"
    if fault is not None:
        raise InputError(f"{path} holds a tokenizer with {fault}; {ADVICE}")
    for i, kind in enumerate(kinds):
        # llama.cpp fills up to the rows of the embedding with tokens of its own.
        if kind == UNUSED and tokens[i] == f"[PAD{i}]":
            del vocabulary[tokens[i]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": tokens[i],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind != USER_DEFINED,
            }
            for i, kind in enumerate(kinds)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        # Qwen's own file composes characters first, which llama.cpp leaves out.
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": list(PRE_TOKENIZERS[pre]),
        },
        "post_processor": _post_processor(metadata, tokens, pre),
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # Llama 3 takes a word that is a token as it is, merges or no merges.
            "ignore_merges": pre == "llama-bpe",
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a tokenizer_config.json beside that tokenizer.json."""
    tokens = metadata["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for name, token in _named_ids(metadata).items():
        config[f"{name}_token"] = tokens[token]
    if (template := metadata.get("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    return config


def _named_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Ids of the tokens that have a part to play, under their names in transformers."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    names |= {"mask": "mask"}
    ids = {
        name: metadata.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in names.items()
    }
    return {name: token for name, token in ids.items() if token is not None}


def _known_pre_tokenizer(metadata: Mapping[str, Any], path: Path) -> str:
    model = metadata.get("tokenizer.ggml.model")
    pre: Any = metadata.get("tokenizer.ggml.pre")
    if model != "gpt2":
        raise InputError(
            f"{path} holds a tokenizer of model {model!r}; expected 'gpt2', a "
            f"byte-level BPE: {ADVICE}"
        )
    if pre not in PRE_TOKENIZERS:
        raise InputError(
            f"{path} names the pre-tokenizer {pre!r}; expected "
            f"{', '.join(PRE_TOKENIZERS)}: {ADVICE}"
        )
    if metadata.get("tokenizer.ggml.add_space_prefix", False):
        raise InputError(
            f"{path} has a tokenizer that puts a space before each text, which is not "
            f"read: {ADVICE}"
        )
    return pre


def _post_processor(
    metadata: Mapping[str, Any], tokens: list[str], pre: str
) -> dict[str, Any]:
    """Puts the tokens around a text that the file names."""
    # Llama 3 has a first token even where the file does not say so.
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe")
    adds_eos = metadata.get("tokenizer.ggml.add_eos_token", False)
    bos = _named_ids(metadata).get("bos") if adds_bos else None
    eos = _named_ids(metadata).get("eos") if adds_eos else None
    if bos is None and eos is None:
        return _byte_level(use_regex=True, trim_offsets=False)

    def sequence(name: str, type_id: int) -> list[_Piece]:
        around = [
            []
            if i is None
            else [{"SpecialToken": {"id": tokens[i], "type_id": type_id}}]
            for i in (bos, eos)
        ]
        return [*around[0], {"Sequence": {"id": name, "type_id": type_id}}, *around[1]]

    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": sequence("A", 0) + sequence("B", 1),
        "special_tokens": {
            tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]}
            for i in (bos, eos)
            if i is not None
        },
    }
