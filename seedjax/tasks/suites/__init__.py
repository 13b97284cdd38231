"""All suites by name: the published ones, everyday prompts, the lab's tasks as suites;
and files of a user's problems."""

from pathlib import Path

from seedjax.errors import InputError
from seedjax.tasks.suite import Suite, find
from seedjax.tasks.suites import (
    aider,
    bigcodebench,
    canitedit,
    cruxeval,
    evalplus,
    everyday,
    humaneval,
    humanevalpack,
    infilling,
    lab,
    livecodebench,
    mbpp,
    multilingual,
    naturalcodebench,
    quixbugs,
)

FILES = (
    humaneval,
    mbpp,
    evalplus,
    infilling,
    multilingual,
    bigcodebench,
    livecodebench,
    naturalcodebench,
    aider,
    canitedit,
    humanevalpack,
    quixbugs,
    cruxeval,
    everyday,
    lab,
)

SUITES: dict[str, Suite] = {
    suite.name: suite for file in FILES for suite in file.SUITES
}


def find_suites(names: str) -> list[Suite]:
    """The suites of a list with commas, in its order. A name stands for one suite, or
    for all whose names begin with it and an underscore (`lab`, `mbxp`); a name with a
    slash or a dot is a file of problems, as `seedjax lab make` writes them.

    Raises:
      InputError: for a name that is none of these, a file that cannot be read, and for
        an empty list.
    """
    found: dict[str, Suite] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        group = [key for key in SUITES if key.startswith(f"{name}_")]
        if name not in SUITES and not group and _is_path(name):
            found |= {suite.name: suite for suite in lab.read_file(Path(name))}
            continue
        if name in SUITES or not group:
            group = [find(SUITES, name).name]
        found |= {key: SUITES[key] for key in group}
    if not found:
        raise InputError("no suite was named; `seedjax eval suites` lists them")
    return list(found.values())


def _is_path(name: str) -> bool:
    return "/" in name or "." in name
