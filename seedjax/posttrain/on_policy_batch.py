"""The batch of an on-policy step: trajectories drawn, judged and laid out in rows."""

import dataclasses
import random
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from seedjax.batch import Batch
from seedjax.inference.model import Model
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.posttrain.policy_loss import JudgedTrajectories
from seedjax.posttrain.trajectories import draw, to_block_end
from seedjax.posttrain.verifiers import Submission, Verifier, judge_all
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
    """Draws trajectories of the prompts of a step with the model's present weights.

    Args:
      model: with the phase's block size.
      config: the recipe.
      phase: of the step.
      step: its number.
      tasks: of the step.
      verifier: judges the answers.
    """
    prompts = [task_prompt(task, model.tokenizer) for task in tasks]
    rows = [n for n in range(len(tasks)) for _ in range(config.candidates)]
    sampler = model.sampler.vary(
        policy=phase.policy,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        block_size=None,
        trace=True,
    )
    numbers = np.arange(len(rows), dtype=np.int32) + step * len(rows)
    drawn = draw(model, sampler, [prompts[n] for n in rows], numbers, seed=config.seed)

    eos = model.config.eos_token_ids
    answers = [drawn.tokens[row, : drawn.lengths[row]] for row in range(len(rows))]
    texts = [[t for t in answer.tolist() if t not in eos] for answer in answers]
    submissions = [
        Submission(
            task=tasks[n],
            text=model.tokenizer.decode(text),
            tokens=[*prompts[n], *text],
        )
        for n, text in zip(rows, texts, strict=True)
    ]
    values = judge_all(verifier, submissions)
    finished = np.asarray(drawn.finished)
    values = np.where(finished, values, 0.0).astype(np.float32)
    batch = lay_out_rows(
        [prompts[n] for n in rows],
        answers,
        drawn.order,
        model.config.block_size,
        eos[0],
    )
    statistics = Statistics(
        steps=float(drawn.steps.mean()),
        completion_tokens=float(drawn.lengths.mean()),
        tokens_per_step=int(drawn.lengths.sum()) / max(int(drawn.steps.sum()), 1),
        empty_rate=float(np.mean([not s.text.strip() for s in submissions])),
        unfinished_rate=float(1.0 - finished.mean()),
    )
    judged = jax.device_put((values, finished))
    return JudgedTrajectories(batch, *judged), statistics


def lay_out_rows(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[np.ndarray],
    orders: np.ndarray,
    block_size: int,
    eos: int,
) -> Batch:
    """A document a row: prompt and answer, EOS up to the end of the last block, and
    padding up to a width that few batches differ in."""
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
    return Batch(*jax.device_put((tokens, segments, positions, supervised, order)))


def with_block_size(model: Model, block_size: int | None) -> Model:
    """The model with blocks of another size, the same weights, and no programs yet."""
    if block_size is None or block_size == model.config.block_size:
        return model
    config = dataclasses.replace(model.config, block_size=block_size)
    return Model(model.params, config, model.tokenizer, model.sampler)
