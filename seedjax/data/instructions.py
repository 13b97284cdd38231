"""Supervised fine-tuning: a user's prompts and responses as training batches.

    row  ─▶  <|im_start|>user⏎ ... assistant⏎ | response <|im_end|> eos eos
             given, never corrupted             supervised, up to the block's end

The tokens of a row are those of the model's chat template, or prompt and response as
they are. EOS fills the response's last block and is supervised as text is. Rows are
split into training and held-out ones by their prompt, so that no prompt is on both
sides; repeated rows and rows that share text with a public evaluation set are left out.
Packing and its promises are those of `batching`: no row of a batch attends across the
rows of the file that are packed in it.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import grain
import numpy as np

from seedjax.config import require
from seedjax.data.batching import (
    Batches,
    Batching,
    Rows,
    check_shard,
    fill_block,
    pack_batches,
)
from seedjax.data.conversations import Conversation, read_conversations
from seedjax.data.decontaminate import shipped_contamination
from seedjax.data.fingerprints import hash_words
from seedjax.data.records import Split
from seedjax.errors import InputError
from seedjax.text.huggingface import HuggingFaceTokenizer
from seedjax.text.loading import load_tokenizer
from seedjax.text.tokenizer import Tokenizer

HELDOUT_BUCKETS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class InstructionConfig(Batching):
    """How prompts and responses become batches in which responses are supervised."""

    path: str = "instructions.jsonl"  # JSON lines or Parquet
    vocabulary: str = ""  # folder of the tokenizer; empty: of the model to start from
    prompt_field: str = "prompt"
    response_field: str = "response"
    messages_field: str = "messages"  # a conversation; goes before the other two
    layout: Literal["template", "plain"] = "template"  # the chat template, or as is
    turns: Literal["every", "last"] = "every"  # assistant's turns that are supervised
    too_long: Literal["cut", "drop"] = "cut"  # cut: at a row's end, without an EOS
    heldout_fraction: float = 0.05  # share of prompts that are kept out of training
    decontaminate: bool = True  # leave out what shares text with an evaluation set
    skip_invalid: bool = False  # pass over malformed rows instead of refusing the file

    def __post_init__(self):
        super().__post_init__()
        require(self.path != "", self, "path", "a file of prompts and responses")
        require(
            0.0 <= self.heldout_fraction < 1.0, self, "heldout_fraction", "in [0, 1)"
        )

    def tokenizer(self) -> Tokenizer:
        """The tokenizer in the folder `vocabulary`.

        Raises:
          InputError: if there is none.
        """
        if not self.vocabulary:
            raise InputError(
                "InstructionConfig.vocabulary is empty; start from a model "
                "(--init-from), whose tokenizer it then is, or name a tokenizer's "
                "folder"
            )
        return _load_tokenizer(self.vocabulary)

    def describe(self) -> str:
        """The name of the data, for the card of a model."""
        return f"the instructions in {Path(self.path).name}"

    def batches(
        self,
        split: Split = "train",
        *,
        shard: int = 0,
        num_shards: int = 1,
        num_epochs: int | None = None,
    ) -> Batches:
        """The batches of one shard; shard i has the rows i, i + num_shards... of a
        split. The training split is shuffled by `shuffle_seed`.

        Raises:
          InputError: if the file cannot be read, or a shard has no row that fits.
        """
        check_shard(shard, num_shards)
        sequences_of = prepare(self).sequences
        least: dict[Split, int] = {"train": 1, "heldout": 1, split: shard + 1}
        for name, count in least.items():
            if (found := len(sequences_of[name])) < count:
                raise InputError(
                    f"{self.path} leaves {found} {name} rows, too few for {num_shards} "
                    "shards; see `seedjax data show` for what is left out, and give "
                    "more rows, a larger heldout_fraction or sequence_length, or fewer "
                    "data.shards"
                )
        rows = sequences_of[split][shard::num_shards]
        sequences = grain.MapDataset.source(rows).seed(self.shuffle_seed)
        if split == "train":
            sequences = sequences.shuffle()
        return pack_batches(
            sequences.repeat(num_epochs),
            self,
            self.tokenizer(),
            shuffle=split == "train",
            num_shards=num_shards,
        )


@functools.lru_cache(maxsize=4)
def _load_tokenizer(vocabulary: str) -> Tokenizer:
    return load_tokenizer(vocabulary)


class Prepared(NamedTuple):
    """A file of instructions under a recipe.

    Attributes:
      sequences: what the packer takes, by split.
      rows: rows of the file, those that are left out included.
      invalid: number and reason of each row that is no conversation, or none that the
        layout takes.
      doubled: rows that repeat another one.
      contaminated: rows that share text with an evaluation set.
      cut: rows whose end is cut off.
      dropped: rows that are too long and left out.
      prompt_lengths: tokens that are given, of each valid row, int64 [N].
      response_lengths: supervised tokens, of each valid row, int64 [N].
    """

    sequences: dict[Split, list[Rows]]
    rows: int
    invalid: list[tuple[int, str]]
    doubled: int
    contaminated: int
    cut: int
    dropped: int
    prompt_lengths: np.ndarray
    response_lengths: np.ndarray

    def __str__(self) -> str:
        """The counts in a line, without those that are 0."""
        counts = {
            "to train on": len(self.sequences["train"]),
            "held out": len(self.sequences["heldout"]),
            "cut": self.cut,
            "malformed": len(self.invalid),
            "repeated": self.doubled,
            "of evaluation sets": self.contaminated,
            "too long": self.dropped,
        }
        shown = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        return f"{self.rows} rows: {shown}"


def prepare(config: InstructionConfig) -> Prepared:
    """Reads, selects and encodes the rows of the recipe's file. What was prepared last
    is kept.

    Raises:
      InputError: as `read_conversations` does; for a row that does not go with the
        layout, unless such rows are passed over.
    """
    path = Path(config.path).expanduser()
    stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
    return _prepare(config, stamp)


@functools.lru_cache(maxsize=2)
def _prepare(config: InstructionConfig, stamp: object) -> Prepared:
    """`prepare` of a file in the state of a stamp."""
    del stamp
    own = config.tokenizer()
    found = read_conversations(
        config.path,
        prompt_field=config.prompt_field,
        response_field=config.response_field,
        messages_field=config.messages_field,
        skip_invalid=config.skip_invalid,
    )
    once = list({row.key: row for row in reversed(found.rows)}.values())[::-1]
    kept = once
    if config.decontaminate:
        texts = [f"{row.prompt}\n{row.response}" for row in once]
        hits = shipped_contamination().hits(hash_words(texts))
        kept = [row for row, hit in zip(once, hits, strict=True) if not hit]

    sequences: dict[Split, list[Rows]] = {"train": [], "heldout": []}
    invalid, lengths = list(found.invalid), []
    cut = dropped = 0
    for row in kept:
        try:
            encoded = encode_row(row, config, own)
        except InputError as error:
            if not config.skip_invalid:
                raise InputError(f"{config.path}:{row.number}: {error}") from error
            invalid.append((row.number, str(error)))
            continue
        responses = int(encoded.supervised.sum())
        lengths.append((len(encoded.tokens) - responses, responses))
        sequence = training_sequence(encoded, config, own)
        if sequence is None:
            dropped += 1
            continue
        cut += len(encoded.tokens) > config.sequence_length
        bucket = int.from_bytes(row.prompt_key[:2]) / HELDOUT_BUCKETS
        held_out = bucket < config.heldout_fraction
        sequences["heldout" if held_out else "train"].append(sequence)
    prompts, answers = np.array(lengths, np.int64).reshape(-1, 2).T
    return Prepared(
        sequences,
        rows=len(found.rows) + len(found.invalid),
        invalid=invalid,
        doubled=len(found.rows) - len(once),
        contaminated=len(once) - len(kept),
        cut=cut,
        dropped=dropped,
        prompt_lengths=prompts,
        response_lengths=answers,
    )


class Encoded(NamedTuple):
    """A conversation in tokens, up to its last end of a turn.

    Attributes:
      tokens: int32 [L].
      supervised: which of them are the assistant's, bool [L].
    """

    tokens: np.ndarray
    supervised: np.ndarray


def encode_row(row: Conversation, config: InstructionConfig, own: Tokenizer) -> Encoded:
    """The tokens of a conversation, whole.

    Raises:
      InputError: if it does not go with the layout.
    """
    if config.layout == "plain":
        return _plain(row, own)
    return _templated(row.messages, own, config.turns)


def training_sequence(
    encoded: Encoded, config: InstructionConfig, own: Tokenizer
) -> Rows | None:
    """An element for the packer: tokens up to the end of their last block. None for a
    row that is too long and is to be dropped, or of whose response nothing is left."""
    tokens, supervised = encoded
    if len(tokens) > config.sequence_length and config.too_long == "drop":
        return None
    tokens = tokens[: config.sequence_length]
    supervised = supervised[: config.sequence_length]
    if not supervised.any():
        return None
    eos = own.special.require("eos", "close a response")
    filled = fill_block(tokens, eos, config.block_size)
    more = len(filled) - len(tokens)
    return {"tokens": filled, "supervised": np.pad(supervised, (0, more), mode="edge")}


def _plain(row: Conversation, own: Tokenizer) -> Encoded:
    """BOS where the tokenizer has it, the prompt, the response, one EOS."""
    if len(row.messages) != 2:
        raise InputError(
            f"a conversation of {len(row.messages)} messages has no plain layout; use "
            "layout=template with a model that has a chat template"
        )
    bos = own.special.bos
    given = [] if bos is None else [bos]
    prompt, response = own.encode_batch([row.prompt, row.response])
    given += prompt
    answer = [*response, own.special.require("eos", "close a response")]
    return Encoded(
        np.array([*given, *answer], np.int32),
        np.arange(len(given) + len(answer)) >= len(given),
    )


def _templated(
    messages: Sequence, own: Tokenizer, turns: Literal["every", "last"]
) -> Encoded:
    """A conversation in the model's chat template, cut after the end of its last turn.
    A supervised turn goes from what the template opens it with to the token that ends
    it."""
    try:
        whole = own.encode_chat(messages, add_generation_prompt=False)
    except InputError as error:
        raise InputError(f"{error} (or set layout=plain)") from None
    ends = set(_end_tokens(own))
    supervised = np.zeros(len(whole) + 1, bool)
    last = len(messages) - 1
    stop = 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant" or (turns == "last" and number < last):
            continue
        opened = own.encode_chat(messages[:number], add_generation_prompt=True)
        closed = (
            whole
            if number == last
            else own.encode_chat(messages[: number + 1], add_generation_prompt=False)
        )
        start, stop = _common(opened, whole), _common(closed, whole)
        # A tokenizer may join the last character of the opening with the first of the
        # response. More than one token apart, the template has changed earlier turns.
        if max(len(opened) - start, len(closed) - stop) > 1:
            raise InputError(
                f"the chat template writes the conversation up to message {number + 1} "
                "otherwise once it goes on; set turns=last, or split it into one row "
                "per response"
            )
        found = [i for i in range(start, stop) if whole[i] in ends]
        stop = found[-1] + 1 if found else stop
        supervised[start:stop] = True
    tokens = np.array([*whole[:stop]], np.int32)
    supervised = supervised[:stop]
    if not len(tokens) or tokens[-1] not in ends:
        eos = own.special.require("eos", "close a response")
        tokens, supervised = np.append(tokens, eos), np.append(supervised, True)
    return Encoded(tokens.astype(np.int32), supervised)


def _end_tokens(own: Tokenizer) -> tuple[int, ...]:
    """The ids that end a turn or a text."""
    special = (own.special.eos, own.special.end_of_turn)
    ends = own.eos_token_ids if isinstance(own, HuggingFaceTokenizer) else ()
    return (*ends, *(token for token in special if token is not None))


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning of two sequences."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(np.array(first[:length]) != np.array(second[:length]))
    return int(differ[0]) if len(differ) else length
