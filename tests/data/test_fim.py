"""Fill in the middle: nothing is lost, and the layout is as written down."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seedjax.data.fim import cut_points, fill_in_the_middle

TEXT = "def area(width, height):\n    return width * height  # größe\n"


@given(st.text(max_size=80), st.integers(0, 2**32))
def test_the_text_can_be_put_together_again(tokenizer, text, seed):
    generator = np.random.default_rng(seed)
    tokens = fill_in_the_middle(text, tokenizer, generator)
    special = tokenizer.special
    assert tokens[0] == special.fim_suffix
    head, hole = tokens.index(special.fim_prefix), tokens.index(special.fim_middle)
    suffix, prefix, middle = (
        tokenizer.decode(part)
        for part in (tokens[1:head], tokens[head + 1 : hole], tokens[hole + 1 :])
    )
    assert prefix + middle + suffix == text
    assert len(tokens) - 3 <= len(text.encode())


def test_cuts_are_uniform_over_all_gaps():
    generator = np.random.default_rng(0)
    cuts = np.array([cut_points("abcd", generator) for _ in range(4000)])
    assert (cuts[:, 0] <= cuts[:, 1]).all()
    counts = np.bincount(cuts.ravel(), minlength=5)
    # 8000 draws over five places: 1600 each, standard deviation 36.
    assert (abs(counts - 1600) < 5 * 36).all()


def test_the_generator_decides(tokenizer):
    def once(seed: int) -> list[int]:
        generator = np.random.default_rng(seed)
        return fill_in_the_middle(TEXT, tokenizer, generator)

    assert once(3) == once(3) != once(4)
