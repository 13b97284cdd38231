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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import jax
import numpy as np

from seedjax.backend import require_backend
from seedjax.errors import InputError
from seedjax.inference.compiled import OnBlock, keys_of_rows, make, place
from seedjax.inference.generation import Seeds, Stop
from seedjax.inference.in_flight import Completion, Request
from seedjax.inference.model import Model
from seedjax.sampling import arguments, loop, slots
from seedjax.sampling.canvas import (
    Canvas,
    block_size,
    check_length,
    forced_array,
    num_prefill_columns,
    pad_prompts,
)
from seedjax.sampling.check import check_recipe
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.grammar.decode import anything, side_by_side
from seedjax.sampling.loop import DecodeResult, logprobs_of
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.state import DecodeState
from seedjax.sampling.stop_strings import conclude, readable
from seedjax.sampling.trace import read_trace
from seedjax.sampling.vocabulary import MOST_BIASES, Draw
from seedjax.typing import Array


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
        self._size = block_size(config, self.sampler)
        self._num_slots = num_slots
        self._slots: slots.Slots
        self._num_in_front = num_prefill_columns(
            max_prompt_tokens, self._size, self.sampler.context
        )
        self._waiting: deque[Request] = deque()
        self._running: dict[int, Request] = {}
        self._finished: dict[int, Completion] = {}  # not yielded yet
        self._of_runs: set[int] = set()  # requests that a `run` yields
        self._submitted = 0
        self._starts: dict[Grammar, int] = {}
        self._empty()
        self.grammar = grammar
        self._start_of(grammar)

    @property
    def num_slots(self) -> int:
        """Requests in flight at once."""
        return self._num_slots

    @property
    def num_waiting(self) -> int:
        """Requests that wait in the queue."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests in flight."""
        return len(self._running)

    @property
    def forwards(self) -> int:
        """Denoiser calls so far; a prefill of one request counts as one."""
        return int(self._slots.state.forwards)

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
            The slots keep every grammar that was used, and a larger automaton may be
            a new program.
          forced_tokens: ids at certain places of the completion, by place.
          on_text: called with the text that each finished block adds, as `stream`
            yields it.
          on_block: called with the denoising steps of each block, as `generate` does;
            before `on_text`. The recipe needs no `trace`.

        Returns:
          The number of the request.

        Raises:
          InputError: for an empty or too long prompt, a too long completion, a grammar
            that admits nothing, an unknown place or id, or an option that the
            recipe does not support.
        """
        return self._submit(
            prompt,
            keys_of_rows([arguments.seed(seed)], 1)[0],
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
        start = self._start_of(grammar)
        number, self._submitted = self._submitted, self._submitted + 1
        self._waiting.append(
            Request(
                number=number,
                tokens=prompt,
                budget=budget,
                forced=forced,
                start=start,
                key=key,
                stop=strings,
                sampler=sampler,
                logit_bias=bias,
                on_text=on_text,
                on_block=on_block,
                submitted=time.perf_counter(),
            )
        )
        return number

    def _varied(self, **given: float | int | None) -> SamplerConfig:
        """The recipe with what a request says of its draws."""
        own = {name: value for name, value in given.items() if value is not None}
        for name, value in own.items():
            usual = getattr(self.sampler, name)
            if value != usual and not self._takes_draws:
                raise InputError(
                    f"{name} is {value!r}; this recipe reads the confidence of "
                    "candidates from what they are drawn from, and its "
                    f"requests all have {name} {usual!r}"
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

    def warm_up(self) -> None:
        """Compiles what prompts of any length, requests drawn in any way and those
        whose steps are shown need, by completing one of each kind. A grammar may still
        need a program of its own."""
        config, filler = self.model.config, self._filler()
        widths = {
            num_prefill_columns(
                count, self._size, self.sampler.context, config.max_positions
            ): count
            for count in range(1, self.max_prompt_tokens + 1)
        }
        for count in widths.values():
            for _ in self.run([[filler] * count]):
                pass
        kinds: list[dict[str, Any]] = []
        if self._takes_draws and self.sampler.temperature == 0.0:
            kinds.append({"temperature": 1.0})
        if self.sampler.speculation is None:
            kinds.append({"on_block": lambda steps: None})
        for kind in kinds:
            self.submit([filler], **kind)
            while self.num_waiting or self.num_running:
                self.step()

    def _filler(self) -> int:
        """The first id that stands for a text."""
        return int(np.flatnonzero(self.model.tokenizer.byte_lengths)[0])

    def _start_of(self, grammar: Grammar | None) -> int:
        """The start state of a grammar in the slots' automaton, to which a new grammar
        is added."""
        if grammar is None:
            return 0
        if grammar not in self._starts:
            kept = [*self._starts]
            limit = self.model.max_programs
            if limit and len(kept) >= limit and not (self._waiting or self._running):
                kept = [] if self.grammar is None else [self.grammar]
            self._join_grammars([*kept, grammar])
        return self._starts[grammar]

    def _join_grammars(self, grammars: Sequence[Grammar]) -> None:
        automaton, starts = side_by_side(
            [
                anything(self.model.config.vocab_size),
                *(self.model.automaton(known, self.sampler) for known in grammars),
            ]
        )
        self._starts = dict(zip(grammars, starts[1:], strict=True))
        canvas = self._slots.canvas._replace(automaton=automaton)
        self._slots = place(self._slots._replace(canvas=canvas), self.model.mesh)

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
        for slot, running in self._running.items():
            if running.number == number:
                require_backend()
                state = _release(self._slots.state, slot)
                self._slots = self._slots._replace(state=state)
                del self._running[slot]
                return True
        return False

    def step(self) -> list[Completion]:
        """Fills free slots from the queue and decodes a block in each. If that fails,
        no request is lost: the next call continues.

        Returns:
          Completions that finished, without those of a `run` in progress.
        """
        self._work()
        mine = self._finished.keys() - self._of_runs
        return [self._finished.pop(number) for number in sorted(mine)]

    def _work(self) -> None:
        """One step; its completions are put into `_finished`."""
        try:
            for slot in set(range(self._num_slots)) - self._running.keys():
                if self._waiting:
                    self._start(slot, self._waiting[0])
                    self._running[slot] = self._waiting.popleft()
            for completion in self._advance() if self._running else ():
                self._finished[completion.number] = completion
        except BaseException:
            if any(leaf.is_deleted() for leaf in jax.tree.leaves(self._slots)):
                # A program was given the slots' memory and failed. Restarted requests
                # have the same completions.
                again = sorted(self._running.values(), key=lambda r: r.number)
                self._waiting.extendleft(reversed(again))
                self._running.clear()
                self._empty()
            raise

    def _empty(self) -> None:
        """Makes new slots, all of them free."""
        require_backend()
        self._slots = make(
            self.model.mesh,
            slots.empty,
            self.model.config,
            self.sampler,
            self._num_slots,
            self._num_in_front,
        )
        if self._starts:
            self._join_grammars([*self._starts])

    def _advance(self) -> list[Completion]:
        shows = any(each.on_block for each in self._running.values())
        draw, sampler = self._draw(shows), self.sampler
        before: Canvas | None = None
        if shows:  # copied: the program takes the slots' memory
            sampler = sampler.vary(trace=True)
            canvas = self._slots.canvas._replace(tokens=self._slots.state.tokens)
            before = jax.tree.map(np.array, canvas._replace(automaton=None))
        advance, _ = self.model.program(
            slots.advance, sampler, self._slots, draw, donate="slots"
        )
        self._slots, answer = advance(self.model.params, self._slots, draw)
        self._show(before, answer)
        done = np.asarray(self._slots.state.done)
        if not any(
            done[slot] or request.stop or request.on_text
            for slot, request in self._running.items()
        ):
            return []
        answer = jax.device_get(answer)
        tokens, lengths, confidence = answer.tokens, answer.lengths, answer.confidence
        now, completions = time.perf_counter(), []
        tokenizer = self.model.tokenizer
        for slot, request in list(self._running.items()):
            new = tokens[slot, : lengths[slot]].tolist()
            if not done[slot]:
                text = tokenizer.decode(new) if request.stop or request.on_text else ""
                certain, last = readable(text.rstrip("\ufffd"), request.stop)
                request.send(text[:certain])
                if not last:
                    continue
                state = _release(self._slots.state, slot)
                self._slots = self._slots._replace(state=state)
            del self._running[slot]
            row = conclude(new, tokenizer, request.stop, request.budget)
            request.send(row.text)
            completions.append(
                Completion(
                    number=request.number,
                    text=row.text,
                    tokens=row.tokens,
                    steps=int(answer.steps[slot]),
                    finish_reason=row.finish_reason,
                    prompt_tokens=len(request.tokens),
                    seconds=now - request.submitted,
                    fits=bool(answer.fits[slot]),
                    logprobs=None
                    if confidence is None
                    else logprobs_of(confidence[slot, : len(row.tokens)]),
                )
            )
        return completions

    def _show(self, before: Canvas | None, answer: DecodeResult) -> None:
        """Hands over the steps of a turn."""
        turns = [0] * self._num_slots
        for slot, request in self._running.items():
            turns[slot] = request.turn
            request.turn += loop.turns_per_piece(self.model.config, self.sampler)
        if before is None or answer.trace is None:
            return
        steps = read_trace(before, answer.trace, self._size, turns)
        for slot, request in self._running.items():
            request.show([step for step in steps if step.row == slot])

    def _draw(self, shows: bool) -> Draw | None:
        """How candidates are drawn in each slot; None if all go by the recipe. Where
        steps are shown there is one program for both."""
        recipe, num_ids = self.sampler, self.model.config.vocab_size
        usual: tuple = (recipe.temperature, recipe.top_k, recipe.top_p, {})
        all_usual = all(each.draw == usual for each in self._running.values())
        if all_usual and not (shows and self._takes_draws):
            return None
        found = Draw.usual(self._num_slots, num_ids, *usual[:3])
        for slot, request in self._running.items():
            temperature, top_k, top_p, bias = request.draw
            found.temperature[slot] = temperature
            found.top_k[slot] = min(top_k or num_ids, num_ids)
            found.top_p[slot] = top_p
            found.biased[slot, : len(bias)] = list(bias)
            found.bias[slot, : len(bias)] = list(bias.values())
        return jax.device_put(found)

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

    def _start(self, slot: int, waiting: Request) -> None:
        count = len(waiting.tokens)
        limit, context = self.model.config.max_positions, self.sampler.context
        in_front = num_prefill_columns(count, self._size, context, limit)
        in_front = min(in_front, self._num_in_front)  # no wider than the slots
        padded = pad_prompts([waiting.tokens], in_front + self._size)
        counts = (count, waiting.budget, waiting.start, slot)
        prompt, forced, (length, budget, start, number) = jax.device_put(
            (padded, waiting.forced[None], tuple(map(np.int32, counts)))
        )
        arrays = slots.Request(prompt, length, budget, forced, start, waiting.key)
        admit, _ = self.model.program(
            slots.admit, self.sampler, self._slots, number, arrays, donate="slots"
        )
        self._slots = admit(self.model.params, self._slots, number, arrays)
        waiting.turn = 0  # also of one that starts again after a failure


def _release(state: DecodeState, slot: int) -> DecodeState:
    """The state with a slot's row marked as done."""
    done = np.array(state.done)
    done[slot] = True
    return state._replace(done=jax.device_put(done, state.done.sharding))
