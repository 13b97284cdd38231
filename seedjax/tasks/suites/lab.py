"""The lab's tasks as suites, and a user's file of problems of the same form.

The lab's problems are made, not read: the test split's standard slice, seed 0, twenty
of each tier.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from seedjax.errors import InputError
from seedjax.files.text import read_bytes
from seedjax.sandbox.sandbox import Program
from seedjax.tasks.lab.tasks import TASKS, Task, TaskName, exam, read_tasks
from seedjax.tasks.suite import Kind, Problem, Source, Suite

LAB_PROBLEMS = 20  # of a tier
LAB_SEED = 0

KINDS: dict[TaskName, Kind] = {
    "generate": "complete",
    "infill": "infill",
    "repair": "edit",
    "edit": "edit",
}

_SOURCE = Source(
    project="seedjax",
    version=f"test split, seed {LAB_SEED}",
    licence="Apache-2.0",
    address="made on the spot",
    files={},
)


def by_kind(
    problems: Iterable[Task], *, name: str = "lab", source: Source = _SOURCE
) -> list[tuple[Suite, list[Problem]]]:
    """Problems by kind, each kind under a suite of its own, `NAME_KIND`; those that are
    questions apart, `NAME_asked_KIND`, since a chat model takes them otherwise."""
    found: dict[tuple[TaskName, str], list[Problem]] = {}
    for problem in problems:
        form = f"{name}_asked" if problem.question else name
        found.setdefault((problem.task, form), []).append(problem)
    return [
        (suite_of(kind, chosen, name=form, source=source), chosen)
        for kind in TASKS
        for form in (name, f"{name}_asked")
        if (chosen := found.get((kind, form)))
    ]


def suite_of(
    kind: TaskName,
    problems: Sequence[Problem] | None = None,
    *,
    name: str = "lab",
    source: Source = _SOURCE,
) -> Suite:
    """The suite of these problems; of the lab's own of this kind for None."""

    def read(_: Path) -> list[Problem]:
        made = exam(LAB_PROBLEMS, kinds=[kind], seed=LAB_SEED)
        return [*(made if problems is None else problems)]

    return Suite(
        name=f"{name}_{kind}",
        title=f"the lab: {kind}" if problems is None else f"{name}: {kind}",
        family="Lab",
        task=KINDS[kind],
        source=source,
        num_problems=3 * LAB_PROBLEMS if problems is None else len(problems),
        max_new_tokens=192,
        read=read,
        program=program,
        wrong=wrong,
    )


def read_file(path: Path) -> list[Suite]:
    """The problems of a user's file, in the fields of HumanEval (see `read_tasks`): a
    suite for each kind of task that is in it.

    Raises:
      InputError: for a file that cannot be read, or with an id twice.
    """
    problems = read_tasks(path)
    known: set[str] = set()
    for problem in problems:
        if problem.problem_id in known:
            raise InputError(
                f"{str(path)!r} has task_id {problem.problem_id!r} twice; name each "
                "problem otherwise"
            )
        known.add(problem.problem_id)
    source = Source(
        project=path.name,
        version=hashlib.sha256(read_bytes(path)).hexdigest()[:16],
        licence="unspecified",
        address=str(path),
        files={},
    )
    name = path.name.partition(".")[0]
    return [suite for suite, _ in by_kind(problems, name=name, source=source)]


def program(problem: Problem, answer: str) -> Program:
    """The whole program with an answer in it, and its test."""
    task = cast(Task, problem)
    return Program(
        source=task.source(answer), test=task.test, entry_point=task.entry_point
    )


def wrong(problem: Problem) -> str:
    """An answer that fails: the program as it is, or what is no Python."""
    if problem.before:
        return problem.before  # there is something to change, or it is no task
    # Syntax that no text around it can mend.
    return "raise ValueError )("


SUITES = tuple(map(suite_of, TASKS))
