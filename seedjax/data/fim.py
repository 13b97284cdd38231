"""Fill in the middle: a document rearranged so that its middle comes last.

Bavarian et al., "Efficient Training of Language Models to Fill in the Middle", arXiv
2207.14255. A document is cut between characters at two uniform places, which the paper
found better than cuts at lines or tokens: a prefix may then end inside a word. Layouts,
each behind BOS and before EOS:

    PSM   <fim_prefix> prefix <fim_suffix> suffix <fim_middle> middle
    SPM   <fim_prefix> <fim_suffix> suffix <fim_middle> prefix middle

The first is `seedjax.prompts.infilling` with its answer. The second is the paper's
variant that shares its form with PSM of an empty prefix ("SPMv2", its appendix D).
"""

from typing import Literal

import numpy as np

from seedjax.prompts import infilling
from seedjax.tokenizer import SpecialTokens, Tokenizer

Order = Literal["psm", "spm"]


def cut_points(text: str, generator: np.random.Generator) -> tuple[int, int]:
    """Two places in the text, in order, each uniform over all gaps between characters,
    both ends included."""
    first, second = sorted(generator.integers(0, len(text) + 1, 2).tolist())
    return first, second


def arrange(
    prefix: list[int],
    middle: list[int],
    suffix: list[int],
    *,
    order: Order,
    special: SpecialTokens,
) -> list[int]:
    """The token ids of the three parts in one of the two layouts, without BOS and EOS.

    Example, PSM of `[1] [2] [3]`: `[fim_prefix, 1, fim_suffix, 3, fim_middle, 2]`.
    """
    if order == "spm":
        prefix, middle = [], [*prefix, *middle]
    _bos, *prompt = infilling(prefix, suffix, special)
    return [*prompt, *middle]


def fill_in_the_middle(
    text: str,
    tokenizer: Tokenizer,
    generator: np.random.Generator,
    *,
    spm_fraction: float,
) -> list[int]:
    """A text cut and arranged at random, as token ids without BOS and EOS.

    Args:
      text: the document.
      tokenizer: encodes the three parts, each alone.
      generator: draws the cuts and the order.
      spm_fraction: share of SPM among the layouts.
    """
    first, second = cut_points(text, generator)
    order: Order = "spm" if generator.random() < spm_fraction else "psm"
    prefix, middle, suffix = tokenizer.encode_batch(
        [text[:first], text[first:second], text[second:]]
    )
    return arrange(prefix, middle, suffix, order=order, special=tokenizer.special)
