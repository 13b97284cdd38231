"""Nothing that a program does changes who says whether it is right, harms another, or
outlives its task."""

import os
import random
import socket
import time

import pytest
from contained import (
    REPOSITORY,
    RIGHT,
    adding,
    descendants,
    is_bare,
    is_walled,
    program,
    running,
)

from seedjax.sandbox.containment import landlock
from seedjax.sandbox.sandbox import Program

WALL_SECONDS = 1.0  # for every program of this file

AGREE = "    def __eq__(self, other):\n        return True\n    __hash__ = None\n"


# Each of these passes, or could pass, where the test runs in the program's process.
CHEATS = {
    "exit at import": "import os; os._exit(0)",
    "exit in a call": "import os\ndef add(a, b):\n    os._exit(0)",
    "sys.exit at import": "import sys; sys.exit(0)",
    "sys.exit in a call": "import sys\ndef add(a, b):\n    sys.exit(0)",
    "SystemExit": "def add(a, b):\n    raise SystemExit",
    "KeyboardInterrupt": "def add(a, b):\n    raise KeyboardInterrupt",
    "StopIteration": "def add(a, b):\n    raise StopIteration",
    "AssertionError replaced": (
        "import builtins\nbuiltins.AssertionError = type(None)\n"
        "def add(a, b):\n    return 0"
    ),
    "agreeable object": f"class A:\n{AGREE}def add(a, b):\n    return A()",
    "agreeable int": f"class A(int):\n{AGREE}def add(a, b):\n    return A(0)",
    "agreeable list": f"class A(list):\n{AGREE}def add(a, b):\n    return [A()]",
    "agreeable class": (
        f"class M(type):\n{AGREE}class add(metaclass=M):\n"
        f"    def __init__(self, a, b): pass\n{AGREE}"
    ),
    "agreeable subtraction": (
        "class A:\n    def __getattr__(self, name):\n        return lambda *_: True\n"
        "def add(a, b):\n    return A()"
    ),
    "check replaced": (
        "import sys\n"
        "for module in list(sys.modules.values()):\n"
        "    for name in ('check', 'judge', 'run_test', 'explain'):\n"
        "        if hasattr(module, name):\n"
        "            setattr(module, name, lambda *_: ('passed', ''))\n"
        "check = lambda candidate: None\n"
        "def add(a, b):\n    return 0"
    ),
    "forged verdict": """
import json, os, struct
def forge():
    for text in ('passed', '["passed", ""]', '{"status": 0}', '["value", true, null]'):
        for data in (text.encode(), struct.pack('>Q', len(text)) + text.encode()):
            for descriptor in range(3, 64):
                try:
                    os.write(descriptor, data)
                except OSError:
                    pass
forge()
def add(a, b):
    forge()
    return 0
""",
    "forged answers": """
import socket, struct
def add(a, b):
    forged = b'["value", ["object", 0], null]'
    channel = socket.socket(fileno=3)
    for _ in range(9):
        channel.sendall(struct.pack('>Q', len(forged)) + forged)
    return 0
""",
    "endless answer": """
import os, struct
def add(a, b):
    os.write(3, struct.pack('>Q', 1 << 62) + b'x' * 1000)
""",
    "deep answer": (
        "def add(a, b):\n    x = []\n    for _ in range(10**5):\n        x = [x]\n"
        "    return x"
    ),
    "endless recursion": "def add(a, b):\n    return add(a, b)",
    "bottomless recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "def add(a, b):\n    x = bytearray(10**6)\n    return add(a, b)"
    ),
}  # fmt: skip


def test_cheats_do_not_pass(sandbox):
    outcomes = sandbox.run([adding(source) for source in CHEATS.values()])
    passed = [name for name, o in zip(CHEATS, outcomes, strict=True) if o.passed]
    assert passed == []
    reasons = dict(zip(CHEATS, (o.reason for o in outcomes), strict=True))
    assert reasons["exit at import"] == reasons["exit in a call"] == "crashed"
    assert reasons["sys.exit at import"] == reasons["SystemExit"] == "error"
    assert reasons["agreeable object"] == reasons["agreeable int"] == "failed"
    assert reasons["endless recursion"] == "error"
    message = dict(zip(CHEATS, (o.message for o in outcomes), strict=True))
    assert message["exit in a call"].endswith("exit status 0")


def test_swallowing_tests_see_a_dead_program(sandbox):
    swallow = "try:\n    candidate()\nexcept BaseException:\n    pass"
    dead, fine = sandbox.run(
        [
            program("import os\ndef f():\n    os._exit(0)", swallow),
            program("def f():\n    1 / 0", swallow),
        ]
    )
    assert dead.reason == "crashed" and fine.passed


def test_iteration_does_not_end_early(sandbox):
    loop = """
for got, wanted in zip(map(candidate, [1, 2]), [1, 4]):
    assert got == wanted
"""
    (outcome,) = sandbox.run([program("def f(x):\n    raise StopIteration", loop)])
    assert outcome.reason == "error"


# Looks for the answer everywhere; the needle is put together only when it runs.
SPY = """
import gc, glob, inspect, os, sys
needle = "".join(["8675", "309"])
def texts():
    frames = [record.frame for record in inspect.stack()]
    frame = sys._getframe()
    while frame:
        frames.append(frame)
        frame = frame.f_back
    for frame in frames:
        yield repr(frame.f_code.co_consts) + repr(list(frame.f_globals))
    for thing in gc.get_objects():
        if type(thing) is dict:
            for value in list(thing.values()):
                if type(value) is str and value is not needle and "check" in value:
                    yield value
    for function in gc.get_objects():
        if inspect.isfunction(function):
            yield repr(function.__code__.co_consts)
    yield repr(sys.argv) + repr(dict(os.environ))
    for kind in ("cmdline", "environ", "fd/*"):
        for path in glob.glob(f"/proc/*/{kind}"):
            yield from contents(path)
    for path in glob.glob("/proc/[0-9]*"):
        if path != f"/proc/{os.getpid()}":
            yield from memory(path)
def contents(path):
    try:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                yield repr(file.read(10**6))
    except OSError:
        pass
def memory(process):
    try:
        with open(f"{process}/maps") as maps, open(f"{process}/mem", "rb") as file:
            for line in maps:
                place, rights, *_ = line.split()
                if rights == "rw-p" and "[v" not in line:
                    start, stop = (int(word, 16) for word in place.split("-"))
                    file.seek(start)
                    yield repr(file.read(min(stop - start, 10**7)))
    except (OSError, ValueError, OverflowError):
        pass
def f():
    return int(needle) if any(needle in text for text in texts()) else 0
"""
SPY_TEST = "def check(candidate):\n    assert candidate() == 8675309\n"


def test_the_answer_is_nowhere_to_be_seen(sandbox):
    namespace = {}
    exec(SPY + SPY_TEST, namespace)
    namespace["check"](namespace["f"])  # in one process it is found

    spy = Program(source=SPY, test=SPY_TEST, entry_point="f")
    if is_bare(sandbox):
        pytest.skip("programs can read the memory of this user's processes")
    (outcome,) = sandbox.run([spy])
    assert outcome.reason == "failed"


def test_the_answer_is_not_in_what_came_before(sandbox):
    # So many that each worker has run such a test before.
    tests = [program("def f():\n    pass", "assert candidate() == 8675309")] * 4
    if is_bare(sandbox):
        pytest.skip("programs can read the memory of this user's processes")
    sandbox.run(tests)
    (outcome,) = sandbox.run(
        [
            Program(
                source=SPY,
                test="def check(candidate):\n    assert candidate() == 0",
                entry_point="f",
            )
        ]
    )
    assert outcome.passed


POISONS = {
    "endless loop": ("while True: pass", "timeout"),
    "endless loop in a call": ("def add(a, b):\n    while True: pass", "timeout"),
    "sleep": ("import time\ndef add(a, b):\n    time.sleep(3600)", "timeout"),
    "ten gigabytes": ("def add(a, b):\n    return bytearray(10**10)[:1]", "memory"),
    "ever more": ("x = []\nwhile True:\n    x.append(bytearray(1 << 24))", "memory"),
    "fork bomb": ("import os\nwhile True:\n    os.fork()", None),
    "quiet fork bomb": (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError: pass",
        None,
    ),
    "thread bomb": (
        "import threading, time\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(99,)).start()",
        "error",
    ),
    "stops its parent": ("import os\nos.kill(os.getppid(), 19)\nsleep", None),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)\nsleep", None),
    "cripples its parent": (
        "import os, resource\nfor limit in range(16):\n"
        "    resource.prlimit(os.getppid(), limit, (1, 1))",
        None,
    ),
    "segmentation fault": ("import ctypes\nctypes.string_at(1)", "crashed"),
    "undeletable files": (
        "import os\nfor _ in range(1010):\n    os.mkdir('d')\n    os.chdir('d')\n"
        "os.chmod('.', 0)\nraise ValueError",
        None,
    ),
}  # fmt: skip


def test_poison_harms_nobody_else(sandbox):
    good = adding(RIGHT)
    sandbox.run([good] * 2)
    before = len(descendants())
    poisons = dict(POISONS)
    if not is_walled(sandbox):
        del poisons["undeletable files"]  # whose removal from a disk takes seconds
    mixed = [p for source, _ in poisons.values() for p in (adding(source), good)]
    begin = time.monotonic()
    outcomes = sandbox.run(mixed)
    assert [o.reason for o in outcomes[1::2]] == ["passed"] * len(poisons)
    for (name, (_, reason)), outcome in zip(
        poisons.items(), outcomes[::2], strict=True
    ):
        assert not outcome.passed, name
        assert reason in (None, outcome.reason), (name, outcome)
        assert outcome.seconds < 2, name
    assert time.monotonic() - begin < 30
    assert all(o.passed for o in sandbox.run([good] * 4))
    assert len(descendants()) == before


def test_nothing_keeps_running(sandbox):
    length = random.randrange(10**8, 10**9)  # tells this run's from any other
    daemon = f"""
import os, time
def f():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "{length}"])
        os._exit(0)
    time.sleep(0.2)
    return 1
"""
    (outcome,) = sandbox.run([program(daemon, "assert candidate() == 1")])
    if is_walled(sandbox):
        assert outcome.passed  # so it did fork
    assert not running(f"sleep {length}")


def test_files(sandbox, tmp_path):
    if not is_walled(sandbox) and landlock.version() == 0:
        pytest.skip("without walls and Landlock only the user's rights are a limit")
    os.chmod(tmp_path, 0o777)
    targets = [REPOSITORY / "written_by_a_program", tmp_path / "written_by_a_program"]
    source = f"""
def f():
    for path in {[str(target) for target in targets]}:
        try:
            open(path, "w").write("x")
        except OSError:
            pass
    try:
        return open({__file__!r}).read()[:1]
    except OSError:
        return ""
"""
    (outcome,) = sandbox.run([program(source, "assert candidate() == ''")])
    assert outcome.passed
    assert [target for target in targets if target.exists()] == []


def test_files_do_not_stay_for_the_next_program(sandbox):
    if is_bare(sandbox):
        pytest.skip("programs may write no file")
    source = f"""
import os
def f():
    found = []
    for folder in {[".", ".."] if is_walled(sandbox) else ["."]}:
        found += [name for name in os.listdir(folder) if name == "left"]
        try:
            open(os.path.join(folder, "left"), "w").close()
        except OSError:
            pass
    return found
"""
    outcomes = sandbox.run([program(source, "assert candidate() == []")] * 12)
    assert [outcome.message for outcome in outcomes] == [""] * 12


def test_network(sandbox):
    if not is_walled(sandbox) and landlock.version() < landlock.TCP_VERSION:
        assert "programs could reach the network" in sandbox.describe()
        pytest.skip("nothing here keeps programs from the network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"""
import socket
def f():
    try:
        socket.create_connection({server.getsockname()}, timeout=0.5)
    except OSError:
        return 0
    return 1
"""
        (outcome,) = sandbox.run([program(source, "assert candidate() == 0")])
    assert outcome.passed


def test_a_flood_of_output_is_swallowed(sandbox, capfd):
    flood = """
import sys
for _ in range(50):
    print("x" * 10**6)
    sys.stderr.write("y" * 10**6)
"""
    (outcome,) = sandbox.run([adding(flood + RIGHT)])
    assert outcome.passed
    assert capfd.readouterr() == ("", "")
