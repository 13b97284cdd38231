"""A run: one model, one recipe, one suite, one folder.

    problems ─▶ questions ─what is missing─▶ samples ─Sandbox─▶ verdicts ─▶ score

A run that was cut off goes on where it was, and one that is complete is scored anew.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seedjax
from seedjax.checkpoints.adapters import FILE as ADAPTER_FILE
from seedjax.checkpoints.model_directory import model_digest, resolve_model
from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.evaluate.folder import (
    PROBLEMS,
    TRACES,
    all_samples,
    samples_name,
    start,
    write_problems,
    write_score,
)
from seedjax.evaluate.recipes import Recipe, sampler_for
from seedjax.evaluate.samples import (
    Asking,
    Question,
    Sample,
    SampleFile,
    answer_batches,
    batches,
    form_of,
    prompt_text,
)
from seedjax.evaluate.score import NOT_RUN, Score, judge, score_samples, why_not_run
from seedjax.evaluate.verify import lacking
from seedjax.evaluate.watching import first_block_seconds, write_traces
from seedjax.files.output import writes
from seedjax.inference.model import Model
from seedjax.progress import Progress, silent
from seedjax.sampling.recipe import check_recipe
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.suite import Problem, Suite

ROWS = 16  # asked together
TRACED = 4  # problems whose steps are kept


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user of a run chose.

    Attributes:
      model_name: as it was given, for the report.
      recipe: a named one.
      samples: answers a problem; None is the recipe's.
      temperature: None is the recipe's.
      limit: the first so many problems; None is all.
      rows: asked together.
      seed: of all draws.
      known_length: give the length of holes away.
      quantization: of the model, for the record.
      adapter: folder of the adapter that is merged into it, for the record.
      shard: which of how many parts of the problems, from 1.
      traced: problems whose steps are kept.
    """

    model_name: str
    recipe: Recipe
    samples: int | None = None
    temperature: float | None = None
    limit: int | None = None
    rows: int = ROWS
    seed: int = 0
    known_length: bool = False
    quantization: str | None = None
    adapter: str | None = None
    shard: tuple[int, int] = (1, 1)
    traced: int = TRACED

    def __post_init__(self):
        for name in ("samples", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.rows < 1 or self.traced < 0:
            raise InputError("rows must be at least 1, and traced at least 0")
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise InputError(f"shard {part}/{parts}; it must be like 1/4 to 4/4")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run came to: its score, or how much is still missing of it."""

    folder: Path
    score: Score | None
    samples: int
    wanted: int


# The shards of a run share its folder; each has a file of its own.
@writes("eval", out="folder", shared=lambda given: given["choices"].shard[1] > 1)
def run_suite(
    model: Model,
    suite: Suite,
    problems: Sequence[Problem],
    folder: Path,
    choices: Choices,
    *,
    sandbox: Callable[[Suite], Sandbox],
    say: Progress = silent,
) -> Finished:
    """Asks what is missing in `folder`, and scores what is complete.

    Args:
      model: who is asked.
      suite: what is asked.
      problems: all of the suite's.
      folder: of the run; made if it is not there.
      choices: how.
      sandbox: makes one with a suite's limits, not open yet.
      say: told of progress.

    Raises:
      InputError: for a folder with a run of other settings, another process in it, a
        full disk, or a model that the suite cannot be put to.
    """
    problems = problems[: choices.limit]
    asking = asking_for(model, suite, problems, choices)
    number = choices.samples or choices.recipe.samples or suite.samples
    settings = settings_of(asking, problems, choices, number)
    start(
        folder,
        settings,
        model_name=choices.model_name,
        title=choices.recipe.title,
    )
    first = [Question(problem=problem, sample=0) for problem in problems]
    asked = {q.problem.problem_id: prompt_text(model, q, asking.form) for q in first}
    write_problems(folder / PROBLEMS, problems, asked)
    part, parts = choices.shard
    mine = problems[part - 1 :: parts]
    questions = [Question(problem=p, sample=n) for p in mine for n in range(number)]
    with SampleFile(folder / samples_name(choices.shard)) as file:
        fill(model, asking, questions, file, choices, say)
        for turn in range(1, num_tries(asking, problems)):
            questions = next_questions(suite, questions, file.samples, sandbox)
            again = f"eval {suite.name}, try {turn + 1}"
            fill(model, asking, questions, file, choices, say, stage=again)
    if part == 1:
        write_traces(model, asking, mine[: choices.traced], folder / TRACES)
    found = all_samples(folder)
    wanted = len(problems) * number
    first_tries = sum(sample.turn == 0 for sample in found)
    if first_tries < wanted:
        return Finished(folder=folder, score=None, samples=first_tries, wanted=wanted)
    score = finish(model, asking, problems, folder, sandbox, say)
    return Finished(folder=folder, score=score, samples=first_tries, wanted=wanted)


def asking_for(
    model: Model, suite: Suite, problems: Sequence[Problem], choices: Choices
) -> Asking:
    """How the questions are put."""
    if choices.known_length and suite.task != "infill":
        raise InputError(
            f"{suite.name} has no holes whose length could be known; drop "
            "--known-length"
        )
    if suite.tries > 1 and choices.shard[1] > 1:
        raise InputError(
            f"{suite.name} asks again what failed, which takes all answers in one "
            "process; drop --shard"
        )
    sampler = sampler_for(choices.recipe, model, suite, temperature=choices.temperature)
    in_place = choices.known_length and model.config.attention == "bidirectional"
    check_recipe(model.config, sampler, "infill" if in_place else "evaluation")
    return Asking(
        suite=suite,
        form=form_of(model, suite, problems),
        sampler=sampler,
        rows=choices.rows,
        seed=choices.seed,
        known_length=choices.known_length,
    )


def num_tries(asking: Asking, problems: Sequence[Problem]) -> int:
    """How often a question may be put. Who continues a prompt cannot be told what was
    wrong, and where programs cannot be run nobody can."""
    if asking.form != "chat" or why_not_run(lacking(asking.suite, problems)):
        return 1
    return asking.suite.tries


def fill(
    model: Model,
    asking: Asking,
    questions: Sequence[Question],
    file: SampleFile,
    choices: Choices,
    say: Progress,
    stage: str = "",
) -> None:
    """Asks those of some questions that have no sample yet."""
    stage = stage or f"eval {asking.suite.name}"
    have = {sample.key for sample in file.samples}
    done = sum(question.key in have for question in questions)
    if done == len(questions):
        return
    # A handful of questions needs no more rows than there are.
    asking = dataclasses.replace(asking, rows=min(asking.rows, len(questions)))
    made = batches(model, asking, questions)
    say(stage, done, len(questions))
    for answered in answer_batches(model, asking, made, have):
        file.append(answered)
        done += len(answered)
        say(stage, done, len(questions))


def next_questions(
    suite: Suite,
    questions: Sequence[Question],
    samples: Sequence[Sample],
    sandbox: Callable[[Suite], Sandbox],
) -> list[Question]:
    """What is asked again: the questions whose answers failed, with what was answered
    and what the suite says to that."""
    assert suite.second_question is not None
    asked = {question.key: question for question in questions}
    answers = [sample for sample in samples if sample.key in asked and sample.fits]
    problems = [question.problem for question in questions]
    with sandbox(suite) as opened:
        verdicts = judge(suite, problems, answers, opened)
    again = []
    for sample, verdict in zip(answers, verdicts, strict=True):
        if verdict.passed or verdict.reason == NOT_RUN:
            continue
        question = asked[sample.key]
        problem = question.problem
        more = suite.second_question(problem, sample.answer, verdict.outcome)
        said = question.said or (problem.question,)
        again.append(
            dataclasses.replace(
                question, turn=question.turn + 1, said=(*said, sample.text, more)
            )
        )
    return again


def finish(
    model: Model,
    asking: Asking,
    problems: Sequence[Problem],
    folder: Path,
    sandbox: Callable[[Suite], Sandbox],
    say: Progress,
) -> Score:
    """Scores the samples of a folder, and writes verdicts and score."""
    suite, samples = asking.suite, all_samples(folder)
    score, verdicts = score_samples(
        suite,
        problems,
        samples,
        lambda: sandbox(suite),
        measured=True,
        first_block_seconds=first_block_seconds(model, asking, problems),
        report=say,
    )
    write_score(folder, score, verdicts)
    return score


def settings_of(
    asking: Asking,
    problems: Sequence[Problem],
    choices: Choices,
    samples: int,
) -> dict[str, Any]:
    """All that answers depend on, as JSON values."""
    suite = asking.suite
    names = json.dumps([problem.problem_id for problem in problems])
    return {
        "suite": suite.name,
        "source": f"{suite.source.project} {suite.source.version}",
        "files": dict(suite.source.files),
        "problems": len(problems),
        "problem_ids": hashlib.sha256(names.encode()).hexdigest()[:16],
        "model": model_digest(resolve_model(choices.model_name)),
        "quantization": choices.quantization,
        "adapter": choices.adapter and adapter_digest(choices.adapter),
        "recipe": choices.recipe.name,
        "form": asking.form,
        "extraction": suite.chat_extraction
        if asking.form == "chat"
        else suite.extraction,
        "samples": samples,
        "sampler": to_dict(asking.sampler),
        "rows": asking.rows,
        "known_length": asking.known_length,
        "seed": asking.seed,
        "seedjax": seedjax.__version__,
    }


def adapter_digest(folder: str) -> str:
    """What tells one adapter from another: all of its files."""
    digest = hashlib.sha256((Path(folder) / ADAPTER_FILE).read_bytes())
    for file in sorted((Path(folder) / "params").glob("*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
