"""Fill in the middle: nothing is lost, and both layouts are as written down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedjax.data.fim import arrange, cut_points, fill_in_the_middle

TEXT = "def area(width, height):\n    return width * height  # größe\n"


def parts_of(tokens: list[int], tokenizer) -> tuple[str, str, str]:
    """Prefix, middle and suffix, read back from either layout. In SPM the prefix and
    the middle stand together; the prefix comes back empty."""
    special = tokenizer.special
    assert tokens[0] == special.fim_prefix
    tail, hole = tokens.index(special.fim_suffix), tokens.index(special.fim_middle)
    assert tail < hole
    cuts = [tokens[1:tail], tokens[hole + 1 :], tokens[tail + 1 : hole]]
    prefix, middle, suffix = map(tokenizer.decode, cuts)
    return prefix, middle, suffix


def test_layouts(tokenizer):
    special = tokenizer.special
    head, tail, hole = special.fim_prefix, special.fim_suffix, special.fim_middle
    parts = ([101, 102], [103], [104])
    psm = arrange(*parts, order="psm", special=special)
    assert psm == [head, 101, 102, tail, 104, hole, 103]
    spm = arrange(*parts, order="spm", special=special)
    assert spm == [head, tail, 104, hole, 101, 102, 103]


@given(st.text(max_size=80), st.integers(0, 2**32), st.sampled_from([0.0, 1.0]))
def test_the_text_can_be_put_together_again(tokenizer, text, seed, spm_fraction):
    generator = np.random.default_rng(seed)
    tokens = fill_in_the_middle(text, tokenizer, generator, spm_fraction=spm_fraction)
    prefix, middle, suffix = parts_of(tokens, tokenizer)
    assert prefix + middle + suffix == text
    if spm_fraction == 1.0:
        assert prefix == ""
    assert len(tokens) - 3 <= len(text.encode())


def test_cuts_are_uniform_over_all_gaps():
    generator = np.random.default_rng(0)
    cuts = np.array([cut_points("abcd", generator) for _ in range(4000)])
    assert (cuts[:, 0] <= cuts[:, 1]).all()
    counts = np.bincount(cuts.ravel(), minlength=5)
    # 8000 draws over five places: 1600 each, standard deviation 36.
    assert (abs(counts - 1600) < 5 * 36).all()


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_the_share_of_orders(tokenizer, fraction):
    generator = np.random.default_rng(1)
    special = tokenizer.special
    found = [
        fill_in_the_middle(TEXT, tokenizer, generator, spm_fraction=fraction)[1]
        == special.fim_suffix
        for _ in range(400)
    ]
    # An empty prefix in PSM looks like SPM: one cut of two in 60 gaps at 0 is rare.
    assert abs(np.mean(found) - fraction) < 5 * 0.5 / 20 + 0.04


def test_the_generator_decides(tokenizer):
    def once(seed: int) -> list[int]:
        generator = np.random.default_rng(seed)
        return fill_in_the_middle(TEXT, tokenizer, generator, spm_fraction=0.5)

    assert once(3) == once(3) != once(4)
