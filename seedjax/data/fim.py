"""Fill in the middle: a document rearranged so that its middle comes last.

Bavarian et al., "Efficient Training of Language Models to Fill in the Middle", arXiv
2207.14255. A document is cut between characters at two uniform places, which the paper
found better than cuts at lines or tokens: a prefix may then end inside a word. The
layout is that of `seedjax.text.prompts.infilling` with its answer, between BOS and EOS:

    <fim_suffix> suffix <fim_prefix> prefix <fim_middle> middle

The suffix comes first, as in Seed-Coder, so that the middle goes on where the prefix
ends.
"""

import numpy as np

from seedjax.text.prompts import around_hole
from seedjax.text.tokenizer import Tokenizer


def cut_points(text: str, generator: np.random.Generator) -> tuple[int, int]:
    """Two places in the text, in order, each uniform over all gaps between characters,
    both ends included."""
    first, second = sorted(generator.integers(0, len(text) + 1, 2).tolist())
    return first, second


def fill_in_the_middle(
    text: str, tokenizer: Tokenizer, generator: np.random.Generator
) -> list[int]:
    """A text cut at random and rearranged in the order of the tokenizer, as token ids
    without BOS and EOS.

    Args:
      text: the document.
      tokenizer: encodes the three parts, each alone.
      generator: draws the cuts.
    """
    first, second = cut_points(text, generator)
    prefix, middle, suffix = tokenizer.encode_batch(
        [text[:first], text[first:second], text[second:]]
    )
    special, order = tokenizer.special, tokenizer.infill_order
    return [*around_hole(prefix, suffix, special, order), *middle]
