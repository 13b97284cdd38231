"""What all sources of sequences share: parts of them, mixtures, filled blocks."""

import grain
import numpy as np
import pytest

from seedjax.data.batching import (
    Batching,
    fill_block,
    mix_sequences,
    pack_batches,
    read_sequences,
)
from seedjax.errors import InputError


class Numbered:
    """Sequences of one block, each of its own number."""

    def __init__(self, count: int, first: int):
        self._count, self._first = count, first

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        tokens = np.full(4, self._first + index, np.int32)
        return {"tokens": tokens, "supervised": np.ones(4, bool)}


def numbers(sequences) -> list[int]:
    return [int(sequences[index]["tokens"][0]) for index in range(len(sequences))]


def test_blocks_are_filled():
    tokens = np.array([5, 6, 7], np.int32)
    assert fill_block(tokens, 3, 4).tolist() == [5, 6, 7, 3]
    assert fill_block(tokens[:2], 3, 2).tolist() == [5, 6]


def test_processes_share_a_source_out():
    parts = [numbers(read_sequences(Numbered(7, 0), i, 3)) for i in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    for index, count in ((3, 3), (-1, 1)):
        with pytest.raises(InputError, match="shard"):
            read_sequences(Numbered(7, 0), index, count)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
def test_mixtures_keep_their_rate(rate):
    first, second = (
        read_sequences(Numbered(400, start), 0, 1) for start in (100, 1000)
    )
    mixed = numbers(mix_sequences(first, second, rate))[:200]
    assert abs(sum(number >= 1000 for number in mixed) - 200 * rate) <= 1
    assert len(set(mixed)) == 200
    assert [n for n in mixed if n < 1000] == sorted(n for n in mixed if n < 1000)


def test_a_short_batch_is_filled_with_padding(tokenizer):
    config = Batching(sequence_length=8, batch_size=3, block_size=4, prefetch=0)
    sequences = read_sequences(Numbered(5, 20), 0, 1)
    (batch,) = pack_batches(sequences, config, tokenizer, shuffle=False)
    assert batch["tokens"].shape == (3, 8)
    assert batch["segments"].tolist() == [[1] * 4 + [2] * 4] * 2 + [[1] * 4 + [0] * 4]
    assert (batch["tokens"][2, 4:] == tokenizer.special.pad).all()
    assert isinstance(sequences, grain.MapDataset)
