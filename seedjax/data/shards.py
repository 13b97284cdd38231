"""One position in the data for all processes, however many there are.

    shards      0   1   2   3      streams of rows; the recipe says how many
    a batch    [0 1|2 3|4 5|6 7]   its rows: the next ones of every shard
    process 0  [0 1|2 3]           reads the shards of the rows that its devices hold

Which rows a batch has follows from the recipe alone. A checkpoint holds the position of
each shard in a file of its own, so a run goes on with the very next rows on any number
of processes. A process that holds a part of a shard's rows reads the shard whole: fewer
shards than processes are read several times over, and more of them save nothing.

No JAX: which rows a process holds is an argument.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from seedjax.data.batching import Batches, Rows


class ShardedBatches:
    """The rows of one process, batch after batch, without end.

    Orbax saves and restores it as it does an iterator of Grain: each shard's position
    is written by the first process that reads it.
    """

    def __init__(
        self,
        open_shard: Callable[[int], Batches],
        *,
        batch_size: int,
        num_shards: int = 1,
        rows: Sequence[Sequence[int]] | None = None,
        process: int = 0,
    ):
        """Opens the shards that the process reads.

        Args:
          open_shard: gives the batches of a shard, `batch_size / num_shards` rows each.
          batch_size: rows of a whole batch.
          num_shards: how many shards there are.
          rows: the numbers of the rows that each process holds, ascending; None for one
            process that holds all.
          process: which of them this is.
        """
        self._share = batch_size // num_shards
        self._num_shards = num_shards
        held = [range(batch_size)] if rows is None else rows
        shards = [sorted({row // self._share for row in each}) for each in held]
        self.rows = np.array(held[process])
        """Numbers of the rows that a batch of this process has."""
        self._read = shards[process]
        earlier = {shard for each in shards[:process] for shard in each}
        self._written = [shard for shard in self._read if shard not in earlier]
        first = np.searchsorted(self._read, self.rows // self._share) * self._share
        self._kept = first + self.rows % self._share
        self._iterators = [iter(open_shard(shard)) for shard in self._read]

    def __iter__(self) -> "ShardedBatches":
        return self

    def __next__(self) -> Rows:
        parts = [next(iterator) for iterator in self._iterators]
        if len(parts) == 1 and len(self._kept) == self._share:
            return parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])[self._kept]
            for name in parts[0]
        }

    def get_state(self) -> dict[str, Any]:
        """The positions of the shards that this process reads, by file name."""
        states = [iterator.get_state() for iterator in self._iterators]
        return dict(zip(map(self._name, self._read), states, strict=True))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the positions that `get_state` gave."""
        for shard, iterator in zip(self._read, self._iterators, strict=True):
            iterator.set_state(state[self._name(shard)])

    async def save(self, directory: Any) -> Awaitable[None]:
        """Writes the positions into a directory of Orbax that is being made."""
        state = self.get_state()
        names = map(self._name, self._written)
        return _write(directory, {name: json.dumps(state[name]) for name in names})

    async def load(self, directory: Any) -> Awaitable[None]:
        """Goes to the positions in a directory of Orbax."""
        return self._load(directory)

    async def _load(self, directory: Any) -> None:
        names = map(self._name, self._read)
        self.set_state({n: json.loads((directory / n).read_bytes()) for n in names})

    def close(self) -> None:
        """Lets go of threads and worker processes."""
        for iterator in self._iterators:
            iterator.close()

    def _name(self, shard: int) -> str:
        return f"shard-{shard:05d}-of-{self._num_shards:05d}.json"


async def _write(directory: Any, texts: Mapping[str, str]) -> None:
    place = await directory.await_creation()
    for name, text in texts.items():
        (place / name).write_bytes(text.encode())
