"""What the README says of the bundled model."""

from pathlib import Path

import pytest

from seedjax import Model, load
from seedjax.evaluate.examine import examine
from seedjax.evaluate.score import Score
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import TASKS, TIERS, Task, exam, make_task
from seedjax.tasks.suites import everyday
from seedjax.tasks.suites.lab import by_kind


@pytest.fixture(scope="module")
def mini() -> Model:
    return load("mini")


def score(mini: Model, tasks: list[Task]) -> Score:
    """By the model's own recipe. The bounds in the tests are far below the README's
    scores, far above what damaged weights or another layout of prompts leave."""
    sampler = mini.sampler.vary(max_new_tokens=192)
    with Sandbox() as sandbox:
        # No more rows than there are tasks of a kind: others would be padding.
        return examine(mini, by_kind(tasks), sampler, sandbox, rows=12).score()


@pytest.mark.slow
def test_most_tasks_of_the_lab_are_solved_many_tokens_at_a_time(mini):
    found = score(mini, exam(4))
    assert found.pass_rate > 0.65
    assert found.tokens_per_forward is not None and found.tokens_per_forward > 2.5


@pytest.mark.slow
def test_names_may_be_none_of_the_lab_s(mini):
    tasks = [
        make_task(kind, 0, split="test", tier=tier, part="names")
        for kind in TASKS
        for tier in TIERS
    ]
    assert score(mini, tasks).pass_rate > 0.3


@pytest.mark.slow
def test_everyday_passes_more_everyday_prompts(mini):
    suites = [(suite, suite.read(Path())) for suite in everyday.SUITES]
    rates = []
    for model in mini, load("everyday"):
        with Sandbox() as sandbox:
            found = examine(model, suites, model.sampler, sandbox)
        rates.append(found.score().pass_rate)
    assert rates[0] < 0.1 < 0.15 < rates[1]


@pytest.mark.slow
def test_the_readme_s_examples(mini):
    prompt = (
        'def vowel_count(text):\n    """Count the vowels in text and return the '
        'result."""\n'
    )
    program: dict = {}
    exec(prompt + mini.generate(prompt).texts[0], program)
    assert program["vowel_count"]("a queue of words") == 7
    edited = mini.edit("def f(x):\n    return x + 2\n", instruction="Change 2 to 3.")
    assert edited.texts == ["def f(x):\n    return x + 3\n"]
