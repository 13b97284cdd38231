"""Training on the lab: tasks straight from the generator, through Grain, no files.

    index ─▶ task ─▶ <bos> prompt │ answer <eos> <eos> ...        packed into rows
                          given   │ supervised

Sample number i is a function of the seed and of i alone, so an iterator is resumed from
its position, and two runs with the same recipe see the same samples in the same order.
"""

import dataclasses
import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from seedjax.checkpoints.model_directory import resolve_model
from seedjax.config import require
from seedjax.data.batching import (
    Batches,
    Batching,
    Rows,
    fill_block,
    mix_sequences,
    pack_batches,
    read_sequences,
)
from seedjax.data.pipeline import DataConfig, make_sequences
from seedjax.data.records import Split
from seedjax.errors import InputError
from seedjax.tasks.lab.everyday.draw import draw_everyday
from seedjax.tasks.lab.tasks import TASKS, TIERS, Task, make_task
from seedjax.tasks.suite import asked_in_chat, chat_prompt
from seedjax.text.huggingface_files import HUGGING_FACE_FILE
from seedjax.text.loading import load_tokenizer
from seedjax.text.prompts import continuation, edit_request, editing, infilling
from seedjax.text.sentencepiece import MODEL_FILE
from seedjax.text.tokenizer import Tokenizer

NUM_SAMPLES = 1 << 40  # of an epoch: more than anyone trains on
MOST_TRIES = 1000  # tasks drawn for a sample that fits a row


@dataclass(frozen=True, kw_only=True)
class LabConfig(Batching):
    """How the lab becomes batches. Prompts are given; answers are the targets, with EOS
    up to the end of their last block and none after it."""

    vocabulary: str = "mini"  # whose tokenizer: a model's, or a tokenizer's directory
    seed: int = 1  # of the tasks
    generate: float = 0.3  # weights of the four tasks
    infill: float = 0.2
    repair: float = 0.35
    edit: float = 0.15
    tiers: tuple[float, ...] = (0.3, 0.35, 0.35)  # weights of the tiers from 1
    names: float = 0.0  # share of samples whose names are external to the lab
    everyday: float = 0.0  # share of samples that are everyday code, not the lab's
    truncate: float = 0.0  # share of samples that end after a random block
    order: Literal["", "left"] = ""  # of answers, for ConstrainedOrder: token by token
    corpus: str = ""  # a corpus to mix in, made with the same tokenizer
    corpus_rate: float = 0.0  # share of sequences that come from it

    def __post_init__(self):
        super().__post_init__()
        for name in TASKS:
            require(getattr(self, name) >= 0, self, name, "0 or more")
        require(sum(self.weights) > 0, self, "generate", "above 0, or another task")
        fitting = len(self.tiers) == len(TIERS) and min(self.tiers) >= 0
        require(fitting and any(self.tiers), self, "tiers", "three weights, not all 0")
        require(0.0 <= self.names <= 1.0, self, "names", "in [0, 1]")
        require(0.0 <= self.everyday <= 1.0, self, "everyday", "in [0, 1]")
        require(0.0 <= self.truncate <= 1.0, self, "truncate", "in [0, 1]")
        require(0.0 <= self.corpus_rate < 1.0, self, "corpus_rate", "in [0, 1)")
        named = bool(self.corpus) or not self.corpus_rate
        require(named, self, "corpus", "a corpus's folder where corpus_rate is above 0")

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the four tasks."""
        return tuple(getattr(self, name) for name in TASKS)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that `vocabulary` names."""
        return load_vocabulary(self.vocabulary)

    def describe(self) -> str:
        """The data in words, for the card of a model."""
        lab = "verifiable tasks of the lab"
        if self.everyday:
            lab += f", {self.everyday:.0%} of them everyday code"
        if not self.corpus_rate:
            return lab
        return f"{lab}, and {self.corpus_rate:.0%} {self._corpus().describe()}"

    def batches(
        self,
        split: Split = "train",
        *,
        shard: int = 0,
        num_shards: int = 1,
        num_epochs: int | None = None,
    ) -> Batches:
        """The batches of one shard, without end. The split "heldout" is of the lab's
        test split, whole and without a corpus.

        Raises:
          InputError: if there is no such vocabulary or corpus, or the corpus was made
            with another tokenizer.
        """
        del num_epochs
        config = self
        if split == "heldout":
            config = dataclasses.replace(self, truncate=0.0, corpus_rate=0.0, names=0.0)
        samples = read_sequences(Samples(config, split), shard, num_shards)
        if config.corpus_rate:
            corpus = self._corpus()
            if corpus.tokenizer().fingerprint != self.tokenizer().fingerprint:
                raise InputError(
                    f"{self.corpus} was tokenized with another tokenizer than "
                    f"{self.vocabulary!r}; build it with `seedjax data build "
                    "--tokenizer DIR`"
                )
            pieces = make_sequences(
                corpus,
                split="train",
                shard=shard,
                num_shards=num_shards,
                num_epochs=None,
            )
            if config.order:
                pieces = pieces.map(with_order)
            samples = mix_sequences(samples, pieces, config.corpus_rate)
        return pack_batches(
            samples,
            config,
            config.tokenizer(),
            shuffle=split == "train",
            ordered=bool(config.order),
            num_shards=num_shards,
        )

    def _corpus(self) -> DataConfig:
        shared = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Batching)
        }
        return DataConfig(corpus=self.corpus, **shared)


@functools.cache
def load_vocabulary(vocabulary: str) -> Tokenizer:
    """The tokenizer of a model, by its name or directory, or in a folder."""
    files = (MODEL_FILE, HUGGING_FACE_FILE)
    if any((Path(vocabulary) / file).exists() for file in files):
        return load_tokenizer(vocabulary)
    return load_tokenizer(resolve_model(vocabulary) / "tokenizer")


class Samples:
    """The lab's tasks as token sequences, each readable alone; those longer than a row
    are passed over."""

    def __init__(self, config: LabConfig, split: Split):
        self._config, self._split = config, split
        self._tokenizer = config.tokenizer()

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> Rows:
        config = self._config
        rng = random.Random(f"{config.seed}/{self._split}/{index}")
        for _ in range(MOST_TRIES):
            task = draw_sample(config, rng, self._split)
            sample = encode_task(task, self._tokenizer, config.block_size)
            if config.order:
                sample = with_order(sample)
            if rng.random() < config.truncate:
                sample = truncate(sample, rng, config.block_size)
            if len(sample["tokens"]) <= config.sequence_length:
                return sample
        raise InputError(
            f"sequence_length is {config.sequence_length}, too short for the lab's "
            "tasks; give at least 256"
        )


def draw_sample(config: LabConfig, rng: random.Random, split: Split) -> Task:
    """A task to train on, of the lab's or of everyday code, without tests."""
    if config.everyday and rng.random() < config.everyday:
        return draw_everyday(
            rng,
            "test" if split == "heldout" else "train",
            config.weights,
            external=config.names,
        )
    return draw_task(config, rng, split, num_tests=0)


def draw_task(
    config: LabConfig, rng: random.Random, split: Split, *, num_tests: int
) -> Task:
    """A task of the kinds and tiers that a recipe mixes, with so many tests; "heldout"
    is the lab's test split."""
    external = bool(config.names) and rng.random() < config.names
    return make_task(
        rng.choices(TASKS, config.weights)[0],
        rng.getrandbits(40),
        split="test" if split == "heldout" else "train",
        tier=rng.choices(TIERS, config.tiers)[0],
        seed=config.seed,
        part="names" if external else "standard",
        num_tests=num_tests,
    )


def task_prompt(task: Task, tokenizer: Tokenizer) -> list[int]:
    """The prompt of a task, in tokens: in the model's chat template if the task has a
    question and the model a template, as `seedjax eval` does.

    Raises:
      InputError: if the task has nothing that the model takes.
    """
    special = tokenizer.special
    if asked_in_chat(task, tokenizer):
        return chat_prompt(task, tokenizer)
    if not (task.prompt or task.suffix or task.before):
        raise InputError(
            f"problem {task.problem_id} is a question, and the model has no chat "
            "template; give the problem a prompt to continue"
        )
    if task.task == "infill":
        before, after = tokenizer.encode_batch([task.prompt, task.suffix])
        return infilling(before, after, special, tokenizer.infill_order)
    if task.before:
        request = edit_request(task.before, task.instruction)
        return editing(tokenizer.encode(request), special)
    return continuation(tokenizer.encode(task.prompt), special)


def encode_task(task: Task, tokenizer: Tokenizer, block_size: int) -> Rows:
    """The sequence of a task: the prompt, which is given, and the answer."""
    prompt = task_prompt(task, tokenizer)
    eos = tokenizer.special.require("eos", "close an answer")
    whole = [*prompt, *tokenizer.encode(task.reference), eos]
    tokens = fill_block(np.array(whole, np.int32), eos, block_size)
    return {"tokens": tokens, "supervised": np.arange(len(tokens)) >= len(prompt)}


def from_the_left(supervised: np.ndarray) -> np.ndarray:
    """The order in which `LeftToRight` unmasks a completion, one token a
    step; -1 for what is given, as in recorded decodes."""
    return np.where(supervised, np.cumsum(supervised) - 1, -1).astype(np.int32)


def with_order(sample: Rows) -> Rows:
    """A sample with its supervised positions in order, from the left."""
    return {**sample, "order": from_the_left(sample["supervised"])}


def truncate(sample: Rows, rng: random.Random, block_size: int) -> Rows:
    """A sample up to the end of one of the blocks that hold its answer.

    A model that sees both ways learns from whole answers how many blocks are to come.
    While it writes block by block, none are there yet; samples that break off teach it
    not to end for that.
    """
    first = int(np.argmax(sample["supervised"])) // block_size
    last = len(sample["tokens"]) // block_size
    stop = rng.randrange(first + 1, last + 1) * block_size
    return {name: values[:stop] for name, values in sample.items()}
