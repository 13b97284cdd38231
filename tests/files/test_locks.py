"""One writer at a time: what a second process is told."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from seedjax.errors import InputError
from seedjax.evaluate.folder import CompletionFile
from seedjax.files.locks import LOCK, lock_beside
from seedjax.files.output import claimed
from seedjax.files.replacing import replaced_directory, replaced_file

HOLDER = """
import sys, time
from pathlib import Path
from seedjax.files.output import claimed
from seedjax.files.replacing import replaced_file
what, path = sys.argv[1], Path(sys.argv[2])
shared = what == "shared"
with replaced_file(path) if what == "file" else claimed(path, "eval", shared=shared):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder():
    """Starts processes that hold a path."""
    running = []

    def start(what, path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, what, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_the_second_writer_is_told_who_the_first_one_is(tmp_path, holder):
    out = tmp_path / "run"
    first = holder("folder", out)
    there = {path.name for path in out.iterdir()}
    for options in ({}, {"resume": True}, {"force": True}, {"shared": True}):
        with pytest.raises(InputError) as found, claimed(out, "eval", **options):
            pass
        said = str(found.value)
        if "force" not in options:  # nothing is there to be moved aside
            assert f"process {first.pid} on {socket.gethostname()} since" in said
            assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", said)
        assert {path.name for path in out.iterdir()} == there
    (out / "answers.txt").write_text("kept")
    with pytest.raises(InputError, match=f"process {first.pid}"):
        with claimed(out, "eval", force=True):
            pass
    assert (out / "answers.txt").read_text() == "kept"
    # Killed, it holds nothing any more.
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (out / LOCK).exists()
    with claimed(out, "eval"):
        pass
    assert not (out / LOCK).exists()


def test_runs_share_the_folder_around_them(tmp_path, holder):
    holder("shared", tmp_path / "evaluation")
    inner = tmp_path / "evaluation" / "suite"
    holder("folder", inner)
    with claimed(tmp_path / "evaluation", "eval", shared=True):
        with pytest.raises(InputError, match="is being written by process"):
            with claimed(inner, "eval"):
                pass
        with claimed(tmp_path / "evaluation" / "other", "eval"):
            pass
    assert (tmp_path / "evaluation" / LOCK).exists()  # the others still share it
    with pytest.raises(InputError, match="is being written by process"):
        with claimed(tmp_path / "evaluation", "eval"):
            pass


def test_files_and_shards(tmp_path, holder):
    file = tmp_path / "tasks.jsonl"
    first = holder("file", file)
    with pytest.raises(InputError, match=f"process {first.pid} on"):
        with replaced_file(file):
            pass
    samples = tmp_path / "samples.jsonl"
    with CompletionFile(samples):
        with pytest.raises(InputError, match=rf"process {os.getpid()} .*--shard"):
            CompletionFile(samples)
    with CompletionFile(samples):
        pass
    assert not lock_beside(samples).exists()


def test_threads_of_one_process_are_two_writers(tmp_path):
    errors = []

    def write() -> None:
        try:
            with claimed(tmp_path / "out", "convert"):
                pass
        except InputError as error:
            errors.append(str(error))

    with claimed(tmp_path / "out", "convert"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(errors) == 1 and f"process {os.getpid()}" in errors[0]


def test_a_folder_that_is_replaced_leaves_no_lock_behind(tmp_path):
    for text in ("one", "two"):
        with replaced_directory(tmp_path / "model", "convert") as staged:
            (staged / "weights").write_text(text)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    assert not list(tmp_path.rglob("*.lock"))
    assert (tmp_path / "model" / "weights").read_text() == "two"


def test_many_processes_take_turns(tmp_path):
    """Lock files come and go, and no two hold one at once."""
    code = """
import sys, time
from pathlib import Path
from seedjax.errors import InputError
from seedjax.files.locks import locked
path, shared, count = Path(sys.argv[1]), Path(sys.argv[2]), 0
while count < 40:
    try:
        with locked(path, "x"):
            value = int(shared.read_text())
            time.sleep(0.0005)
            shared.write_text(str(value + 1))
            count += 1
    except InputError:
        pass
"""
    lock, number = tmp_path / "lock", tmp_path / "number"
    number.write_text("0")
    command = [sys.executable, "-c", code, str(lock), str(number)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert number.read_text() == "120" and not lock.exists()


def test_a_disk_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch, capsys):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path / "out", "convert") as out:
        (out / "file").write_text("x")
    assert "without locks" in capsys.readouterr().err
    assert not (tmp_path / "out" / LOCK).exists()
