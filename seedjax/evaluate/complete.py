"""A model's completions of problems, drawn batch by batch.

    problems ─▶ requests ─batches, alike in length─▶ Model ─▶ completions

A completion depends on nothing but the model, the recipe and the request: its draws
come from a seed of its own, and rows do not see each other. Which requests share a
batch is settled before any is completed, so that a run that was cut off completes the
very batches that are missing.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from seedjax.errors import InputError
from seedjax.tasks.extraction import extract
from seedjax.tasks.suite import Problem, Suite, asked_in_chat
from seedjax.text.prompts import continuation, edit_request, editing, infilling

# JAX takes long to import, and a report on completions takes none of it.
if TYPE_CHECKING:
    from seedjax.inference.model import Generation, Model
    from seedjax.sampling.recipe import SamplerConfig

Form = Literal["generate", "infill", "edit", "chat"]
"""Which call of a model completes: a text to continue, to fill, to change, or a user's
message."""

Key = tuple[str, int, int]
"""Problem, number of the sample, number of the try."""

GRAIN = 32  # tokens; budgets that a long prompt cuts short are rounded down to these


@dataclass(frozen=True, kw_only=True)
class Request:
    """A completion to draw of a problem.

    Attributes:
      problem: what to complete.
      sample: number of the completion of this problem, from 0.
      turn: number of the try, from 0.
      messages: of a chat so far: the user's and the model's in turns, the user's last;
        empty for the problem's own request.
    """

    problem: Problem
    sample: int = 0
    turn: int = 0
    messages: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.problem.problem_id, self.sample, self.turn


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A model's completion: a line of `samples.jsonl`.

    Attributes:
      problem_id: of the suite.
      sample: number of the completion of this problem, from 0.
      turn: number of the try, from 0.
      text: what the model wrote.
      answer: the part of it that is judged.
      tokens: new tokens; neither prompt nor padding nor the end is among them.
      blank_tokens: how many of these are white space alone; None in files written
        before this was counted.
      steps: denoising steps that its row took part in.
      forwards: forward passes of its row: the prefill and every step. Commits ride on
        steps, so they are counted.
      seconds: its share of the wall time of its batch, without compilation.
      finished: whether it ended by itself, before the budget was used up.
      warm: whether its batch ran a program that had run before.
      fits: False for a prompt that leaves the model no room; it was not completed.
    """

    problem_id: str
    sample: int
    turn: int = 0
    text: str
    answer: str
    tokens: int = 0
    blank_tokens: int | None = None
    steps: int = 0
    forwards: int = 0
    seconds: float = 0.0
    finished: bool = True
    warm: bool = True
    fits: bool = True

    @property
    def key(self) -> Key:
        return self.problem_id, self.sample, self.turn


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How requests are put to a model.

    Attributes:
      suite: whose problems they are of.
      form: which call of the model completes them.
      sampler: the whole recipe.
      rows: of a batch.
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
    """The form of a suite's requests to a model: a chat, if it has a template for one
    and the problems have questions; else the suite's task; else a continuation.

    Raises:
      InputError: for a suite that the model takes in no form.
    """
    if all(asked_in_chat(problem, model.tokenizer) for problem in problems):
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
    """A seed in [0, 2^32) that is the request's own."""
    name = json.dumps([suite, *key, seed])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def prompt_tokens(model: "Model", request: Request, form: Form) -> list[int]:
    """The token ids of the prompt."""
    problem, encode = request.problem, model.tokenizer.encode
    special = model.tokenizer.special
    if form == "chat":
        return model.tokenizer.encode_chat(conversation(request))
    if form == "infill":
        order = model.tokenizer.infill_order
        return infilling(encode(problem.prompt), encode(problem.suffix), special, order)
    if form == "edit":
        text = edit_request(problem.before, problem.instruction)
        return editing(encode(text), special)
    return continuation(encode(problem.prompt), special)


def prompt_text(model: "Model", request: Request, form: Form) -> str:
    """The prompt as text, special tokens spelled."""
    return model.tokenizer.spell(prompt_tokens(model, request, form))


def conversation(request: Request) -> list[dict[str, str]]:
    """The messages of a chat, the user's last."""
    texts = request.messages or (request.problem.question,)
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Requests that are completed together.

    Attributes:
      requests: at most as many as the program has rows.
      budget: longest completion, in tokens; 0 if there is no room for any.
      length: of the holes, exactly; None where the model finds it.
    """

    requests: tuple[Request, ...]
    budget: int
    length: int | None = None


def batches(model: "Model", setup: Setup, requests: Sequence[Request]) -> list[Batch]:
    """Requests in groups of equal room, those alike in length side by side."""
    sized: dict[tuple[int, int | None], list[tuple[int, int]]] = {}
    for number, request in enumerate(requests):
        prompt = len(prompt_tokens(model, request, setup.form))
        length = None
        if setup.known_length:
            length = len(model.tokenizer.encode(request.problem.reference or ""))
        longest = length or setup.sampler.max_new_tokens
        left = max(0, model.config.max_positions - prompt)
        budget = longest if left >= longest else left - left % GRAIN
        if length is not None and budget < longest:
            budget = 0  # a hole cannot be filled in part
        sized.setdefault((budget, length or None), []).append((prompt, number))
    made = []
    for (budget, length), members in sorted(sized.items(), key=str):
        numbers = [number for _, number in sorted(members)]
        for start in range(0, len(numbers), setup.rows):
            chosen = numbers[start : start + setup.rows]
            together = tuple(requests[number] for number in chosen)
            made.append(Batch(requests=together, budget=budget, length=length))
    return made


def complete_batches(
    model: "Model", setup: Setup, made: Sequence[Batch], have: Collection[Key]
) -> Iterator[list[Completion]]:
    """The completions that are missing, batch by batch."""
    for batch in made:
        if any(request.key not in have for request in batch.requests):
            completed = complete_batch(model, setup, batch)
            yield [each for each in completed if each.key not in have]


def complete_batch(model: "Model", setup: Setup, batch: Batch) -> list[Completion]:
    """A completion of each request of a batch."""
    if not batch.budget:
        return [
            Completion(
                problem_id=request.problem.problem_id,
                sample=request.sample,
                turn=request.turn,
                text="",
                answer="",
                fits=False,
            )
            for request in batch.requests
        ]
    # Padded with repeated rows, whose outputs are dropped: one program for all batches.
    requests = batch.requests
    padded = [requests[n % len(requests)] for n in range(setup.rows)]
    written = generate_batch(model, setup, batch, padded)
    is_blank = model.tokenizer.is_whitespace
    speculation = setup.sampler.speculation
    passes = speculation.passes if speculation else 1
    return [
        Completion(
            problem_id=request.problem.problem_id,
            sample=request.sample,
            turn=request.turn,
            text=written.texts[row],
            answer=extracted(setup, request.problem, written.texts[row]),
            tokens=written.new_tokens[row],
            blank_tokens=sum(map(is_blank, written.tokens[row])),
            steps=written.steps[row],
            forwards=passes * written.steps[row] + 1,
            seconds=written.seconds / len(requests),
            finished=batch.length is not None or written.new_tokens[row] < batch.budget,
            warm=written.compile_seconds == 0.0,
        )
        for row, request in enumerate(requests)
    ]


def generate_batch(
    model: "Model",
    setup: Setup,
    batch: Batch,
    requests: Sequence[Request],
    *,
    trace: bool = False,
) -> "Generation":
    """A model's completions of requests, which fill the rows of one program."""
    problems = [request.problem for request in requests]
    recipe: dict[str, Any] = {
        field.name: getattr(setup.sampler, field.name)
        for field in dataclasses.fields(setup.sampler)
    }
    recipe |= {"max_new_tokens": batch.budget, "trace": trace}
    seeds = [seed_of(setup.suite.name, r.key, setup.seed) for r in requests]
    # Without draws, the program is the one that any other call compiles.
    recipe["seed"] = seeds if setup.sampler.draws else 0
    if setup.form == "chat":
        return model.chat([conversation(request) for request in requests], **recipe)
    prompts = [problem.prompt for problem in problems]
    if setup.form == "infill":
        suffixes = [problem.suffix for problem in problems]
        return model.infill(prompts, suffixes, length=batch.length, **recipe)
    if setup.form == "edit":
        return model.edit(
            [problem.before for problem in problems],
            [problem.instruction for problem in problems],
            **recipe,
        )
    return model.generate(prompts, **recipe)


def extracted(setup: Setup, problem: Problem, text: str) -> str:
    """The part of a text that is judged, by the suite's rule."""
    suite = setup.suite
    rule = suite.chat_extraction if setup.form == "chat" else suite.extraction
    return extract(rule, text, suite, problem)
