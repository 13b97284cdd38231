"""Tokenizers of Hugging Face models: `tokenizer.json` as a `Tokenizer`.

The library `tokenizers` does the merging; what bytes an id stands for is worked out
here, once, so that text is decoded byte by byte. Two alphabets are known: GPT-2's, in
which each byte has a letter of its own (Qwen, Llama 3, LLaDA, Seed-Coder), and that of
SentencePiece with byte fallback (Llama 2).

Special tokens are a matter of ids. No text turns into one, even if it spells one, and
those of a chat come from its template alone (`seedjax.text.chat`): in the copy that
encodes, each goes by a random mark in place of its name. What a text does turn into are
the added tokens that the file does not call special, such as Qwen's `<tool_call>`; they
stand for their spelling, and decode to it.

A text comes back from its ids unchanged, with two exceptions that models were trained
with: a normalizer in the file (Qwen's composes characters, NFC), and the space that
tokenizers of the Llama 2 kind put before each text, which `decode` leaves there because
it cannot know whether it is given a text's beginning.
"""

import functools
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from seedjax.errors import InputError
from seedjax.text.chat import render_marked
from seedjax.text.huggingface_files import (
    FILES,
    HUGGING_FACE_FILE,
    SPECIAL_FILE,
    TEMPLATE_FILE,
    Contents,
    add_token,
    read_contents,
    read_json,
    refusing_damage,
    to_json,
    tokenizer_json,
)
from seedjax.text.tokenizer import (
    ONE_BY_ONE,
    SPACE,
    InfillOrder,
    SpecialTokens,
    checked_ids,
    has_lone_surrogate,
)

# 0xC0, 0xC1 and those from 0xF5 on are in no text.
UTF8_BYTES = frozenset(range(0xF5)) - {0xC0, 0xC1}


class HuggingFaceTokenizer:
    """A byte-pair tokenizer as Hugging Face models bring it."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        special: Mapping[str, int | None] | None = None,
    ):
        """Opens a tokenizer.

        Args:
          files: contents by name, of which `tokenizer_files.FILES` are kept. There must
            be `tokenizer.json`, or `vocab.json`, `merges.txt` and
            `tokenizer_config.json` of a tokenizer of Qwen's kind.
          special: ids by field of `SpecialTokens` that take precedence over the files;
            None says that there is no such token.

        Raises:
          InputError: for damaged files, a kind of tokenizer that is not known here, or
            an id that it does not have.
        """
        self._files = {name: files[name] for name in FILES if name in files}
        self._files[HUGGING_FACE_FILE] = tokenizer_json(self._files)
        if special:
            special_ids = {**read_json(self._files, SPECIAL_FILE), **special}
            self._files[SPECIAL_FILE] = to_json(special_ids)
        self._contents = read_contents(self._files)
        with refusing_damage():
            self._bytes = _bytes_of_pieces(self._contents)
        self._byte_lengths = np.array([len(b) for b in self._bytes], np.int32)
        self._missing = UTF8_BYTES - {b[0] for b in self._bytes if len(b) == 1}
        # New each time, so that no text can hold the mark of a token.
        nonce = secrets.token_hex(8)
        control = self._contents.control
        self._marks = {spelling: f"@{nonce}:{i}@" for i, spelling in control.items()}
        with refusing_damage():
            self._encoder = _marked_encoder(self._contents, self._marks)

    @classmethod
    def open(
        cls,
        directory: str | Path,
        special: Mapping[str, int | None] | None = None,
    ) -> "HuggingFaceTokenizer":
        """Opens the tokenizer in a model's directory.

        Raises:
          InputError: as the constructor does, or if files are missing or unreadable.
        """
        try:
            files = {
                name: path.read_bytes()
                for name in FILES
                if (path := Path(directory) / name).is_file()
            }
            return cls(files, special)
        except InputError as error:
            raise InputError(f"tokenizer at {directory}: {error}") from error
        except OSError as error:
            raise InputError(
                f"{error.filename} cannot be read: {error.strerror}"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return HuggingFaceTokenizer, (self._files,)

    def with_special(self, special: Mapping[str, int | None]) -> "HuggingFaceTokenizer":
        """This tokenizer with other special ids, as the constructor takes them. They
        are saved with it, in a file that only seedjax reads.

        Raises:
          InputError: for an unknown name or an id that it does not have.
        """
        return HuggingFaceTokenizer(self._files, special)

    def add_special_token(self, name: str, spelling: str) -> "HuggingFaceTokenizer":
        """This tokenizer with one id more, `vocab_size`, in `tokenizer.json` too.

        Args:
          name: what for, a field of `SpecialTokens`: "mask".
          spelling: how it is written: "<|mask|>".

        Raises:
          InputError: for an unknown name or a spelling that is in use.
        """
        if not spelling or spelling in self._contents.pieces.values():
            raise InputError(
                f"{spelling!r} cannot be a new token's spelling, for it is empty or "
                "the tokenizer has it; give another, or its id to `with_special`"
            )
        layout = add_token(self._contents.layout, spelling, self.vocab_size)
        files = {**self._files, HUGGING_FACE_FILE: to_json(layout)}
        return HuggingFaceTokenizer(files, {name: self.vocab_size})

    @property
    def vocab_size(self) -> int:
        """One more than the largest id. Ids without a piece decode to nothing."""
        return len(self._bytes)

    @property
    def special(self) -> SpecialTokens:
        return self._contents.special

    @property
    def infill_order(self) -> InfillOrder:
        return self._contents.infill_order

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end an answer, see `tokenizer_files.Contents`."""
        return self._contents.eos_token_ids

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of conversations, None if the model has none."""
        return self._contents.chat_template

    @property
    def fingerprint(self) -> str:
        contents = self._contents
        added = {i: token["content"] for i, token in contents.added.items()}
        parts = [asdict(contents.special), [*contents.control], added]
        digest = hashlib.sha256(self._files[HUGGING_FACE_FILE])
        digest.update(json.dumps(parts, sort_keys=True).encode())
        return digest.hexdigest()

    @property
    def pieces(self) -> Sequence[bytes]:
        return self._bytes

    @property
    def byte_lengths(self) -> np.ndarray:
        return self._byte_lengths

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        """`encode` of each text. With more than one thread the library takes as many
        as RAYON_NUM_THREADS or the machine allows."""
        for text in texts:
            self._check_text(text)
        if threads == 1 or len(texts) <= ONE_BY_ONE:
            return [self._encode(text) for text in texts]
        encoded = self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def _encode(self, text: str) -> list[int]:
        return self._encoder.encode(text, add_special_tokens=False).ids

    def _check_text(self, text: str) -> None:
        if has_lone_surrogate(text):
            raise InputError(
                "the text holds half of a surrogate pair, which UTF-8 cannot; replace "
                "it before encoding"
            )
        if self._missing and (lost := self._missing.intersection(text.encode())):
            raise InputError(
                f"the tokenizer has no token for the byte 0x{min(lost):02X}, which is "
                "in the text; leave the character out"
            )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        if self.chat_template is None:
            raise InputError(
                "this model has no chat template, so it cannot chat; generate with it, "
                f"or put its publisher's template into {TEMPLATE_FILE} beside "
                f"{HUGGING_FACE_FILE}"
            )
        text = render_marked(
            self.chat_template,
            messages,
            marks=self._marks,
            names=self._contents.names,
            add_generation_prompt=add_generation_prompt,
            variables=variables,
        )
        self._check_text(text)
        return self._encode(text)

    def decode(self, tokens: Iterable[int] | np.ndarray) -> str:
        parts = [self._bytes[token] for token in checked_ids(tokens, self.vocab_size)]
        return b"".join(parts).decode(errors="replace")

    def spell(self, tokens: Iterable[int] | np.ndarray) -> str:
        control = self._contents.control
        parts = [
            control[token].encode() if token in control else self._bytes[token]
            for token in checked_ids(tokens, self.vocab_size)
        ]
        return b"".join(parts).decode(errors="replace")

    def is_whitespace(self, token: int) -> bool:
        spelled = self._bytes[token]
        return bool(spelled) and spelled.isspace()

    def save(self, directory: str | Path) -> None:
        """Writes the files as they were read, so that `transformers` reads them too."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            path = Path(directory) / name
            partial = path.with_name(f"{name}.partial")
            partial.write_bytes(content)
            partial.replace(path)


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's alphabet: a byte that prints in Latin-1 is its own letter, the others
    are, in order, the letters from U+0100 on."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {
        chr(0x100 + i): byte for i, byte in enumerate(others)
    }


def _bytes_of_pieces(contents: Contents) -> list[bytes]:
    """The bytes of each id in a text, b"" for special ones.

    Raises:
      InputError: if the file decodes in a way that is not known here.
    """
    decoder = contents.layout.get("decoder") or {}
    steps = decoder.get("decoders", [decoder])
    kinds = {str(step.get("type")) for step in steps}
    byte_level = "ByteLevel" in kinds
    if not byte_level and not ("ByteFallback" in kinds and any(map(_is_space, steps))):
        raise InputError(
            f"the tokenizer decodes by {', '.join(sorted(kinds))}; known are "
            "byte-level tokenizers, and those with byte fallback that write U+2581 for "
            "a space"
        )
    letters = _byte_of_letter()
    found = [b""] * (1 + max(contents.pieces, default=-1))
    for i, piece in contents.pieces.items():
        if i in contents.control:
            continue
        if i in contents.added:
            found[i] = piece.encode()
        elif byte_level:
            # A piece with a letter outside of the alphabet is one that no text has.
            if all(letter in letters for letter in piece):
                found[i] = bytes(letters[letter] for letter in piece)
        elif byte := re.fullmatch("<0x([0-9A-F]{2})>", piece):
            found[i] = bytes.fromhex(byte[1])
        else:
            found[i] = piece.replace(SPACE, " ").encode()
    return found


def _is_space(step: Mapping[str, Any]) -> bool:
    """Whether a step of decoding turns U+2581 into a space."""
    if step.get("type") == "Metaspace":
        return step.get("replacement", SPACE) == SPACE
    return step.get("pattern") == {"String": SPACE} and step.get("content") == " "


def _marked_encoder(
    contents: Contents, marks: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """The tokenizer that makes ids of marked text: special tokens by their marks, other
    added tokens by their spellings, and nothing put around, cut off or filled up."""
    model = contents.layout["model"]
    vocabulary, rewritten = dict(model["vocab"]), []
    for i in sorted({*contents.added, *contents.control}):
        token, special = contents.added.get(i, {}), i in contents.control
        name = marks[contents.control[i]] if special else token["content"]
        vocabulary.pop(contents.pieces[i], None)
        vocabulary[name] = i  # what is not in here the library would number itself
        rewritten.append(
            {
                "id": i,
                "content": name,
                "single_word": not special and bool(token.get("single_word")),
                # Of text no blank is lost; templates were learned as they are cut.
                "lstrip": special and bool(token.get("lstrip")),
                "rstrip": special and bool(token.get("rstrip")),
                "normalized": not special and bool(token.get("normalized")),
                "special": False,
            }
        )
    unknown = model.get("unk_token")
    changed = {
        **contents.layout,
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "added_tokens": rewritten,
        "model": {
            **model,
            "type": "BPE",
            "dropout": None,
            "unk_token": marks.get(unknown, unknown),
            "vocab": vocabulary,
        },
    }
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(changed))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(
            f"{HUGGING_FACE_FILE} is damaged ({error}); get an intact copy"
        ) from error
