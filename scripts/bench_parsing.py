"""How many results parse and pass without and with the checks of
`seedjax.inference.checked`, and what the checks cost in forward passes, under the
model's own policy and two others.

Every task is decoded alone, at temperature 0 with the model's own recipe but for the
policy, by `Model.edit` or `Model.infill`; where its `Frame` objects to the result, by
`edit_checked` or `infill_checked`, which makes the same first attempt. `generate` is
only judged. A result passes if the whole program with it passes the task's test in the
sandbox. Counts, not seconds: a busy machine gives the same figures.

Usage: python scripts/bench_parsing.py --model mini --count 50
"""

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import seedjax
from seedjax.evaluate.statistics import wilson_interval
from seedjax.evaluate.verify import run_answers
from seedjax.inference.checked import edit_checked, infill_checked
from seedjax.inference.frames import (
    Frame,
    frame_of_hole,
    frame_of_program,
    frame_of_prompt,
)
from seedjax.inference.generation import Generation
from seedjax.inference.model import Model
from seedjax.sampling.policy import ConfidenceThreshold, LeftToRight
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import TASKS, TIERS, exam
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites import everyday, lab

POLICIES: dict[str, dict[str, Any]] = {
    "own": {},
    "one_per_step": {"policy": LeftToRight(threshold=None)},
    "confidence": {"policy": ConfidenceThreshold(threshold=0.9)},
}


def suites(count: int) -> list[tuple[Suite, list[Problem]]]:
    """The everyday prompts, and the lab's test tasks, `count` of each kind and tier."""
    prompts = [(suite, [*suite.read(Path())]) for suite in everyday.SUITES]
    return [*prompts, *lab.by_kind(exam(count, kinds=TASKS))]


def frame_of(task: Problem) -> Frame:
    """What the result of a task has to parse with."""
    if task.before:
        return frame_of_program(task.before, "python")
    if task.suffix:
        return frame_of_hole(task.prompt, task.suffix, "python")
    return frame_of_prompt(task.prompt, "python")


def decode(model: Model, task: Problem, checked: bool, **recipe: Any) -> Generation:
    """The result of a task."""
    if task.before:
        texts = task.before, task.instruction
        if checked:
            return edit_checked(model, *texts, language="python", **recipe)
        return model.edit(*texts, **recipe)
    if task.suffix:
        texts = task.prompt, task.suffix
        if checked:
            return infill_checked(model, *texts, language="python", **recipe)
        return model.infill(*texts, **recipe)
    return model.generate(task.prompt, **recipe)


def is_good(frame: Frame, result: Generation) -> bool:
    """Whether a result parses and may be handed out."""
    cut_off = result.finish_reason[0] == "length"
    text = result.texts[0]
    whole = frame.parses(text) is True
    return whole and frame.objection(text, cut_off=cut_off) is None


def share(found: Sequence[bool]) -> str:
    """The share that is true, with its 95 % interval."""
    low, high = wilson_interval(sum(found), len(found))
    return f"{sum(found) / len(found):.3f} ({low:.3f} to {high:.3f})"


def measure(
    model: Model,
    suite: Suite,
    tasks: Sequence[Problem],
    sandbox: Sandbox,
    **recipe: Any,
) -> str:
    """The cells of a suite's row: shares before and after the check, and forwards."""
    results: list[tuple[Generation, Generation]] = []
    parse: list[tuple[bool, bool]] = []
    for task in tasks:
        frame = frame_of(task)
        plain = after = decode(model, task, checked=False, temperature=0.0, **recipe)
        cut_off = plain.finish_reason[0] == "length"
        if frame.objection(plain.texts[0], cut_off=cut_off) is not None:
            after = decode(model, task, checked=True, temperature=0.0, **recipe)
        results.append((plain, after))
        parse.append((is_good(frame, plain), is_good(frame, after)))
    cells = [share([pair[place] for pair in parse]) for place in (0, 1)]
    # What does not parse is refused, and need not be run.
    runs = {
        (task.problem_id, pair[place].texts[0]): (task, pair[place].texts[0])
        for task, pair, good in zip(tasks, results, parse, strict=True)
        for place in (0, 1)
        if good[place]
    }
    outcomes = run_answers(suite, list(runs.values()), sandbox)
    passes = {
        name for name, outcome in zip(runs, outcomes, strict=True) if outcome.passed
    }
    for place in (0, 1):
        pairs = zip(tasks, results, strict=True)
        names = [(task.problem_id, pair[place].texts[0]) for task, pair in pairs]
        cells.append(share([name in passes for name in names]))
    for place in (0, 1):
        forwards = sum(pair[place].forwards for pair in results)
        cells.append(f"{forwards / len(tasks):.1f}")
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--count", type=int, default=50, help="of each kind and tier")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=[*POLICIES])
    arguments = parser.parse_args()
    print(f"{platform.processor()}, {jax.devices()}, jax {jax.__version__}, seedjax")
    print(
        f"{seedjax.__version__}: {' '.join(sys.argv)}; {len(TIERS)} tiers", flush=True
    )
    model = seedjax.load(arguments.model)
    print(
        "| policy | tasks | n | parse before | after | pass before | after | forwards "
        "per task before | after |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for policy in arguments.policies:
        for suite, tasks in suites(arguments.count):
            with Sandbox(workers=1, limits=suite.limits) as sandbox:
                cells = measure(model, suite, tasks, sandbox, **POLICIES[policy])
            name = suite.name.replace("_", " ")
            print(f"| {policy} | {name} | {len(tasks)} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
