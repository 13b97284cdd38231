"""Whole programs that mean harm: contained, counted as failures; the run goes on."""

import os
import random
import socket
import time

import pytest
from contained import (
    REPOSITORY,
    RIGHT,
    descendants,
    is_bare,
    is_walled,
    running,
)

from seedjax.sandbox.containment import landlock
from seedjax.sandbox.runtimes import missing
from seedjax.sandbox.script import Script

WALL_SECONDS = 4.0  # for every program of this file

TEST = (
    "import unittest\nassert add(2, 3) == 5\nunittest.TestCase().assertTrue(add(0, 1))"
)
RUN_ON = "\ndef add(a, b):\n    return 0\n"

# Source -> what may be said of it; None for anything but a pass.
HOSTILE = {
    "endless loop": ("while True: pass", "timeout"),
    "endless loop in a call": ("def add(a, b):\n    while True: pass", "timeout"),
    "fork bomb": ("import os\nwhile True:\n    os.fork()", None),
    "memory bomb": ("x = []\nwhile True:\n    x.append(bytearray(1 << 20))", "memory"),
    "memory bomb of several processes": (
        "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n        break\n"
        "x = bytearray(60 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
        "time.sleep(99)",
        "memory",
    ),
    "disk filler": (
        "n = 0\nwhile True:\n    n += 1\n"
        "    with open(f'filler{n}', 'wb') as file:\n        file.write(bytes(10**7))",
        None,
    ),
    "one large file": (
        "with open('filler', 'wb') as file:\n    while True: file.write(bytes(10**6))",
        "error",
    ),
    "prints a gigabyte": (
        "import sys\nfor _ in range(1000):\n    sys.stdout.write('x' * 10**6)",
        None,
    ),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)\nsleep", None),
    "stops its parent": ("import os\nos.kill(os.getppid(), 19)\nsleep", None),
    "sys.exit": ("import sys; sys.exit(0)", "error"),
    "sys.exit in a call": ("import sys\ndef add(a, b):\n    sys.exit(0)", "error"),
    "os._exit": ("import os; os._exit(0)", "crashed"),
    "os._exit in a call": ("import os\ndef add(a, b):\n    os._exit(0)", "crashed"),
    "SystemExit": ("raise SystemExit", "error"),
    "exit handler": (
        f"import atexit, os\natexit.register(os._exit, 0){RUN_ON}",
        "failed",
    ),
    "another program": ("import os\nos.execv('/bin/true', ['true'])", "crashed"),
    "unittest replaced": (
        "import unittest\nunittest.TestCase.assertTrue = lambda *_: None\n"
        "unittest.TestCase = object\ndef add(a, b):\n    return 5 if a else 0",
        "failed",
    ),
    "unittest replaced in a call": (
        "import unittest\ndef add(a, b):\n"
        "    unittest.TestCase.assertTrue = lambda *_: None\n"
        "    return 5 if a else 0",
        "failed",
    ),
    "code of unittest replaced": (
        "import unittest\n"
        "unittest.TestCase.assertTrue.__code__ = (lambda *_: None).__code__\n"
        "def add(a, b):\n    return 5 if a else 0",
        "failed",
    ),
    "module replaced": (
        "import sys, types\nfake = types.ModuleType('unittest')\n"
        "class TestCase:\n    def assertTrue(self, value): pass\n"
        "fake.TestCase = TestCase\nsys.modules['unittest'] = fake\n"
        "def add(a, b):\n    return 5 if a else 0",
        "failed",
    ),
    "built-in names replaced": (
        "import builtins\nbuiltins.AssertionError = type(None)\n"
        f"builtins.compile = builtins.exec = lambda *_, **__: None{RUN_ON}",
        "failed",
    ),
    "own built-in names": (f"__builtins__ = {{'__import__': print}}{RUN_ON}", "failed"),
    "checker replaced": (
        "import sys\nfor module in list(sys.modules.values()):\n"
        "    for name in ('run', 'describe', 'read_frame', 'run_test_cases'):\n"
        "        if 'seedjax' in module.__name__ and hasattr(module, name):\n"
        f"            setattr(module, name, lambda *_: ['ended', '']){RUN_ON}",
        None,
    ),
    "forged end": (
        "import json, os, struct\n"
        "for report in (['ended', ''], ['ended', None], ['loaded'], True):\n"
        "    text = json.dumps(report).encode()\n"
        "    for number in range(1, 64):\n"
        "        try:\n"
        "            os.write(number, struct.pack('>Q', len(text)) + text)\n"
        f"        except OSError: pass{RUN_ON}",
        None,
    ),
    "tracing": (f"import sys, os\nsys.settrace(lambda *_: os._exit(0)){RUN_ON}", None),
    "endless recursion": ("def add(a, b):\n    return add(a, b)", "error"),
    "bottomless recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "def add(a, b):\n    return [add(a, b)]",
        None,
    ),
    "C-level crash": ("import ctypes\nctypes.string_at(1)", "crashed"),
}  # fmt: skip


def python(source: str, test: str = TEST) -> Script:
    return Script(language="python", source=source, test=test)


@pytest.mark.representative("namespaces", "bubblewrap")
def test_hostile_scripts_fail_and_the_run_goes_on(sandbox):
    good = Script(language="python", source=RIGHT, test=TEST, wall_seconds=20.0)
    sandbox.run([good] * 4)
    before = len(descendants())
    mixed = [
        script for source, _ in HOSTILE.values() for script in (python(source), good)
    ]
    begin = time.monotonic()
    outcomes = sandbox.run(mixed)
    assert [o.reason for o in outcomes[1::2]] == ["passed"] * len(HOSTILE)
    for (name, (_, reason)), outcome in zip(
        HOSTILE.items(), outcomes[::2], strict=True
    ):
        assert not outcome.passed, name
        assert reason in (None, outcome.reason), (name, outcome)
        assert len(outcome.output) <= 1 << 16, name
    assert time.monotonic() - begin < 120
    assert all(o.passed for o in sandbox.run([good] * 4))
    assert len(descendants()) <= before


@pytest.fixture(scope="module", autouse=True)
def secret():
    patch = pytest.MonkeyPatch()
    patch.setenv("SEEDJAX_TEST_SECRET", "8675309")
    yield
    patch.undo()


def test_environment_variables_are_not_seen(sandbox):
    if is_bare(sandbox):
        pytest.skip("programs can read what this user's processes were started with")
    spy = """
import glob, os
needle = "".join(["8675", "309"])
seen = repr(dict(os.environ))
for path in glob.glob("/proc/*/environ"):
    try:
        seen += repr(open(path, "rb").read())
    except OSError:
        pass
"""
    (outcome,) = sandbox.run([python(spy, "assert needle not in seen")])
    assert outcome.passed, outcome.message


def test_files_outside_are_not_written(sandbox, tmp_path):
    if not is_walled(sandbox) and landlock.version() == 0:
        pytest.skip("without walls and Landlock only the user's rights are a limit")
    os.chmod(tmp_path, 0o777)
    targets = [REPOSITORY / "written_by_a_script", tmp_path / "written_by_a_script"]
    source = f"""
for path in {[str(target) for target in targets]}:
    try:
        open(path, "w").write("x")
    except OSError:
        pass
"""
    (outcome,) = sandbox.run([python(source, "assert True")])
    assert outcome.passed
    assert [target for target in targets if target.exists()] == []


def test_files_do_not_stay_for_the_next_script(sandbox):
    if is_bare(sandbox):
        pytest.skip("programs may write no file")
    source = "import os\nfound = os.listdir('.')\nopen('left', 'w').close()\n"
    if is_walled(sandbox):
        source += "open('../left', 'w').close()\nfound += os.listdir('..')\n"
    outcomes = sandbox.run([python(source, "assert found.count('left') < 2")] * 9)
    assert all(outcome.passed for outcome in outcomes)
    source = "import os\nfound = os.listdir('.') + os.listdir('..')\n"
    if is_walled(sandbox):
        (outcome,) = sandbox.run([python(source, "assert 'left' not in found")])
        assert outcome.passed


def test_sockets_lead_nowhere(sandbox):
    if not is_walled(sandbox) and landlock.version() < landlock.TCP_VERSION:
        pytest.skip("nothing here keeps programs from the network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"""
import socket
try:
    socket.create_connection({server.getsockname()}, timeout=0.5)
    reached = True
except OSError:
    reached = False
"""
        (outcome,) = sandbox.run([python(source, "assert not reached")])
    assert outcome.passed


def test_no_process_is_left(sandbox):
    length = random.randrange(10**8, 10**9)  # tells this run's from any other
    source = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "{length}"])
    os._exit(0)
time.sleep(0.2)
"""
    (outcome,) = sandbox.run([python(source, "assert True")])
    if is_walled(sandbox):
        assert outcome.passed  # so it did fork
    assert not running(f"sleep {length}")


# Language -> sources that end early, run on, and take all memory.
ELSEWHERE = {
    "perl": (
        "exit 0;",
        "1 while 1;",
        "my @x; push @x, 'x' x 1000000 while 1;",
        "print 'x' x 1000000 while 1;",
        "fork while 1;",
    ),
    "javascript": (
        "process.exit(0)",
        "while (true) {}",
        "const x = []; while (true) x.push(new Array(1e6).fill(x.length))",
        "while (true) require('fs').writeSync(1, 'x'.repeat(1e6))",
        "while (true) require('child_process').spawn('node', ['main.js'])",
    ),
}


@pytest.mark.representative("bubblewrap-perl")
@pytest.mark.parametrize(
    "language",
    [
        pytest.param(name, marks=() if name == "perl" else pytest.mark.slow)
        for name in ELSEWHERE
    ],
)
def test_other_languages_are_contained(sandbox, language):
    why = missing(language)
    if why is not None:
        pytest.skip(why)
    if is_bare(sandbox):
        pytest.skip("programs may write no file")
    good = {
        "perl": "print 'MARK';",
        "javascript": "console.log('MARK')",
    }[language]
    before = len(descendants())
    outcomes = sandbox.run(
        [
            Script(
                language=language,
                source=f"{source}\n{good}",
                end_mark="MARK",
                wall_seconds=20.0 if source == "" else 3.0,
            )
            for source in ("", *ELSEWHERE[language], "")
        ]
    )
    assert [o.passed for o in outcomes] == [True, *[False] * 5, True], outcomes
    assert outcomes[1].message.startswith("the program ended before its test did")
    assert outcomes[2].reason == "timeout"
    assert len(descendants()) <= before + 4  # a worker's process for this language
