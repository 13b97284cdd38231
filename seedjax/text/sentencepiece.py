"""Our own tokenizers: SentencePiece models, byte-pair merges with byte fallback."""

import hashlib
import io
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from seedjax.errors import InputError
from seedjax.text.tokenizer import (
    ONE_BY_ONE,
    SPACE,
    InfillOrder,
    SpecialTokens,
    checked_ids,
    has_lone_surrogate,
)

MODEL_FILE = "tokenizer.model"
LONGEST_TEXT = 1 << 30  # bytes of one training text; longer ones would be dropped
MOST_TRAINING_BYTES = 8 << 20  # a larger corpus is sampled; merges stop changing


class SentencePieceTokenizer:
    """A SentencePiece model that holds our special pieces. The processor does not
    pickle, so a pickle carries the model's bytes and opens it anew."""

    def __init__(self, model: bytes):
        """Opens a model.

        Args:
          model: a serialized SentencePiece model.

        Raises:
          InputError: if the bytes are no such model, or it lacks a special piece.
        """
        self._model = model
        try:
            # No bytes would give a processor that holds no model.
            self._processor: Any = sentencepiece.SentencePieceProcessor(
                model_proto=model or b"none"
            )
        except RuntimeError:
            raise InputError(
                f"{len(model)} bytes are no SentencePiece model; train one with "
                "`seedjax data build` or give an intact tokenizer directory"
            ) from None
        self._bytes = [self._piece_bytes(i) for i in range(self.vocab_size)]
        self._byte_lengths = np.array([len(b) for b in self._bytes], np.int32)
        self._special = SpecialTokens(
            **{
                field.name: self._special_id(f"<{field.name}>")
                for field in fields(SpecialTokens)
            }
        )
        self._literal_mark = [
            self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self._model,)

    def _piece_bytes(self, token: int) -> bytes:
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return b""
        piece = self._processor.id_to_piece(token)
        if self._processor.is_byte(token):
            return bytes([int(piece[3:5], 16)])  # written "<0x0A>"
        return piece.replace(SPACE, " ").encode()

    def _special_id(self, piece: str) -> int:
        token = self._processor.piece_to_id(piece)
        if not self._processor.is_control(token):
            raise InputError(
                f"the SentencePiece model has no control piece {piece}; give a model "
                "written by `seedjax.text.sentencepiece.train_tokenizer`"
            )
        return token

    @property
    def vocab_size(self) -> int:
        return self._processor.get_piece_size()

    @property
    def special(self) -> SpecialTokens:
        return self._special

    @property
    def infill_order(self) -> InfillOrder:
        return "suffix_prefix_middle"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._model).hexdigest()

    @property
    def pieces(self) -> Sequence[bytes]:
        return self._bytes

    @property
    def byte_lengths(self) -> np.ndarray:
        return self._byte_lengths

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        try:
            if len(texts) <= ONE_BY_ONE or any(SPACE in text for text in texts):
                return [self._encode(text) for text in texts]
            return self._processor.encode(list(texts), num_threads=threads)
        except (RuntimeError, TypeError, UnicodeEncodeError) as error:
            if any(has_lone_surrogate(text) for text in texts):
                raise InputError(
                    "the text holds half of a surrogate pair, which UTF-8 cannot; "
                    "replace it before encoding"
                ) from None
            raise error

    def _encode(self, text: str) -> list[int]:
        """Ids of one text. SentencePiece could not tell U+2581 itself from a space, so
        it goes in as its three bytes."""
        if SPACE not in text:
            return self._processor.encode(text)
        head, *rest = map(self._processor.encode, text.split(SPACE))
        tokens = list(head)
        for part in rest:
            tokens += self._literal_mark + part
        return tokens

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        raise InputError(
            "this model has no chat template, so it cannot chat; generate, infill or "
            "edit with it, or take a model that was trained on conversations"
        )

    def decode(self, tokens: Iterable[int] | np.ndarray) -> str:
        tokens = checked_ids(tokens, self.vocab_size)
        return b"".join([self._bytes[t] for t in tokens]).decode(errors="replace")

    def spell(self, tokens: Iterable[int] | np.ndarray) -> str:
        names = {token: name for name, token in asdict(self._special).items()}
        parts = [
            f"<{names[t]}>".encode() if t in names else self._bytes[t]
            for t in checked_ids(tokens, self.vocab_size)
        ]
        return b"".join(parts).decode(errors="replace")

    def is_whitespace(self, token: int) -> bool:
        spelled = self._bytes[token]
        return bool(spelled) and spelled.isspace()

    def save(self, directory: str | Path) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        path = Path(directory) / MODEL_FILE
        partial = path.with_suffix(".partial")
        partial.write_bytes(self._model)
        partial.replace(path)


def train_tokenizer(
    texts: Iterable[str],
    directory: str | Path | None = None,
    *,
    vocab_size: int = 4096,
    seed: int = 0,
    max_bytes: int = MOST_TRAINING_BYTES,
) -> SentencePieceTokenizer:
    """Learns a byte-pair vocabulary. The same texts in the same order, with the same
    seed, give the same model, byte for byte.

    Args:
      texts: documents, line breaks included.
      directory: where to save the tokenizer; nowhere if None.
      vocab_size: number of ids, of which 13 are special, 256 are bytes and one the
        unknown piece.
      seed: chooses the sample when there is more text than `max_bytes`.
      max_bytes: about how much text to learn from.

    Raises:
      InputError: if the texts are too few or too many-lettered for `vocab_size`.
    """
    # A NUL ends a C string inside the trainer; the byte pieces encode it all the same.
    sample = (t.replace("\0", "") for t in sample_texts(texts, max_bytes, seed))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(text for text in sample if text),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            user_defined_symbols=["\n"],
            # The trainer gives free ids, from 0 up, to the control pieces in order.
            control_symbols=[
                f"<{field.name}>"
                for field in fields(SpecialTokens)
                if field.name not in ("pad", "bos", "eos")
            ],
            pad_id=1,
            pad_piece="<pad>",
            bos_id=2,
            bos_piece="<bos>",
            eos_id=3,
            eos_piece="<eos>",
            unk_id=len(fields(SpecialTokens)),
            max_sentence_length=LONGEST_TEXT,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].partition(" Increase")[0]
        raise InputError(
            f"no tokenizer of {vocab_size} pieces can be learned from this text"
            f" ({reason.strip() or 'there is none'}); change the vocabulary size"
        ) from None
    tokenizer = SentencePieceTokenizer(model.getvalue())
    if directory is not None:
        tokenizer.save(directory)
    return tokenizer


def sample_texts(texts: Iterable[str], max_bytes: int, seed: int) -> list[str]:
    """A uniform sample of the texts, of at most about `max_bytes`, in their order. All
    of them if they fit. Memory stays bounded by the sample."""
    generator = random.Random(seed)
    share, size = 1.0, 0
    kept: list[str] = []
    for text in texts:
        if share < 1.0 and generator.random() >= share:
            continue
        kept.append(text)
        size += len(text)
        while size > max_bytes and len(kept) > 1:
            kept = [text for text in kept if generator.random() < 0.5]
            size = sum(map(len, kept))
            share /= 2
    return kept
