"""Tokenizers: text to token ids and back, without a loss.

One Protocol, `Tokenizer`, with `decode(encode(text)) == text` for every text that UTF-8
can hold. Its implementations are `seedjax.text.sentencepiece` (our own, byte-pair
merges with byte fallback) and `seedjax.text.huggingface` (`tokenizer.json`);
`seedjax.text.loading` opens either.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from seedjax.errors import InputError

SPACE = "\u2581"  # how SentencePiece writes a space inside a piece
ONE_BY_ONE = 8  # texts; fewer are encoded without waking a library's thread pool


InfillOrder = Literal["prefix_suffix_middle", "suffix_prefix_middle"]


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of the tokens that no text produces; None where a tokenizer has no such one.
    Our own have them all, and the first four are the defaults of `DenoiserConfig`."""

    mask: int | None = None  # the absorbing state of the diffusion process
    pad: int | None = None  # filler after the last document of a row
    bos: int | None = None  # opens a document; None: nothing does
    eos: int | None = None  # closes a document and fills its last block
    fim_prefix: int | None = None  # fill in the middle: what stands before the hole
    fim_suffix: int | None = None  # the text after it
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
    """A tokenizer, as the rest of seedjax uses it."""

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
