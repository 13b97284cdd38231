"""Arguments of a call of a model, validated and in tokens: prompts, holes, edits, and
the canvas that a decode starts from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from seedjax.backend import require_backend
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.inference.automata import Automata
from seedjax.inference.generation import Stop
from seedjax.sampling import arguments
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
from seedjax.sampling.recipe import SamplerConfig
from seedjax.text.prompts import continuation, edit_request, editing, infilling
from seedjax.text.tokenizer import Tokenizer


def read_prompts(prompts: str | Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids of texts to continue, the beginning-of-sequence token first.

    Raises:
      InputError: for an empty text, or what is none.
    """
    texts = arguments.texts(prompts, "prompts")
    if not all(texts):
        raise InputError("the prompt is empty; give it at least one character")
    encoded = tokenizer.encode_batch(texts)
    return [continuation(tokens, tokenizer.special) for tokens in encoded]


class Holes(NamedTuple):
    """Texts with a hole between their two sides.

    Attributes:
      prefixes: text before each hole.
      suffixes: text after it.
      before: the tokens of the prefixes.
      after: the tokens of the suffixes.
    """

    prefixes: list[str]
    suffixes: list[str]
    before: list[list[int]]
    after: list[list[int]]

    def prompts(self, tokenizer: Tokenizer) -> list[list[int]]:
        """The reordered texts, whose completions are the middles.

        Raises:
          InputError: for a tokenizer without fill-in-the-middle tokens.
        """
        special, order = tokenizer.special, tokenizer.infill_order
        pairs = zip(self.before, self.after, strict=True)
        return [infilling(head, tail, special, order) for head, tail in pairs]

    def canvas(
        self,
        config: DenoiserConfig,
        sampler: SamplerConfig,
        tokenizer: Tokenizer,
        length: int,
    ) -> tuple[Canvas, SamplerConfig, list[int]]:
        """The texts around holes of `length` masks, for a bidirectional model; the
        recipe that fills these; and how many tokens each row is given.

        Raises:
          InputError: for a recipe that fills no holes, or texts that are too long.
        """
        require_backend()
        before = [continuation(tokens, tokenizer.special) for tokens in self.before]
        check_recipe(config, sampler, "infill")
        canvas = span_canvas(before, self.after, config, length=length, few_shapes=True)
        pairs = zip(before, self.after, strict=True)
        given = [len(head) + len(tail) for head, tail in pairs]
        width = canvas.generation_mask.shape[1]
        return canvas, sampler.for_span(length, width), given


def read_holes(
    prefix: str | Sequence[str], suffix: str | Sequence[str], tokenizer: Tokenizer
) -> Holes:
    """The two sides of holes.

    Raises:
      InputError: for unequal numbers of texts, or what is none.
    """
    prefixes = arguments.texts(prefix, "prefix")
    suffixes = arguments.texts(suffix, "suffix")
    if len(prefixes) != len(suffixes):
        raise InputError(
            f"{len(prefixes)} prefixes and {len(suffixes)} suffixes; give as many "
            "of one as of the other"
        )
    encode = tokenizer.encode_batch
    return Holes(prefixes, suffixes, encode(prefixes), encode(suffixes))


def read_edits(
    code: str | Sequence[str], instruction: str | Sequence[str], tokenizer: Tokenizer
) -> tuple[list[str], list[list[int]]]:
    """Programs to change, and the prompts that describe the change.

    Raises:
      InputError: for an empty program or instruction, unequal numbers of them, or a
        tokenizer without the tokens of that layout.
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
    encoded = tokenizer.encode_batch(requests)
    return codes, [editing(tokens, tokenizer.special) for tokens in encoded]


def canvas_of(
    prompts: list[list[int]],
    config: DenoiserConfig,
    sampler: SamplerConfig,
    automata: Automata,
    *,
    grammar: Grammar | None = None,
    forced: Mapping[int, int] | None = None,
    stop: Stop = None,
    surface: Surface = "generate",
) -> Canvas:
    """The canvas that continues prompts, with what its completions must match.

    Args:
      prompts: token ids of each row.
      config: the denoiser.
      sampler: the recipe.
      automata: where those of grammars and stop strings are kept.
      grammar: what each completion has to match, as a whole.
      forced: ids that stand in certain places of each completion, by place.
      stop: strings that end a completion.
      surface: what the completions are for.

    Raises:
      InputError: for prompts that are too long, a grammar that admits nothing, a place
        or id that there is not, or what the recipe or the surface does not support.
    """
    require_backend()
    grammar, strings = arguments.grammar(grammar), arguments.stop_strings(stop)
    check_recipe(
        config,
        sampler,
        surface,
        grammar=grammar is not None,
        forced_tokens=bool(forced),
        stop=bool(strings),
    )
    canvas = prompt_canvas(prompts, config, sampler, few_shapes=True)
    if forced:
        budget = sampler.max_new_tokens
        # As wide for every budget of this canvas, with room after the prompt.
        room = canvas.generation_mask.shape[1] - block_size(config, sampler) + 1
        row = forced_array(forced, config, budget=budget, width=max(budget, room))
        rows = jax.device_put(np.tile(row, (len(prompts), 1)))
        canvas = with_forced(canvas, rows, config)
    if grammar is not None:
        canvas = canvas._replace(automaton=automata.of_grammar(grammar, sampler))
    if strings:
        canvas = canvas._replace(stops=automata.of_stops(strings))
    return canvas
