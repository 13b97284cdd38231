"""No program holds more than its limit or reaches what is outside, by whatever way, as
root and as an ordinary user."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attacks
import pytest
from contained import REPOSITORY, program, running

from seedjax.errors import InputError
from seedjax.sandbox.containment import landlock, launch, seccomp
from seedjax.sandbox.containment.usage import Watch, held_by, proportional_bytes
from seedjax.sandbox.sandbox import Limits, Sandbox
from seedjax.sandbox.script import Script

WALL_SECONDS = 20.0

AS_ORDINARY = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or attacks.python_of_everyone() is None,
    reason="needs root, and a Python that everyone may start",
)


def expect_contained(verdicts: dict[str, str], kind: str, said: str) -> None:
    for name, verdict in verdicts.items():
        if verdict.startswith("not here"):
            pytest.skip(verdict)
        if verdict == "OPEN":
            assert kind == "rlimits" and attacks.SAID[name] in said, name


@pytest.mark.skipif(not seccomp.is_available(), reason="no seccomp here")
def test_attacks_on_memory_and_on_what_is_outside(sandbox, tmp_path):
    if landlock.version() == 0 and sandbox.isolation == "rlimits":
        pytest.skip("programs may write no file, which the attacks need")
    os.chmod(tmp_path, 0o755)
    outside = attacks.Outside(tmp_path)
    names = list(attacks.programs(outside))
    if sandbox.isolation == "rlimits":
        # On a disk these take long, and are said to be open.
        names = [n for n in names if attacks.SAID.get(n) != "fill the disk"]
    chosen = [attacks.programs(outside)[name] for name in names]
    outcomes = sandbox.run(chosen)
    found = {n: attacks.verdict(o) for n, o in zip(names, outcomes, strict=True)}
    expect_contained(found, sandbox.isolation, sandbox.describe())
    assert set(found.values()) <= {"refused", "ended", "OPEN"}, found
    assert found["several processes"] == "ended"
    assert not outside.received()
    outside.close()


@AS_ORDINARY
@pytest.mark.slow
def test_an_ordinary_user_gets_the_same_verdicts():
    import json

    done = attacks.as_ordinary_user(
        [attacks.__file__, "--json"], stdout=subprocess.PIPE, check=True
    )
    for kind, ordinary in json.loads(done.stdout).items():
        own = attacks.try_all(kind)
        said = "change mode, times, and fill the disk"
        expect_contained(ordinary, kind, said)
        for name in own:
            if name not in attacks.SAID:
                assert own[name] == ordinary[name], (kind, name)


COUNTING = attacks.START + attacks.REACH["more processes than allowed"]
AS_USER = """
import sys
from seedjax.sandbox.sandbox import Program, Sandbox
source, kind = sys.stdin.read(), sys.argv[1]
test = "def check(candidate):\\n    assert candidate() == 0\\n"
program = Program(source=source, test=test, entry_point="f")
with Sandbox(2, isolation=kind) as sandbox:
    print(sandbox.run([program] * 3))
"""


@pytest.mark.representative("namespaces")
@AS_ORDINARY
@pytest.mark.parametrize("kind", launch.KINDS)
def test_an_ordinary_user_has_as_many_processes(kind):
    options = {"input": COUNTING, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = attacks.as_ordinary_user(["-c", AS_USER, kind], **options)
    if "cannot be contained" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stdout.count("passed=True") == 3, done


def test_threads_that_no_limit_stops_are_counted(monkeypatch):
    threads = "import threading, time\nfor _ in range(9):\n"
    threads += "    threading.Thread(target=time.sleep, args=(5,)).start()\n"
    threads += "def f():\n    return 1"
    harmless = program(threads, "import time\ntime.sleep(1)\nassert candidate() == 1")
    with Sandbox(1, Limits(processes=16, wall_seconds=9.0)) as sandbox:
        assert sandbox.run([harmless])[0].passed
    watch = Watch("/tmp", walled=False)
    monkeypatch.setattr("seedjax.sandbox.containment.usage.processes", own_process)
    assert watch.exceeded(1 << 40, threads=0) == "processes"
    assert watch.exceeded(1 << 40, threads=10**6) == ""
    assert watch.exceeded(1 << 10, threads=10**6) == "memory"


def own_process() -> set[int]:
    return {os.getpid()}


def test_pages_that_processes_share_count_once():
    filled = bytearray(b"x") * (64 << 20)
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        names = ("RssAnon:", "VmSwap:")
        both = {os.getpid(), child}
        whole = held_by(both, names).num_bytes
        shared = sum(proportional_bytes(process, names) for process in both)
        assert whole - shared > len(filled) * 0.8
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


HONEST = {
    "two processes that share data": """
import multiprocessing
DATA = bytearray(b"x") * (60 << 20)
def part(number):
    return DATA[number]
def f():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(part, range(4)))
""",
    "threads, pipes and a subprocess": """
import subprocess, sys, threading
def f():
    done = []
    threads = [threading.Thread(target=done.append, args=(1,)) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    said = subprocess.run(["/bin/echo", "476"], capture_output=True, text=True).stdout
    return int(said) + len(done)
""",
    "an event loop": """
import asyncio
async def late():
    await asyncio.sleep(0.01)
    return 480
def f():
    return asyncio.run(late())
""",
    "files, copied, mapped and removed": """
import mmap, os, shutil, tempfile
def f():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a")
        with open(path, "wb") as file:
            file.write(b"x" * (1 << 20))
        shutil.copy(path, path + "b")
        with open(path + "b", "r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
            pages[0] = 0
            return 480 * (len(pages) == 1 << 20)
""",
    "its own priority and affinity": """
import os
def f():
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.nice(1)
    return 480
""",
    "much memory, one after the other": """
def f():
    for _ in range(8):
        x = bytearray(b"x") * (40 << 20)
        del x
    return 480
""",
}


def test_honest_programs_pass(sandbox):
    if landlock.version() == 0 and sandbox.isolation == "rlimits":
        pytest.skip("programs may write no file")
    honest = {n: s for n, s in HONEST.items() if "share" not in n}
    tested = [program(s, "assert candidate() == 480") for s in honest.values()]
    found = dict(zip(honest, sandbox.run(tested), strict=True))
    assert {n: o.message for n, o in found.items() if not o.passed} == {}


def test_shared_data_is_no_false_alarm():
    # A pool needs semaphores, which need files in /dev/shm: processes by hand.
    source = """
import os
DATA = bytearray(b"x") * (150 << 20)
def f():
    for _ in range(4):
        if os.fork() == 0:
            import time
            time.sleep(0.5)
            os._exit(DATA[0] - 120)
    return sum(os.wait()[1] for _ in range(4)) + 480
"""
    with Sandbox(1, Limits(wall_seconds=20.0)) as sandbox:
        (outcome,) = sandbox.run([program(source, "assert candidate() == 480")])
    assert outcome.passed, outcome


LEFT = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "{length}"])
    os._exit(0)
time.sleep(0.2)
os.makedirs("a/b/c")
open("a/b/c/file", "w").close()
os.chmod("a/b", 0)
for _ in range(300):
    os.mkdir("d")
    os.chdir("d")
os.kill(os.getppid(), {signal})
time.sleep(0.2)
"""


@pytest.fixture
def temporary(monkeypatch):
    """A folder for temporary files that every user may pass."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.representative("namespaces-9")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("kind", launch.KINDS)
def test_nothing_is_left(kind, number, temporary):
    length = random.randrange(10**8, 10**9)  # tells this run's from any other
    source = LEFT.format(length=length, signal=int(number))
    try:
        with Sandbox(1, Limits(wall_seconds=3.0), kind) as sandbox:
            script = Script(language="python", source=source, test="assert True")
            bad = program(source, "assert candidate()")
            good = program("def f():\n    return 1", "assert candidate() == 1")
            *_, last = sandbox.run([script, bad, good])
            assert last.passed
    except InputError as fault:
        pytest.skip(str(fault))
    assert not running(f"sleep {length}")
    assert list(temporary.iterdir()) == []


OPENED = """
import sys, time
from seedjax.sandbox.sandbox import Program, Sandbox
source = sys.argv[1]
with Sandbox(1, isolation="rlimits") as sandbox:
    print("open", flush=True)
    sandbox.run([Program(source=source, test="def check(f): f()", entry_point="f")])
"""


def test_nothing_is_left_of_one_that_is_killed(temporary):
    length = random.randrange(10**8, 10**9)
    source = f"import os, time\nopen('x', 'w')\nos.system('sleep {length} &')\n"
    source += "def f():\n    time.sleep(99)"
    words = [sys.executable, "-c", OPENED, source]
    paths = [str(REPOSITORY), *filter(None, sys.path)]
    variables = {"PYTHONPATH": ":".join(paths), "TMPDIR": str(temporary)}
    variables = os.environ | variables
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        time.sleep(0.5)
        assert list(temporary.iterdir())
        process.kill()
    for _ in range(100):
        if not list(temporary.iterdir()) and not running(f"sleep {length}"):
            break
        time.sleep(0.1)
    assert list(temporary.iterdir()) == []
    assert not running(f"sleep {length}")


@pytest.mark.skipif(not seccomp.is_available(), reason="no seccomp here")
def test_files_outside_stay_without_walls_and_landlock(monkeypatch, tmp_path):
    monkeypatch.setattr(landlock, "version", lambda: 0)
    os.chmod(tmp_path, 0o777)
    victim = tmp_path / "victim"
    victim.write_text("kept")
    os.chmod(victim, 0o666)
    source = f"""
import os
def f():
    done = []
    for attempt in (
        lambda: os.unlink({str(victim)!r}),
        lambda: os.rename({str(victim)!r}, {str(victim)!r} + "x"),
        lambda: open({str(victim)!r}, "w"),
        lambda: os.truncate({str(victim)!r}, 0),
        lambda: os.mkdir({str(tmp_path)!r} + "/new"),
        lambda: os.symlink("a", {str(tmp_path)!r} + "/link"),
        lambda: os.chmod({str(victim)!r}, 0),
        lambda: os.utime({str(victim)!r}, (0, 0)),
    ):
        try:
            done.append(str(attempt()))
        except OSError:
            pass
    return done
"""
    with Sandbox(1, isolation="rlimits") as sandbox:
        (outcome,) = sandbox.run([program(source, "assert candidate() == []")])
        assert "read this machine's files" in sandbox.describe()
    assert outcome.passed, outcome
    assert victim.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


def test_numbers_of_system_calls():
    """As the headers of the kernel have them, where they are installed."""
    import re

    found = 0
    for header, column in (
        ("x86_64-linux-gnu/asm/unistd_64.h", 0),
        ("asm-generic/unistd.h", 1),
    ):
        path = Path("/usr/include", header)
        if not path.exists():
            continue
        lines = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", path.read_text())
        known = {name: int(number) for name, number in lines}
        for name, numbers in seccomp.NUMBERS.items():
            if name in known:
                assert numbers[column] == known[name], name
                found += 1
    if not found:
        pytest.skip("no headers of the kernel")
