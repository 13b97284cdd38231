"""The stream: sequences keep the promises of training, and iterators resume exactly."""

import dataclasses
import itertools
import random

import numpy as np
import pytest
from samples import all_tasks

from seedjax.data.records import Corpus
from seedjax.errors import InputError
from seedjax.tasks.lab import stream
from seedjax.tasks.lab.everyday.draw import draw_everyday
from seedjax.tasks.lab.stream import (
    LabConfig,
    Samples,
    draw_sample,
    draw_task,
    encode_task,
    task_prompt,
    truncate,
)
from seedjax.text.sentencepiece import train_tokenizer

BLOCK = 16


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return Corpus(corpus).tokenizer()


@pytest.fixture
def config(corpus) -> LabConfig:
    return LabConfig(
        vocabulary=str(corpus / "tokenizer"),
        sequence_length=512,
        batch_size=4,
        packing_bins=4,
        prefetch=0,
    )


def take(dataset, count: int) -> list[dict[str, np.ndarray]]:
    iterator = iter(dataset)
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def sequences(batches) -> list[tuple[bytes, bytes]]:
    """The sequences in some batches: their tokens, and which of them are asked for."""
    found = []
    for batch in batches:
        for tokens, segments, supervised in zip(
            batch["tokens"], batch["segments"], batch["supervised"], strict=True
        ):
            for segment in range(1, int(segments.max(initial=0)) + 1):
                here = segments == segment
                assert np.argmax(here) % BLOCK == 0 == here.sum() % BLOCK
                found.append((tokens[here].tobytes(), supervised[here].tobytes()))
    return found


def first_samples(config, count: int, split="train") -> list[tuple[bytes, bytes]]:
    samples = Samples(config, split)
    return [
        (made["tokens"].tobytes(), made["supervised"].tobytes())
        for made in map(samples.__getitem__, range(count))
    ]


def test_answers_are_asked_for_and_prompts_are_given(tokenizer):
    special = tokenizer.special
    for task in all_tasks("train", "standard", 3):
        sample = encode_task(task, tokenizer, BLOCK)
        tokens, asked = sample["tokens"], sample["supervised"]
        assert len(tokens) % BLOCK == 0 and tokens.dtype == np.int32
        prompt = task_prompt(task, tokenizer)
        assert tokens[~asked].tolist() == prompt
        answer = tokens[asked]
        assert answer[-1] == special.eos
        assert tokenizer.decode(answer) == task.reference
        ends = (answer == special.eos).sum()
        assert 1 <= ends <= BLOCK and (answer[-ends:] == special.eos).all()
        text = tokenizer.decode(prompt)
        for part in (task.prompt, task.suffix, task.before, task.instruction):
            assert part in text
        assert prompt[0] == special.bos
        assert (prompt[1] == special.user) == bool(task.before)
        assert (prompt[-1] == special.fim_middle) == (task.task == "infill")


def test_everyday_code_is_encoded_holes_at_the_top_of_a_file_too(tokenizer):
    rng = random.Random(0)
    whole_files = 0
    for _ in range(1500):
        task = draw_everyday(rng, "train", (0, 1, 0, 0))
        assert (task.prompt + task.suffix).strip()
        sample = encode_task(task, tokenizer, BLOCK)
        assert tokenizer.decode(sample["tokens"][sample["supervised"]]) == (
            task.reference
        )
        whole_files += not task.prompt
    assert whole_files


def test_batches_hold_the_samples_as_they_are(config):
    for split, count in (("train", 80), ("heldout", 30)):
        batches = take(config.batches(split), 1)
        for batch in batches:
            assert batch["tokens"].shape == (4, 512)
            assert batch["supervised"].any(axis=1).all()
            assert not (batch["supervised"] & (batch["segments"] == 0)).any()
        found = sequences(batches)
        assert len(found) > 4
        assert {*found} <= {*first_samples(config, count, split)}
        assert len({*found}) == len(found)


def test_all_tasks_come_by_their_weights(config, tokenizer):
    only = dataclasses.replace(config, generate=0.0, infill=0.0, repair=0.0)
    samples = Samples(only, "train")
    for index in range(8):
        assert samples[index]["tokens"][1] == tokenizer.special.user
    ones = dataclasses.replace(config, tiers=(1.0, 0.0, 0.0))
    assert first_samples(ones, 5) != first_samples(config, 5)


def test_a_restored_iterator_goes_on_exactly(config):
    for changed in (config, dataclasses.replace(config, prefetch=2)):
        iterator = iter(changed.batches())
        next(iterator)
        state = iterator.get_state()
        expected = [next(iterator) for _ in range(2)]
        iterator.close()
        restored = iter(changed.batches())
        restored.set_state(state)
        for batch in expected:
            again = next(restored)
            for name, values in batch.items():
                np.testing.assert_array_equal(again[name], values)
        restored.close()


@pytest.mark.slow
def test_processes_read_samples_of_their_own(config):
    samples = first_samples(config, 100)
    for index in range(2):
        batches = take(config.batches(shard=index, num_shards=2), 1)
        assert {*sequences(batches)} <= {*samples[index::2]}
    with pytest.raises(InputError, match="shard is 2; it must be below 2"):
        config.batches(shard=2, num_shards=2)


def test_another_seed_gives_other_samples(config):
    other = dataclasses.replace(config, seed=2)
    assert not {*first_samples(config, 6)} & {*first_samples(other, 6)}


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_a_corpus_is_mixed_in_at_its_rate(config, corpus, tokenizer, rate):
    mixed = dataclasses.replace(config, corpus=str(corpus), corpus_rate=rate)
    found = sequences(take(mixed.batches(), 6))
    samples = {*first_samples(config, 150)}
    share = sum(sequence not in samples for sequence in found) / len(found)
    assert len(found) > 30 and abs(share - rate) < 0.15
    assert "25%" in dataclasses.replace(mixed, corpus_rate=0.25).describe()


def test_a_corpus_of_another_tokenizer_is_refused(config, corpus, tmp_path):
    text = "def f(x):\n    return x + 1\n" * 20
    train_tokenizer([text], vocab_size=300).save(tmp_path)
    other = dataclasses.replace(
        config, vocabulary=str(tmp_path), corpus=str(corpus), corpus_rate=0.5
    )
    with pytest.raises(InputError, match="tokenized with another tokenizer"):
        other.batches()


def test_truncated_samples_end_with_a_block_of_their_answer(tokenizer):
    rng = random.Random(0)
    lengths = set()
    for task in all_tasks("train", "standard", 3):
        whole = encode_task(task, tokenizer, BLOCK)
        given = int(np.argmax(whole["supervised"]))
        for _ in range(5):
            part = truncate(whole, rng, BLOCK)
            stop = len(part["tokens"])
            assert stop % BLOCK == 0 and given < stop <= len(whole["tokens"])
            for name, values in part.items():
                np.testing.assert_array_equal(values, whole[name][:stop])
            lengths.add(stop / len(whole["tokens"]))
    assert len(lengths) > 3 and 1.0 in lengths


@pytest.mark.slow
def test_samples_are_truncated_at_the_rate_in_training_only(config, tokenizer):
    every = dataclasses.replace(config, truncate=1.0)
    ends = [
        np.frombuffer(tokens, np.int32)[-1] == tokenizer.special.eos
        for tokens, _ in first_samples(every, 25)
    ]
    assert not all(ends)
    held = sequences(take(every.batches("heldout"), 1))
    assert {*held} <= {*first_samples(config, 25, "heldout")}


@pytest.mark.slow
def test_names_are_foreign_at_the_rate_in_training_only(config):
    half = dataclasses.replace(config, names=0.5)
    slices = [
        draw_task(half, random.Random(number), "train", num_tests=0).slice
        for number in range(60)
    ]
    assert {*slices} == {"standard", "names"}
    assert 15 < slices.count("names") < 45
    held = sequences(take(half.batches("heldout"), 1))
    assert {*held} <= {*first_samples(config, 25, "heldout")}


def test_the_bundled_vocabulary_can_be_named():
    assert LabConfig().tokenizer().vocab_size > 256


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_answers_have_their_order_from_the_left(config, corpus, rate):
    """Those of the lab, and what is asked of a corpus."""
    mixed = {"corpus": str(corpus), "corpus_rate": rate} if rate else {}
    ordered = dataclasses.replace(config, order="left", truncate=0.5, **mixed)
    seen = set()
    for batch in take(ordered.batches(), 2):
        for tokens, order, asked in zip(
            batch["segments"], batch["order"], batch["supervised"], strict=True
        ):
            for segment in range(1, tokens.max() + 1):
                here = tokens == segment
                answer = order[here & asked]
                # What a text begins with is never asked.
                first = answer[0] if rate else 0
                seen.add(int(first))
                np.testing.assert_array_equal(answer, np.arange(len(answer)) + first)
                assert (order[here & ~asked] == first - 1).all()
    assert seen == ({0, 1} if rate else {0})
    assert "order" not in take(config.batches(), 1)[0]


def test_an_unknown_vocabulary_is_refused(tmp_path):
    config = LabConfig(vocabulary=str(tmp_path))
    with pytest.raises(InputError, match="model .* is a directory without config.json"):
        config.batches()


def test_rows_that_are_too_short_are_told(config, monkeypatch):
    monkeypatch.setattr(stream, "MOST_TRIES", 5)
    short = dataclasses.replace(config, sequence_length=16)
    with pytest.raises(InputError, match="sequence_length is 16, too short"):
        Samples(short, "train")[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("edit", -0.1),
        ("tiers", (1.0, 1.0)),
        ("tiers", (0.0, 0.0, 0.0)),
        ("names", -0.5),
        ("truncate", 1.5),
        ("corpus_rate", 1.0),
        ("sequence_length", 100),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        LabConfig(**{field: value})
    with pytest.raises(InputError, match="corpus"):
        LabConfig(corpus_rate=0.5)
    with pytest.raises(InputError, match="generate"):
        LabConfig(generate=0.0, infill=0.0, repair=0.0, edit=0.0)


def test_everyday_code_is_mixed_in_at_its_share(config, tokenizer):
    half = dataclasses.replace(config, everyday=0.5)
    names = []
    for index in range(60):
        rng = random.Random(f"{half.seed}/train/{index}")
        names.append(draw_sample(half, rng, "train").problem_id)
    share = sum(name.startswith("everyday/") for name in names) / len(names)
    assert 0.3 < share < 0.7
    whole = dataclasses.replace(config, everyday=1.0)
    rng = random.Random(f"{whole.seed}/heldout/0")
    task = draw_sample(whole, rng, "heldout")
    sample = Samples(whole, "heldout")[0]
    assert tokenizer.decode(sample["tokens"][sample["supervised"]]) == (task.reference)
    assert "50% of them everyday code" in half.describe()
    with pytest.raises(InputError, match="everyday"):
        LabConfig(everyday=1.5)
