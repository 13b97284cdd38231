"""The everyday prompts: fixed, whole, and their tests tell right from wrong."""

from pathlib import Path

import pytest

from seedjax.evaluate.verify import verify
from seedjax.sandbox import sandbox
from seedjax.tasks.data import read_problems
from seedjax.tasks.suites import everyday, find_suites

# Before any training on everyday code. A set that follows the model proves nothing:
# whoever changes a prompt has to name the set anew and score all models again.
WRITTEN_BEFORE_TRAINING = (
    "9bc4837a7a22f516f59894eff1ad5f2605bb205e850c49c57f3b653b83bb90a5"
)


def all_problems():
    suites = find_suites("everyday")
    return [(s, p) for s in suites for p in read_problems(s, Path("nowhere"))]


def test_prompts_are_those_written_before_training():
    assert everyday.checksum() == everyday.CHECKSUM == WRITTEN_BEFORE_TRAINING


def test_every_prompt_is_another_one_and_parses():
    problems = [problem for _, problem in all_problems()]
    assert len(problems) == 200
    assert len({p.problem_id for p in problems}) == 200
    assert len({(p.prompt, p.suffix, p.before, p.instruction) for p in problems}) == 200
    assert all(everyday.parses(p, p.reference) for p in problems)
    assert not any(everyday.parses(p, "return (") for p in problems)


@pytest.mark.representative("edit")
@pytest.mark.parametrize("kind", everyday.COUNTS)
def test_references_pass_and_wrong_answers_do_not(kind):
    (suite,) = find_suites(f"everyday_{kind}")
    problems = read_problems(suite, Path("nowhere"))
    with sandbox.Sandbox(1, suite.limits) as opened:
        found = verify(suite, problems, opened)
    assert found.unexpected == ()
    assert found.num_references == found.num_wrong == everyday.COUNTS[kind]
    assert not found.not_run
