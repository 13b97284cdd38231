"""Answers to a suite's questions, drawn batch by batch, and the file they are kept in.

    questions ─batches, alike in length─▶ Model ─▶ samples ─appended─▶ samples.jsonl

What a question is answered depends on nothing but the model, the recipe and the
question: its draws come from a seed of its own, and rows do not see each other. Which
questions share a batch is settled before any is answered, so that a run that was cut
off asks the very batches that are missing.
"""

import dataclasses
import errno
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seedjax.config import from_dict
from seedjax.errors import InputError
from seedjax.files.locks import lock_beside, locked
from seedjax.files.text import format_json_line, read_json_lines
from seedjax.tasks.extraction import extract
from seedjax.tasks.suite import Problem, Suite
from seedjax.text.prompts import continuation, edit_request, editing, infilling

# JAX takes long to import, and to report on samples takes none of it.
if TYPE_CHECKING:
    from seedjax.evaluate.lab_scoring import Answer
    from seedjax.inference.model import Generation, Model
    from seedjax.sampling.recipe import SamplerConfig

Form = Literal["generate", "infill", "edit", "chat"]
"""Which call of a model answers: as a text to go on with, to fill, to change, or as
what a user says."""

Key = tuple[str, int, int]
"""Problem, number of the sample, number of the try."""

GRAIN = 32  # tokens; budgets that a long prompt cuts short are rounded down to these


@dataclass(frozen=True, kw_only=True)
class Question:
    """One thing to ask.

    Attributes:
      problem: what it is about.
      sample: number of the sample of this problem, from 0.
      turn: number of the try, from 0.
      said: what was said before in a chat: the user's and the model's words in turns,
        the user's last.
    """

    problem: Problem
    sample: int
    turn: int = 0
    said: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.problem.problem_id, self.sample, self.turn


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was answered: a line of `samples.jsonl`.

    Attributes:
      problem_id: of the suite.
      sample: number of the sample of this problem, from 0.
      turn: number of the try, from 0.
      text: what the model wrote.
      answer: what of it is judged.
      tokens: new tokens; neither prompt nor padding nor the end is among them.
      steps: refinement steps that its row took part in.
      forwards: denoiser calls of its row: the prefill and every step.
      seconds: its share of the wall time of its batch, without compilation.
      finished: whether it ended by itself, before the budget was used up.
      warm: whether its batch ran a program that had run before.
      fits: False for a prompt that leaves the model no room; it was not asked.
    """

    problem_id: str
    sample: int
    turn: int = 0
    text: str
    answer: str
    tokens: int = 0
    steps: int = 0
    forwards: int = 0
    seconds: float = 0.0
    finished: bool = True
    warm: bool = True
    fits: bool = True

    @property
    def key(self) -> Key:
        return self.problem_id, self.sample, self.turn

    def as_answer(self) -> "Answer":
        """The same for what judges answers to the lab's tasks."""
        from seedjax.evaluate.lab_scoring import Answer

        return Answer(
            text=self.text,
            tokens=(),
            forwards=self.forwards,
            seconds=self.seconds,
            finished=self.finished,
        )


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How questions are put, beside what they say.

    Attributes:
      suite: whose they are.
      form: which call of the model answers.
      sampler: the whole recipe.
      rows: asked together.
      seed: of all draws.
      known_length: give the length of a hole away, in tokens of its reference.
    """

    suite: Suite
    form: Form
    sampler: "SamplerConfig"
    rows: int
    seed: int = 0
    known_length: bool = False


def form_of(model: "Model", suite: Suite, problems: Sequence[Problem]) -> Form:
    """How a model is asked: in a chat, if it has a template for one and the suite has
    such a form; else as the suite's task says; else with a prompt to go on with.

    Raises:
      InputError: for a suite that the model cannot be asked in any way.
    """
    chats = getattr(model.tokenizer, "chat_template", None) is not None
    if chats and all(problem.question for problem in problems):
        return "chat"
    if suite.task == "infill":
        return "infill"
    special = model.tokenizer.special
    taught = (special.user, special.end_of_turn, special.assistant)
    if suite.task == "edit" and None not in taught:
        return "edit"
    if not all(problem.prompt for problem in problems):
        raise InputError(
            f"the suite {suite.name} takes a model that can {suite.task}, and this one "
            "has neither a chat template nor the tokens for it; take another suite"
        )
    return "generate"


def seed_of(suite: str, key: Key, seed: int) -> int:
    """A seed in [0, 2^32) that is the question's own."""
    name = json.dumps([suite, *key, seed])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def prompt_tokens(model: "Model", question: Question, form: Form) -> list[int]:
    """The token ids that an answer follows."""
    problem, encode = question.problem, model.tokenizer.encode
    special = model.tokenizer.special
    if form == "chat":
        return model.tokenizer.encode_chat(conversation(question))
    if form == "infill":
        order = model.tokenizer.infill_order
        return infilling(encode(problem.prompt), encode(problem.suffix), special, order)
    if form == "edit":
        request = edit_request(problem.before, problem.instruction)
        return editing(encode(request), special)
    return continuation(encode(problem.prompt), special)


def prompt_text(model: "Model", question: Question, form: Form) -> str:
    """What an answer follows as text, special tokens spelled."""
    return model.tokenizer.spell(prompt_tokens(model, question, form))


def conversation(question: Question) -> list[dict[str, str]]:
    """The messages of a chat, the user's last."""
    said = question.said or (question.problem.question,)
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Questions that are asked together.

    Attributes:
      questions: at most as many as the program has rows.
      budget: longest answer, in tokens; 0 if there is no room for any.
      length: of the holes, exactly; None where the model finds it.
    """

    questions: tuple[Question, ...]
    budget: int
    length: int | None = None


def batches(
    model: "Model", asking: Asking, questions: Sequence[Question]
) -> list[Batch]:
    """Questions in groups of equal room, those alike in length side by side."""
    sized: dict[tuple[int, int | None], list[tuple[int, int]]] = {}
    for number, question in enumerate(questions):
        prompt = len(prompt_tokens(model, question, asking.form))
        length = None
        if asking.known_length:
            length = len(model.tokenizer.encode(question.problem.reference or ""))
        wanted = length or asking.sampler.max_new_tokens
        left = max(0, model.config.max_positions - prompt)
        budget = wanted if left >= wanted else left - left % GRAIN
        if length is not None and budget < wanted:
            budget = 0  # a hole cannot be filled in part
        sized.setdefault((budget, length or None), []).append((prompt, number))
    made = []
    for (budget, length), members in sorted(sized.items(), key=str):
        numbers = [number for _, number in sorted(members)]
        for start in range(0, len(numbers), asking.rows):
            chosen = numbers[start : start + asking.rows]
            asked = tuple(questions[number] for number in chosen)
            made.append(Batch(questions=asked, budget=budget, length=length))
    return made


def answer_batches(
    model: "Model", asking: Asking, made: Sequence[Batch], have: Collection[Key]
) -> Iterator[list[Sample]]:
    """The samples that are missing, batch by batch."""
    for batch in made:
        wanted = [q.key not in have for q in batch.questions]
        if any(wanted):
            answered = answer_batch(model, asking, batch)
            yield [s for s, new in zip(answered, wanted, strict=True) if new]


def answer_batch(model: "Model", asking: Asking, batch: Batch) -> list[Sample]:
    """A sample of each question of a batch."""
    if not batch.budget:
        return [
            Sample(
                problem_id=question.problem.problem_id,
                sample=question.sample,
                turn=question.turn,
                text="",
                answer="",
                fits=False,
            )
            for question in batch.questions
        ]
    # Filled up with repetitions, which are not looked at: one program for all batches.
    asked = batch.questions
    filled = [asked[n % len(asked)] for n in range(asking.rows)]
    written = ask(model, asking, batch, filled)
    passes = 2 if asking.sampler.speculation else 1  # a draft, and a check of it
    return [
        Sample(
            problem_id=question.problem.problem_id,
            sample=question.sample,
            turn=question.turn,
            text=written.texts[row],
            answer=extracted(asking, question.problem, written.texts[row]),
            tokens=written.new_tokens[row],
            steps=written.steps[row],
            forwards=passes * written.steps[row] + 1,
            seconds=written.seconds / len(asked),
            finished=batch.length is not None or written.new_tokens[row] < batch.budget,
            warm=written.compile_seconds == 0.0,
        )
        for row, question in enumerate(asked)
    ]


def ask(
    model: "Model",
    asking: Asking,
    batch: Batch,
    questions: Sequence[Question],
    *,
    trace: bool = False,
) -> "Generation":
    """What a model writes to questions, which fill the rows of one program."""
    problems = [question.problem for question in questions]
    recipe: dict[str, Any] = {
        field.name: getattr(asking.sampler, field.name)
        for field in dataclasses.fields(asking.sampler)
    }
    recipe |= {"max_new_tokens": batch.budget, "trace": trace}
    seeds = [seed_of(asking.suite.name, q.key, asking.seed) for q in questions]
    # Without draws, the program is the one that any other call compiles.
    recipe["seed"] = seeds if asking.sampler.draws else 0
    if asking.form == "chat":
        return model.chat([conversation(question) for question in questions], **recipe)
    prompts = [problem.prompt for problem in problems]
    if asking.form == "infill":
        suffixes = [problem.suffix for problem in problems]
        return model.infill(prompts, suffixes, length=batch.length, **recipe)
    if asking.form == "edit":
        return model.edit(
            [problem.before for problem in problems],
            [problem.instruction for problem in problems],
            **recipe,
        )
    return model.generate(prompts, **recipe)


def extracted(asking: Asking, problem: Problem, text: str) -> str:
    """What of a text is judged, by the suite's rule."""
    suite = asking.suite
    rule = suite.chat_extraction if asking.form == "chat" else suite.extraction
    return extract(rule, text, suite, problem)


class SampleFile:
    """`samples.jsonl`, open for more. One process at a time may have it.

    Raises:
      InputError: if another process has it, or it cannot be written.
    """

    def __init__(self, path: Path):
        self.path, self._lock = path, ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            hint = "give each process its own --shard"
            self._lock.enter_context(locked(lock_beside(path), path, hint=hint))
            self._file = path.open("ab")
        except OSError as error:
            self._lock.close()
            raise _cannot_write(path, error) from error
        # A last line that was cut off is not a sample.
        end = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(end)
        self.samples = read_samples(path)

    def append(self, samples: Sequence[Sample]) -> None:
        """Writes lines through to the disk's cache: a killed process loses none.

        Raises:
          InputError: if there is no room; what was there before is kept.
        """
        lines = "".join(to_line(sample) for sample in samples)
        try:
            self._file.write(lines.encode())
            self._file.flush()
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self.samples += samples

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _cannot_write(path: Path, error: OSError) -> InputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free some space and run again: it goes on where it was" if full else ""
    said = f"cannot write {str(path)!r}: {error.strerror}"
    return InputError(f"{said}; {hint}" if hint else said)


def to_line(sample: Sample) -> str:
    """A sample as a line of JSON."""
    return format_json_line(dataclasses.asdict(sample))


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file; a last line that was cut off is left out.

    Raises:
      InputError: for a line that is no sample, with its number.
    """
    found, names = [], {field.name for field in dataclasses.fields(Sample)}
    for line in read_json_lines(path, unfinished=True, surrogates=True):
        try:
            given = {k: line.values[k] for k in names & line.values.keys()}
            found.append(from_dict(Sample, given, "Sample"))
        except InputError as error:
            raise InputError(
                f"{line.where}: no sample of this harness ({error}); remove the line, "
                "or give --out another folder"
            ) from None
    return found
