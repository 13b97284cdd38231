"""Recorded decodes on disk, and how they become training batches.

    manifest.json            what they were made with and by, and how many
    tokenizer/               what the token ids mean
    part-00000.arrayrecord   trajectories, one a record

A trajectory is a prompt, a completion, and the step that unmasked each of its tokens:
all the states of the decode follow from that. Parts are written one by one, so
that recording can be cut off and continued.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import grain
import msgpack
import numpy as np
from array_record.python import array_record_module

from seedjax.config import from_dict, require, to_dict
from seedjax.data.batching import (
    Batches,
    Batching,
    Rows,
    check_shard,
    pack_batches,
)
from seedjax.data.records import (
    MANIFEST,
    MOST_COUNTED,
    WRITER_OPTIONS,
    RecordReader,
    Split,
    unpack_ids,
    unpack_record,
)
from seedjax.data.sources import file_digest
from seedjax.errors import InputError
from seedjax.files.text import brief, is_file_name, read_json_object, write_json
from seedjax.text.loading import load_tokenizer
from seedjax.text.tokenizer import Tokenizer

FORMAT = 1
HELDOUT_EVERY = 32  # of so many prompts, one is held out


class Trajectory(NamedTuple):
    """One record.

    Attributes:
      sample: number of the prompt, from 0.
      prompt: its ids, int32 [p].
      answer: the ids after it, EOS up to the end of its last block, int32 [a].
      order: the step, from 0, in which each was unmasked, int32 [a].
      log_likelihood: in nats, of the answer unmasked in this order: each token's given
        the tokens unmasked before its step. NaN for an answer that was not decoded.
      passed: whether a verifier accepted the answer; None if there was none.
    """

    sample: int
    prompt: np.ndarray
    answer: np.ndarray
    order: np.ndarray
    log_likelihood: float
    passed: bool | None

    @property
    def num_steps(self) -> int:
        """Steps of the decode in which anything was unmasked."""
        return len(np.unique(self.order))


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of trajectories."""

    file: str
    sha256: str
    trajectories: int
    prompts: int  # that were decoded for it; those whose answers were refused too

    def __post_init__(self):
        require(is_file_name(self.file), self, "file", "a name in the folder")
        for name in ("trajectories", "prompts"):
            value = getattr(self, name)
            require(0 <= value <= MOST_COUNTED, self, name, f"0 to {MOST_COUNTED}")


@dataclass(frozen=True, kw_only=True)
class TrajectoryManifest:
    """The manifest of recorded decodes."""

    model: str  # digest of the weights that decoded
    tokenizer: str  # fingerprint
    block_size: int
    settings: str  # how they were made, as JSON
    parts: tuple[Part, ...] = ()
    format: int = FORMAT

    @property
    def prompts(self) -> int:
        return sum(part.prompts for part in self.parts)

    @property
    def trajectories(self) -> int:
        return sum(part.trajectories for part in self.parts)


def pack_trajectory(trajectory: Trajectory) -> bytes:
    """A trajectory as the bytes of a record."""
    values = trajectory._asdict()
    for name in ("prompt", "answer", "order"):
        values[name] = values[name].astype("<i4").tobytes()
    return msgpack.packb(values)


def unpack_trajectory(record: bytes) -> Trajectory:
    """The trajectory in the bytes of a record.

    Raises:
      InputError: for damaged bytes.
    """
    arrays = dict.fromkeys(("prompt", "answer", "order"), bytes)
    values = unpack_record(record, arrays | {"sample": int, "passed": bool | None})
    ids = {name: unpack_ids(values[name], "<i4") for name in arrays}
    likelihood = values.get("log_likelihood")
    if not isinstance(likelihood, float):  # NaN of an answer that was not decoded
        raise InputError(f"a record has the log_likelihood {brief(likelihood)}")
    if len(ids["answer"]) != len(ids["order"]):
        raise InputError("a record is damaged (lengths differ); make the data again")
    return Trajectory(
        **ids,
        sample=values["sample"],
        log_likelihood=likelihood,
        passed=values.get("passed"),
    )


def read_manifest(directory: str | Path) -> TrajectoryManifest:
    """The manifest of recorded decodes.

    Raises:
      InputError: if there is none, or none that can be read.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise InputError(
            f"no trajectories at {directory}: {MANIFEST} is missing; record some with "
            "`seedjax posttrain trajectories`"
        )
    values = read_json_object(path)
    if values.get("format") != FORMAT:
        raise InputError(
            f"{path} is of another format than {FORMAT}; record the trajectories again"
        )
    return from_dict(TrajectoryManifest, values, str(path))


class TrajectoryWriter:
    """Adds parts to a folder of trajectories."""

    def __init__(
        self,
        directory: str | Path,
        manifest: TrajectoryManifest,
        tokenizer: Tokenizer,
    ):
        """Begins a folder, or goes on with one that was made in the same way.

        Raises:
          InputError: if the folder holds trajectories that were not.
        """
        self.directory = Path(directory)
        if (self.directory / MANIFEST).exists():
            found = read_manifest(directory)
            for name in ("model", "tokenizer", "block_size", "settings"):
                if getattr(found, name) != getattr(manifest, name):
                    raise InputError(
                        f"{directory} holds trajectories of another {name}; choose "
                        "another folder, or delete it"
                    )
            self.manifest = found
            return
        (self.directory / "tokenizer").mkdir(parents=True, exist_ok=True)
        tokenizer.save(self.directory / "tokenizer")
        self._replace(manifest)

    def write(self, trajectories: Iterable[Trajectory], prompts: int) -> None:
        """Writes a part, for `prompts` further prompts. It counts once it is whole."""
        name = f"part-{len(self.manifest.parts):05d}.arrayrecord"
        path, count = self.directory / name, 0
        writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
        for trajectory in trajectories:
            writer.write(pack_trajectory(trajectory))
            count += 1
        writer.close()
        part = Part(
            file=name, sha256=file_digest(path), trajectories=count, prompts=prompts
        )
        self._replace(replace(self.manifest, parts=(*self.manifest.parts, part)))

    def _replace(self, manifest: TrajectoryManifest) -> None:
        self.manifest = manifest
        write_json(self.directory / MANIFEST, to_dict(manifest), indent=1)


class Trajectories:
    """Recorded decodes opened for reading, each readable alone."""

    def __init__(self, directory: str | Path):
        """Raises:
        InputError: if there are none, or a file is missing or damaged.
        """
        self.directory = Path(directory)
        self.manifest = read_manifest(directory)
        parts = [part for part in self.manifest.parts if part.trajectories]
        for part in parts:
            path = self.directory / part.file
            if not path.is_file() or file_digest(path) != part.sha256:
                raise InputError(
                    f"{path} is missing or damaged; record the trajectories again"
                )
        if not parts:
            raise InputError(
                f"{directory} holds no trajectories yet; record more of them"
            )
        self._records = RecordReader(
            [str(self.directory / part.file) for part in parts],
            [part.trajectories for part in parts],
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Trajectory:
        return unpack_trajectory(self._records[index])

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[index] for index in range(len(self)))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the token ids belong to.

        Raises:
          InputError: if another one lies there.
        """
        tokenizer = load_tokenizer(self.directory / "tokenizer")
        if tokenizer.fingerprint != self.manifest.tokenizer:
            raise InputError(
                f"{self.directory / 'tokenizer'} is not the tokenizer of these "
                "trajectories; record them again"
            )
        return tokenizer


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(Batching):
    """How recorded decodes become batches, in which only the answers are supervised."""

    path: str = "trajectories"  # folder that `seedjax posttrain trajectories` wrote
    passed_only: bool = False  # leave out answers that no verifier accepted
    any_model: bool = False  # train on decodes of another model than init_from

    def __post_init__(self):
        super().__post_init__()
        require(self.path != "", self, "path", "a folder of trajectories")

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the trajectories."""
        return Trajectories(self.path).tokenizer()

    def describe(self) -> str:
        """The data in words, for the card of a model."""
        return f"recorded decodes of {Path(self.path).name}"

    def check_model(self, digest: str) -> None:
        """Raises:
        InputError: if another model decoded than that with these weights.
        """
        if self.any_model or digest == read_manifest(self.path).model:
            return
        raise InputError(
            f"the trajectories in {self.path} are of another model than the one that "
            "training starts from; record its own, or set data.any_model=true"
        )

    def batches(
        self,
        split: Split = "train",
        *,
        shard: int = 0,
        num_shards: int = 1,
        num_epochs: int | None = None,
    ) -> Batches:
        """The batches of one shard; one prompt in 32 is held out, and of fewer prompts
        the first. A trajectory that is longer than a row is left out.

        Raises:
          InputError: if there are no trajectories, none of them is left, or blocks are
            of another size than the decodes'.
        """
        check_shard(shard, num_shards)
        source = Trajectories(self.path)
        size = source.manifest.block_size
        require(
            self.block_size == size,
            self,
            "block_size",
            f"{size}, with which the trajectories were recorded",
        )
        samples = {n: each.sample for n, each in enumerate(source) if self._takes(each)}
        held_out = {one for one in samples.values() if one % HELDOUT_EVERY == 0}
        held_out = held_out or {*sorted(samples.values())[:1]}
        chosen = [
            number
            for number, sample in samples.items()
            if (sample in held_out) == (split == "heldout")
        ]
        if len(chosen) <= shard:
            raise InputError(
                f"{self.path} has {len(chosen)} {split} trajectories of at most "
                f"{self.sequence_length} tokens, too few for {num_shards} "
                "shards; lower data.shards"
            )
        sequences = grain.MapDataset.source(chosen).seed(self.shuffle_seed)
        sequences = sequences[shard::num_shards]
        if split == "train":
            sequences = sequences.shuffle()
        sequences = sequences.repeat(num_epochs)
        return pack_batches(
            sequences.map(functools.partial(_sequence, source)),
            self,
            source.tokenizer(),
            shuffle=split == "train",
            ordered=True,
            num_shards=num_shards,
        )

    def _takes(self, trajectory: Trajectory) -> bool:
        length = len(trajectory.prompt) + len(trajectory.answer)
        fits = length <= self.sequence_length
        return fits and (bool(trajectory.passed) or not self.passed_only)


def _sequence(source: Trajectories, index: int) -> Rows:
    return training_sequence(source[index])


def training_sequence(trajectory: Trajectory) -> Rows:
    """The packer's input: prompt and completion, the completion supervised."""
    given = len(trajectory.prompt)
    tokens = np.concatenate([trajectory.prompt, trajectory.answer])
    order = np.concatenate([np.full(given, -1, np.int32), trajectory.order])
    return {
        "tokens": tokens.astype(np.int32),
        "supervised": np.arange(len(tokens)) >= given,
        "order": order.astype(np.int32),
    }
