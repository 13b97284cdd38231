"""Verifiers: how good is a finished answer, from 0 to 1 (V of Seed Diffusion, arXiv
2508.02193, section 3.3).

    UnitTests   1 if the program passes its tests, in the sandbox
    Syntax      1 if Python can parse the program
    Weighted    a weighted mean of others

The paper's verifier is a model; `seedjax.posttrain.critic` has one that learns to
predict the outcome of the tests.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from seedjax.errors import InputError
from seedjax.sandbox.sandbox import Program, Sandbox
from seedjax.tasks.lab.tasks import Task
from seedjax.tasks.python_source import is_python


class Submission(NamedTuple):
    """An answer and what it answers.

    Attributes:
      task: with its tests.
      text: the answer.
      tokens: prompt and answer as ids.
    """

    task: Task
    text: str
    tokens: list[int]

    @property
    def source(self) -> str:
        """The whole program."""
        return self.task.source(self.text)


@runtime_checkable
class Verifier(Protocol):
    """Judges finished answers."""

    def judge(self, submissions: Sequence[Submission]) -> np.ndarray:
        """A value in [0, 1] for each, float32."""
        ...


class UnitTests:
    """Runs each program against its task's tests; a program that raises, hangs or takes
    its process down has failed them, and nothing more."""

    def __init__(self, sandbox: Sandbox):
        self._sandbox = sandbox

    def judge(self, submissions: Sequence[Submission]) -> np.ndarray:
        outcomes = self._sandbox.run(
            [
                Program(
                    source=each.source,
                    test=each.task.test,
                    entry_point=each.task.entry_point,
                )
                for each in submissions
            ]
        )
        return np.array([outcome.passed for outcome in outcomes], np.float32)


class Syntax:
    """Whether a program parses."""

    def judge(self, submissions: Sequence[Submission]) -> np.ndarray:
        return np.array([is_python(each.source) for each in submissions], np.float32)


class Weighted:
    """The weighted mean of several verifiers."""

    def __init__(self, parts: Sequence[tuple[float, Verifier]]):
        """Raises:
        InputError: if there are none, or weights are not above 0.
        """
        if not parts or min(weight for weight, _ in parts) <= 0:
            raise InputError("a weighted verifier takes parts with weights above 0")
        self._parts = tuple(parts)

    def judge(self, submissions: Sequence[Submission]) -> np.ndarray:
        total = sum(weight for weight, _ in self._parts)
        values = [weight * part.judge(submissions) for weight, part in self._parts]
        return (np.sum(values, axis=0) / total).astype(np.float32)


def judge_all(verifier: Verifier, submissions: Sequence[Submission]) -> np.ndarray:
    """A verifier's rewards, checked, float32.

    Raises:
      InputError: if it raises, or does not give a number in [0, 1] for each answer.
    """
    name = type(verifier).__name__
    try:
        values = np.asarray(verifier.judge(submissions), np.float32)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the verifier {name} failed with {type(error).__name__}: {error}; the "
            "last checkpoint is whole, mend it and resume"
        ) from error
    good = values.shape == (len(submissions),) and bool(
        np.all((values >= 0) & (values <= 1))
    )
    if not good:
        raise InputError(
            f"the verifier {name} gave {values.shape} values outside of [0, 1] or not "
            f"one for each of {len(submissions)} answers"
        )
    return values
