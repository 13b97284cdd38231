"""A model as its user sees it: text in, text out.

    model = seedjax.load("mini")
    out = model.generate(["def gcd(a, b):\\n"], max_new_tokens=128, seed=0)
    out.texts, out.tokens, out.new_tokens, out.forwards, out.seconds

Here is what joins tokenizer, canvas and compiled sampler; how an answer is drawn is
`seedjax.sampling`, and what is compiled of it `seedjax.programs`.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from seedjax import programs
from seedjax.adapters import with_adapter
from seedjax.config import DenoiserConfig, DType, from_dict
from seedjax.errors import InputError
from seedjax.grammar import Grammar, build_automaton
from seedjax.model_directory import load_model, read_model_directory, resolve_model
from seedjax.nn.denoiser import abstract_params, stack_layers
from seedjax.nn.quantize import quantize_params
from seedjax.programs import Programs
from seedjax.prompts import continuation, edit_request, editing, infilling
from seedjax.sampling import loop
from seedjax.sampling.canvas import (
    Canvas,
    block_size,
    forced_array,
    prompt_canvas,
    span_canvas,
    with_forced,
)
from seedjax.sampling.constraint import Automaton
from seedjax.sampling.loop import Answer, DecodeState
from seedjax.sampling.recipe import SamplerConfig, Surface, check_recipe
from seedjax.sampling.stopping import IgnoreEos
from seedjax.sampling.trace import TraceStep, read_trace
from seedjax.tokenizer import Tokenizer, load_tokenizer
from seedjax.typing import Array, Params

Seeds = int | Sequence[int]
"""A seed for all rows, which then differ by their numbers, or one a row."""

EDIT_GROWTH = 64  # tokens by which an edit may lengthen a program, unless told more


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What a model wrote. Lists have one entry a prompt.

    Attributes:
      texts: the new text, without the prompt.
      tokens: its token ids. Neither prompt nor padding nor the end-of-sequence token is
        among them.
      new_tokens: how many these are.
      steps: refinement steps that each row took part in.
      forwards: denoiser calls for the whole batch, prefill and commits included.
      seconds: wall time from tokens to text, without compilation.
      compile_seconds: time spent on compiling for this call; 0 when the program was
        there already.
      fits: answers that the grammar admits; all, if there is none. One that does not
        was cut off by rules that leave it no way to end (a budget, forced tokens).
      trace: every refinement step of every row, if the recipe asks for it.
    """

    texts: list[str]
    tokens: list[list[int]]
    new_tokens: list[int]
    steps: list[int]
    forwards: int
    seconds: float
    compile_seconds: float
    fits: list[bool] = dataclasses.field(default_factory=list)
    trace: list[TraceStep] | None = None

    @property
    def tokens_per_forward(self) -> float:
        """New tokens of all rows a denoiser call."""
        return sum(self.new_tokens) / self.forwards

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all rows a second of `seconds`."""
        return sum(self.new_tokens) / self.seconds


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
    ):
        """Joins the parts; `load` reads them from a model directory.

        Args:
          params: the denoiser's parameters.
          config: the denoiser's recipe.
          tokenizer: text to ids; its special ids are never drawn, except the ends.
          sampler: the default recipe.

        Raises:
          InputError: if the tokenizer has ids that the model has no embedding of.
        """
        if tokenizer.vocab_size > config.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the model "
                f"{config.vocab_size}; they do not belong together"
            )
        self.params = params
        self.config = config
        self.tokenizer = tokenizer
        silent = np.flatnonzero(tokenizer.byte_lengths == 0)
        sampler = sampler or SamplerConfig()
        self.sampler = dataclasses.replace(
            sampler,
            forbidden_token_ids=tuple(
                sorted({*sampler.forbidden_token_ids, *silent.tolist()})
            ),
            vocabulary_end=sampler.vocabulary_end or tokenizer.vocab_size,
        )
        self._programs = Programs()
        self._automata: dict[Any, Automaton] = {}

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        seed: Seeds = 0,
        grammar: Grammar | None = None,
        forced_tokens: Mapping[int, int] | None = None,
        **overrides: Any,
    ) -> Generation:
        """Continues prompts, all in one program.

        Args:
          prompts: one text or several; the beginning-of-sequence token is put in front.
          seed: chooses the draws at a temperature above 0. A row's draws depend on its
            number, not on the other rows; or on its own seed alone, if there is one for
            each prompt.
          grammar: what each answer has to match, as a whole.
          forced_tokens: ids that stand in certain places of each answer, by place.
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for an empty or too long prompt, a wrong override, a grammar that
            admits nothing, or a place or id that there is not.
        """
        sampler = self.sampler.vary(**overrides)
        asked = {"grammar": grammar, "forced": forced_tokens}
        return self._continue(self._prompts(prompts), sampler, seed, **asked)

    def infill(
        self,
        prefix: str | Sequence[str],
        suffix: str | Sequence[str],
        *,
        seed: Seeds = 0,
        length: int | None = None,
        **overrides: Any,
    ) -> Generation:
        """Writes what stands between prefix and suffix; `texts` hold the middle only.

        A bidirectional model fills a hole of known `length` in place. In all other
        cases the text is reordered with the fill-in-the-middle tokens (suffix, prefix,
        middle, or as the model was taught; arXiv 2207.14255) and the middle is
        generated at the end.

        Args:
          prefix: text before the hole, or several.
          suffix: text behind the hole, as many.
          seed: as in `generate`.
          length: tokens in the hole, exactly; None lets the model choose, up to
            `max_new_tokens`.
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for unequal numbers of texts, texts that are too long, a wrong
            override, or a tokenizer without fill-in-the-middle tokens.
        """
        prefixes = [prefix] if isinstance(prefix, str) else list(prefix)
        suffixes = [suffix] if isinstance(suffix, str) else list(suffix)
        if len(prefixes) != len(suffixes):
            raise InputError(
                f"{len(prefixes)} prefixes and {len(suffixes)} suffixes; give as many "
                "of one as of the other"
            )
        if length is not None and length < 1:
            raise InputError(f"length is {length}; it must be at least 1, or None")
        sampler = self.sampler.vary(**overrides)
        special = self.tokenizer.special
        before = self.tokenizer.encode_batch(prefixes)
        after = self.tokenizer.encode_batch(suffixes)
        if length is not None and self.config.attention == "bidirectional":
            before = [continuation(tokens, special) for tokens in before]
            check_recipe(self.config, sampler, "infill")
            canvas = span_canvas(before, after, self.config, length=length)
            sampler = sampler.for_span(length, canvas.wanted.shape[1])
            return self._run(canvas, sampler, seed)
        if length is not None:
            sampler = dataclasses.replace(
                sampler, max_new_tokens=length, eos=IgnoreEos()
            )
        prompts = [
            infilling(head, tail, special, self.tokenizer.infill_order)
            for head, tail in zip(before, after, strict=True)
        ]
        return self._continue(prompts, sampler, seed)

    def edit(
        self,
        code: str | Sequence[str],
        instruction: str | Sequence[str],
        *,
        seed: Seeds = 0,
        **overrides: Any,
    ) -> Generation:
        """Changes programs as told; `texts` hold each whole edited program.

        This takes a model that was trained on edits in the layout of
        `seedjax.prompts.editing`; any other writes nonsense.

        Args:
          code: the program to change, or several.
          instruction: what to change: one for all programs, or as many as these.
          seed: as in `generate`.
          **overrides: fields of `SamplerConfig`. Without `max_new_tokens`, an answer
            may be as long as the model's default says or as the longest program and
            64 tokens more, whichever is longer, as far as the model has positions
            left. Where these are fewer, a long answer is cut off.

        Raises:
          InputError: for an empty program or instruction, unequal numbers of them,
            texts that are too long, a wrong override, or a tokenizer without the tokens
            of that layout.
        """
        codes = [code] if isinstance(code, str) else list(code)
        if isinstance(instruction, str):
            instructions = [instruction] * len(codes)
        else:
            instructions = list(instruction)
        if len(codes) != len(instructions):
            raise InputError(
                f"{len(codes)} programs and {len(instructions)} instructions; give one "
                "instruction for all, as a string, or as many as programs"
            )
        if not all(codes):
            raise InputError("the code is empty; give the program to edit")
        if not all(instructions):
            raise InputError("the instruction is empty; say what to change")
        requests = self.tokenizer.encode_batch(
            list(map(edit_request, codes, instructions))
        )
        prompts = [editing(request, self.tokenizer.special) for request in requests]
        if "max_new_tokens" not in overrides:
            programs = self.tokenizer.encode_batch(codes)
            longest = max(map(len, programs), default=0)
            left = self.config.max_positions - max(map(len, prompts), default=0)
            wanted = max(self.sampler.max_new_tokens, longest + EDIT_GROWTH)
            # With nothing left, one token more is what the canvas complains of.
            overrides["max_new_tokens"] = max(1, min(wanted, left))
        return self._continue(prompts, self.sampler.vary(**overrides), seed)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        *,
        seed: Seeds = 0,
        grammar: Grammar | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Generation:
        """Answers conversations, laid out by the model's own chat template; `texts`
        hold the assistant's next turns. What a message spells is text, never a special
        token.

        Args:
          messages: a conversation, each message a mapping with "role" and "content", or
            several conversations.
          seed: as in `generate`.
          grammar: as in `generate`.
          template_variables: what else the template reads, such as "tools" or
            "enable_thinking".
          **overrides: fields of `SamplerConfig`.

        Raises:
          InputError: for a model without a chat template, messages that the template
            does not take, a conversation that is too long, or a wrong override.
        """
        sampler = self.sampler.vary(**overrides)
        several = len(messages) > 0 and not isinstance(messages[0], Mapping)
        conversations: Sequence[Any] = messages if several else [messages]
        prompts = [
            self.tokenizer.encode_chat(conversation, variables=template_variables)
            for conversation in conversations
        ]
        return self._continue(prompts, sampler, seed, grammar=grammar)

    def stream(
        self,
        prompt: str,
        *,
        seed: Seeds = 0,
        grammar: Grammar | None = None,
        forced_tokens: Mapping[int, int] | None = None,
        **overrides: Any,
    ) -> Iterator[str]:
        """Continues one prompt, piece by piece: the text that each finished block adds.
        The pieces joined are the text that `generate` gives, with the same arguments. A
        character whose bytes are not all there yet is held back until they are.

        Raises:
          InputError: as `generate`, when the first piece is asked for.
        """
        sampler = self.sampler.vary(**overrides)
        state, canvas, _ = self.begin(
            prompt, sampler, grammar=grammar, forced=forced_tokens
        )
        sent = ""
        while True:
            state, answer, _ = self.advance(
                canvas, sampler, state, seed=seed, donate=True
            )
            tokens = loop.new_tokens(answer)[0]
            text, last = self.tokenizer.decode(tokens), bool(state.done.all())
            whole = text if last else text.rstrip("\ufffd")
            if len(whole) > len(sent):
                yield whole[len(sent) :]
                sent = whole
            if last:
                return

    def begin(
        self,
        prompt: str,
        sampler: SamplerConfig,
        *,
        surface: Surface = "stream",
        **asked: Any,
    ) -> tuple[DecodeState, Canvas, float]:
        """The state in front of the first block of an answer, for `advance`, its
        canvas, and the seconds that compiling took now.

        Args:
          prompt: a text.
          sampler: the recipe.
          surface: what the answer is for.
          **asked: a `grammar`, or `forced` tokens.

        Raises:
          InputError: as `generate`.
        """
        prompts = self._prompts(prompt)
        canvas = self._canvas(prompts, sampler, surface=surface, **asked)
        program, seconds = self.program(programs.start, sampler, canvas)
        return program(self.params, canvas), canvas, seconds

    def advance(
        self,
        canvas: Canvas,
        sampler: SamplerConfig,
        state: DecodeState,
        *,
        seed: Seeds,
        donate: bool = False,
    ) -> tuple[DecodeState, Answer, float]:
        """A state after one more block, the answer so far, and the seconds that
        compiling took now. With `donate` the old state's memory is taken."""
        number = seed_array(seed, 1)
        program, seconds = self.program(
            programs.advance,
            sampler,
            canvas,
            number,
            state,
            donate="state" if donate else None,
        )
        state, answer = program(self.params, canvas, number, state)
        return state, answer, seconds

    def _prompts(self, prompts: str | Sequence[str]) -> list[list[int]]:
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
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
        surface: Surface = "generate",
    ) -> Canvas:
        check_recipe(
            self.config,
            sampler,
            surface,
            grammar=grammar is not None,
            forced_tokens=bool(forced),
        )
        canvas = prompt_canvas(prompts, self.config, sampler)
        if forced:
            budget = sampler.max_new_tokens
            row = forced_array(forced, self.config, budget=budget, width=budget)
            rows = np.tile(row, (len(prompts), 1))
            canvas = with_forced(canvas, jax.device_put(rows), self.config)
        if grammar is not None:
            canvas = canvas._replace(automaton=self.automaton(grammar, sampler))
        return canvas

    def automaton(self, grammar: Grammar, sampler: SamplerConfig) -> Automaton:
        """The automaton of a grammar over what a recipe may draw, made once."""
        banned = sampler.banned_ids(self.config)
        if (grammar, banned) not in self._automata:
            silent = self.config.vocab_size - self.tokenizer.vocab_size
            pieces = [*self.tokenizer.pieces, *[b""] * silent]
            for token in banned:
                pieces[token] = b""
            made = build_automaton(
                grammar, pieces, eos_token_ids=self.config.eos_token_ids
            )
            self._automata[grammar, banned] = Automaton(*jax.device_put(tuple(made)))
        return self._automata[grammar, banned]

    def _continue(
        self,
        prompts: list[list[int]],
        sampler: SamplerConfig,
        seed: Seeds,
        **asked: Any,
    ) -> Generation:
        return self._run(self._canvas(prompts, sampler, **asked), sampler, seed)

    def _run(self, canvas: Canvas, sampler: SamplerConfig, seed: Seeds) -> Generation:
        number = seed_array(seed, canvas.tokens.shape[0])
        program, compile_seconds = self.program(
            programs.generate, sampler, canvas, number
        )
        began = time.perf_counter()
        answer = program(self.params, canvas, number)
        tokens = loop.new_tokens(answer)
        texts = [self.tokenizer.decode(row) for row in tokens]
        return Generation(
            texts=texts,
            tokens=tokens,
            new_tokens=[len(row) for row in tokens],
            steps=answer.steps.tolist(),
            forwards=int(answer.forwards),
            seconds=time.perf_counter() - began,
            compile_seconds=compile_seconds,
            fits=answer.fits.tolist(),
            trace=self._trace(canvas, answer, sampler),
        )

    def _trace(
        self, canvas: Canvas, answer: Answer, sampler: SamplerConfig
    ) -> list[TraceStep] | None:
        if answer.trace is None:
            return None
        return read_trace(canvas, answer.trace, block_size(self.config, sampler))

    @property
    def num_programs(self) -> int:
        """Programs that were compiled so far, all recipes and shapes together."""
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


def row_keys(seed: Seeds, num_rows: int) -> Array:
    """The random key of each row: what its draws depend on.

    Raises:
      InputError: for a seed that is none, or more or fewer seeds than rows.
    """
    return programs.row_keys(seed_array(seed, num_rows), num_rows)


def seed_array(seed: Seeds, num_rows: int) -> Array:
    """One seed for all rows, or one a row, uint32.

    Raises:
      InputError: for a seed that is none, or more or fewer seeds than rows.
    """
    for number in [seed] if isinstance(seed, int) else seed:
        if not 0 <= number < 2**32:
            raise InputError(f"seed is {number}; it must be in [0, 2^32)")
    seeds = np.asarray(seed, np.uint32)
    if seeds.ndim and len(seeds) != num_rows:
        raise InputError(
            f"{len(seeds)} seeds for {num_rows} prompts; give one, or one each"
        )
    return jax.device_put(seeds)


def load(
    model: str = "mini",
    *,
    dtype: DType | None = None,
    quantization: str | None = None,
    adapter: str | None = None,
) -> Model:
    """A model from its directory, or one of the bundled ones by name.

    Args:
      model: a name or a directory.
      dtype: what to compute in; None is what the model directory says.
      quantization: "int8_weights" or "int8", see `seedjax.nn.quantize`; None leaves the
        weights as they are.
      adapter: folder of a LoRA adapter of this model, which is merged in.

    Raises:
      InputError: if there is no such model, its directory is damaged, quantization is
        unknown or lacks its package, or the adapter is another model's.
    """
    path = resolve_model(model)
    directory = read_model_directory(path)
    config = directory.denoiser
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    stored = dataclasses.replace(config, layer_loop="unroll")
    _, params = load_model(path, abstract_params=abstract_params(stored))
    if adapter is not None:
        params = with_adapter(params, adapter, path, stored)
    if quantization is not None:
        params = quantize_params(params, config, quantization)
    if config.layer_loop == "scan":
        params = stack_layers(params)
    return Model(
        params,
        config,
        load_tokenizer(directory.tokenizer),
        from_dict(SamplerConfig, directory.sampler, f"sampler of {path}"),
    )
