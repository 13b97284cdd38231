"""A model's answers to a set of tasks, and how they are scored.

tasks ─prompts─▶ Model ─texts─▶ programs ─Sandbox─▶ Score
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from seedjax.errors import InputError
from seedjax.evaluate.statistics import wilson_interval
from seedjax.inference.model import Generation, Model
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount, LeftToRight
from seedjax.sandbox.sandbox import Outcome, Program, Sandbox
from seedjax.tasks.lab.tasks import Task

ROWS = 32  # answered together, always so many, so that few programs are compiled
MAX_NEW_TOKENS = 192  # of an answer; the longest that training shows fits


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model wrote for a task.

    Attributes:
      text: the answer.
      tokens: its ids.
      forwards: denoiser calls that its row took part in: the prefill and every step.
        Commits ride on steps, so they are counted.
      seconds: its share of the wall time of its batch.
      finished: whether it ended by itself, before the budget was used up.
    """

    text: str
    tokens: tuple[int, ...]
    forwards: int
    seconds: float
    finished: bool


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a set of answers is worth. Rates are shares of the tasks.

    Attributes:
      tasks: how many.
      passed: how many pass their test.
      tokens_per_forward: tokens written, each answer's end included, a denoiser call.
      text_per_forward: the same without white space and ends.
      tokens_per_second: tokens written, over the wall time of all batches.
      valid_rate: answers that make a program that Python can parse.
      repetition_rate: answers that repeat themselves, see `is_repetitive`.
      empty_rate: answers without any text.
    """

    tasks: int
    passed: int
    tokens_per_forward: float
    text_per_forward: float
    tokens_per_second: float
    valid_rate: float
    repetition_rate: float
    empty_rate: float

    @property
    def pass_rate(self) -> float:
        return self.passed / self.tasks

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.passed, self.tasks)


Order = Literal["left", "confidence"]
"""Which tokens are decided first: those that follow on what is decided, or the
surest."""

ORDERS: tuple[Order, ...] = get_args(Order)


def policy_for(model: Model, threshold: float | None, order: Order) -> dict:
    """Sampler overrides for a decode setting: tokens that the model is `threshold` sure
    of at once, or, for None, one token a step."""
    if order == "left":
        return {"policy": LeftToRight(threshold=threshold)}
    if threshold is None:
        return {"policy": FixedCount(steps_per_block=model.config.block_size)}
    return {"policy": ConfidenceThreshold(threshold=threshold)}


def answer_tasks(
    model: Model,
    tasks: Sequence[Task],
    *,
    threshold: float | None = None,
    order: Order = "left",
    recipe: Mapping[str, Any] | None = None,
    rows: int = ROWS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    advance: Callable[[int], object] = lambda count: None,
) -> list[Answer]:
    """Answers at temperature 0, in the order of the tasks.

    Args:
      model: any.
      tasks: of any kind.
      threshold: decode setting, see `policy_for`; a causal model has none.
      order: of decisions, too.
      recipe: fields of the sampler's recipe in place of these two.
      rows: answered together.
      max_new_tokens: of an answer.
      advance: called with the number of tasks answered since the last call.
    """
    recipe = policy_for(model, threshold, order) if recipe is None else recipe
    # A round of speculation drafts in one pass and checks in another.
    passes = 2 if recipe.get("speculation") else 1
    answers: dict[int, Answer] = {}
    for batch in batches(model, tasks, rows):
        chosen = [tasks[index] for index in batch]
        # Filled up with repetitions, which are not looked at.
        filled = [chosen[n % len(chosen)] for n in range(rows)]
        written = ask(model, filled, max_new_tokens=max_new_tokens, **recipe)
        for row, index in enumerate(batch):
            answers[index] = Answer(
                text=written.texts[row],
                tokens=tuple(written.tokens[row]),
                forwards=passes * written.steps[row] + 1,
                seconds=written.seconds / len(batch),
                finished=written.new_tokens[row] < max_new_tokens,
            )
        advance(len(batch))
    return [answers[index] for index in range(len(tasks))]


def batches(model: Model, tasks: Sequence[Task], rows: int) -> Iterator[list[int]]:
    """Numbers of the tasks that are answered together: of one kind, alike in length."""

    def length(index: int) -> int:
        task = tasks[index]
        text = task.before + task.instruction or task.prompt + task.suffix
        return len(model.tokenizer.encode(text))

    for kind in sorted({task.task for task in tasks}):
        chosen = [n for n, task in enumerate(tasks) if task.task == kind]
        chosen.sort(key=length)
        for start in range(0, len(chosen), rows):
            yield chosen[start : start + rows]


def ask(model: Model, tasks: Sequence[Task], **recipe: Any) -> Generation:
    """One batch of tasks of one kind; `recipe` are fields of the sampler's."""
    prompts = [task.prompt for task in tasks]
    if tasks[0].task == "generate":
        return model.generate(prompts, **recipe)
    if tasks[0].task == "infill":
        return model.infill(prompts, [task.suffix for task in tasks], **recipe)
    return model.edit(
        [task.before for task in tasks], [task.instruction for task in tasks], **recipe
    )


def check_answers(
    sandbox: Sandbox, tasks: Sequence[Task], answers: Sequence[Answer]
) -> list[bool]:
    """Whether each answer passes its task's test."""
    outcomes = _run(sandbox, tasks, [answer.text for answer in answers])
    return [outcome.passed for outcome in outcomes]


def check_references(sandbox: Sandbox, tasks: Sequence[Task]) -> None:
    """Runs the reference solutions.

    Raises:
      InputError: if one of them fails its own test.
    """
    outcomes = _run(sandbox, tasks, [task.canonical_solution for task in tasks])
    for task, outcome in zip(tasks, outcomes, strict=True):
        if not outcome.passed:
            raise InputError(
                f"task {task.task_id!r}: its canonical_solution fails its own test "
                f"({outcome.reason}: {outcome.message}); mend the task file"
            )


def _run(
    sandbox: Sandbox, tasks: Sequence[Task], texts: Sequence[str]
) -> list[Outcome]:
    """What becomes of each task with a text as its answer."""
    return sandbox.run(
        [
            Program(
                source=task.source(text), test=task.test, entry_point=task.entry_point
            )
            for task, text in zip(tasks, texts, strict=True)
        ]
    )


def score_answers(
    model: Model,
    tasks: Sequence[Task],
    answers: Sequence[Answer],
    passed: Sequence[bool],
) -> Score:
    """Totals over a set of answers.

    Raises:
      ValueError: if there are none.
    """
    if not tasks:
        raise ValueError("no answers to score")
    blank = {
        token
        for token in range(model.tokenizer.vocab_size)
        if model.tokenizer.is_whitespace(token)
    }
    forwards = sum(answer.forwards for answer in answers)
    written = sum(len(answer.tokens) + answer.finished for answer in answers)
    text = sum(token not in blank for answer in answers for token in answer.tokens)
    count = len(tasks)
    pairs = list(zip(tasks, answers, strict=True))
    return Score(
        tasks=count,
        passed=sum(passed),
        tokens_per_forward=written / forwards,
        text_per_forward=text / forwards,
        tokens_per_second=written / sum(answer.seconds for answer in answers),
        valid_rate=sum(is_valid(t.source(a.text)) for t, a in pairs) / count,
        repetition_rate=sum(is_repetitive(a) for a in answers) / count,
        empty_rate=sum(not a.text.strip() for a in answers) / count,
    )


def is_valid(source: str) -> bool:
    """Whether Python can parse a program."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def is_repetitive(answer: Answer) -> bool:
    """Whether an answer says a line three times on end, or uses up its budget with a
    word in it more than twenty times."""
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    triples = zip(lines, lines[1:], lines[2:], strict=False)
    if any(a == b == c for a, b, c in triples):
        return True
    words = Counter(re.findall(r"\w+", answer.text))
    return not answer.finished and any(n > 20 for n in words.values())
