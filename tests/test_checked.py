"""Blocks after which no program can follow are decoded again."""

import pytest

from seedjax import checked
from seedjax.checked import SyntaxCheck, generate_checked
from seedjax.errors import InputError
from seedjax.sampling.policy import LeftToRight

RECIPE = {"max_new_tokens": 24, "temperature": 0.0}
PROMPT = "def f(a):\n"


@pytest.mark.parametrize("which", ["model", "causal"])
def test_what_is_never_refused_is_what_generate_gives(which, request, monkeypatch):
    model = request.getfixturevalue(which)
    monkeypatch.setattr(checked, "can_be_continued", lambda text: True)
    found = generate_checked(model, [PROMPT, "import"], **RECIPE)
    plain = [model.generate(text, **RECIPE) for text in (PROMPT, "import")]
    assert found.texts == [one.texts[0] for one in plain]
    assert found.forwards == sum(one.forwards for one in plain)
    assert found.fits == [True, True]


def test_a_refused_block_is_decoded_again(model, monkeypatch):
    plain = model.generate(PROMPT, **RECIPE)
    seen = []

    def refuse_the_first_block(text):
        seen.append(text)
        return len(seen) != 2  # the prompt, then the first attempt

    monkeypatch.setattr(checked, "can_be_continued", refuse_the_first_block)
    found = generate_checked(model, PROMPT, **RECIPE)
    careful = model.generate(PROMPT, **RECIPE, policy=LeftToRight(threshold=None))
    # The second attempt decides the same block, from what was there before it.
    block = len(seen[2]) - len(PROMPT)
    assert seen[2] == PROMPT + careful.texts[0][:block]
    assert found.fits == [True]
    assert found.forwards > plain.forwards


def test_what_cannot_be_mended_stays(model, monkeypatch):
    calls = []

    def refuse(text):
        calls.append(text)
        return text == PROMPT

    monkeypatch.setattr(checked, "can_be_continued", refuse)
    found = generate_checked(model, PROMPT, check=SyntaxCheck(attempts=2), **RECIPE)
    plain = model.generate(PROMPT, **RECIPE)
    assert found.texts == plain.texts and found.fits == [False]
    # All attempts at the first block, and then no more than one a block.
    blocks = -(-(len(plain.tokens[0]) + 7) // 8)
    assert 1 + 3 < len(calls) <= 1 + 3 + blocks
    assert found.forwards > plain.forwards


def test_it_helps(model):
    """Random weights seldom write Python: more of their blocks can be continued."""
    prompts = [f"x{n} = {n}\n" for n in range(4)]
    found = generate_checked(model, prompts, check=SyntaxCheck(attempts=6), **RECIPE)
    for text, prompt, fits in zip(found.texts, prompts, found.fits, strict=True):
        assert checked.can_be_continued(prompt + text) or not fits


def test_faults(model):
    with pytest.raises(InputError, match="attempts"):
        SyntaxCheck(attempts=0)
    with pytest.raises(InputError, match="temperature"):
        SyntaxCheck(temperature=0.0)
    with pytest.raises(InputError, match="did you mean"):
        generate_checked(model, PROMPT, temprature=1.0)
