"""Everyday tasks for training, drawn by number.

    concept, slots ─▶ snippet ─▶ generate | infill | repair | edit ─▶ Task

Combinations of a concept and its alternatives are split by a hash, where a concept has
enough of them; the test split is for watching a run. No task shares a run of ten words
with the held-out prompts of `seedjax.tasks.suites.everyday`, or has a prompt that is
one of theirs but for white space, letters' case and punctuation.
"""

import functools
import random
from collections.abc import Sequence

from seedjax.data.decontaminate import (
    everyday_contamination,
    prompt_fingerprint,
    telling_runs,
)
from seedjax.tasks.lab.everyday.concepts import (
    Concept,
    Snippet,
    choices_of,
    concepts,
    draw_snippet,
)
from seedjax.tasks.lab.everyday.edits import draw_edit, draw_kind
from seedjax.tasks.lab.everyday.faults import draw_fault
from seedjax.tasks.lab.everyday.layouts import (
    Prompted,
    ask_class,
    ask_function,
    ask_script,
    ask_test,
    docstring,
)
from seedjax.tasks.lab.holes import draw_hole
from seedjax.tasks.lab.structure import Split, bucket
from seedjax.tasks.lab.tasks import TASKS, Task, TaskName

ENOUGH = 4  # combinations of a concept from which on some are held out
HELD_OUT = 8  # one in so many
TESTS = 0.06  # of the generate tasks
DOCUMENTED = 0.35  # of the programs of repairs
PROGRAMS_TRIED = 12  # for a kind of edit

# Concepts are many where functions are; the others weigh more each.
_WEIGHTS = {"function": 1.0, "class": 3.0, "script": 2.0, "assign": 3.0}


def draw_everyday(
    rng: random.Random,
    split: Split,
    weights: Sequence[float],
    *,
    external: float = 0.15,
) -> Task:
    """A task; the same for the same state of `rng`.

    Args:
      rng: chooses.
      split: whose combinations it may show.
      weights: of the kinds of `TASKS`.
      external: share of the names that are not among those of the data files.
    """
    kind = rng.choices(TASKS, weights)[0]
    while True:
        snippet = _draw_snippet(rng, split, external)
        made = _DRAW[kind](rng, snippet, split, external)
        if made is not None and not is_held_out(made):
            return made


def _draw_snippet(rng: random.Random, split: Split, external: float) -> Snippet:
    everything = _by_weight()
    while True:
        concept = rng.choices(everything[0], everything[1])[0]
        chosen = choices_of(concept, rng)
        if split_of(concept, chosen) == split:
            return draw_snippet(concept, rng, chosen, external=external)


@functools.cache
def _by_weight() -> tuple[list[Concept], list[float]]:
    found = list(concepts().values())
    return found, [_WEIGHTS[concept.kind] for concept in found]


def split_of(concept: Concept, chosen: dict[str, str]) -> Split:
    """The split of a combination of alternatives."""
    count = 1
    for _, rows in concept.lets:
        count *= len(rows)
    if count < ENOUGH:
        return "train"
    key = " ".join((concept.name, *(chosen[name] for name in sorted(chosen))))
    return "test" if bucket(f"everyday {key}") % HELD_OUT == 0 else "train"


def is_held_out(task: Task) -> bool:
    """Whether a task comes too near to a held-out prompt."""
    known = everyday_contamination()
    texts = (task.source(task.reference), task.before, task.instruction)
    prompted = prompt_fingerprint(
        task.prompt, task.suffix, task.before, task.instruction
    )
    return known.knows(prompted) or any(
        known.knows(telling_runs(text)) for text in texts if text
    )


def _task(kind: TaskName, snippet: Snippet, **fields: str) -> Task:
    return Task(
        problem_id=f"everyday/{kind}/{snippet.concept.name}",
        entry_point=snippet.name,
        test="",
        task=kind,
        tier=0,
        slice="standard",
        composition=(snippet.concept.name,),
        **{"prompt": "", **fields},  # type: ignore[arg-type]
    )


def _prompted(rng: random.Random, snippet: Snippet) -> Prompted | None:
    kind = snippet.concept.kind
    if kind == "class":
        return ask_class(rng, snippet)
    if kind in ("script", "assign"):
        return ask_script(rng, snippet)
    if rng.random() < TESTS and not snippet.concept.real:
        return ask_test(rng, snippet)
    return ask_function(rng, snippet)


def _generate(
    rng: random.Random, snippet: Snippet, split: Split, external: float
) -> Task | None:
    prompted = _prompted(rng, snippet)
    if prompted is None:
        return None
    return _task("generate", snippet, prompt=prompted.prompt, reference=prompted.answer)


def _infill(
    rng: random.Random, snippet: Snippet, split: Split, external: float
) -> Task | None:
    head = snippet.head
    if rng.random() < 0.5 and snippet.concept.kind == "function":
        head += docstring(rng, snippet)
    start, stop = draw_hole(rng, snippet.body)
    prompt, suffix = head + snippet.body[:start], snippet.body[stop:]
    if not (prompt + suffix).strip():
        return None  # of a script without its comment nothing is left to go by
    return _task(
        "infill",
        snippet,
        prompt=prompt,
        reference=snippet.body[start:stop],
        suffix=suffix,
    )


def _repair(
    rng: random.Random, snippet: Snippet, split: Split, external: float
) -> Task | None:
    if snippet.concept.real:
        return None  # it would take a folder to see whether a mutant fails
    head = snippet.head
    if rng.random() < DOCUMENTED and snippet.concept.kind == "function":
        head += docstring(rng, snippet)
    source = head + snippet.body
    found = draw_fault(rng, snippet, source, len(head))
    if found is None:
        return None
    before, order = found
    return _task("repair", snippet, reference=source, before=before, instruction=order)


def _edit(
    rng: random.Random, snippet: Snippet, split: Split, external: float
) -> Task | None:
    name = draw_kind(rng)
    # Some kinds of edit fit few programs, and would be rare if one were tried.
    for _ in range(PROGRAMS_TRIED):
        other = _draw_snippet(rng, split, external)
        if other.concept.kind == "function":
            made = draw_edit(rng, name, snippet, other)
            if made is not None:
                break
        snippet = _draw_snippet(rng, split, external)
    else:
        return None
    return _task(
        "edit",
        snippet,
        reference=made.after,
        before=made.before,
        instruction=made.instruction,
    )


_DRAW = {"generate": _generate, "infill": _infill, "repair": _repair, "edit": _edit}
