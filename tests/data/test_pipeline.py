"""The pipeline: rows keep the promises that packing makes, and resume exactly."""

import itertools
from collections import Counter
from dataclasses import replace

import grain
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedjax.data.pipeline import (
    DataConfig,
    PieceSource,
    make_dataset,
    piece_bounds,
)
from seedjax.data.records import Corpus
from seedjax.errors import InputError
from seedjax.text.sentencepiece import train_tokenizer


@pytest.fixture
def config(corpus) -> DataConfig:
    return DataConfig(
        corpus=str(corpus),
        sequence_length=64,
        batch_size=8,
        block_size=16,
        fim_rate=0.5,
        packing_bins=32,
    )


def take(dataset, count: int) -> list[dict[str, np.ndarray]]:
    iterator = iter(dataset)
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def assert_equal(left, right) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def sequences(batches) -> list[np.ndarray]:
    """The token sequences of all documents and pieces in some batches."""
    found = []
    for batch in batches:
        for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True):
            for segment in range(1, int(segments.max(initial=0)) + 1):
                found.append(tokens[segments == segment])
    return found


@pytest.mark.representative("heldout")
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_rows_keep_their_promises(config, tokenizer, split):
    special, block = tokenizer.special, config.block_size
    batches = take(make_dataset(config, split=split, num_epochs=1), 10**6)
    assert len(batches) > 2
    for batch in batches:
        for name in ("tokens", "segments", "positions"):
            assert batch[name].shape == (8, 64) and batch[name].dtype == np.int32
        assert batch["supervised"].dtype == bool
        assert batch["bytes"].shape == (8,) and batch["bytes"].dtype == np.int32
        padding = batch["segments"] == 0
        given = padding | (batch["positions"] == 0)
        np.testing.assert_array_equal(batch["supervised"], ~given)
        assert (batch["tokens"][padding] == special.pad).all()
        assert not (batch["tokens"][~padding] == special.pad).any()
        assert not (batch["tokens"] == special.mask).any()
        lengths = tokenizer.byte_lengths[batch["tokens"]] * batch["supervised"]
        np.testing.assert_array_equal(batch["bytes"], lengths.sum(axis=1))
        for tokens, segments, positions in zip(
            batch["tokens"], batch["segments"], batch["positions"], strict=True
        ):
            count = int(segments.max(initial=0))
            starts = [int(np.argmax(segments == s)) for s in range(1, count + 1)]
            edges = [*starts, int((segments > 0).sum())]
            for segment, (start, end) in enumerate(itertools.pairwise(edges), 1):
                assert start % block == 0 == (end - start) % block
                assert (segments[start:end] == segment).all()
                assert positions[start:end].tolist() == list(range(end - start))
                check_eos(tokens[start:end], special.eos, special.bos, block)
            assert (segments[edges[-1] :] == 0).all()


def check_eos(tokens: np.ndarray, eos: int, bos: int, block: int) -> None:
    """EOS fills the end, and no more than one block; BOS stands only in front."""
    run = len(tokens) - len(np.trim_zeros(tokens != eos, "b"))
    assert (tokens == eos).sum() == run <= block
    assert not (tokens[1:] == bos).any()


def test_little_is_padding(config):
    batches = take(make_dataset(config), 30)
    filled = np.mean([batch["supervised"].mean() for batch in batches])
    assert filled > 0.93


def supervised_bytes(corpus, split) -> int:
    """Bytes of a split without the first token of each piece, which is given."""
    opened = Corpus(corpus)
    lengths = opened.tokenizer().byte_lengths
    source = PieceSource(opened, split, 64, 16)
    pieces = [p for p in map(source.__getitem__, range(len(source))) if p.start > 0]
    given = sum(int(lengths[p.document.tokens[p.start - 1]]) for p in pieces)
    return opened.manifest.split(split).bytes - given


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_an_epoch_holds_every_byte_once(config, small_corpus, split, epochs):
    config = replace(config, corpus=str(small_corpus))
    batches = take(make_dataset(config, split=split, num_epochs=epochs), 10**6)
    total = sum(int(batch["bytes"].sum()) for batch in batches)
    assert total == supervised_bytes(small_corpus, split) * epochs


def test_documents_come_back_from_the_rows(config, corpus, tokenizer):
    """A row longer than every document: each is one sequence, framed and whole."""
    longest = int(Corpus(corpus).lengths("heldout").max()) + 2
    long = replace(config, sequence_length=-(-longest // 16) * 16, packing_bins=4)
    batches = take(make_dataset(long, split="heldout", num_epochs=1), 10**6)
    found = sequences(batches)
    special = tokenizer.special
    assert all(s[0] == special.bos and s[-1] == special.eos for s in found)
    texts = [document.text for document in Corpus(corpus).documents("heldout")]
    assert Counter(map(tokenizer.decode, found)) == Counter(texts)


@pytest.mark.slow
def test_pieces_of_a_long_document_follow_each_other(corpus, tokenizer):
    opened = Corpus(corpus)
    source = PieceSource(opened, "train", 64, 16)
    lengths = opened.lengths("train")
    number = int(np.argmax(lengths))
    document = list(opened.documents("train"))[number]
    pieces = [p for p in map(source.__getitem__, range(len(source)))]
    mine = [p for p in pieces if p.document.text == document.text]
    assert len(mine) == -(-(len(document.tokens) + 2) // 64) > 2
    assert [p.start for p in mine[1:]] == [p.stop for p in mine[:-1]]
    assert mine[0].start == 0 and mine[-1].stop == len(document.tokens) + 2


@given(st.integers(2, 400), st.sampled_from([(16, 16), (32, 16), (64, 16), (24, 4)]))
def test_piece_bounds_tile_the_document(total, shape):
    longest, block = shape
    count = -(-total // longest)
    bounds = [
        piece_bounds(total, i, longest=longest, block_size=block) for i in range(count)
    ]
    assert bounds[0][0] == 0 and bounds[-1][1] == total
    for (_, stop), (start, _) in itertools.pairwise(bounds):
        assert start == stop and start % block == 0
    for start, stop in bounds:
        assert 0 < stop - start <= longest
    if longest > block:
        assert bounds[-1][1] - bounds[-1][0] > 1, "a piece of EOS alone"


def test_the_order_follows_seed_and_epoch(config, small_corpus):
    plain = replace(config, corpus=str(small_corpus), fim_rate=0.0, prefetch=0)
    same = [take(make_dataset(plain), 5) for _ in "ab"]
    assert_equal(*same)
    other = take(make_dataset(replace(plain, shuffle_seed=1)), 5)
    assert (other[0]["tokens"] != same[0][0]["tokens"]).any()
    epoch = len(take(make_dataset(plain, num_epochs=1), 10**6))
    two = take(make_dataset(plain, num_epochs=2), 10**6)
    # Rows are shuffled within a few epochs' packing; whole epochs differ in order.
    first, second = (sequences(two[i : i + 5]) for i in (0, epoch))
    assert [s.tolist() for s in first] != [s.tolist() for s in second]


@pytest.mark.slow
def test_infilling_follows_its_rate(config, tokenizer):
    config = replace(config, sequence_length=512)
    for rate in (0.0, 0.5, 1.0):
        batches = take(make_dataset(replace(config, fim_rate=rate)), 40)
        special = tokenizer.special
        found = [
            s[1] == special.fim_suffix
            for s in sequences(batches)
            # Only whole documents count: pieces lack BOS, or EOS.
            if s[0] == special.bos and s[-1] == special.eos and len(s) < 256
        ]
        # Five standard errors; long documents may no longer fit and stay plain.
        assert len(found) > 200
        assert abs(np.mean(found) - rate) <= 5 * 0.5 / np.sqrt(len(found))
    held = take(make_dataset(config, split="heldout", num_epochs=1), 10**6)
    assert not any((b["tokens"] == special.fim_prefix).any() for b in held)


def test_infilled_documents_come_back(config, corpus, tokenizer):
    texts = {d.text for d in Corpus(corpus).documents("train")}
    special, seen = tokenizer.special, 0
    config = replace(config, fim_rate=1.0, sequence_length=512)
    for tokens in sequences(take(make_dataset(config), 10)):
        ids = tokens.tolist()
        if ids[1] != special.fim_suffix:
            continue
        head, hole = ids.index(special.fim_prefix), ids.index(special.fim_middle)
        parts = (ids[head + 1 : hole], ids[hole + 1 :], ids[2:head])
        assert "".join(map(tokenizer.decode, parts)) in texts
        seen += 1
    assert seen > 50


@pytest.mark.representative("train-2")
@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_restored_iterator_goes_on_exactly(config, prefetch, split):
    config = replace(config, prefetch=prefetch)
    iterator = iter(make_dataset(config, split=split))
    for _ in range(13):
        next(iterator)
    state = iterator.get_state()
    expected = list(itertools.islice(iterator, 30))
    iterator.close()
    restored = iter(make_dataset(config, split=split))
    next(restored)
    restored.set_state(state)
    assert_equal(list(itertools.islice(restored, 30)), expected)
    restored.close()


@pytest.mark.slow
def test_workers_are_deterministic_complete_and_resume_exactly(config, corpus):
    config = replace(config, num_workers=2)
    iterator = iter(make_dataset(config))
    for _ in range(13):
        next(iterator)
    state = iterator.get_state()
    expected = list(itertools.islice(iterator, 20))
    iterator.close()
    restored = iter(make_dataset(config))
    next(restored)
    restored.set_state(state)
    assert_equal(list(itertools.islice(restored, 20)), expected)
    restored.close()
    held = take(make_dataset(config, split="heldout", num_epochs=1), 10**6)
    total = sum(int(batch["bytes"].sum()) for batch in held)
    assert total == supervised_bytes(corpus, "heldout")


def test_the_states_can_be_written_as_json(config):
    import json

    iterator = iter(make_dataset(config))
    next(iterator)
    assert len(json.dumps(iterator.get_state())) < 300
    iterator.close()


@pytest.mark.representative("3")
@pytest.mark.parametrize("count", [1, 3])
def test_processes_share_the_pieces_out(config, small_corpus, count):
    """Their pieces are disjoint and cover the split."""
    config = replace(config, corpus=str(small_corpus), fim_rate=0.0)
    shards = [
        sequences(
            take(
                make_dataset(config, shard=i, num_shards=count, num_epochs=1),
                10**6,
            )
        )
        for i in range(count)
    ]
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    together = Counter(s.tobytes() for shard in shards for s in shard)
    whole = sequences(take(make_dataset(config, num_epochs=1), 10**6))
    assert together == Counter(s.tobytes() for s in whole)


def test_the_datasets_are_grains(config):
    assert isinstance(make_dataset(config), grain.IterDataset)


def test_a_foreign_tokenizer_is_refused(config, tokenizer):
    make_dataset(config, tokenizer)
    texts = ["def f(x):\n    return x + 1\n" * 20]
    other = train_tokenizer(texts, vocab_size=300)
    with pytest.raises(InputError, match="another tokenizer"):
        make_dataset(config, other)


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [(3, 3, "shard is 3"), (-1, 2, "shard"), (9999, 10**4, "too few")],
)
def test_impossible_processes_are_refused(config, index, count, message):
    with pytest.raises(InputError, match=message):
        make_dataset(config, split="heldout", shard=index, num_shards=count)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence_length", 0),
        ("sequence_length", 100),
        ("block_size", 0),
        ("batch_size", 0),
        ("fim_rate", 1.5),
        ("num_workers", -1),
        ("prefetch", -1),
        ("packing_bins", 0),
        ("shuffle_seed", -1),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        DataConfig(**{field: value})
