"""How many results parse without and with the checks of
`seedjax.inference.checked`, and what the checks cost in forward passes.

Every task is decoded alone, at temperature 0 with the model's own recipe, by
`Model.edit` or `Model.infill`; where its `Frame` objects to the result, by
`edit_checked` or `infill_checked`, which makes the same first attempt. `generate` is
only judged. Counts, not seconds: a busy machine gives the same figures.

Usage: python scripts/bench_parsing.py --model mini --count 50 --everyday
"""

import argparse
import json
import platform
import sys
from collections import defaultdict
from importlib import resources
from typing import Any

import jax

import seedjax
from seedjax.evaluate.statistics import wilson_interval
from seedjax.inference.checked import edit_checked, infill_checked
from seedjax.inference.frames import (
    Frame,
    frame_of_hole,
    frame_of_program,
    frame_of_prompt,
)
from seedjax.inference.generation import Generation
from seedjax.inference.model import Model
from seedjax.tasks.lab.tasks import TASKS, TIERS, exam

Row = tuple[str, dict[str, str]]


def lab_rows(count: int) -> list[Row]:
    """The lab's test tasks, `count` of each kind and tier."""
    tasks = exam(count, kinds=TASKS)
    names = ("prompt", "suffix", "before", "instruction")
    return [
        (f"lab {task.task}", {name: getattr(task, name) for name in names})
        for task in tasks
    ]


def everyday_rows() -> list[Row]:
    """The everyday prompts."""
    file = resources.files("seedjax.tasks.suites") / "everyday.jsonl"
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [(f"everyday {row['id'].split('/')[1]}", row) for row in rows]


def frame_of(row: dict[str, str]) -> Frame:
    """What the result of a task has to parse with."""
    if row.get("before"):
        return frame_of_program(row["before"], "python")
    if row.get("suffix"):
        return frame_of_hole(row["prompt"], row["suffix"], "python")
    return frame_of_prompt(row["prompt"], "python")


def decode(model: Model, row: dict[str, str], checked: bool, **recipe: Any) -> Any:
    """The result of a task."""
    if row.get("before"):
        texts = row["before"], row["instruction"]
        if checked:
            return edit_checked(model, *texts, language="python", **recipe)
        return model.edit(*texts, **recipe)
    if row.get("suffix"):
        texts = row["prompt"], row["suffix"]
        if checked:
            return infill_checked(model, *texts, language="python", **recipe)
        return model.infill(*texts, **recipe)
    return model.generate(row["prompt"], **recipe)


def is_good(frame: Frame, result: Generation) -> bool:
    """Whether a result parses and may be handed out."""
    cut_off = result.finish_reason[0] == "length"
    text = result.texts[0]
    whole = frame.parses(text) is True
    return whole and frame.objection(text, cut_off=cut_off) is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--count", type=int, default=50, help="of each kind and tier")
    parser.add_argument("--everyday", action="store_true", help="everyday prompts too")
    arguments = parser.parse_args()
    print(f"{platform.processor()}, {jax.devices()}, jax {jax.__version__}, seedjax")
    print(
        f"{seedjax.__version__}: {' '.join(sys.argv)}; {len(TIERS)} tiers", flush=True
    )
    model = seedjax.load(arguments.model)
    rows = lab_rows(arguments.count)
    rows = [*(everyday_rows() if arguments.everyday else []), *rows]
    totals: dict[str, list[tuple[bool, bool, int, int]]] = defaultdict(list)
    for number, (kind, row) in enumerate(rows, 1):
        frame = frame_of(row)
        plain = decode(model, row, checked=False, temperature=0.0)
        before, after = is_good(frame, plain), plain
        cut_off = plain.finish_reason[0] == "length"
        if frame.objection(plain.texts[0], cut_off=cut_off) is not None:
            after = decode(model, row, checked=True, temperature=0.0)
        good = is_good(frame, after)
        totals[kind].append((before, good, plain.forwards, after.forwards))
        if number % 50 == 0:
            print(f"{number} of {len(rows)}", file=sys.stderr, flush=True)
    print("| tasks | n | parse before | after | forwards a task before | after |")
    print("|---|---|---|---|---|---|")
    for kind, found in totals.items():
        count = len(found)
        shares = []
        for place in (0, 1):
            good = sum(entry[place] for entry in found)
            low, high = wilson_interval(good, count)
            shares.append(f"{good / count:.3f} ({low:.3f} to {high:.3f})")
        forwards = [f"{sum(e[place] for e in found) / count:.1f}" for place in (2, 3)]
        print(f"| {kind} | {count} | {' | '.join([*shares, *forwards])} |")


if __name__ == "__main__":
    main()
