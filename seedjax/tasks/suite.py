"""A benchmark: its problems, where they come from, how an answer is judged.

A `Suite` is one frozen record that holds everything two people must agree on before
their scores may be compared: prompts, stop strings, extraction rule, sampling settings,
limits and metric.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seedjax.errors import InputError, did_you_mean
from seedjax.sandbox.outcome import Limits, Outcome
from seedjax.sandbox.sandbox import Program
from seedjax.sandbox.script import Script
from seedjax.text.tokenizer import Tokenizer

Kind = Literal["complete", "infill", "edit", "chat"]
"""Which call answers: a continuation of `prompt`, the middle between `prompt` and
`suffix`, the whole of `before` changed as `instruction` says, a reply to `question`."""

Rule = Literal[
    "continuation", "function", "braces", "fenced", "last_fenced", "whole_file"
]
"""How an answer is cut out of what a model wrote: see tasks/extraction.py."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem that a model completes and a test judges: a benchmark's, in the words
    of its authors; one that the lab has made; or one of a user's file."""

    problem_id: str  # upstream's, unique in the suite
    prompt: str = ""  # for a base model: the answer follows it
    suffix: str = ""  # after the hole
    before: str = ""
    instruction: str = ""
    question: str = ""  # a chat user's message; "" = no such form
    reference: str | None = None  # upstream's answer, in the form of Suite.program
    language: str = "python"
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Data for scoring, under upstream's names; and "packages": modules that program
    or test imports and Python does not bring along."""


def asked_in_chat(problem: Problem, tokenizer: Tokenizer) -> bool:
    """Whether a problem is put to a model as a user's message: it has one, and the
    model a chat template."""
    template = getattr(tokenizer, "chat_template", None)
    return bool(problem.question) and template is not None


def chat_prompt(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a problem's question in the model's chat template.

    Raises:
      InputError: if the model has none.
    """
    return tokenizer.encode_chat([{"role": "user", "content": problem.question}])


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the problems come from.

    `files` maps the path of a file in the data folder to the SHA-256 of its contents,
    uncompressed where the name ends in .gz, because some are compressed again on the
    way; "" where it is not known, and whatever is there is taken. `urls` maps the same
    paths to where each can be downloaded as it is.
    """

    project: str  # "github.com/openai/human-eval"
    version: str  # commit or tag
    licence: str  # SPDX name, or in words
    address: str  # the page to get it from
    files: Mapping[str, str]
    urls: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def nothing_absent() -> None:
    """Of suites whose tests need no more than a language's runtime."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark with its settings, frozen.

    `program` takes an answer that `extract` has cut out. For the suites of task
    "complete" this is a continuation of the prompt or a whole program, whichever the
    answer turns out to be.
    """

    name: str
    title: str
    family: str  # the paper's name of the benchmark it belongs to
    task: Kind
    source: Source
    num_problems: int
    language: str = "python"
    stop: tuple[str, ...] = ()  # a continuation is cut at the first of these
    extraction: Rule = "continuation"
    chat_extraction: Rule = "fenced"  # for a reply to Problem.question
    metric: str = "pass@1"
    samples: int = 1  # a problem
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    wall_seconds: float = 3.0  # of one program with its test
    memory_bytes: int = 512 << 20
    processes: int = Limits.processes  # and threads
    answer_bytes: int = 8 << 20  # of what a call gives back, on its way to the test
    absent: Callable[[], str | None] = nothing_absent
    """Why tests cannot be run here for want of what runs them, with what to install."""
    tries: int = 1
    read: Callable[[Path], list[Problem]]
    program: Callable[[Problem, str], Program | Script]
    wrong: Callable[[Problem], str]  # a wrong answer of the same form
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Problem id -> why its reference does not pass."""
    well_formed: Callable[[Problem, str], bool] | None = None
    """Whether an answer has the suite's form, where that is counted."""
    second_question: Callable[[Problem, str, Outcome], str] | None = None

    @property
    def limits(self) -> Limits:
        """Limits of one program."""
        return Limits(
            wall_seconds=self.wall_seconds,
            cpu_seconds=self.wall_seconds + 1.0,
            memory_bytes=self.memory_bytes,
            processes=self.processes,
            answer_bytes=self.answer_bytes,
        )


def find(suites: Mapping[str, Suite], name: str) -> Suite:
    """The suite of that name. Raises InputError, which names the nearest."""
    if name in suites:
        return suites[name]
    hint = did_you_mean(name, suites) or f"; there are {', '.join(sorted(suites))}"
    raise InputError(f"there is no suite {name!r}{hint}")
