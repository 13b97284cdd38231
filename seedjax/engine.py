"""Many prompts through a few slots: continuous batching, block by block.

    engine = Engine(model, num_slots=8)
    for completion in engine.run(prompts):
        print(completion.number, completion.text)

Requests wait in a queue; a slot whose answer is complete takes the next one, so that a
long answer holds up nobody else. What runs on the device is `seedjax.sampling.slots`;
between two blocks, only the flags of what is finished come back, and the finished
answers. `generate` is the way to go for a single batch: it needs no return at all.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from seedjax.errors import InputError
from seedjax.grammar import Grammar
from seedjax.model import Model, Seeds, row_keys
from seedjax.prompts import continuation
from seedjax.sampling import slots
from seedjax.sampling.canvas import (
    block_size,
    check_length,
    forced_array,
    num_columns_in_front,
    pad_prompts,
)
from seedjax.sampling.recipe import check_recipe
from seedjax.typing import Array


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished request.

    Attributes:
      number: of the request, in the order in which they were submitted, from 0.
      text: what was written, without the prompt.
      tokens: its token ids.
      steps: refinement steps that it took part in.
      seconds: from being submitted to being finished.
      fits: whether the engine's grammar admits it; True if there is none.
    """

    number: int
    text: str
    tokens: list[int]
    steps: int
    seconds: float
    fits: bool = True


@dataclass(frozen=True)
class _Waiting:
    number: int
    tokens: list[int]
    budget: int
    forced: np.ndarray
    key: Array
    submitted: float


class Engine:
    """Slots of one model and recipe, and the queue in front of them."""

    def __init__(
        self,
        model: Model,
        *,
        num_slots: int = 8,
        max_prompt_tokens: int | None = None,
        grammar: Grammar | None = None,
        **overrides: Any,
    ):
        """Takes the memory of all slots; compiles when the first request is worked on.

        Args:
          model: whose answers are wanted.
          num_slots: requests that are worked on together.
          max_prompt_tokens: longest prompt; None is what the model holds beside the
            longest answer.
          grammar: what each answer has to match, as a whole.
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for a wrong override, or a recipe that slots cannot take.
        """
        if num_slots < 1:
            raise InputError(f"num_slots is {num_slots}; it must be at least 1")
        self.model = model
        self.sampler = model.sampler.vary(**overrides)
        config = model.config
        if max_prompt_tokens is None:
            max_prompt_tokens = config.max_positions - self.sampler.max_new_tokens
        check_recipe(config, self.sampler, "engine", grammar=grammar is not None)
        check_length(max_prompt_tokens, self.sampler.max_new_tokens, config)
        self.max_prompt_tokens = max_prompt_tokens
        self._size = block_size(config, self.sampler)
        automaton = None
        if grammar is not None:
            automaton = model.automaton(grammar, self.sampler)
        make = jax.jit(slots.empty, static_argnums=(0, 1, 2, 3))
        in_front = num_columns_in_front(
            max_prompt_tokens, self._size, self.sampler.context
        )
        self._slots = make(config, self.sampler, num_slots, in_front, automaton)
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, _Waiting] = {}
        self._free = list(range(num_slots))
        self._submitted = 0

    @property
    def num_waiting(self) -> int:
        """Requests that no slot works on yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Slots at work."""
        return len(self._running)

    @property
    def forwards(self) -> int:
        """Denoiser calls so far; a prefill of one request counts as one."""
        return int(self._slots.state.forwards)

    def submit(
        self,
        prompt: str | list[int],
        *,
        max_new_tokens: int | None = None,
        seed: int = 0,
        forced_tokens: Mapping[int, int] | None = None,
    ) -> int:
        """Puts a prompt in the queue.

        Args:
          prompt: a text, or token ids from the beginning-of-sequence token on.
          max_new_tokens: longest answer, at most the recipe's; None is the recipe's.
          seed: chooses the draws, as `generate(..., seed=[seed])` does.
          forced_tokens: ids that stand in certain places of the answer, by place.

        Returns:
          The number of the request.

        Raises:
          InputError: for an empty or too long prompt, too long an answer, or a place or
            id that there is not.
        """
        key = row_keys([seed], 1)[0]
        return self._submit(prompt, max_new_tokens, key, forced_tokens)

    def _submit(
        self,
        prompt: str | list[int],
        max_new_tokens: int | None,
        key: Array,
        forced_tokens: Mapping[int, int] | None = None,
    ) -> int:
        if forced_tokens:
            check_recipe(
                self.model.config,
                self.sampler,
                "engine",
                grammar=self._slots.canvas.automaton is not None,
                forced_tokens=True,
            )
        budget = max_new_tokens
        if budget is None:
            budget = self.sampler.max_new_tokens
        if not 1 <= budget <= self.sampler.max_new_tokens:
            raise InputError(
                f"max_new_tokens is {max_new_tokens}; this engine has room for 1 to "
                f"{self.sampler.max_new_tokens}"
            )
        if not prompt:
            raise InputError("the prompt is empty; give it at least one character")
        if isinstance(prompt, str):
            special = self.model.tokenizer.special
            prompt = continuation(self.model.tokenizer.encode(prompt), special)
        if len(prompt) > self.max_prompt_tokens:
            raise InputError(
                f"the prompt has {len(prompt)} tokens and this engine has room for "
                f"{self.max_prompt_tokens}; shorten it or give max_prompt_tokens"
            )
        forced = forced_array(
            forced_tokens or {},
            self.model.config,
            budget=budget,
            width=self.sampler.max_new_tokens,
        )
        number, self._submitted = self._submitted, self._submitted + 1
        self._waiting.append(
            _Waiting(number, prompt, budget, forced, key, time.perf_counter())
        )
        return number

    def step(self) -> list[Completion]:
        """Fills free slots from the queue and works on a block in each of them.

        Returns:
          What is finished now.
        """
        while self._free and self._waiting:
            self._start(self._free.pop(), self._waiting.popleft())
        if not self._running:
            return []
        advance, _ = self.model.program(
            slots.advance, self.sampler, self._slots, donate="slots"
        )
        self._slots, answer = advance(self.model.params, self._slots)
        done = np.asarray(self._slots.state.done)
        finished = [slot for slot in self._running if done[slot]]
        if not finished:
            return []
        tokens, lengths, steps, fits = jax.device_get(
            (answer.tokens, answer.lengths, answer.steps, answer.fits)
        )
        now = time.perf_counter()
        completions = []
        for slot in finished:
            request = self._running.pop(slot)
            self._free.append(slot)
            new = tokens[slot, : lengths[slot]].tolist()
            completions.append(
                Completion(
                    number=request.number,
                    text=self.model.tokenizer.decode(new),
                    tokens=new,
                    steps=int(steps[slot]),
                    seconds=now - request.submitted,
                    fits=bool(fits[slot]),
                )
            )
        return completions

    def run(
        self, prompts: Iterable[str | list[int]], *, seed: Seeds = 0
    ) -> Iterator[Completion]:
        """Answers prompts; each completion comes as soon as it is finished, numbered by
        the place of its prompt.

        Args:
          prompts: texts, or token ids from the beginning-of-sequence token on.
          seed: chooses the draws, as `generate(prompts, seed=seed)` does.

        Raises:
          InputError: as `submit`, for a text in place of several, or for more or fewer
            seeds than prompts.
        """
        if isinstance(prompts, str):
            raise InputError("prompts are one text; give a list of texts, or submit it")
        first, rows = self._submitted, list(prompts)
        for prompt, key in zip(rows, row_keys(seed, len(rows)), strict=True):
            self._submit(prompt, None, key)
        while self._waiting or self._running:
            for completion in self.step():
                number = completion.number - first
                yield Completion(**vars(completion) | {"number": number})

    def _start(self, slot: int, waiting: _Waiting) -> None:
        count = len(waiting.tokens)
        in_front = num_columns_in_front(count, self._size, self.sampler.context)
        given = pad_prompts([waiting.tokens], in_front + self._size)
        numbers = np.int32(count), np.int32(waiting.budget)
        prompt, (length, budget), forced, number = jax.device_put(
            (given, numbers, waiting.forced[None], np.int32(slot))
        )
        request = slots.Request(prompt, length, budget, forced, waiting.key)
        admit, _ = self.model.program(
            slots.admit, self.sampler, self._slots, number, request, donate="slots"
        )
        self._slots = admit(self.model.params, self._slots, number, request)
        self._running[slot] = waiting
