"""What the README says of the bundled model."""

import pytest

from seedjax import Model, load
from seedjax.evals.sandbox import Sandbox
from seedjax.lab.tasks import exam
from seedjax.scoring import answer_tasks, check_answers, score_answers


@pytest.fixture(scope="module")
def mini() -> Model:
    return load("mini")


def test_most_tasks_of_the_lab_are_solved_many_tokens_at_a_time(mini):
    """A sample of the test split, by the model's own recipe: far below the scores of
    the README, far above what damaged weights or another layout of prompts leave."""
    tasks = exam(4)
    answers = answer_tasks(mini, tasks, recipe={})
    with Sandbox() as sandbox:
        passed = check_answers(sandbox, tasks, answers)
    score = score_answers(mini, tasks, answers, passed)
    assert score.pass_rate > 0.65
    assert score.tokens_per_forward > 2.0


def test_the_readme_s_example(mini):
    prompt = (
        'def vowel_count(text):\n    """Count the vowels in text and return the '
        'result."""\n'
    )
    program: dict = {}
    exec(prompt + mini.generate(prompt).texts[0], program)
    assert program["vowel_count"]("a queue of words") == 7
