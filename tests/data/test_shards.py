"""One position in the data, whatever number of processes reads it."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from seedjax.data.batching import Batching
from seedjax.data.shards import ShardedBatches
from seedjax.errors import InputError

BATCH = 8


class Numbered:
    """Batches of one shard of the numbers 0, 1, 2, ..."""

    def __init__(self, shard: int, num_shards: int):
        self.shard, self.num_shards, self.place = shard, num_shards, 0
        self.rows = BATCH // num_shards

    def __iter__(self):
        return self

    def __next__(self):
        numbers = np.arange(self.rows) + self.place * self.rows
        self.place += 1
        ids = numbers * self.num_shards + self.shard
        return {"tokens": ids[:, None], "bytes": ids}

    def get_state(self):
        return {"place": self.place}

    def set_state(self, state):
        self.place = state["place"]

    def close(self):
        pass


def open_all(num_shards: int, rows: list[list[int]]) -> list[ShardedBatches]:
    """What each process opens."""
    return [
        ShardedBatches(
            lambda shard: Numbered(shard, num_shards),
            batch_size=BATCH,
            num_shards=num_shards,
            rows=rows,
            process=process,
        )
        for process in range(len(rows))
    ]


def take(processes: list[ShardedBatches], count: int) -> np.ndarray:
    """The ids of whole batches [count, B], put together by the numbers of the rows."""
    batches = np.full((count, BATCH), -1)
    for batch in batches:
        for process in processes:
            local = next(process)
            np.testing.assert_array_equal(local["tokens"][:, 0], local["bytes"])
            seen = batch[process.rows]
            assert np.all((seen == -1) | (seen == local["bytes"]))
            batch[process.rows] = local["bytes"]
    return batches


@dataclass
class Made:
    """A directory of Orbax that is being made."""

    path: Path

    async def await_creation(self) -> Path:
        return self.path


async def save(process: ShardedBatches, path: Path) -> None:
    await (await process.save(Made(path)))


async def load(process: ShardedBatches, path: Path) -> None:
    await (await process.load(path))


LAYOUTS = {
    "one": [[*range(8)]],
    "two": [[0, 1, 2, 3], [4, 5, 6, 7]],
    "four": [[0, 1], [2, 3], [4, 5], [6, 7]],
    "apart": [[0, 4], [1, 5], [2, 6], [3, 7]],
    "the same": [[*range(8)], [*range(8)]],
    "overlapping": [[0, 1, 2], [0, 1, 2], [3, 4, 5, 6, 7]],
}


@pytest.mark.parametrize("num_shards", [1, 2, 4, 8])
def test_any_processes_read_the_same_batches_and_go_on_with_them(tmp_path, num_shards):
    whole = take(open_all(num_shards, LAYOUTS["one"]), 7)
    assert sorted(whole.flat) == list(range(7 * BATCH))  # none lost, none twice
    for name, rows in LAYOUTS.items():
        processes = open_all(num_shards, rows)
        np.testing.assert_array_equal(take(processes, 3), whole[:3])
        place = tmp_path / name
        place.mkdir()
        for process in processes:
            asyncio.run(save(process, place))
        assert len(list(place.iterdir())) == num_shards
        for other in LAYOUTS.values():
            resumed = open_all(num_shards, other)
            for process in resumed:
                asyncio.run(load(process, place))
            np.testing.assert_array_equal(take(resumed, 4), whole[3:])


def test_a_process_opens_the_shards_of_its_rows_only():
    opened = []
    ShardedBatches(
        lambda shard: opened.append(shard) or Numbered(shard, 4),
        batch_size=BATCH,
        num_shards=4,
        rows=LAYOUTS["two"],
        process=1,
    )
    assert opened == [2, 3]


def test_shards_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(InputError, match="shards is 3; it must be a divisor of batch"):
        Batching(batch_size=8, shards=3)
