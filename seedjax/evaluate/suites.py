"""All suites by name: the published ones, everyday prompts, the lab's tasks as suites.

The lab's problems are made, not read: the test split's standard slice, seed 0, twenty
of each tier, which are those that `seedjax lab policies` examines.
"""

from pathlib import Path

from seedjax.errors import InputError
from seedjax.sandbox.sandbox import Program
from seedjax.tasks.lab.tasks import TASKS, TIERS, TaskName, make_task
from seedjax.tasks.suite import Problem, Source, Suite, Task, find
from seedjax.tasks.suites import SUITES as PUBLISHED
from seedjax.tasks.suites import everyday

LAB_PROBLEMS = 20  # of a tier
LAB_SEED = 0

_TASK: dict[TaskName, Task] = {
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


def _lab_suite(task: TaskName) -> Suite:
    def read(_: Path) -> list[Problem]:
        found = [
            make_task(task, index, split="test", tier=tier, seed=LAB_SEED)
            for tier in TIERS
            for index in range(LAB_PROBLEMS)
        ]
        return [
            Problem(
                problem_id=made.task_id,
                prompt=made.prompt,
                suffix=made.suffix,
                before=made.before,
                instruction=made.instruction,
                reference=made.canonical_solution,
                data={
                    name: getattr(made, name)
                    for name in ("test", "entry_point", "tier", "composition", "fault")
                },
            )
            for made in found
        ]

    return Suite(
        name=f"lab_{task}",
        title=f"the lab: {task}",
        family="Lab",
        task=_TASK[task],
        source=_SOURCE,
        num_problems=len(TIERS) * LAB_PROBLEMS,
        max_new_tokens=192,
        read=read,
        program=_lab_program,
        wrong=_lab_wrong,
    )


def _lab_program(problem: Problem, answer: str) -> Program:
    return Program(
        source=problem.prompt + answer + problem.suffix,
        test=problem.data["test"],
        entry_point=problem.data["entry_point"],
    )


def _lab_wrong(problem: Problem) -> str:
    if problem.before:
        return problem.before  # there is something to change, or it is no task
    # Syntax that no text around it can mend.
    return "raise ValueError )("


SUITES: dict[str, Suite] = PUBLISHED | {
    suite.name: suite for suite in (*everyday.SUITES, *map(_lab_suite, TASKS))
}


def find_suites(names: str) -> list[Suite]:
    """The suites of a list with commas, in its order. A name stands for one suite, or
    for all whose names begin with it and an underscore (`lab`, `mbxp`).

    Raises:
      InputError: for a name that is neither, and for an empty list.
    """
    found: dict[str, Suite] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        group = [key for key in SUITES if key.startswith(f"{name}_")]
        if name in SUITES or not group:
            group = [find(SUITES, name).name]
        found |= {key: SUITES[key] for key in group}
    if not found:
        raise InputError("no suite was named; `seedjax eval suites` lists them")
    return list(found.values())
