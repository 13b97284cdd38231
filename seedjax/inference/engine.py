"""Continuous batching: a queue of requests and a few slots, block by block.

    engine = Engine(model, num_slots=8)
    for completion in engine.run(prompts):
        print(completion.number, completion.text)

Requests wait in a queue. A slot whose completion is finished takes the next one, so a
long completion causes no head-of-line blocking. `seedjax.sampling.slots` runs on the
device; between two blocks only the flags and tokens of finished rows come back. For a
single batch use `generate`, which returns to Python once.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from seedjax.errors import InputError
from seedjax.inference.compiled import OnBlock, key_of_seed, keys_of_rows
from seedjax.inference.fair_queue import FairQueue
from seedjax.inference.generation import Seeds, Stop
from seedjax.inference.in_flight import Completion, Request
from seedjax.inference.model import Model
from seedjax.inference.slot_table import SlotTable
from seedjax.sampling import arguments
from seedjax.sampling.canvas import (
    check_length,
    forced_array,
)
from seedjax.sampling.check import check_recipe
from seedjax.sampling.grammar.build import Grammar, Regex
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.vocabulary import MOST_BIASES
from seedjax.typing import Array

ANYTHING = "(?s:.)*"  # a pattern


class Engine:
    """Slots of one model and recipe, and the queue of requests that wait for them."""

    def __init__(
        self,
        model: Model,
        *,
        num_slots: int = 8,
        max_prompt_tokens: int | None = None,
        grammar: Grammar | None = None,
        stop: Stop = None,
        reuse_prefixes: bool = True,
        **overrides: Unpack[SamplerOptions],
    ):
        """Allocates all slots; compiles when the first request is admitted.

        Args:
          model: that decodes.
          num_slots: requests in flight at once.
          max_prompt_tokens: longest prompt; None is what the model holds beside the
            longest completion.
          grammar: what the completions of requests that bring none of their own have to
            match, as a whole.
          stop: stop strings of requests that bring none of their own.
          reuse_prefixes: whether a prompt that begins as another one in a slot takes
            over its keys and values, in whole pieces. Completions are the same.
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for a wrong override, or a recipe that slots cannot take.
        """
        if not isinstance(model, Model):
            raise InputError(
                f"model is {model!r}; give a Model, such as seedjax.load('mini')"
            )
        num_slots = arguments.integer(num_slots, "num_slots", least=1)
        self.stop, grammar = arguments.stop_strings(stop), arguments.grammar(grammar)
        self.model = model
        self.sampler = model.sampler.vary(**overrides)
        config = model.config
        if max_prompt_tokens is None:
            max_prompt_tokens = config.max_positions - self.sampler.max_new_tokens
        max_prompt_tokens = arguments.integer(
            max_prompt_tokens, "max_prompt_tokens", least=1
        )
        check_recipe(
            config,
            self.sampler,
            "engine",
            grammar=grammar is not None,
            stop=bool(self.stop),
        )
        check_length(max_prompt_tokens, self.sampler.max_new_tokens, config)
        self.max_prompt_tokens = max_prompt_tokens
        self._table = SlotTable(
            model,
            self.sampler,
            num_slots,
            max_prompt_tokens,
            reuse_prefixes=reuse_prefixes,
        )
        self._waiting = FairQueue()
        self._finished: dict[int, Completion] = {}  # not yielded yet
        self._of_runs: set[int] = set()  # requests that a `run` yields
        self._submitted = 0
        self.grammar = grammar
        self._check_grammar(grammar)

    @property
    def num_slots(self) -> int:
        """Requests in flight at once."""
        return len(self._table)

    @property
    def num_waiting(self) -> int:
        """Requests that wait in the queue."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests in flight."""
        return len(self._table.in_flight)

    @property
    def forwards(self) -> int:
        """Denoiser calls so far; a piece of a prompt counts as one."""
        return self._table.forwards

    def submit(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        logit_bias: Mapping[int, float] | None = None,
        seed: int = 0,
        stop: Stop = None,
        grammar: Grammar | None = None,
        forced_tokens: Mapping[int, int] | None = None,
        on_text: Callable[[str], None] | None = None,
        on_block: OnBlock | None = None,
        client: str = "",
        max_seconds: float | None = None,
    ) -> int:
        """Puts a prompt in the queue.

        Args:
          prompt: a text, or token ids from the beginning-of-sequence token on.
          max_new_tokens: longest completion, at most the recipe's; None is the
            recipe's.
          temperature: of this request; None is the recipe's, and so for `top_k` and
            `top_p`.
          logit_bias: what is added to the logits of at most 64 ids, by id.
          seed: chooses the draws, as `generate(..., seed=[seed])` does.
          stop: stop strings of this request; None is the engine's.
          grammar: what the completion has to match, as a whole; None is the engine's.
            A larger automaton may be a new program.
          forced_tokens: ids at certain places of the completion, by place.
          on_text: called with the text that each finished block adds, as `stream`
            yields it.
          on_block: called with the denoising steps of each block, as `generate` does;
            before `on_text`. The recipe needs no `trace`.
          client: whose request it is: the next one out of the queue is of the client
            with the fewest in flight.
          max_seconds: of decoding, after which the completion ends with the block at
            work, cut off as by its budget; None is no limit.

        Returns:
          The number of the request.

        Raises:
          InputError: for an empty or too long prompt, a too long completion, a grammar
            that admits nothing, an unknown place or id, or an option that the
            recipe does not support.
        """
        return self._submit(
            prompt,
            key_of_seed(arguments.seed(seed)),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            logit_bias=logit_bias,
            stop=stop,
            grammar=grammar,
            forced_tokens=forced_tokens,
            on_text=on_text,
            on_block=on_block,
            client=client,
            max_seconds=max_seconds,
        )

    def _submit(
        self,
        prompt: str | Sequence[int],
        key: Array,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        logit_bias: Mapping[int, float] | None = None,
        stop: Stop = None,
        grammar: Grammar | None = None,
        forced_tokens: Mapping[int, int] | None = None,
        on_text: Callable[[str], None] | None = None,
        on_block: OnBlock | None = None,
        client: str = "",
        max_seconds: float | None = None,
    ) -> int:
        grammar = arguments.grammar(grammar) or self.grammar
        strings = self.stop if stop is None else arguments.stop_strings(stop)
        given: dict[str, Any] = {"temperature": temperature, "top_k": top_k}
        given["top_p"] = top_p
        sampler = self._varied(**given)
        bias = self._checked_bias(logit_bias)
        config = self.model.config
        check_recipe(
            config,
            sampler,
            "engine",
            grammar=grammar is not None,
            forced_tokens=bool(forced_tokens),
            stop=bool(strings),
        )
        if on_block is not None:
            check_recipe(config, sampler.vary(trace=True))
        most = self.sampler.max_new_tokens
        budget = arguments.integer(
            most if max_new_tokens is None else max_new_tokens,
            "max_new_tokens of a request to this engine",
            least=1,
            most=most,
        )
        if isinstance(prompt, str):
            prompt = self.model.prompt_ids(prompt)
        else:
            num_ids = self.model.config.vocab_size
            prompt = arguments.token_ids(prompt, "prompt", num_ids)
        if not prompt:
            raise InputError("the prompt is empty; give it at least one token")
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
        self._check_grammar(grammar)
        number, self._submitted = self._submitted, self._submitted + 1
        self._waiting.put(
            Request(
                number=number,
                tokens=prompt,
                budget=budget,
                forced=forced,
                grammar=grammar,
                key=key,
                stop=strings,
                sampler=sampler,
                logit_bias=bias,
                on_text=on_text,
                on_block=on_block,
                submitted=time.perf_counter(),
                client=client,
                max_seconds=math.inf if max_seconds is None else max_seconds,
            )
        )
        return number

    def _check_grammar(self, grammar: Grammar | None) -> None:
        """Raises `InputError` for one that admits nothing; else builds its automaton,
        which takes seconds for some."""
        if grammar is not None:
            self.model.automaton(grammar, self.sampler)

    def _varied(self, **given: float | int | None) -> SamplerConfig:
        """The recipe with what a request says of its draws."""
        usual = {name: getattr(self.sampler, name) for name in given}
        own = {n: v for n, v in given.items() if v is not None and v != usual[n]}
        for name, value in own.items():
            if not self._takes_draws:
                raise InputError(
                    f"{name} is {value!r}; this recipe reads the confidence of "
                    "candidates from what they are drawn from, and its "
                    f"requests all have {name} {usual[name]!r}"
                )
        return self.sampler.vary(**own)

    def _checked_bias(self, given: Mapping[int, float] | None) -> dict[int, float]:
        """Biases by id.

        Raises:
          InputError: for too many, an unknown id, no finite number, or a recipe that
            takes none.
        """
        bias = dict(given or {})
        if bias and not self._takes_draws:
            raise InputError(
                "this recipe reads the confidence of candidates from what they are "
                "drawn from; it takes no logit_bias"
            )
        if len(bias) > MOST_BIASES:
            raise InputError(
                f"logit_bias has {len(bias)} ids; give at most {MOST_BIASES}"
            )
        most = self.model.config.vocab_size - 1
        for token, value in bias.items():
            arguments.integer(token, "an id of logit_bias", least=0, most=most)
            if not math.isfinite(value):
                raise InputError(f"logit_bias of {token} is {value}; give a number")
        return bias

    @property
    def _takes_draws(self) -> bool:
        """Whether requests may say how they are drawn."""
        return self.sampler.certainty_of != "draw"

    def warm_up(self, *, grammars: bool = False) -> None:
        """Compiles what prompts of any length, requests drawn in any way and those
        whose steps are shown need, by completing one of each kind. With `grammars`
        those that have to match one, too; the automata of the requests in flight may
        have 511 states and 256 classes of tokens together, more are a new program."""
        filler = self._filler()
        kinds: list[dict[str, Any]] = [{}]
        if self._takes_draws and self.sampler.temperature == 0.0:
            kinds.append({"temperature": 1.0})
        if self.sampler.speculation is None:
            kinds.append({"on_block": lambda steps: None})
        # The second of two takes over what the one before them left.
        twice = min(2, self.num_slots)
        rounds = [kinds[:1], *([kind] * twice for kind in kinds)]
        sizes = [*self._table.views.sizes()]
        turns = [(size, requests) for size in sizes for requests in rounds]
        if grammars and self._takes_grammars:
            self._table.reserve_automaton()
            matching = {"grammar": Regex(pattern=ANYTHING)}
            shown = matching | {"on_block": lambda steps: None}
            rounds = [[matching], [matching] * twice, [shown]]
            turns += [(sizes[-1], requests) for requests in rounds]
        for (num_tokens, budget), requests in turns:
            for kind in requests:
                own = {"max_new_tokens": budget, "max_seconds": 0.0} | kind
                self.submit([filler] * num_tokens, **own)
            while self.num_waiting or self.num_running:
                self.step()

    @property
    def _takes_grammars(self) -> bool:
        """Whether requests may have a grammar."""
        try:
            check_recipe(self.model.config, self.sampler, "engine", grammar=True)
        except InputError:
            return False
        return True

    def _filler(self) -> int:
        """The first id that stands for a text."""
        return int(np.flatnonzero(self.model.tokenizer.byte_lengths)[0])

    def cancel(self, request: int) -> bool:
        """Takes a request out of the queue, or out of its slot, which is free for the
        next one at once. The completions of other requests do not change.

        Args:
          request: its number, as `submit` gave it.

        Returns:
          Whether it was waiting or running; else it was finished or cancelled before.

        Raises:
          InputError: for a number that no request has had.
        """
        most = self._submitted - 1
        if most < 0:
            raise InputError("there is no request to cancel; `submit` one first")
        number = arguments.integer(request, "the request", least=0, most=most)
        for waiting in self._waiting:
            if waiting.number == number:
                self._waiting.remove(waiting)
                return True
        for running in self._table.in_flight:
            if running.number == number:
                self._table.release(running)
                return True
        return False

    def step(self) -> list[Completion]:
        """Fills free slots from the queue and decodes a block in each, or several of a
        request that is alone and that nobody watches, on a CPU. If that fails, no
        request is lost: the next call continues.

        Returns:
          Completions that finished, without those of a `run` in progress.
        """
        self._work()
        mine = self._finished.keys() - self._of_runs
        return [self._finished.pop(number) for number in sorted(mine)]

    def _work(self) -> None:
        """One step; its completions are put into `_finished`."""
        table, waiting = self._table, self._waiting
        try:
            while waiting and table.has_room:
                request = waiting.peek(table.in_flight)
                table.admit(request)
                waiting.remove(request)
            table.prefill()
            for completion in table.advance():
                self._finished[completion.number] = completion
        except BaseException:
            if table.is_lost:
                # Restarted requests have the same completions.
                waiting.put_back(table.empty())
            raise

    def run(
        self, prompts: Iterable[str | Sequence[int]], *, seed: Seeds = 0
    ) -> Iterator[Completion]:
        """Completes prompts and yields each completion as soon as it is finished,
        numbered by the place of its prompt. Abandoning the generator cancels its
        requests, and no others.

        Args:
          prompts: texts, or token ids from the beginning-of-sequence token on.
          seed: chooses the draws, as `generate(prompts, seed=seed)` does.

        Raises:
          InputError: as `submit`, for a text in place of several, or for more or fewer
            seeds than prompts.
        """
        rows = arguments.several(prompts, "prompts")
        places: dict[int, int] = {}  # by request, of those not yielded yet
        try:
            keys = keys_of_rows(seed, len(rows))
            for place, (prompt, key) in enumerate(zip(rows, keys, strict=True)):
                places[self._submit(prompt, key)] = place
                self._of_runs |= places.keys()
            while places:
                for number in sorted(places.keys() & self._finished.keys()):
                    found = self._finished.pop(number)
                    self._of_runs.discard(number)
                    yield dataclasses.replace(found, number=places.pop(number))
                if places.keys().isdisjoint(self._finished):
                    self._work()
        finally:
            for number in places:  # of an abandoned generator
                self.cancel(number)
                self._finished.pop(number, None)
                self._of_runs.discard(number)
