"""Problems completed and judged in memory, over the lab's kinds of tasks."""

import dataclasses

import compiled
import jax
import pytest

from seedjax.evaluate.complete import complete_batch
from seedjax.evaluate.examine import examine
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import TASKS, make_task
from seedjax.tasks.suites.lab import by_kind


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
    return Model(compiled.init(jax.random.key(0), config), config, tokenizer)


@pytest.fixture(scope="module")
def tasks():
    return [make_task(kind, n, split="test") for n in range(2) for kind in TASKS]


def test_completions_come_in_the_order_of_the_problems(model, tasks):
    """Whatever is completed beside a problem, its completion is the same."""
    suite, problems = by_kind(tasks)[0]
    sampler = model.sampler.vary(max_new_tokens=8)
    done = []
    with Sandbox(1) as sandbox:
        found = [
            examine(model, given, sampler, sandbox, rows=2, advance=done.append)
            for given in ([(suite, problems)], [(suite, problems[::-1])])
        ]
    together, back = found[0].completions, found[1].completions[::-1]
    assert [c.text for c in together] == [c.text for c in back]
    assert [c.problem_id for c in together] == [p.problem_id for p in problems]
    assert len({c.text for c in together}) > 1  # else any order would do
    assert done == [2, 2]
    assert all(c.tokens <= 8 and c.forwards >= 2 for c in together)


def test_every_kind_is_completed_and_judged(model, tasks, monkeypatch):
    """By the tests, whatever the model: here its completions are the references."""
    monkeypatch.setattr(
        "seedjax.evaluate.examine.complete_batch",
        lambda model, setup, batch: [
            dataclasses.replace(
                each,
                answer=request.problem.reference,
                text=request.problem.reference,
            )
            for each, request in zip(
                complete_batch(model, setup, batch), batch.requests, strict=True
            )
        ],
    )
    sampler = model.sampler.vary(max_new_tokens=4)
    done = []
    with Sandbox(1) as sandbox:
        found = examine(
            model, by_kind(tasks), sampler, sandbox, rows=2, advance=done.append
        )
    kinds = [problem.task for problem in found.problems]
    assert kinds == [kind for kind in TASKS for _ in range(2)] and sum(done) == 8
    assert found.passed == [True] * 8
    assert found.score().pass_at == {1: 1.0} and found.score().problems == 8
    assert found.score([0, 3]).problems == 2 and found.score().valid_rate == 1.0
    with pytest.raises(ValueError, match="same id"):
        examine(model, by_kind([*tasks, tasks[0]]), sampler, sandbox)
