"""Verifiable tasks over the lab's programs, and their files.

    generate  signature and docstring         ─▶ body
    infill    a program with a hole           ─▶ what belongs into it
    repair    a faulty program                ─▶ the whole program, mended
    edit      a program and an instruction    ─▶ the whole program, changed

An answer is right if `prompt + answer + suffix` passes `test`. A task is a function of
the seed, the split and its number alone.
"""

import dataclasses
import io
import json
import random
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from seedjax.errors import InputError
from seedjax.lab.changes import draw_change
from seedjax.lab.checks import (
    MOST_TESTS,
    draw_cases,
    examples,
    passes,
    test_source,
)
from seedjax.lab.classes import draw_class
from seedjax.lab.compose import (
    LONGER,
    Program,
    Slice,
    describe,
    draw_composition,
    draw_plan,
    finish_program,
    is_allowed,
    is_writable,
    remarks,
)
from seedjax.lab.mutate import draw_mutations
from seedjax.lab.structure import Split, split_of_tree, structure

TaskName = Literal["generate", "infill", "repair", "edit"]

TASKS: tuple[TaskName, ...] = get_args(TaskName)
SLICES: tuple[Slice, ...] = get_args(Slice)
TIERS = (1, 2, 3)

CLASS_SHARE = 0.06  # of the programs

_REPAIRS = (
    "Fix the bug.",
    "Fix the function so that it does what the docstring says.",
    "There is a mistake in this code. Correct it.",
    "Repair the code.",
    "The tests fail. Mend the code.",
    "Something is wrong here; put it right.",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task; the first five fields are HumanEval's.

    Attributes:
      task_id: unique within a seed.
      prompt: text in front of the answer.
      entry_point: the function or class that is tested.
      test: source of `check(candidate)`, which raises if the candidate is wrong.
      canonical_solution: an answer that passes.
      task: which of the four.
      tier: number of primitives of the program.
      slice: part of the split, see `compose.Slice`.
      composition: names of the primitives.
      suffix: text behind the answer (infill).
      before: the program to mend or to change (repair, edit).
      instruction: what to do with it (repair, edit).
      fault: what was done to the program (repair).
    """

    task_id: str
    prompt: str
    entry_point: str
    test: str
    canonical_solution: str
    task: TaskName
    tier: int
    slice: Slice
    composition: tuple[str, ...] = ()
    suffix: str = ""
    before: str = ""
    instruction: str = ""
    fault: str = ""

    def source(self, answer: str) -> str:
        """The whole program with an answer in it."""
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
      part: slice of the test split; training has only "standard".
      num_tests: assertions of the test at most; 0 leaves the test empty and, where the
        task can do without, does not run the program.
    """
    if part == "longer":
        tier = LONGER
    elif tier is None:
        tier = TIERS[index % len(TIERS)]
    name = f"lab/{task}/{split}/{part}/{tier}/{seed}/{index}"
    rng = random.Random(name)
    while True:
        made = _DRAW[task](rng, split, tier, part, num_tests)
        if made is not None:
            return dataclasses.replace(made, task_id=name)


def draw_program(
    rng: random.Random, split: Split, tier: int, part: Slice, *, tested: bool = True
) -> Program | None:
    """A program of a split, or None if the draw came to nothing."""
    unseen = part == "paraphrase"
    if tier in TIERS and rng.random() < CLASS_SHARE:
        program = draw_class(rng, tier, unseen=unseen)
        return (
            program if is_allowed(program.composition, program.source, split) else None
        )
    chain = draw_composition(rng, tier)
    if not is_writable(chain):
        return None
    for _ in range(12 if split == "test" else 2):
        plan = draw_plan(rng, chain)
        program = finish_program(plan, describe(rng, plan, unseen=unseen))
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
    program = draw_program(rng, split, tier, part)
    if program is None:
        return None
    test = _test(rng, program, num_tests)
    if test is None:
        return None
    start, stop = draw_span(rng, program.body)
    head, body = program.head, program.body
    made = _task(program, "infill", part, head + body[:start], body[start:stop], test)
    return dataclasses.replace(made, suffix=body[stop:])


def draw_span(rng: random.Random, body: str) -> tuple[int, int]:
    """A hole in a body: one line, several lines, or a line from some token on, without
    the line break."""
    lines = body.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    numbers = [n for n, line in enumerate(lines) if line.strip()]
    first = rng.choice(numbers)
    kind = rng.random()
    if kind < 0.25:
        return starts[first], starts[rng.randrange(first, len(lines)) + 1]
    start = starts[first]
    stop = starts[first + 1]
    if kind < 0.65:
        return start, stop
    text = lines[first].strip()
    indent = len(lines[first]) - len(lines[first].lstrip())
    cuts = _token_starts(text)
    return start + indent + rng.choice(cuts), stop - 1


def _token_starts(line: str) -> list[int]:
    """Columns at which the tokens of a line begin. Lines that are no statement by
    themselves begin at 0."""
    try:
        tokens = [*tokenize.generate_tokens(io.StringIO(line).readline)]
    except tokenize.TokenError:
        return [0]
    return sorted({t.start[1] for t in tokens if t.string.strip() and t.start[0] == 1})


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
            order = _REPAIRS[-1] if part == "paraphrase" else rng.choice(_REPAIRS[:-1])
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
    change = draw_change(rng, tier, unseen=part == "paraphrase")
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
    """The test of a program; empty if none is wanted, None if none can be made."""
    if not count:
        return ""
    cases = draw_cases(rng, program, count)
    return test_source(program, cases) if cases else None


def _task(
    program: Program, task: TaskName, part: Slice, prompt: str, answer: str, test: str
) -> Task:
    return Task(
        task_id="",
        prompt=prompt,
        entry_point=program.name,
        test=test,
        canonical_solution=answer,
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
    """The first `count` tasks of a set."""
    for index in range(count):
        yield make_task(task, index, split=split, tier=tier, seed=seed, part=part)


_REQUIRED = ("task_id", "prompt", "entry_point", "test", "canonical_solution")


def write_tasks(path: str | Path, tasks: Iterable[Task]) -> int:
    """Writes tasks as JSON lines, without fields that are empty; returns how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for task in tasks:
            fields = dataclasses.asdict(task)
            kept = {k: v for k, v in fields.items() if v or k in _REQUIRED}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_tasks(path: str | Path) -> list[Task]:
    """Tasks of a JSON-lines file. Fields beyond HumanEval's may be missing, and fields
    that are not known are left out.

    Raises:
      InputError: for a missing file, a line that is no object, or a missing field.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no task file {str(path)!r}; write one with `seedjax lab make`"
        )
    known = {field.name for field in dataclasses.fields(Task)}
    tasks = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path}:{number}"
        try:
            found: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not a line of JSON: {error.msg}") from error
        if not isinstance(found, dict):
            raise InputError(f"{where}: wanted a JSON object, got {line[:40]!r}")
        missing = [name for name in _REQUIRED if name not in found]
        if missing:
            raise InputError(f"{where}: the field {missing[0]!r} is missing")
        given = {name: value for name, value in found.items() if name in known}
        given["composition"] = tuple(given.get("composition", ()))
        given = {"task": "generate", "tier": 0, "slice": "standard"} | given
        if given["task"] not in TASKS:
            raise InputError(
                f"{where}: unknown task {given['task']!r}; there are {', '.join(TASKS)}"
            )
        if given["task"] in ("repair", "edit") and not given.get("before"):
            raise InputError(f"{where}: the field 'before' is missing")
        tasks.append(Task(**given))
    if not tasks:
        raise InputError(f"{str(path)!r} holds no tasks")
    return tasks
