"""A model as its user sees it: text in, text out.

    model = seedjax.load("mini")
    out = model.generate(["def gcd(a, b):\\n"], max_new_tokens=128, seed=0)
    out.texts, out.tokens, out.new_tokens, out.forwards, out.seconds

`Model` joins tokenizer, canvas and compiled sampler; how a completion is drawn is
`seedjax.sampling`, and what is compiled of it `seedjax.inference.compiled`.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import jax
import numpy as np

from seedjax.backend import require_backend
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.inference import compiled
from seedjax.inference.automata import Automata
from seedjax.inference.compiled import OnBlock, Programs
from seedjax.inference.description import one_line, several_lines
from seedjax.inference.frames import frame_of_hole, frame_of_program, frame_of_prompt
from seedjax.inference.generation import Generation, Seeds, Stop, judged
from seedjax.sampling import arguments, loop
from seedjax.sampling.canvas import (
    Canvas,
    block_size,
    forced_array,
    prompt_canvas,
    span_canvas,
    with_forced,
)
from seedjax.sampling.check import Surface, check_recipe
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.grammar.decode import Automaton
from seedjax.sampling.loop import DecodeResult
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.state import DecodeState
from seedjax.sampling.stop_strings import conclude, cut_at_stop, readable
from seedjax.sampling.stopping import IgnoreEos
from seedjax.sampling.trace import TraceStep, read_trace
from seedjax.text.prompts import (
    continuation,
    edit_budget,
    edit_request,
    editing,
    infilling,
)
from seedjax.text.tokenizer import Tokenizer
from seedjax.typing import Params


class Model:
    """A denoiser or its autoregressive baseline, with tokenizer and default recipe.

    Every keyword argument of `generate`, `infill`, `edit`, `chat` and `stream` beyond
    the named ones is a field of `SamplerConfig` and replaces the model's default for
    that call.
    """

    def __init__(
        self,
        params: Params,
        config: DenoiserConfig,
        tokenizer: Tokenizer,
        sampler: SamplerConfig | None = None,
        *,
        name: str = "model",
        max_programs: int | None = None,
    ):
        """Joins the parts; `load` reads them from a model directory.

        Args:
          params: the denoiser's parameters.
          config: the denoiser's recipe.
          tokenizer: text to ids; its special ids are never drawn, except the ends.
          sampler: the default recipe.
          name: what to call it where it is printed.
          max_programs: compiled programs (one for a recipe and shapes, also of
            `Engine`s) that are kept, and automata; the least recently used go first.

        Raises:
          InputError: for tokenizer ids without an embedding, or `require_backend`'s.
        """
        require_backend()
        if tokenizer.vocab_size > config.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the model "
                f"{config.vocab_size}; they do not belong together"
            )
        self.name = name
        self._params = params
        self.config = config
        self.tokenizer = tokenizer
        silent = np.flatnonzero(tokenizer.byte_lengths == 0).tolist()
        sampler = sampler or SamplerConfig()
        forbidden = sorted({*sampler.forbidden_token_ids, *silent})
        self.sampler = dataclasses.replace(
            sampler,
            forbidden_token_ids=tuple(forbidden),
            vocabulary_end=sampler.vocabulary_end or tokenizer.vocab_size,
        )
        self.max_programs = max_programs
        self._programs = Programs(max_programs)
        self._automata = Automata(config, tokenizer, max_programs)

    @property
    def params(self) -> Params:
        """The denoiser's parameters; `with_params` replaces them."""
        return self._params

    def with_params(self, params: Params) -> "Model":
        """This model with other parameters of the same shapes, layout and dtypes. The
        two share their compiled programs."""
        other = copy.copy(self)
        other._params = params
        return other

    def __repr__(self) -> str:
        return one_line(self.name, self.params, self.config)

    def __str__(self) -> str:
        return several_lines(self.name, self.params, self.config, self.sampler)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        seed: Seeds = 0,
        stop: Stop = None,
        grammar: Grammar | None = None,
        forced_tokens: Mapping[int, int] | None = None,
        on_block: OnBlock | None = None,
        **overrides: Unpack[SamplerOptions],
    ) -> Generation:
        """Continues prompts, all in one program.

        Args:
          prompts: one text or several; the beginning-of-sequence token is put in front.
          seed: chooses the draws at a temperature above 0. A row's draws depend on its
            number, not on the other rows; or on its own seed alone, if there is one for
            each prompt.
          stop: a string or several; where the first of them begins, the text ends.
          grammar: what each completion has to match, as a whole.
          forced_tokens: ids that stand in certain places of each completion, by place.
          on_block: decode block by block, and call this with the denoising steps of
            each block as soon as it is finished; with `trace=True`. The completion is
            the same.
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for an empty or too long prompt, a wrong override, a grammar that
            admits nothing, or a place or id that there is not.
        """
        sampler = self.sampler.vary(**overrides)
        texts = arguments.texts(prompts, "prompts")
        options: dict[str, Any] = {"grammar": grammar, "forced": forced_tokens}
        options |= {"stop": stop, "on_block": on_block}
        result = self._continue(self._prompts(texts), sampler, seed, **options)
        return judged(result, map(frame_of_prompt, texts))

    def infill(
        self,
        prefix: str | Sequence[str],
        suffix: str | Sequence[str],
        *,
        seed: Seeds = 0,
        stop: Stop = None,
        length: int | None = None,
        on_block: OnBlock | None = None,
        **overrides: Unpack[SamplerOptions],
    ) -> Generation:
        """Writes what stands between prefix and suffix; `texts` hold the middle only.

        A bidirectional model fills a hole of known `length` in place. In all other
        cases the text is reordered with the fill-in-the-middle tokens (suffix, prefix,
        middle, or as the model was taught; arXiv 2207.14255) and the middle is
        generated at the end.

        Args:
          prefix: text before the hole, or several.
          suffix: text after the hole, as many.
          seed: as in `generate`, and so is stop.
          length: tokens in the hole, exactly; None lets the model choose, up to
            `max_new_tokens`.
          on_block: as in `generate`.
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for unequal numbers of texts, texts that are too long, a wrong
            override, or a tokenizer without fill-in-the-middle tokens.
        """
        prefixes = arguments.texts(prefix, "prefix")
        suffixes = arguments.texts(suffix, "suffix")
        if len(prefixes) != len(suffixes):
            raise InputError(
                f"{len(prefixes)} prefixes and {len(suffixes)} suffixes; give as many "
                "of one as of the other"
            )
        if length is not None:
            length = arguments.integer(length, "length", least=1)
        sampler = self.sampler.vary(**overrides)
        special = self.tokenizer.special
        before = self.tokenizer.encode_batch(prefixes)
        after = self.tokenizer.encode_batch(suffixes)
        if length is not None and self.config.attention == "bidirectional":
            require_backend()
            before = [continuation(tokens, special) for tokens in before]
            check_recipe(self.config, sampler, "infill")
            canvas = span_canvas(
                before, after, self.config, length=length, few_shapes=True
            )
            sampler = sampler.for_span(length, canvas.generation_mask.shape[1])
            pairs = zip(before, after, strict=True)
            given = [len(head) + len(tail) for head, tail in pairs]
            result = self._run(canvas, sampler, seed, given, stop, on_block)
            return judged(result, map(frame_of_hole, prefixes, suffixes))
        if length is not None:
            sampler = sampler.vary(max_new_tokens=length, eos=IgnoreEos())
        prompts = [
            infilling(head, tail, special, self.tokenizer.infill_order)
            for head, tail in zip(before, after, strict=True)
        ]
        result = self._continue(prompts, sampler, seed, stop=stop, on_block=on_block)
        return judged(result, map(frame_of_hole, prefixes, suffixes))

    def edit(
        self,
        code: str | Sequence[str],
        instruction: str | Sequence[str],
        *,
        seed: Seeds = 0,
        stop: Stop = None,
        on_block: OnBlock | None = None,
        **overrides: Unpack[SamplerOptions],
    ) -> Generation:
        """Changes programs by an instruction; `texts` hold each whole edited program.

        This takes a model that was trained on edits in the layout of
        `seedjax.text.prompts.editing`; any other writes nonsense.

        Args:
          code: the program to change, or several.
          instruction: what to change: one for all programs, or as many as these.
          seed: as in `generate`, and so is stop.
          on_block: as in `generate`.
          **overrides: fields of `SamplerConfig`. Without `max_new_tokens`, a completion
            may be as long as the model's default says or as the longest program and
            64 tokens more, whichever is longer, as far as the model has positions
            left. Where these are fewer, a long completion is cut off.

        Raises:
          InputError: for an empty program or instruction, unequal numbers of them,
            texts that are too long, a wrong override, or a tokenizer without the tokens
            of that layout.
        """
        codes = arguments.texts(code, "code")
        instructions = arguments.texts(instruction, "instruction")
        if isinstance(instruction, str):
            instructions *= len(codes)
        if len(codes) != len(instructions):
            raise InputError(
                f"{len(codes)} programs and {len(instructions)} instructions; give one "
                "instruction for all, as a string, or as many as programs"
            )
        if not all(codes):
            raise InputError("the code is empty; give the program to edit")
        if not all(instructions):
            raise InputError("the instruction is empty; say what to change")
        requests = list(map(edit_request, codes, instructions))
        encoded = self.tokenizer.encode_batch(requests)
        prompts = [editing(tokens, self.tokenizer.special) for tokens in encoded]
        if "max_new_tokens" not in overrides:
            overrides["max_new_tokens"] = self.edit_budget(codes, prompts)
        sampler = self.sampler.vary(**overrides)
        result = self._continue(prompts, sampler, seed, stop=stop, on_block=on_block)
        return judged(result, map(frame_of_program, codes))

    def edit_budget(self, codes: list[str], prompts: list[list[int]]) -> int:
        """The default `max_new_tokens` of edits; see `edit`."""
        default, room = self.sampler.max_new_tokens, self.config.max_positions
        return edit_budget(self.tokenizer.encode_batch(codes), prompts, default, room)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        *,
        seed: Seeds = 0,
        stop: Stop = None,
        grammar: Grammar | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **overrides: Unpack[SamplerOptions],
    ) -> Generation:
        """Completes conversations, laid out by the model's own chat template; `texts`
        hold the assistant's next turns. What a message spells is text, never a special
        token.

        Args:
          messages: a conversation, each message a mapping with "role" and "content", or
            several conversations.
          seed: as in `generate`, and so are stop and grammar.
          template_variables: what else the template reads, such as "tools" or
            "enable_thinking".
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for a model without a chat template, messages that the template
            does not take, a conversation that is too long, or a wrong override.
        """
        sampler = self.sampler.vary(**overrides)
        prompts = [
            self.tokenizer.encode_chat(conversation, variables=template_variables)
            for conversation in arguments.conversations(messages)
        ]
        return self._continue(prompts, sampler, seed, grammar=grammar, stop=stop)

    def stream(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        seed: Seeds = 0,
        stop: Stop = None,
        grammar: Grammar | None = None,
        forced_tokens: Mapping[int, int] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **overrides: Unpack[SamplerOptions],
    ) -> Iterator[str]:
        """Continues one prompt or conversation, piece by piece: the text that each
        finished block adds. The pieces joined are the text that `generate` or `chat`
        gives, with the same arguments. What may yet turn out to be the beginning of a
        stop string, or of a character whose bytes are not all there, is held back
        until it is known.

        Args:
          prompt: a text; or `messages`, a conversation, as for `chat`.
          seed: as in `generate` and `chat`, and so is all that follows.

        Raises:
          InputError: as `generate` and `chat`, when the first piece is drawn.
        """
        sampler, strings = self.sampler.vary(**overrides), arguments.stop_strings(stop)
        if (prompt is None) == (messages is None):
            raise InputError("give a prompt or messages to stream, one of the two")
        if messages is not None:
            tokens = self.tokenizer.encode_chat(messages, variables=template_variables)
        else:
            tokens = self.prompt_ids(arguments.text(prompt, "prompt"))
        state, canvas, _ = self.begin(
            tokens, sampler, grammar=grammar, forced=forced_tokens, stop=strings
        )
        sent = 0
        while True:
            state, answer, _ = self.advance(
                canvas, sampler, state, seed=seed, donate=True
            )
            text = self.tokenizer.decode(loop.new_tokens(answer)[0])
            certain, last = readable(text.rstrip("\ufffd"), strings)
            if not last and bool(state.done.all()):
                certain, last = len(cut_at_stop(text, strings)), True
            if certain > sent:
                yield text[sent:certain]
                sent = certain
            if last:
                return

    def begin(
        self,
        prompt: Sequence[int],
        sampler: SamplerConfig,
        *,
        surface: Surface = "stream",
        **options: Any,
    ) -> tuple[DecodeState, Canvas, float]:
        """The state in front of the first block of a completion, for `advance`, its
        canvas, and the seconds that compiling took now.

        Args:
          prompt: token ids.
          sampler: the recipe.
          surface: what the completion is for.
          **options: a `grammar`, `forced` tokens, or `stop` strings.

        Raises:
          InputError: as `generate`.
        """
        canvas = self._canvas([list(prompt)], sampler, surface=surface, **options)
        program, seconds = self.program(compiled.start, sampler, canvas)
        return program(self.params, canvas), canvas, seconds

    def advance(
        self,
        canvas: Canvas,
        sampler: SamplerConfig,
        state: DecodeState,
        *,
        seed: Seeds,
        donate: bool = False,
    ) -> tuple[DecodeState, DecodeResult, float]:
        """A state after one more block, the completion so far, and the seconds that
        compiling took now. With `donate` the old state's memory is taken."""
        number = arguments.seed_array(seed, canvas.tokens.shape[0])
        name = "state" if donate else None
        program, seconds = self.program(
            compiled.advance, sampler, canvas, number, state, donate=name
        )
        state, answer = program(self.params, canvas, number, state)
        return state, answer, seconds

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids of a text to continue, the beginning-of-sequence token first.

        Raises:
          InputError: for an empty text, or what is none.
        """
        return self._prompts([prompt])[0]

    def _prompts(self, prompts: str | Sequence[str]) -> list[list[int]]:
        texts = arguments.texts(prompts, "prompts")
        if not all(texts):
            raise InputError("the prompt is empty; give it at least one character")
        encoded = self.tokenizer.encode_batch(texts)
        return [continuation(tokens, self.tokenizer.special) for tokens in encoded]

    def _canvas(
        self,
        prompts: list[list[int]],
        sampler: SamplerConfig,
        *,
        grammar: Grammar | None = None,
        forced: Mapping[int, int] | None = None,
        stop: Stop = None,
        surface: Surface = "generate",
    ) -> Canvas:
        require_backend()
        grammar, strings = arguments.grammar(grammar), arguments.stop_strings(stop)
        check_recipe(
            self.config,
            sampler,
            surface,
            grammar=grammar is not None,
            forced_tokens=bool(forced),
            stop=bool(strings),
        )
        canvas = prompt_canvas(prompts, self.config, sampler, few_shapes=True)
        if forced:
            budget = sampler.max_new_tokens
            # As wide for every budget of this canvas, with room after the prompt.
            width = canvas.generation_mask.shape[1]
            room = width - block_size(self.config, sampler) + 1
            size = {"budget": budget, "width": max(budget, room)}
            rows = np.tile(forced_array(forced, self.config, **size), (len(prompts), 1))
            canvas = with_forced(canvas, jax.device_put(rows), self.config)
        if grammar is not None:
            canvas = canvas._replace(automaton=self.automaton(grammar, sampler))
        if strings:
            canvas = canvas._replace(stops=self._automata.of_stops(strings))
        return canvas

    def automaton(self, grammar: Grammar, sampler: SamplerConfig) -> Automaton:
        """The automaton of a grammar over what a recipe may draw, made once; raises
        `InputError` if the recipe leaves no room for any completion."""
        return self._automata.of_grammar(grammar, sampler)

    def _continue(
        self,
        prompts: list[list[int]],
        sampler: SamplerConfig,
        seed: Seeds,
        *,
        stop: Stop = None,
        on_block: OnBlock | None = None,
        **options: Any,
    ) -> Generation:
        canvas = self._canvas(prompts, sampler, stop=stop, **options)
        lengths = list(map(len, prompts))
        return self._run(canvas, sampler, seed, lengths, stop, on_block)

    def _run(
        self,
        canvas: Canvas,
        sampler: SamplerConfig,
        seed: Seeds,
        prompt_tokens: list[int],
        stop: Stop,
        on_block: OnBlock | None = None,
    ) -> Generation:
        number = arguments.seed_array(seed, len(prompt_tokens))
        strings = arguments.stop_strings(stop)
        budgets = np.asarray(canvas.generation_mask).sum(axis=1).tolist()
        if on_block is not None:
            start, compile_seconds = self.program(compiled.start, sampler, canvas)
            answer, more, before = compiled.decode_by_blocks(
                lambda: start(self.params, canvas),
                lambda state: self.advance(canvas, sampler, state, seed=seed),
                lambda answer: self._trace(canvas, answer, sampler) or [],
                on_block,
            )
            compile_seconds += more
            began = time.perf_counter() - before
        else:
            program, compile_seconds = self.program(
                compiled.generate, sampler, canvas, number
            )
            began = time.perf_counter()
            answer = program(self.params, canvas, number)
        pairs = zip(loop.new_tokens(answer), budgets, strict=True)
        rows = [conclude(new, self.tokenizer, strings, most) for new, most in pairs]
        return Generation(
            texts=[row.text for row in rows],
            tokens=[row.tokens for row in rows],
            new_tokens=[len(row.tokens) for row in rows],
            steps=answer.steps.tolist(),
            forwards=int(answer.forwards),
            seconds=time.perf_counter() - began,
            compile_seconds=compile_seconds,
            finish_reason=[row.finish_reason for row in rows],
            prompt_tokens=prompt_tokens,
            fits=answer.fits.tolist(),
            trace=self._trace(canvas, answer, sampler),
            logprobs=loop.new_logprobs(answer, [row.tokens for row in rows]),
        )

    def _trace(
        self, canvas: Canvas, answer: DecodeResult, sampler: SamplerConfig
    ) -> list[TraceStep] | None:
        if answer.trace is None:
            return None
        return read_trace(canvas, answer.trace, block_size(self.config, sampler))

    def announce_to(self, show: Callable[[str], None]) -> None:
        """Has `show` called with what is being waited for, whenever that changes:
        compiling or decoding."""
        self._programs.announce = show

    @property
    def num_programs(self) -> int:
        """Compiled programs that are kept, all recipes and shapes together."""
        return len(self._programs)

    def program(
        self,
        function: Callable,
        sampler: SamplerConfig,
        *arguments: Any,
        donate: str | None = None,
    ) -> tuple[Callable, float]:
        """`function(params, config, sampler, *arguments)` compiled for this model; see
        `Programs.compiled`."""
        return self._programs.compiled(
            function, self.params, self.config, sampler, *arguments, donate=donate
        )
