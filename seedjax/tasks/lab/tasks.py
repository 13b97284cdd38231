"""Verifiable tasks over the lab's programs, and their files.

    generate  signature and docstring         ─▶ body
    infill    a program with a hole           ─▶ what belongs into it
    repair    a faulty program                ─▶ the whole program, mended
    edit      a program and an instruction    ─▶ the whole program, changed

An answer is right if `prompt + answer + suffix` passes `test`. A task is a function of
the seed, the split and its number alone.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from seedjax.errors import InputError
from seedjax.files.replacing import json_lines_with, replaced_file
from seedjax.files.text import format_json_line, open_for_writing, read_json_lines
from seedjax.tasks.lab.changes import draw_change
from seedjax.tasks.lab.checks import (
    MOST_TESTS,
    draw_cases,
    examples,
    passes,
    test_source,
)
from seedjax.tasks.lab.classes import draw_class
from seedjax.tasks.lab.compose import (
    LONGER,
    Slice,
    draw_composition,
    draw_held_out,
    draw_plan,
    is_allowed,
    is_writable,
    with_external_names,
)
from seedjax.tasks.lab.holes import draw_hole
from seedjax.tasks.lab.mutate import draw_mutations
from seedjax.tasks.lab.programs import Program, describe, finish_program, remarks
from seedjax.tasks.lab.structure import Split, split_of_tree, structure
from seedjax.tasks.lab.wording import Wording, phrases
from seedjax.tasks.suite import Problem

TaskName = Literal["generate", "infill", "repair", "edit"]

TASKS: tuple[TaskName, ...] = get_args(TaskName)
SPLITS: tuple[Split, ...] = get_args(Split)
SLICES: tuple[Slice, ...] = get_args(Slice)
TIERS = (1, 2, 3)

CLASS_SHARE = 0.06  # of the programs


@dataclass(frozen=True, kw_only=True)
class Task(Problem):
    """A problem that the lab has made, or one like it from a user's file.

    Attributes:
      problem_id: unique within a seed.
      reference: an answer that passes.
      entry_point: the function or class that is tested.
      test: source of `check(candidate)`, which raises if the candidate is wrong.
      task: which of the four.
      tier: number of primitives of the program.
      slice: part of the split, see `compose.Slice`.
      composition: names of the primitives.
      fault: what was done to the program (repair).
    """

    reference: str
    entry_point: str
    test: str
    task: TaskName
    tier: int
    slice: Slice
    composition: tuple[str, ...] = ()
    fault: str = ""

    def source(self, answer: str) -> str:
        """The whole program with an answer in it, such as `reference`."""
        return self.prompt + answer + self.suffix


def make_task(
    task: TaskName,
    index: int,
    *,
    split: Split = "train",
    tier: int | None = None,
    seed: int = 0,
    part: Slice = "standard",
    num_tests: int = MOST_TESTS,
) -> Task:
    """Task number `index`; always the same for the same arguments.

    Args:
      task: which of the four tasks.
      index: number within the seed, from 0.
      split: "train" or "test".
      tier: 1, 2 or 3; None takes turns. The slice "longer" has a tier of its own.
      seed: of the whole set.
      part: slice of the split; training has only "standard" and "names".
      num_tests: assertions of the test at most; 0 leaves the test empty and, where the
        task can do without, does not run the program.

    Raises:
      InputError: for a task, split, tier or slice that there is not.
    """
    check_set(task, split, tier, part)
    if part == "longer":
        tier = LONGER
    elif tier is None:
        tier = TIERS[index % len(TIERS)]
    name = f"lab/{task}/{split}/{part}/{tier}/{seed}/{index}"
    rng = random.Random(name)
    while True:
        made = _DRAW[task](rng, split, tier, part, num_tests)
        if made is not None:
            return dataclasses.replace(made, problem_id=name)


def check_set(task: str, split: str, tier: int | None, part: str) -> None:
    """Raises:
    InputError: if the arguments of `make_task` name a set that there is not.
    """
    _check_known("task", task, TASKS)
    _check_known("split", split, SPLITS)
    _check_known("tier", tier, (None, *TIERS))
    _check_known("slice", part, SLICES)
    if split == "train" and part not in ("standard", "names"):
        raise InputError(f"the slice {part!r} is of the test split only")


def _check_known(
    what: str, got: object, known: Sequence[object], *, where: str = ""
) -> None:
    if got not in known:
        listed = ", ".join(str(name) for name in known if name is not None)
        raise InputError(f"{where}unknown {what} {got!r}; there are {listed}")


def _wording(rng: random.Random, part: Slice) -> Wording:
    return Wording(rng, unseen=part == "paraphrase")


def draw_program(
    rng: random.Random, split: Split, tier: int, part: Slice
) -> Program | None:
    """A program of a split, or None if the draw came to nothing."""
    words = _wording(rng, part)
    if tier in TIERS and rng.random() < CLASS_SHARE:
        program = draw_class(words, tier)
        allowed = is_allowed(program.composition, program.source, split)
        return program if allowed else None
    even = split == "test" and tier == 1
    chain = draw_held_out(rng) if even else draw_composition(rng, tier)
    if not is_writable(chain):
        return None
    for _ in range(12 if split == "test" else 2):
        plan = draw_plan(rng, chain)
        if part == "names":
            plan = with_external_names(rng, plan)
        program = finish_program(plan, describe(words, plan))
        if is_allowed(program.composition, program.source, split):
            break
    else:
        return None
    further = remarks(rng, plan)
    shown = ""
    if rng.random() < 0.25:
        cases = draw_cases(rng, program, 5)
        shown = examples(program, [c for c in cases if len(repr(c.expected)) < 30][1:3])
    return finish_program(plan, program.description, remarks=further, examples=shown)


def _draw_generate(
    rng: random.Random, split: Split, tier: int, part: Slice, num_tests: int
) -> Task | None:
    program = draw_program(rng, split, tier, part)
    if program is None:
        return None
    test = _test(rng, program, num_tests)
    if test is None:
        return None
    return _task(program, "generate", part, program.head, program.body, test)


def _draw_infill(
    rng: random.Random, split: Split, tier: int, part: Slice, num_tests: int
) -> Task | None:
    whole = _draw_generate(rng, split, tier, part, num_tests)
    if whole is None:
        return None
    body = whole.reference
    start, stop = draw_hole(rng, body)
    return dataclasses.replace(
        whole,
        task="infill",
        prompt=whole.prompt + body[:start],
        reference=body[start:stop],
        suffix=body[stop:],
    )


def _draw_repair(
    rng: random.Random, split: Split, tier: int, part: Slice, num_tests: int
) -> Task | None:
    program = draw_program(rng, split, tier, part)
    if program is None:
        return None
    cases = draw_cases(rng, program, num_tests or 6)
    if not cases:
        return None
    source, start = program.source, len(program.head)
    for attempt, mutation in enumerate(draw_mutations(rng, source, start=start)):
        if attempt == 6:
            return None
        mutant = mutation.apply(source)
        if not _is_fair_mutant(mutant, split):
            continue
        if not passes(mutant, program, cases):
            made = _task(
                program, "repair", part, "", source, test_source(program, cases)
            )
            order = _wording(rng, part).pick(phrases("repair"))
            return dataclasses.replace(
                made, before=mutant, instruction=order, fault=mutation.fault
            )
    return None


def _is_fair_mutant(mutant: str, split: Split) -> bool:
    """Whether a mutant is Python and shows no tree of the other split in training."""
    try:
        tree = structure(mutant)
    except SyntaxError:
        return False
    return split == "test" or split_of_tree(tree) == "train"


def _draw_edit(
    rng: random.Random, split: Split, tier: int, part: Slice, num_tests: int
) -> Task | None:
    change = draw_change(_wording(rng, part), tier, external=part == "names")
    if change is None:
        return None
    before, after, order = change
    if not is_allowed(after.composition, after.source, split):
        return None
    if split == "train" and not is_allowed(before.composition, before.source, split):
        return None
    cases = draw_cases(rng, after, num_tests or 6)
    # What is there already must not pass, or there is nothing to do.
    if not cases or passes(before.source, after, cases):
        return None
    made = _task(after, "edit", part, "", after.source, test_source(after, cases))
    return dataclasses.replace(made, before=before.source, instruction=order)


_DRAW = {
    "generate": _draw_generate,
    "infill": _draw_infill,
    "repair": _draw_repair,
    "edit": _draw_edit,
}


def _test(rng: random.Random, program: Program, count: int) -> str | None:
    """The test of a program; empty if none is needed, None if none can be made."""
    if not count:
        return ""
    cases = draw_cases(rng, program, count)
    return test_source(program, cases) if cases else None


def _task(
    program: Program, task: TaskName, part: Slice, prompt: str, answer: str, test: str
) -> Task:
    return Task(
        problem_id="",
        prompt=prompt,
        entry_point=program.name,
        test=test,
        reference=answer,
        task=task,
        tier=program.tier,
        slice=part,
        composition=program.composition,
    )


def make_tasks(
    task: TaskName,
    count: int,
    *,
    split: Split,
    tier: int | None,
    seed: int,
    part: Slice = "standard",
) -> Iterator[Task]:
    """The first `count` tasks of a set; arguments and errors as for `make_task`."""
    check_set(task, split, tier, part)
    return (
        make_task(task, index, split=split, tier=tier, seed=seed, part=part)
        for index in range(count)
    )


def exam(count: int, *, kinds: Sequence[TaskName] = TASKS, seed: int = 0) -> list[Task]:
    """`count` tasks of the test split of each kind and tier, kind by kind."""
    places = itertools.product(kinds, TIERS, range(count))
    return [make_task(k, n, split="test", tier=t, seed=seed) for k, t, n in places]


_REQUIRED = ("task_id", "prompt", "entry_point", "test", "canonical_solution")
_LATER = ("task", "tier", "slice", "composition", "suffix", "before")
_FIELDS = (*_REQUIRED, *_LATER, "instruction", "fault")  # of a line, in this order
_NAMES = {"task_id": "problem_id", "canonical_solution": "reference"}
_KINDS: dict[str, tuple[type, str]] = {
    **{name: (str, "a text") for name in _REQUIRED},
    **{name: (str, "a text") for name in ("suffix", "before", "instruction", "fault")},
    "tier": (int, "a number"),
    "composition": (list, "a list"),
}


def write_tasks(path: str | Path, tasks: Iterable[Task], *, force: bool = False) -> int:
    """Writes tasks as JSON lines, without fields that are empty; returns how many. Of
    files that are there already only one of tasks is replaced, unless `force`.

    Raises:
      InputError: if the file cannot be written, before any task is made.
    """
    count, is_ours = 0, json_lines_with("task_id", "canonical_solution", "tier")
    with (
        replaced_file(path, force=force, is_ours=is_ours) as partial,
        open_for_writing(partial) as file,
    ):
        for task in tasks:
            fields = {name: getattr(task, _NAMES.get(name, name)) for name in _FIELDS}
            kept = {k: v for k, v in fields.items() if v or k in _REQUIRED}
            file.write(format_json_line(kept))
            count += 1
    return count


def read_tasks(path: str | Path) -> list[Task]:
    """Tasks of a JSON-lines file. Fields beyond HumanEval's may be missing, and fields
    that are not known are left out.

    Raises:
      InputError: for a file that is missing, empty or not UTF-8; with the number of the
        line for one that is no object, lacks a field, or has an unfit value in one.
    """
    lines = read_json_lines(path, hint="write tasks with `seedjax lab make`")
    tasks = [_read_task(line.values, line.where) for line in lines]
    if not tasks:
        raise InputError(f"{str(path)!r} holds no tasks")
    return tasks


def _read_task(found: dict[str, Any], where: str) -> Task:
    for name in _REQUIRED:
        if name not in found:
            raise InputError(f"{where}: the field {name!r} is missing")
    defaults: dict[str, Any] = {
        "task": "generate",
        "tier": 0,
        "slice": "standard",
        "composition": [],
    }
    given = defaults | {name: found[name] for name in found if name in _FIELDS}
    for name, (kind, rule) in _KINDS.items():
        if name in given and type(given[name]) is not kind:
            raise InputError(f"{where}: the field {name!r} is not {rule}")
    if not all(isinstance(part, str) for part in given["composition"]):
        raise InputError(f"{where}: the field 'composition' is not a list of texts")
    _check_known("task", given["task"], TASKS, where=f"{where}: ")
    _check_known("slice", given["slice"], SLICES, where=f"{where}: ")
    if given["task"] in ("repair", "edit") and not given.get("before"):
        raise InputError(f"{where}: the field 'before' is missing")
    given["composition"] = tuple(given["composition"])
    return Task(**{_NAMES.get(name, name): value for name, value in given.items()})
