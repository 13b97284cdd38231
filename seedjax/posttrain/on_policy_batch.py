"""The batch of an on-policy step: trajectories drawn, judged and laid out in rows."""

import dataclasses
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig
from seedjax.inference.model import Model
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.posttrain.policy_loss import JudgedTrajectories
from seedjax.posttrain.trajectories import draw, to_block_end
from seedjax.posttrain.verifiers import Submission, Verifier, judge_all
from seedjax.processes import gather, process_count, process_index
from seedjax.sampling.canvas import bucket
from seedjax.tasks.lab.stream import task_prompt
from seedjax.tasks.lab.tasks import MOST_TESTS, Task
from seedjax.tasks.problems import TaskSource
from seedjax.tasks.problems import draw as draw_problem


class Statistics(NamedTuple):
    """Statistics of a step's trajectories."""

    steps: float  # denoising steps, mean
    completion_tokens: float  # mean
    tokens_per_step: float
    empty_rate: float  # answers without any text
    unfinished_rate: float  # answers that ran out of room


def draw_tasks(source: TaskSource, count: int, seed: int, step: int) -> list[Task]:
    """The tasks of a step; always the same."""
    tasks = []
    for number in range(count):
        rng = random.Random(f"on-policy/{seed}/{source.seed}/{step}/{number}")
        tasks.append(draw_problem(source, rng, "train", num_tests=MOST_TESTS))
    return tasks


def draw_judged(
    model: Model,
    config: OnPolicyConfig,
    phase: Phase,
    step: int,
    tasks: Sequence[Task],
    verifier: Verifier,
) -> tuple[JudgedTrajectories, Statistics]:
    """Draws trajectories of the prompts of a step with the model's present weights; of
    several processes each draws and judges a part, and all get everything: numpy
    arrays.

    Args:
      model: with the phase's block size.
      config: the recipe.
      phase: of the step.
      step: its number.
      tasks: of the step.
      verifier: judges the answers.
    """
    prompts = [task_prompt(task, model.tokenizer) for task in tasks]
    # Each process draws equally many; where there are too few, some come twice.
    share = -(-len(tasks) // process_count())
    first = process_index() * share
    mine = [min(first + n, len(tasks) - 1) for n in range(share)]
    rows = [
        n * config.candidates + each for n in mine for each in range(config.candidates)
    ]
    sampler = model.sampler.vary(
        policy=phase.policy,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        block_size=None,
        trace=True,
    )
    numbers = np.array(rows, np.int32) + step * len(tasks) * config.candidates
    of_rows = [n // config.candidates for n in rows]
    given = [prompts[n] for n in of_rows]
    drawn = draw(model, sampler, given, numbers, seed=config.seed, mesh=model.mesh)

    eos = model.config.eos_token_ids
    answers = [drawn.tokens[row, : drawn.lengths[row]] for row in range(len(rows))]
    texts = [[t for t in answer.tolist() if t not in eos] for answer in answers]
    submissions = [
        Submission(
            task=tasks[n],
            text=model.tokenizer.decode(text),
            tokens=[*prompts[n], *text],
        )
        for n, text in zip(of_rows, texts, strict=True)
    ]
    values = judge_all(verifier, submissions)
    judged: dict[int, Judged] = {}
    for part in gather(
        [
            Judged(
                row=rows[place],
                answer=answers[place].tolist(),
                order=drawn.order[place, : drawn.lengths[place]].tolist(),
                steps=int(drawn.steps[place]),
                finished=bool(drawn.finished[place]),
                empty=not submissions[place].text.strip(),
                value=float(values[place]),
            )
            for place in range(len(rows))
        ]
    ):
        judged |= {each.row: each for each in (Judged(*fields) for fields in part)}
    return together([judged[row] for row in sorted(judged)], prompts, model.config)


class Judged(NamedTuple):
    """A trajectory and its value, as processes hand them on: JSON values."""

    row: int  # of the step
    answer: list[int]
    order: list[int]
    steps: int
    finished: bool
    empty: bool
    value: float


def together(
    rows: Sequence[Judged], prompts: Sequence[Sequence[int]], config: DenoiserConfig
) -> tuple[JudgedTrajectories, Statistics]:
    """The batch of all rows of a step, numpy arrays, and their statistics."""
    candidates = len(rows) // len(prompts)
    batch = lay_out_rows(
        [prompts[each.row // candidates] for each in rows],
        [np.array(each.answer, np.int32) for each in rows],
        [np.array(each.order, np.int32) for each in rows],
        config.block_size,
        config.eos_token_ids[0],
    )
    finished = np.array([each.finished for each in rows])
    values = np.array([each.value for each in rows], np.float32)
    lengths, steps = [len(each.answer) for each in rows], [each.steps for each in rows]
    statistics = Statistics(
        steps=float(np.mean(steps)),
        completion_tokens=float(np.mean(lengths)),
        tokens_per_step=sum(lengths) / max(sum(steps), 1),
        empty_rate=float(np.mean([each.empty for each in rows])),
        unfinished_rate=float(1.0 - finished.mean()),
    )
    values = np.where(finished, values, np.float32(0.0))
    judged = JudgedTrajectories(batch, values, finished)  # type: ignore[arg-type]
    return judged, statistics


def lay_out_rows(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[np.ndarray],
    orders: Sequence[np.ndarray] | np.ndarray,
    block_size: int,
    eos: int,
) -> Batch:
    """A document a row: prompt and answer, EOS up to the end of the last block, and
    padding up to a width that few batches differ in; numpy arrays."""
    widest = 0
    rows = []
    for prompt, answer, order in zip(prompts, answers, orders, strict=True):
        if len(answer) == 0:
            answer, order = np.array([eos], np.int32), np.zeros(1, np.int32)
        closed = to_block_end(
            len(prompt), answer, order[: len(answer)], eos, block_size
        )
        rows.append((prompt, *closed))
        widest = max(widest, len(prompt) + len(closed[0]))
    width = bucket(-(-widest // block_size)) * block_size
    shape = (len(rows), width)
    tokens, order = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    segments, supervised = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for number, (prompt, answer, steps) in enumerate(rows):
        start, stop = len(prompt), len(prompt) + len(answer)
        tokens[number, :start], tokens[number, start:stop] = prompt, answer
        order[number, start:stop] = steps
        segments[number, :stop] = 1
        supervised[number, start:stop] = True
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), shape)
    return Batch(tokens, segments, positions, supervised, order)  # type: ignore[arg-type]


def with_block_size(model: Model, block_size: int | None) -> Model:
    """The model with blocks of another size, the same weights, and no programs yet."""
    if block_size is None or block_size == model.config.block_size:
        return model
    config = dataclasses.replace(model.config, block_size=block_size)
    return Model(model.params, config, model.tokenizer, model.sampler)
