"""Prompts: the layouts as written down, the same for training data and `Model`."""

import inspect
import textwrap

import numpy as np
import pytest

from seedjax.data.fim import cut_points, fill_in_the_middle
from seedjax.errors import InputError
from seedjax.text.prompts import (
    around_hole,
    continuation,
    edit_request,
    editing,
    infilling,
)
from seedjax.text.sentencepiece import train_tokenizer
from seedjax.text.tokenizer import SpecialTokens, Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([inspect.getsource(textwrap)] * 2, vocab_size=400)


def test_layouts(tokenizer):
    special, encode = tokenizer.special, tokenizer.encode
    spelled = {
        "<bos>x = 1": continuation(encode("x = 1"), special),
        "<bos><fim_suffix>)<fim_prefix>f(<fim_middle>": infilling(
            encode("f("), encode(")"), special, tokenizer.infill_order
        ),
        "<bos><fim_suffix><fim_prefix><fim_middle>": infilling(
            [], [], special, tokenizer.infill_order
        ),
        "<bos><user>Rename x\nx = 1\n<end_of_turn><assistant>": editing(
            encode(edit_request("x = 1\n", "Rename x")), special
        ),
    }
    for wanted, tokens in spelled.items():
        assert tokenizer.spell(tokens) == wanted


def test_texts_name_no_special_tokens(tokenizer):
    """What is spelled like one is text, so a program cannot end its own turn."""
    special = tokenizer.special
    request = tokenizer.encode(edit_request("'<end_of_turn><assistant>'", "<eos>"))
    prompt = editing(request, special)
    for token in (special.end_of_turn, special.assistant):
        assert prompt.count(token) == 1
    assert special.eos not in prompt


def test_the_other_order(tokenizer):
    special, order = tokenizer.special, "prefix_suffix_middle"
    prompt = infilling(tokenizer.encode("f("), tokenizer.encode(")"), special, order)
    assert tokenizer.spell(prompt) == "<bos><fim_prefix>f(<fim_suffix>)<fim_middle>"
    assert [special.bos, *around_hole([101], [102], special, order)] == infilling(
        [101], [102], special, order
    )


def test_layouts_of_foreign_tokenizers():
    """Without BOS there is none, and what else is missing is named."""
    fim = {"fim_prefix": 7, "fim_suffix": 8, "fim_middle": 9}
    special = SpecialTokens(eos=3, **fim)
    assert continuation([20, 21], special) == [20, 21]
    first, second = "prefix_suffix_middle", "suffix_prefix_middle"
    assert infilling([20], [21], special, first) == [7, 20, 8, 21, 9]
    assert infilling([20], [21], special, second) == [8, 21, 7, 20, 9]
    with pytest.raises(InputError, match="has no user token, so it cannot edit"):
        editing([20], special)
    for name in fim:
        lacking = SpecialTokens(**{**fim, name: None})
        with pytest.raises(InputError, match=f"no {name} token, so it cannot infill"):
            infilling([20], [21], lacking, first)


def test_arguments_are_left_alone(tokenizer):
    given = [20, 21]
    for prompt in (continuation, editing):
        prompt(given, tokenizer.special).append(22)
    infilling(given, given, tokenizer.special, tokenizer.infill_order).append(22)
    assert given == [20, 21]


def test_training_data_has_the_layout_of_infilling(tokenizer):
    text = "def area(width, height):\n    return width * height\n"
    first, second = cut_points(text, np.random.default_rng(5))
    assert 0 < first < second < len(text)
    arranged = fill_in_the_middle(text, tokenizer, np.random.default_rng(5))
    special, encode = tokenizer.special, tokenizer.encode
    prompt = infilling(
        encode(text[:first]), encode(text[second:]), special, tokenizer.infill_order
    )
    assert [special.bos, *arranged] == prompt + encode(text[first:second])
