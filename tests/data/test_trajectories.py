"""Recorded decodes on disk, and the batches that they become."""

import dataclasses

import numpy as np
import pytest

from seedjax.data.trajectories import (
    HELDOUT_EVERY,
    Trajectories,
    Trajectory,
    TrajectoryConfig,
    TrajectoryManifest,
    TrajectoryWriter,
    pack_trajectory,
    training_sequence,
    unpack_trajectory,
)
from seedjax.errors import InputError
from seedjax.tasks.lab.stream import LabConfig

SIZE = 4


def trajectory(sample: int, *, passed: bool | None = True) -> Trajectory:
    rng = np.random.default_rng(sample)
    given = int(rng.integers(1, 9))
    written = SIZE * 3 - given % SIZE
    return Trajectory(
        sample=sample,
        prompt=rng.integers(20, 60, given).astype(np.int32),
        answer=rng.integers(20, 60, written).astype(np.int32),
        order=np.sort(rng.integers(0, 6, written)).astype(np.int32),
        log_likelihood=-float(sample),
        passed=passed,
    )


@pytest.fixture(scope="module")
def tokenizer():
    return LabConfig().tokenizer()


@pytest.fixture
def manifest(tokenizer):
    return TrajectoryManifest(
        model="abc",
        tokenizer=tokenizer.fingerprint,
        block_size=SIZE,
        settings="{}",
    )


@pytest.fixture
def folder(tmp_path, manifest, tokenizer):
    writer = TrajectoryWriter(tmp_path / "decodes", manifest, tokenizer)
    writer.write([trajectory(n) for n in range(40)], 40)
    writer.write([trajectory(n, passed=n % 2 == 0) for n in range(40, 70)], 32)
    return tmp_path / "decodes"


def same(a: Trajectory, b: Trajectory) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def config_of(folder, **changes) -> TrajectoryConfig:
    return TrajectoryConfig(
        **{
            "path": str(folder),
            "block_size": SIZE,
            "sequence_length": 32,
            "batch_size": 4,
            **changes,
        }
    )


def test_a_record_is_what_was_written():
    for each in (trajectory(3), trajectory(4, passed=None)):
        assert same(unpack_trajectory(pack_trajectory(each)), each)
    assert trajectory(3).num_steps == len(set(trajectory(3).order.tolist()))


def test_parts_are_read_in_order(folder):
    found = Trajectories(folder)
    assert len(found) == found.manifest.trajectories == 70
    assert found.manifest.prompts == 72
    assert all(
        same(each, trajectory(n, passed=n < 40 or n % 2 == 0))
        for n, each in enumerate(found)
    )


def test_recording_goes_on(folder, manifest, tokenizer):
    writer = TrajectoryWriter(folder, manifest, tokenizer)
    assert writer.manifest.prompts == 72
    writer.write([trajectory(72)], 1)
    assert len(Trajectories(folder)) == 71
    for change in ({"model": "def"}, {"settings": '{"seed": 1}'}):
        other = dataclasses.replace(manifest, **change)
        with pytest.raises(InputError, match=f"another {next(iter(change))}"):
            TrajectoryWriter(folder, other, tokenizer)


def test_damage_is_found(folder):
    part = folder / "part-00001.arrayrecord"
    content = bytearray(part.read_bytes())
    content[-5] ^= 1
    part.write_bytes(bytes(content))
    with pytest.raises(InputError, match="missing or damaged"):
        Trajectories(folder)
    with pytest.raises(InputError, match="no trajectories at"):
        Trajectories(folder / "nowhere")


def test_a_sequence_is_prompt_and_answer():
    each = trajectory(5)
    rows = training_sequence(each)
    given = len(each.prompt)
    assert len(rows["tokens"]) % SIZE == 0
    assert not rows["supervised"][:given].any() and rows["supervised"][given:].all()
    assert (rows["order"][:given] == -1).all()
    np.testing.assert_array_equal(rows["order"][given:], each.order)


def documents(batches) -> set[bytes]:
    """The documents of some batches with their orders."""
    found = set()
    for rows in batches:
        for row in range(len(rows["tokens"])):
            for number in range(1, rows["segments"][row].max() + 1):
                here = rows["segments"][row] == number
                found.add(
                    rows["tokens"][row][here].tobytes()
                    + rows["order"][row][here].tobytes()
                )
    return found


def test_batches_hold_every_trajectory_with_its_order(folder):
    splits = {"train": set(), "heldout": set()}
    for each in Trajectories(folder):
        rows = training_sequence(each)
        split = "heldout" if each.sample % HELDOUT_EVERY == 0 else "train"
        splits[split].add(rows["tokens"].tobytes() + rows["order"].tobytes())
    for split, wanted in splits.items():
        batches = list(config_of(folder).batches(split, num_epochs=1))
        assert documents(batches) == wanted, split
        for rows in batches:
            assert rows["order"].dtype == np.int32
            # The first position of a document is given: its order is a prompt's.
            assert (rows["order"][rows["supervised"]] >= 0).all()


def test_what_did_not_pass_can_be_left_out(folder):
    config = config_of(folder, passed_only=True)
    wanted = sum(
        bool(each.passed) and each.sample % HELDOUT_EVERY > 0
        for each in Trajectories(folder)
    )
    assert len(documents(config.batches(num_epochs=1))) == wanted < 68


def test_of_few_prompts_the_first_is_held_out(tmp_path, manifest, tokenizer):
    """So that a run on them can be scored."""
    writer = TrajectoryWriter(tmp_path / "few", manifest, tokenizer)
    writer.write([trajectory(n) for n in (9, 5, 5, 12)], 4)
    config = config_of(tmp_path / "few")
    counts = [
        len(documents(config.batches(split, num_epochs=1)))
        for split in ("train", "heldout")
    ]
    assert counts == [2, 1]  # the two of prompt 5 are alike


def test_refusals(folder):
    with pytest.raises(InputError, match="block_size is 8"):
        config_of(folder, block_size=8).batches()
    with pytest.raises(InputError, match="too few"):
        config_of(folder, sequence_length=4).batches()
    config_of(folder).check_model("abc")
    config_of(folder, any_model=True).check_model("other")
    with pytest.raises(InputError, match="another model"):
        config_of(folder).check_model("other")
