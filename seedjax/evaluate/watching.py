"""How completions come about: every step of a few, and the time to the first block."""

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from seedjax.evaluate.complete import (
    Request,
    Setup,
    batches,
    generate_batch,
    prompt_tokens,
)
from seedjax.files.text import write_text
from seedjax.inference.engine import Engine
from seedjax.inference.model import Model
from seedjax.tasks.suite import Problem

TIMED = 3  # goes at a first block


def write_traces(
    model: Model, setup: Setup, problems: Sequence[Problem], path: Path
) -> None:
    """Completes a few problems again, and keeps every step. Draws are the same, and so
    are the completions."""
    if not problems or path.exists():
        return
    setup = dataclasses.replace(setup, rows=len(problems))
    requests = [Request(problem=problem) for problem in problems]
    lines = []
    for batch in batches(model, setup, requests):
        if not batch.budget:
            continue
        written = generate_batch(model, setup, batch, batch.requests, trace=True)
        for step in written.trace or []:
            line = dataclasses.asdict(step)
            line["problem_id"] = batch.requests[line.pop("row")].problem.problem_id
            line["pieces"] = [model.tokenizer.decode([t]) for t in line.pop("tokens")]
            line["confidences"] = [round(c, 3) for c in line["confidences"]]
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def first_block_seconds(
    model: Model, setup: Setup, problems: Sequence[Problem]
) -> float | None:
    """From a prompt to its first block (a causal model's: its first piece), for one
    prompt alone: that of middle length, the median over a few goes after one that
    warms up. None if no prompt leaves room for the longest answer."""
    sampler = dataclasses.replace(setup.sampler, trace=False)
    requests = [Request(problem=problem) for problem in problems]
    prompts = [prompt_tokens(model, q, setup.form) for q in requests]
    room = model.config.max_positions - sampler.max_new_tokens
    prompts = sorted((prompt for prompt in prompts if len(prompt) <= room), key=len)
    if not prompts:
        return None
    prompt = prompts[len(prompts) // 2]
    recipe = {
        field.name: getattr(sampler, field.name)
        for field in dataclasses.fields(sampler)
    }
    engine = Engine(model, num_slots=1, max_prompt_tokens=len(prompt), **recipe)
    seconds = [first_step_seconds(engine, prompt) for _ in range(1 + TIMED)]
    return statistics.median(seconds[1:])


def first_step_seconds(engine: Engine, prompt: list[int]) -> float:
    """The time of a request's first step; the rest of it is worked off."""
    budget = min(engine.sampler.max_new_tokens, 2 * engine.model.config.block_size)
    began = time.perf_counter()
    engine.submit(prompt, max_new_tokens=budget)
    engine.step()
    taken = time.perf_counter() - began
    while engine.num_running:
        engine.step()
    return taken
