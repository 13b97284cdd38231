"""What the tests of the sandbox share: programs, and a look at what is running."""

import os
from pathlib import Path

from seedjax.sandbox.containment import landlock
from seedjax.sandbox.sandbox import Program

REPOSITORY = Path(__file__).parent.parent


ADD_TEST = """
def check(candidate):
    assert candidate(2, 3) == 5
    assert candidate(10, -4) == 6
"""


RIGHT = "def add(a, b):\n    return a + b\n"


def adding(source: str) -> Program:
    return Program(source=source, test=ADD_TEST, entry_point="add")


def program(source: str, test: str, name: str = "f", **more) -> Program:
    lines = "".join(f"    {line}\n" for line in test.strip().splitlines())
    return Program(
        source=source, test=f"def check(candidate):\n{lines}", entry_point=name, **more
    )


def is_walled(sandbox) -> bool:
    return sandbox.isolation != "rlimits"


def is_bare(sandbox) -> bool:
    """Neither walls nor Landlock: programs may write no file."""
    return not is_walled(sandbox) and landlock.version() == 0


def descendants() -> set[int]:
    """All processes below this one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        parents[int(path.parent.name)] = int(fields[1])
    family, size = {os.getpid()}, 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return family


def running(words: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in path.read_text().replace("\0", " "):
                return True
        except OSError:
            continue
    return False
