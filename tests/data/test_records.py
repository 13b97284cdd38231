"""Records: documents come back, damage is found, checks are cheap the second time."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from seedjax.data import records
from seedjax.data.records import (
    Corpus,
    Document,
    ShardWriter,
    pack_document,
    unpack_document,
)
from seedjax.errors import InputError


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus that may be damaged."""
    return shutil.copytree(corpus, tmp_path / "corpus")


@pytest.mark.parametrize("ids", [[], [0, 65535], [65536, 3]])
def test_documents_come_back(ids):
    document = Document("é\n", np.array(ids, np.int32), "a/b.py", "p==1", "MIT")
    again = unpack_document(pack_document(document))
    assert again[0] == document[0] and again[2:] == document[2:]
    np.testing.assert_array_equal(again.tokens, document.tokens)
    assert again.tokens.dtype == np.int32


def test_shards_are_cut_by_size(tmp_path):
    writer = ShardWriter(tmp_path, "train", 1000)
    for i in range(10):
        writer.write(Document("x" * 400, np.arange(i, dtype=np.int32), "", "", ""))
    entry = writer.close()
    assert [shard.documents for shard in entry.shards] == [3, 3, 3, 1]
    assert (entry.documents, entry.tokens, entry.bytes) == (10, 45, 4000)
    assert entry.bytes_per_token == pytest.approx(4000 / 45)
    lengths = np.load(tmp_path / entry.lengths.file)
    assert lengths.tolist() == list(range(10))


def test_an_empty_split_has_no_shards(tmp_path):
    entry = ShardWriter(tmp_path, "heldout", 1000).close()
    assert entry.shards == () and entry.documents == 0


def test_the_manifest_counts_what_is_there(corpus, tokenizer):
    opened = Corpus(corpus)
    assert len(opened.manifest.train.shards) > 1
    for split in ("train", "heldout"):
        documents = list(opened.documents(split))
        entry = opened.manifest.split(split)
        assert len(documents) == entry.documents > 0
        assert sum(len(d.tokens) for d in documents) == entry.tokens
        assert sum(len(d.text.encode()) for d in documents) == entry.bytes
        lengths = [len(d.tokens) for d in documents]
        np.testing.assert_array_equal(opened.lengths(split), lengths)
        for document in documents[:50]:
            assert tokenizer.decode(document.tokens.tolist()) == document.text
    sources = opened.manifest.sources
    total = opened.manifest.train.documents + opened.manifest.heldout.documents
    assert sum(source.documents for source in sources) == total
    assert opened.tokenizer().fingerprint == opened.manifest.tokenizer


def test_records_can_be_read_in_any_order_and_by_several_threads(corpus):
    opened = Corpus(corpus)
    expected = [document.text for document in opened.documents("train")]
    reader = pickle.loads(pickle.dumps(opened.records("train")))
    assert len(reader) == len(expected)
    order = np.random.default_rng(0).permutation(len(expected)).tolist()
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda i: unpack_document(reader[i]).text, order))
    assert texts == [expected[i] for i in order]


def test_a_flipped_byte_is_found(copy):
    shard = copy / "train-00001.arrayrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00001\.arrayrecord is damaged"):
        Corpus(copy)


def test_a_truncated_shard_is_found(copy):
    shard = copy / "heldout-00000.arrayrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        Corpus(copy)


@pytest.mark.parametrize("name", ["train.lengths.npy", "train-00000.arrayrecord"])
def test_a_missing_file_is_found(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        Corpus(copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "it must be a JSON object"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1}', "missing"),
    ],
)
def test_a_broken_manifest_is_found(copy, text, message):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Corpus(copy)


def test_no_corpus_at_all(tmp_path):
    with pytest.raises(InputError, match="seedjax data build"):
        Corpus(tmp_path)


def test_another_tokenizer_is_found(copy):
    opened = Corpus(copy)
    (copy / "tokenizer" / "tokenizer.model").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        opened.tokenizer()


def test_checksums_are_compared_once(copy, monkeypatch):
    Corpus(copy)
    compared = []
    digest = records.file_digest
    monkeypatch.setattr(
        records, "file_digest", lambda path: (compared.append(path), digest(path))[1]
    )
    Corpus(copy)
    assert compared == []
    Corpus(copy, verify=True)
    assert len(compared) == len(json.loads((copy / ".verified.json").read_text()))
    (copy / ".verified.json").write_text("broken")
    Corpus(copy)
    assert (copy / "train.lengths.npy") in compared
