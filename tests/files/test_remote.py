"""Folders in a bucket, which is a folder of this disk here."""

import json
import threading
import time
from pathlib import Path

import pytest
from etils.epath import backend, gpath

from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.errors import InputError
from seedjax.files import remote
from seedjax.files.output import claimed
from seedjax.files.remote import address_of, mirrored


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Path:
    """What `gs://bucket` is."""
    place = tmp_path / "bucket"
    place.mkdir()

    class OnDisk(type(backend.os_backend)):
        """The backend of local files, under other names."""

        def __getattribute__(self, name):
            found = super().__getattribute__(name)
            if name.startswith("_") or not callable(found):
                return found

            def call(path, *args, **kwargs):
                there = str(path).replace("gs://bucket", str(place))
                return found(there, *args, **kwargs)

            return call

    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", OnDisk())
    return place


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("gs://bucket/a/b/", "gs://bucket/a/b"),
        (Path("gs://bucket/a"), "gs://bucket/a"),
        ("s3:/bucket", "s3://bucket"),
        ("runs/gs:/a", ""),
        ("/gs/bucket", ""),
    ],
)
def test_addresses(path, address):
    assert address_of(path) == address


def test_files_go_to_the_bucket_and_records_come_back(bucket, monkeypatch):
    monkeypatch.setattr(remote, "COPY_EVERY_S", 0.01)
    with mirrored("gs://bucket/run") as folder:
        assert folder.name == "run"
        (folder / "run.json").write_text("{}")
        while not (bucket / "run" / "run.json").exists():  # before the end, too
            pass
        (folder / "params").mkdir()
        (folder / "params" / "model.bin").write_bytes(b"1234")
        (folder / "config.json").write_text("[1]")
    copied = sorted(p.name for p in (bucket / "run").rglob("*") if p.is_file())
    assert copied == ["config.json", "model.bin", "run.json"]
    with mirrored("gs://bucket/run") as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["run.json"]
        (folder / "run.json").write_text(json.dumps({"more": 1}))
    assert json.loads((bucket / "run" / "run.json").read_text()) == {"more": 1}


def test_a_bucket_that_cannot_be_written_is_told_of_at_once(bucket):
    (bucket / "file").write_text("")
    with pytest.raises(InputError, match="gs://bucket/file/run cannot be .* written"):
        with mirrored("gs://bucket/file/run"):
            raise AssertionError


def test_a_bucket_that_does_not_answer_is_told_of_in_time(bucket, monkeypatch):
    monkeypatch.setattr(remote, "ANSWER_S", 0.2)
    answers = threading.Event()
    monkeypatch.setattr(gpath._GPath, "mkdir", lambda *_, **__: answers.wait(60))
    began = time.monotonic()
    with pytest.raises(InputError, match="gs://bucket/run cannot .* no answer in 0 s"):
        with mirrored("gs://bucket/run"):
            raise AssertionError
    assert time.monotonic() - began < 10
    answers.set()


def test_checkpoints_stay_in_the_bucket(bucket):
    folder = TrainingCheckpointer("gs://bucket/run/checkpoints").directory
    assert str(folder) == "gs://bucket/run/checkpoints"


def test_what_takes_folders_refuses_buckets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="gs://bucket/run is in a bucket"):
        with claimed(Path("gs://bucket/run"), "convert"):
            raise AssertionError
    assert not list(tmp_path.iterdir())
