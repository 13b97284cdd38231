"""A whole program in any language, judged by how its process ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from seedjax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Script:
    """One program with the answer in it, and its test.

    It passes where its last command ends with exit status 0, and in Python only where
    `test` has also run to its end (see containment/python_script.py).
    """

    language: str  # a table of runtimes.toml
    source: str
    test: str = ""  # Python only: run after `source`, in its namespace
    test_cases: bool = False  # the unittest.TestCase classes of `test` are run, too
    files: Mapping[str, str] = field(default_factory=dict)  # further ones beside it
    file_name: str = ""  # of `source`; "" = the runtime's own
    # What the program must print: so an exit with status 0 before its test does not
    # pass. Where it stands in `source`, a fresh secret takes its place, there and here.
    end_mark: str = ""
    compile: tuple[str, ...] = ()  # these two: other than the runtime's own
    command: tuple[str, ...] = ()
    wall_seconds: float | None = None  # None = the sandbox's
    memory_bytes: int | None = None  # None = the sandbox's

    def __post_init__(self):
        for name in (self.file_name, *self.files):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise InputError(
                    f"a file of a script is named {name!r}, a path below its folder is "
                    "needed"
                )
        if self.test_cases and not self.test:
            raise InputError("a script has `test_cases` but no `test` to define them")
        if self.test and self.language != "python":
            raise InputError(
                f"a script in {self.language} has a `test`, which only Python runs "
                "apart: put it into the source"
            )
