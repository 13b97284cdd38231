"""Many prompts through a few slots."""

import numpy as np
import pytest
from pytest import approx
from text_model import CONFIG, PROMPTS

from seedjax.engine import Engine
from seedjax.errors import InputError

TEXTS = [*PROMPTS, "class A:\n", "x", "return", "for i in range(3):\n", "try:"]


@pytest.mark.parametrize("which", ["model", "causal"])
def test_run(which, request):
    model = request.getfixturevalue(which)
    engine = Engine(model, num_slots=3, max_prompt_tokens=16)
    finished = list(engine.run(TEXTS))
    assert sorted(c.number for c in finished) == list(range(len(TEXTS)))
    # In the order in which they are finished, which may be another one.
    in_order = [c.number for c in finished] == list(range(len(TEXTS)))
    assert in_order == (which == "causal")
    for completion in finished:
        assert completion.text == model.tokenizer.decode(completion.tokens)
        assert completion.seconds > 0
    assert engine.num_waiting == engine.num_running == 0
    # The same again, through other slots, is the same; numbers begin anew.
    again = {c.number: c.tokens for c in Engine(model, num_slots=2).run(TEXTS)}
    assert again == {c.number: c.tokens for c in finished}
    rerun = {c.number: c.tokens for c in engine.run(TEXTS[:2])}
    assert rerun == {0: again[0], 1: again[1]}


def test_greedy_is_what_generate_gives(model):
    recipe = {"temperature": 0.0, "max_new_tokens": 24}
    engine = Engine(model, num_slots=2, **recipe)
    texts = {c.number: c.text for c in engine.run(TEXTS)}
    wanted = model.generate(TEXTS, **recipe).texts
    assert [texts[n] for n in range(len(TEXTS))] == wanted


def test_log_probabilities_are_those_of_generate(model):
    """Cut with the tokens at a stop string; None where a token was given."""
    stop, forced, seeds = ["e", "1"], {1: 70}, list(range(len(TEXTS)))
    whole = model.generate(
        TEXTS, seed=seeds, stop=stop, forced_tokens=forced, logprobs=True
    )
    assert set(whole.finish_reason) == {"stop", "length"}
    assert list(map(len, whole.logprobs)) == whole.new_tokens
    for row in whole.logprobs:
        assert row[1:2] in ([None], [])
        drawn = [value for place, value in enumerate(row) if place != 1]
        assert all(-40 < value <= 0 for value in drawn)
    assert min(value for row in whole.logprobs for value in row[2:]) < -1
    engine = Engine(model, num_slots=3, max_prompt_tokens=16, stop=stop, logprobs=True)
    for seed, text in zip(seeds, TEXTS, strict=True):
        engine.submit(text, seed=seed, forced_tokens=forced)
    found = {}
    while engine.num_waiting or engine.num_running:
        found |= {c.number: c for c in engine.step()}
    for number, wanted in enumerate(whole.logprobs):
        assert found[number].tokens == whole.tokens[number]
        close = [None if value is None else approx(value, abs=1e-4) for value in wanted]
        assert found[number].logprobs == close


def test_few_programs(model):
    """One to go on and one to admit, whatever comes: all prompts are on one rung."""
    engine = Engine(model, num_slots=2, max_prompt_tokens=64)
    before = model.num_programs
    draws = np.random.default_rng(0)
    for number in range(12):
        length = int(draws.integers(1, 60))
        engine.submit(
            draws.integers(8, 300, length).tolist(),
            max_new_tokens=int(draws.integers(1, 20)),
            seed=number,
        )
    while engine.num_waiting or engine.num_running:
        engine.step()
    assert model.num_programs - before <= 2
    assert engine.step() == []


def test_faults(model):
    with pytest.raises(InputError, match="num_slots is 0"):
        Engine(model, num_slots=0)
    with pytest.raises(InputError, match="the model holds 128"):
        Engine(model, max_prompt_tokens=120, max_new_tokens=20)
    engine = Engine(model, num_slots=1, max_prompt_tokens=8)
    with pytest.raises(InputError, match="the prompt is empty"):
        engine.submit("")
    with pytest.raises(InputError, match="9 tokens and this engine has room for 8"):
        engine.submit([5] * 9)
    with pytest.raises(
        InputError, match="this engine is 21; give an integer from 1 to"
    ):
        engine.submit("x", max_new_tokens=21)
    assert engine.num_waiting == 0 and CONFIG.max_positions == 128
