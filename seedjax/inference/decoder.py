"""A model as the tools around it see it: token ids in, completions out.

`Decoder` joins canvas and compiled sampler; how a completion is drawn is
`seedjax.sampling`, and what is compiled of it `seedjax.inference.compiled`.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from seedjax.backend import require_backend
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.inference import compiled
from seedjax.inference.automata import Automata
from seedjax.inference.compiled import OnBlock, Programs
from seedjax.inference.generation import Generation, Seeds, Stop, read_rows
from seedjax.inference.requests import canvas_of
from seedjax.sampling import arguments
from seedjax.sampling.canvas import Canvas, block_size
from seedjax.sampling.check import Surface
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.grammar.decode import Automaton
from seedjax.sampling.loop import DecodeResult
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.state import DecodeState
from seedjax.sampling.trace import TraceStep, read_trace
from seedjax.sharding import mesh_of
from seedjax.text.tokenizer import Tokenizer
from seedjax.typing import Params


class Decoder:
    """A denoiser or its autoregressive baseline, with tokenizer and default recipe.

    Its programs run where the parameters lie: on one device, or on a mesh.
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

    @property
    def mesh(self) -> Mesh | None:
        """The mesh that the parameters lie on, on which everything is computed; None
        for one device."""
        return mesh_of(self._params)

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

    def _canvas(
        self, prompts: list[list[int]], sampler: SamplerConfig, **options: Any
    ) -> Canvas:
        canvas = canvas_of(prompts, self.config, sampler, self._automata, **options)
        return compiled.place(canvas, self.mesh)

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
        rows = read_rows(answer, self.tokenizer, strings, budgets)
        return Generation(
            **rows,
            forwards=int(answer.forwards),
            seconds=time.perf_counter() - began,
            compile_seconds=compile_seconds,
            prompt_tokens=prompt_tokens,
            trace=self._trace(canvas, answer, sampler),
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
