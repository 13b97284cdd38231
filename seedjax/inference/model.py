"""A model as its user sees it: text in, text out.

    model = seedjax.load("mini")
    out = model.generate(["def gcd(a, b):\\n"], max_new_tokens=128, seed=0)
    out.texts, out.tokens, out.new_tokens, out.forwards, out.seconds

`seedjax.inference.requests` reads what a call is given, `Decoder` completes it.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

from seedjax.errors import InputError
from seedjax.inference import compiled
from seedjax.inference.compiled import OnBlock
from seedjax.inference.decoder import Decoder
from seedjax.inference.description import one_line, several_lines
from seedjax.inference.frames import frame_of_hole, frame_of_program, frame_of_prompt
from seedjax.inference.generation import (
    Generation,
    Seeds,
    Stop,
    judged,
)
from seedjax.inference.requests import (
    read_edits,
    read_holes,
    read_prompts,
)
from seedjax.sampling import arguments, loop
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.stop_strings import pieces_of
from seedjax.sampling.stopping import IgnoreEos
from seedjax.text.prompts import edit_budget
from seedjax.typing import Params


class Model(Decoder):
    """A `Decoder` that takes texts.

    Every keyword argument of `generate`, `infill`, `edit`, `chat` and `stream` beyond
    the named ones is a field of `SamplerConfig` and replaces the model's default for
    that call.
    """

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
        rows = read_prompts(texts, self.tokenizer)
        result = self._continue(rows, sampler, seed, **options)
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
        holes = read_holes(prefix, suffix, self.tokenizer)
        if length is not None:
            length = arguments.integer(length, "length", least=1)
        sampler = self.sampler.vary(**overrides)
        if length is not None and self.config.attention == "bidirectional":
            canvas, sampler, given = holes.canvas(
                self.config, sampler, self.tokenizer, length
            )
            canvas = compiled.place(canvas, self.mesh)
            result = self._run(canvas, sampler, seed, given, stop, on_block)
        else:
            if length is not None:
                sampler = sampler.vary(max_new_tokens=length, eos=IgnoreEos())
            prompts = holes.prompts(self.tokenizer)
            result = self._continue(
                prompts, sampler, seed, stop=stop, on_block=on_block
            )
        return judged(result, map(frame_of_hole, holes.prefixes, holes.suffixes))

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
        codes, prompts = read_edits(code, instruction, self.tokenizer)
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

        def so_far() -> Iterator[tuple[str, bool]]:
            nonlocal state
            while True:
                state, answer, _ = self.advance(
                    canvas, sampler, state, seed=seed, donate=True
                )
                text = self.tokenizer.decode(loop.new_tokens(answer)[0])
                yield text, bool(state.done.all())

        yield from pieces_of(so_far(), strings)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids of a text to continue, the beginning-of-sequence token first.

        Raises:
          InputError: for an empty text, or what is none.
        """
        return read_prompts([prompt], self.tokenizer)[0]
