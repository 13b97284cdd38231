"""Tokenizers: text to token ids and back, without a loss.

One Protocol, `Tokenizer`, and our own implementation on SentencePiece (byte-pair merges
with byte fallback). `decode(encode(text)) == text` for every text that UTF-8 can hold.
What is not here: Hugging Face `tokenizer.json` files (`hf_tokenizer`), chat templates
(`chat`), FIM layouts (`prompts`).
"""

import hashlib
import io
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import sentencepiece

from seedjax.errors import InputError

MODEL_FILE = "tokenizer.model"
HUGGING_FACE_FILE = "tokenizer.json"
SPACE = "\u2581"  # how SentencePiece writes a space inside a piece
ONE_BY_ONE = 8  # texts; fewer are encoded without waking SentencePiece's thread pool
LONGEST_TEXT = 1 << 30  # bytes of one training text; longer ones would be dropped
MOST_TRAINING_BYTES = 8 << 20  # a larger corpus is sampled; merges stop changing


InfillOrder = Literal["prefix_suffix_middle", "suffix_prefix_middle"]


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of the tokens that no text produces; None where a tokenizer has no such one.
    Our own have them all, and the first four are the defaults of `DenoiserConfig`."""

    mask: int | None = None  # the absorbing state of the diffusion process
    pad: int | None = None  # filler behind the last document of a row
    bos: int | None = None  # opens a document; None: nothing does
    eos: int | None = None  # closes a document and fills its last block
    fim_prefix: int | None = None  # fill in the middle: what stands before the hole
    fim_suffix: int | None = None  # what stands behind it
    fim_middle: int | None = None  # what belongs into it
    delete: int | None = None  # edit process: this position goes away
    insert: int | None = None  # edit process: something is missing here
    system: int | None = None  # opens a turn of a conversation, one id for each role
    user: int | None = None
    assistant: int | None = None
    end_of_turn: int | None = None  # closes a turn

    def require(self, name: str, purpose: str) -> int:
        """The id of a token that something cannot be done without.

        Args:
          name: the field.
          purpose: what it is needed for: "infill".

        Raises:
          InputError: if the tokenizer has no such token.
        """
        token: int | None = getattr(self, name)
        if token is None:
            raise InputError(
                f"this model's tokenizer has no {name} token, so it cannot {purpose}"
            )
        return token

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that there are, in the order of the fields."""
        return tuple(token for token in astuple(self) if token is not None)


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of seedjax asks of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        ...

    @property
    def special(self) -> SpecialTokens: ...

    @property
    def infill_order(self) -> InfillOrder:
        """In what order a model of this tokenizer is given the text around a hole."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what determines the ids, as hexadecimal digits."""
        ...

    @property
    def pieces(self) -> Sequence[bytes]:
        """The UTF-8 bytes that each id stands for; none for special ids."""
        ...

    @property
    def byte_lengths(self) -> np.ndarray:
        """How many UTF-8 bytes each id stands for, int32 [V]; 0 for special ids. The
        sum over `encode(text)` is the byte length of the text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, no special ones added."""
        ...

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        """`encode` of each text, in one call, on as many threads as given."""
        ...

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of a conversation in the layout that the model was taught, beginning of
        the document included. Text of a message never becomes a special token.

        Args:
          messages: each a mapping with "role" and "content".
          add_generation_prompt: whether to open the assistant's next turn.
          variables: what else the layout reads, such as "tools".

        Raises:
          InputError: if the tokenizer knows no layout for conversations, or it does not
            take these messages.
        """
        ...

    def decode(self, tokens: Iterable[int] | np.ndarray) -> str:
        """The text of `tokens`. Special ids are skipped; bytes that are no UTF-8, as a
        model may write, become U+FFFD."""
        ...

    def spell(self, tokens: Iterable[int] | np.ndarray) -> str:
        """As `decode`, with special ids written out by name, such as `<eos>`."""
        ...

    def is_whitespace(self, token: int) -> bool:
        """Whether the token stands for white space and nothing else."""
        ...

    def save(self, directory: str | Path) -> None:
        """Writes what `load_tokenizer` reads."""
        ...


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
                f"the SentencePiece model has no control piece {piece}; wanted a model "
                "written by `seedjax.tokenizer.train_tokenizer`"
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


def checked_ids(tokens: Iterable[int] | np.ndarray, vocab_size: int) -> list[int]:
    """Ids as a list.

    Raises:
      InputError: if one of them is no id of a tokenizer with so many.
    """
    listed = [int(token) for token in tokens]
    for token in listed:
        if not 0 <= token < vocab_size:
            raise InputError(
                f"token {token} is no id of this tokenizer; ids go from 0 to "
                f"{vocab_size - 1}"
            )
    return listed


def has_lone_surrogate(text: str) -> bool:
    """Whether a string holds a code point that UTF-8 has no bytes for."""
    return any("\ud800" <= character <= "\udfff" for character in text)


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


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Opens the tokenizer that `Tokenizer.save` wrote, or that of a Hugging Face model.
    Where both kinds of file are, as published Llama models have them, `tokenizer.json`
    is read.

    Raises:
      InputError: if the directory holds none, or a damaged one.
    """
    published = (HUGGING_FACE_FILE, "merges.txt")
    if any((Path(directory) / name).is_file() for name in published):
        # Here, for that room builds on this one.
        from seedjax.hf_tokenizer import HuggingFaceTokenizer

        return HuggingFaceTokenizer.open(directory)
    path = Path(directory) / MODEL_FILE
    if not path.is_file():
        raise InputError(
            f"no tokenizer at {directory}: {MODEL_FILE} is missing, and so is "
            f"{HUGGING_FACE_FILE}; give a directory that a corpus or a model keeps its "
            "tokenizer in"
        )
    try:
        return SentencePieceTokenizer(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
