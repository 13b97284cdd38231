"""Answers to tasks: what is asked, in which order, and what the answers are worth."""

import dataclasses

import jax
import pytest

from seedjax.errors import InputError
from seedjax.evaluate.lab_scoring import (
    Answer,
    answer_tasks,
    batches,
    check_answers,
    check_references,
    is_repetitive,
    is_valid,
    policy_for,
    score_answers,
    wilson_interval,
)
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount, LeftToRight
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import TASKS, make_task


def answer(text="", tokens=(), forwards=4, finished=True) -> Answer:
    return Answer(
        text=text, tokens=tokens, forwards=forwards, seconds=0.5, finished=finished
    )


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights with the bundled vocabulary."""
    tokenizer = load("mini").tokenizer
    config = dataclasses.replace(
        load("mini").config,
        hidden_size=16,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=16,
        mlp_size=16,
        block_size=8,
        dtype="float32",
        init_scale=1.0,  # answers that hang on the prompt
    )
    return Model(denoiser.init(jax.random.key(0), config), config, tokenizer)


@pytest.fixture(scope="module")
def tasks():
    return [make_task(kind, n, split="test") for n in range(2) for kind in TASKS]


def test_batches_hold_one_kind_and_every_task_once(model, tasks):
    found = [*batches(model, tasks, rows=2)]
    assert sorted(n for batch in found for n in batch) == [*range(len(tasks))]
    assert all(len({tasks[n].task for n in batch}) == 1 for batch in found)


@pytest.mark.slow
def test_answers_come_in_the_order_of_the_tasks(model, tasks):
    """Whatever is answered beside a task, its answer is the same."""
    told = []
    recipe = dict(threshold=0.9, rows=2, max_new_tokens=8)
    together = answer_tasks(model, tasks, advance=told.append, **recipe)
    assert sum(told) == len(tasks)
    back = answer_tasks(model, tasks[::-1], **recipe)[::-1]
    assert [a.text for a in together] == [a.text for a in back]
    assert len({a.text for a in together}) > 1  # else any order would do
    assert all(len(a.tokens) <= 8 and a.forwards >= 2 for a in together)


def test_policy(model):
    one = policy_for(model, None, "confidence")["policy"]
    assert one == FixedCount(steps_per_block=model.config.block_size)
    bold = policy_for(model, 0.7, "confidence")["policy"]
    assert bold == ConfidenceThreshold(threshold=0.7)
    assert policy_for(model, None, "left")["policy"] == LeftToRight(threshold=None)
    assert policy_for(model, 0.7, "left")["policy"] == LeftToRight(threshold=0.7)


def test_checking_and_scoring(model, tasks):
    right = [answer(task.canonical_solution, (20, 21)) for task in tasks]
    wrong = [answer("    return undefined_name\n") for _ in tasks]
    with Sandbox(workers=1) as sandbox:
        check_references(sandbox, tasks)
        passed = check_answers(sandbox, tasks, right)
        assert passed == [True] * len(tasks)
        assert not any(check_answers(sandbox, tasks, wrong))
        broken = dataclasses.replace(tasks[0], canonical_solution="    return 1 +\n")
        with pytest.raises(InputError, match="fails its own test"):
            check_references(sandbox, [broken])
    score = score_answers(model, tasks, right, passed)
    assert score.pass_rate == 1.0 and score.valid_rate == 1.0
    assert score.empty_rate == score.repetition_rate == 0.0
    # Two tokens and an end in four forwards.
    assert score.tokens_per_forward == pytest.approx(3 / 4)
    assert score.tokens_per_second == pytest.approx(3 / 0.5)


def test_white_space_and_ends_are_told_apart(model, tasks):
    blank = next(
        t for t in range(model.tokenizer.vocab_size) if model.tokenizer.is_whitespace(t)
    )
    word = model.tokenizer.encode("return")[-1]
    answers = [answer("x", (blank, word, blank), forwards=2)]
    score = score_answers(model, tasks[:1], answers, [False])
    assert score.tokens_per_forward == pytest.approx(4 / 2)
    assert score.text_per_forward == pytest.approx(1 / 2)
    assert score.passed == 0


def test_interval():
    low, high = wilson_interval(45, 50)
    assert (round(low, 3), round(high, 3)) == (0.786, 0.957)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_syntax_and_repetition():
    assert is_valid("x = 1\n") and not is_valid("x = (1\n") and not is_valid("x\0")
    assert is_repetitive(answer("a = 1\na = 1\n\na = 1\n"))
    assert not is_repetitive(answer("a = 1\na = 1\nb = 1\n"))
    assert is_repetitive(answer("n " * 40, finished=False))
    assert not is_repetitive(answer("n " * 40, finished=True))
