"""The slots of an `Engine`: their requests, on the device and beside it.

admit     a request into a free slot; a prefix that some slot holds is copied
prefill   one more piece of the prompts that are not in the cache yet
advance   one more block for all others, and the completions that end with it
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from seedjax.backend import require_backend
from seedjax.inference import views
from seedjax.inference.compiled import make
from seedjax.inference.in_flight import Completion, Request
from seedjax.inference.model import Model
from seedjax.inference.views import Views
from seedjax.nn.precision import in_compute_dtype
from seedjax.sampling import loop, slots
from seedjax.sampling.canvas import (
    Canvas,
    block_size,
    num_prefill_columns,
    num_working_columns,
    pad_prompts,
)
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.grammar.decode import Automaton, anything, side_by_side
from seedjax.sampling.loop import DecodeResult, logprobs_of
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.state import DecodeState
from seedjax.sampling.stop_strings import Conclusion, conclude, readable
from seedjax.sampling.trace import read_trace
from seedjax.sampling.vocabulary import Draw

# States and classes of an automaton for which `reserve_automaton` has programs made.
RESERVED = (512, 256)
SMALL_MODEL = 8_000_000  # parameters; measured with 2 million
LONGEST_TURN = 0.2  # seconds that a request decodes before another one may join it


@dataclass(eq=False)
class Slot:
    """The content of one slot.

    Attributes:
      request: that is in it; None in a free one.
      held: tokens of a prompt whose keys and values are in its cache, from the first
        one on.
      piece: the next piece of its prompt to prefill.
      num_pieces: of its prompt.
    """

    request: Request | None = None
    held: list[int] = field(default_factory=list)
    piece: int = 0
    num_pieces: int = 0

    @property
    def decoded(self) -> Request | None:
        """The request that takes part in the next turn, if any."""
        return self.request if self.piece == self.num_pieces else None


class SlotTable:
    """Slots of one model and recipe."""

    def __init__(
        self,
        model: Model,
        sampler: SamplerConfig,
        num_slots: int,
        max_prompt_tokens: int,
        *,
        reuse_prefixes: bool,
    ):
        """Allocates the slots.

        Args:
          model: that decodes.
          sampler: the recipe.
          num_slots: how many.
          max_prompt_tokens: longest prompt.
          reuse_prefixes: whether prompts share keys and values.
        """
        # Cast once, not by each program again. All programs of slots take these.
        params = in_compute_dtype(model.params, model.config)
        self.model, self.sampler = model.with_params(params), sampler
        self.reuse_prefixes = reuse_prefixes
        self._size = block_size(model.config, sampler)
        widest = num_prefill_columns(max_prompt_tokens, self._size, sampler.context)
        self._piece = slots.piece_size(widest, self._size)
        # The last piece of the longest prompt has room, too.
        self._num_in_front = math.ceil(widest / self._piece) * self._piece
        self._on_cpu = jax.default_backend() == "cpu" and model.mesh is None
        self._takes_turns = self._on_cpu and rows_cost_time(model)
        num_working = num_working_columns(model.config, sampler)
        capacity = self._num_in_front + num_working
        self.views = Views(
            views.ladder(capacity) if self._takes_turns else (capacity,),
            self._size,
            num_working,
            max_prompt_tokens,
            sampler.max_new_tokens,
        )
        self._piece_seconds = math.inf  # of the last turn; not known yet
        self._starts: dict[Grammar, int] = {}  # states of `_automaton`
        self._automaton: Automaton | None = None
        self._least_automaton = (1, 1)
        self._device: slots.Slots
        self._slots = [Slot() for _ in range(num_slots)]
        self.empty()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def in_flight(self) -> list[Request]:
        """The requests in slots."""
        return [slot.request for slot in self._slots if slot.request is not None]

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self.in_flight) < len(self._slots)

    @property
    def forwards(self) -> int:
        """Denoiser calls so far; a piece of a prompt counts as one."""
        return int(self._device.state.forwards)

    @property
    def is_lost(self) -> bool:
        """Whether a program was given the slots' memory and failed."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self._device))

    def empty(self) -> list[Request]:
        """Makes new slots, all of them free.

        Returns:
          The requests that were in flight.
        """
        require_backend()
        requests = self.in_flight
        self._slots = [Slot() for _ in self._slots]
        self._device = make(
            self.model.mesh,
            slots.empty,
            self.model.config,
            self.sampler,
            len(self._slots),
            self._num_in_front,
        )
        return requests

    def reserve_automaton(self) -> None:
        """Has one program for all grammars that are not too large together."""
        self._least_automaton = RESERVED

    def _start_of(self, grammar: Grammar | None) -> int:
        """The start state of a grammar in the slots' automaton. A new one is added to
        those that are at work, or takes their place if there are none."""
        if grammar is None:
            return 0
        if grammar not in self._starts:
            at_work = any(request.grammar for request in self.in_flight)
            grammars = [*(self._starts if at_work else ()), grammar]
            automata = [self.model.automaton(one, self.sampler) for one in grammars]
            self._automaton, starts = side_by_side(
                [anything(self.model.config.vocab_size), *automata],
                self._least_automaton,
            )
            self._starts = dict(zip(grammars, starts[1:], strict=True))
        return self._starts[grammar]

    def admit(self, request: Request) -> None:
        """Puts a request into a free slot: the one in which least is lost of what other
        prompts may share."""
        shared = [self._num_shared(request, slot) for slot in self._slots]
        free = [n for n, slot in enumerate(self._slots) if slot.request is None]
        number = min(free, key=lambda n: len(self._slots[n].held) - shared[n])
        source = max(number, *range(len(shared)), key=shared.__getitem__)
        num_shared = shared[source]
        padded = pad_prompts([request.tokens], self._num_in_front + self._size)
        counts: list[int] = [len(request.tokens), request.budget]
        counts += [self._start_of(request.grammar), number, num_shared]
        prompt, forced, scalars = jax.device_put(
            (padded, request.forced[None], tuple(map(np.int32, counts)))
        )
        length, budget, start, slot, kept = scalars
        arrays = slots.Request(prompt, length, budget, forced, start, request.key)
        if num_shared and source != number:
            self._slots[number].held = []  # from here on
            other = jax.device_put(np.int32(source))
            self._call(slots.share, self.sampler, slot, other)
        self._call(slots.admit, self.sampler, slot, arrays, kept)
        request.turn = 0  # also of one that starts again after a failure
        request.cached_tokens = max(num_shared - self._size, 0)
        num_prefilled = self._num_prefilled(request)
        self._slots[number] = Slot(
            request,
            request.tokens[: request.cached_tokens],
            num_shared // self._piece,
            self._pieces_of(num_prefilled),
        )

    def _num_prefilled(self, request: Request) -> int:
        """Tokens of a request's prompt that are prefilled."""
        if not self.sampler.keeps_cache:
            return 0
        return slots.num_prefilled(len(request.tokens), self._size)

    def _pieces_of(self, num_tokens: int) -> int:
        """Pieces that so many tokens of a prompt take, after a block of padding."""
        return math.ceil((self._size + num_tokens) / self._piece) if num_tokens else 0

    def _num_shared(self, request: Request, slot: Slot) -> int:
        """Columns, in whole pieces, that a request can take from a slot."""
        if not (self.reuse_prefixes and slot.held):
            return 0
        same = 0
        for mine, other in zip(request.tokens, slot.held, strict=False):
            if mine != other:
                break
            same += 1
        # One piece is left, after which the slot is told to decode.
        columns = self._size + min(same, self._num_prefilled(request) - 1)
        return max(columns, 0) // self._piece * self._piece

    def prefill(self) -> None:
        """One more piece of each prompt that is not in the cache yet; more of them as
        long as no slot decodes."""
        while True:
            waiting = [
                (number, slot)
                for number, slot in enumerate(self._slots)
                if slot.request is not None and slot.decoded is None
            ]
            for number, slot in waiting:
                self._prefill(number, slot)
            if not waiting or any(slot.decoded for slot in self._slots):
                return

    def _prefill(self, number: int, slot: Slot) -> None:
        assert slot.request is not None
        columns = np.arange(self._piece, dtype=np.int32) + slot.piece * self._piece
        is_last = slot.piece == slot.num_pieces - 1
        given = jax.device_put((np.int32(number), columns, np.bool_(is_last)))
        self._call(slots.prefill, self.sampler, *given)
        slot.piece += 1
        num_tokens = slot.piece * self._piece - self._size
        num_tokens = min(num_tokens, self._num_prefilled(slot.request))
        slot.held = slot.request.tokens[: max(num_tokens, 0)]

    def release(self, request: Request, *, done: bool = False) -> None:
        """Frees the slot of a request; what it holds of the prompt stays. `done` if its
        row is known to be."""
        (number,) = (n for n, s in enumerate(self._slots) if s.request is request)
        slot = self._slots[number]
        self._slots[number] = Slot(held=slot.held)
        if not done:
            require_backend()
            state = _without(self._device.state, number)
            self._device = self._device._replace(state=state)

    def _call(self, function: Callable, sampler: SamplerConfig, *given: Any) -> Any:
        """Runs a program that takes the slots' memory and gives new slots.

        Returns:
          What else it gives.
        """
        program, _ = self.model.program(
            function, sampler, self._device, *given, donate="slots"
        )
        found = program(self.model.params, self._device, *given)
        if isinstance(found, slots.Slots):
            self._device = found
            return None
        self._device, answer = found
        return answer

    def _turns(self) -> Iterator[list[int]]:
        """The slots that go on together: all, or one after another where rows cost
        time, or one where no other one decodes."""
        decoding = [n for n, slot in enumerate(self._slots) if slot.decoded]
        alone = self._on_cpu and len(decoding) == 1
        if alone and not self._takes_turns:
            request = self._slots[decoding[0]].decoded
            assert request is not None
            alone = request.draw == self._usual and not request.on_block
        if alone or self._takes_turns:
            return iter([[number] for number in decoding])
        return iter([[*range(len(self._slots))]] if decoding else [])

    def _num_pieces(self, request: Request) -> int:
        """Blocks that a request decodes in its turn: several, if nobody looks at its
        text in between, nobody else is in a slot, and nobody who comes waits long."""
        if request.is_watched or len(self.in_flight) > 1:
            return 1
        return max(1, int(LONGEST_TURN / self._piece_seconds))

    @property
    def _usual(self) -> tuple:
        """How candidates are drawn by the recipe."""
        recipe = self.sampler
        return (recipe.temperature, recipe.top_k, recipe.top_p, {})

    def advance(self) -> Iterator[Completion]:
        """One more block for all slots whose prompt is in the cache.

        Yields:
          Completions that it finished. Their slots are free.
        """
        for numbers in self._turns():
            yield from self._advance(numbers)

    def _advance(self, numbers: list[int]) -> list[Completion]:
        """One more block for some slots: all, or one in which a request decodes."""
        running = {
            row: request
            for row, number in enumerate(numbers)
            if (request := self._slots[number].decoded) is not None
        }
        if not running:
            return []
        for request in running.values():
            request.begun = request.begun or time.perf_counter()
        shows = any(each.on_block for each in running.values())
        matches = any(each.grammar for each in running.values())
        automaton, sampler = self._automaton if matches else None, self.sampler
        draw = self._draw(len(numbers), running, always=shows or matches)
        before: Canvas | None = None
        if shows:  # copied: the program takes the slots' memory
            sampler = sampler.vary(trace=True)
            canvas = self._device.canvas._replace(tokens=self._device.state.tokens)
            before = jax.tree.map(lambda x: np.array(x)[numbers], canvas)
        began, count = time.perf_counter(), 1
        if self._on_cpu and len(numbers) == 1:
            (request,) = running.values()
            count = self._num_pieces(request)
            view = self.views.of(len(request.tokens), request.budget)
            # Where steps are shown, or a grammar is matched, there is one program.
            view = self.views.columns[-1] if shows or matches else view
            columns = np.arange(view, dtype=np.int32)
            given = jax.device_put((*map(np.int32, (*numbers, count)), columns))
            answer = self._call(slots.advance_one, sampler, *given, draw, automaton)
        else:
            answer = self._call(slots.advance, sampler, draw, automaton)
        self._show(running, before, answer)
        done = np.asarray(self._device.state.done)[numbers]
        now = time.perf_counter()
        if count == 1 or not done.any():
            self._piece_seconds = (now - began) / count
        is_late = {
            row: now - request.begun > request.max_seconds
            for row, request in running.items()
        }
        if not any(
            done[row] or is_late[row] or request.stop or request.on_text
            for row, request in running.items()
        ):
            return []
        answer = jax.device_get(answer._replace(trace=None))
        completions = []
        for row, request in running.items():
            end = self._conclusion(request, answer, row, bool(done[row]))
            if end is None and is_late[row]:
                new = answer.tokens[row, : answer.lengths[row]].tolist()
                end = conclude(new, self.model.tokenizer, request.stop, len(new))
            if end is None:
                continue
            request.send(end.text)
            self.release(request, done=bool(done[row]))
            completions.append(self._completion(request, answer, row, end, now))
        return completions

    def _conclusion(
        self, request: Request, answer: DecodeResult, number: int, done: bool
    ) -> Conclusion | None:
        """The end of a completion; None if it goes on."""
        tokenizer = self.model.tokenizer
        new = answer.tokens[number, : answer.lengths[number]].tolist()
        if not done:
            text = tokenizer.decode(new) if request.stop or request.on_text else ""
            certain, last = readable(text.rstrip("\ufffd"), request.stop)
            request.send(text[:certain])
            if not last:
                return None
        return conclude(new, tokenizer, request.stop, request.budget)

    def _completion(
        self,
        request: Request,
        answer: DecodeResult,
        number: int,
        row: Conclusion,
        now: float,
    ) -> Completion:
        confidence = answer.confidence
        return Completion(
            number=request.number,
            text=row.text,
            tokens=row.tokens,
            steps=int(answer.steps[number]),
            finish_reason=row.finish_reason,
            prompt_tokens=len(request.tokens),
            cached_tokens=request.cached_tokens,
            seconds=now - request.submitted,
            fits=bool(answer.fits[number]),
            logprobs=None
            if confidence is None
            else logprobs_of(np.asarray(confidence[number, : len(row.tokens)])),
        )

    def _show(
        self, running: dict[int, Request], before: Canvas | None, answer: DecodeResult
    ) -> None:
        """Hands over the steps of a turn."""
        turns = [0] * (max(running) + 1 if before is None else len(before.start))
        for number, request in running.items():
            turns[number] = request.turn
            request.turn += loop.turns_per_piece(self.model.config, self.sampler)
        if before is None or answer.trace is None:
            return
        steps = read_trace(before, answer.trace, self._size, turns)
        for number, request in running.items():
            request.show([step for step in steps if step.row == number])

    def _draw(
        self, num_rows: int, running: dict[int, Request], *, always: bool
    ) -> Draw | None:
        """How candidates are drawn in each row; None if all go by the recipe, unless
        there is one program for both."""
        recipe, num_ids = self.sampler, self.model.config.vocab_size
        usual = self._usual
        all_usual = all(each.draw == usual for each in running.values())
        if all_usual and not (always and recipe.certainty_of != "draw"):
            return None
        found = Draw.usual(num_rows, num_ids, *usual[:3])
        for number, request in running.items():
            temperature, top_k, top_p, bias = request.draw
            found.temperature[number] = temperature
            found.top_k[number] = min(top_k or num_ids, num_ids)
            found.top_p[number] = top_p
            found.biased[number, : len(bias)] = list(bias)
            found.bias[number, : len(bias)] = list(bias.values())
        return jax.device_put(found)


def _without(state: DecodeState, number: int) -> DecodeState:
    """The state with a slot's row marked as done."""
    done = np.array(state.done)
    done[number] = True
    return state._replace(done=jax.device_put(done, state.done.sharding))


def rows_cost_time(model: Model) -> bool:
    """Whether a CPU takes as long for all rows together as for one after another: it
    does where the weights of a model stay in its cache, and a row has many positions to
    multiply them with."""
    num_params = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    return num_params <= SMALL_MODEL and block_size(model.config, model.sampler) > 1
