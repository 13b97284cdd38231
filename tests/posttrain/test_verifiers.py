import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.posttrain.verifiers import (
    Submission,
    Syntax,
    UnitTests,
    Weighted,
    judge_all,
)
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import make_task


@pytest.fixture(scope="module")
def submissions():
    task = make_task("generate", 3, split="train", tier=1, seed=5)
    texts = [
        task.reference,
        "    return None\n",  # parses, and is wrong
        "    while True:\n        pass\n",  # hangs
        "    return (\n",
    ]
    return [Submission(task, text, []) for text in texts]


@pytest.mark.slow
def test_tests_and_syntax(submissions):
    with Sandbox(workers=1) as sandbox:
        tests = UnitTests(sandbox)
        assert judge_all(tests, submissions).tolist() == [1.0, 0.0, 0.0, 0.0]
        both = Weighted([(3.0, tests), (1.0, Syntax())])
        values = judge_all(both, submissions)
    assert judge_all(Syntax(), submissions).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert values.tolist() == [1.0, 0.25, 0.25, 0.0]


class Broken:
    def __init__(self, answer):
        self.answer = answer

    def judge(self, submissions):
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.array(self.answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (RuntimeError("boom"), "Broken failed with RuntimeError: boom"),
        ([0.5], "one for each of 4"),
        ([0.5, 0.5, 2.0, 0.0], "outside"),
        ([0.5, 0.5, float("nan"), 0.0], "outside"),
    ],
)
def test_a_verifier_that_misbehaves_is_named(submissions, answer, message):
    with pytest.raises(InputError, match=message):
        judge_all(Broken(answer), submissions)


def test_weights_are_above_zero():
    for parts in ([], [(0.0, Syntax())]):
        with pytest.raises(InputError, match="weights above 0"):
            Weighted(parts)
