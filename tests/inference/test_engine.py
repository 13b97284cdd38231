"""Many prompts through a few slots."""

import dataclasses

import numpy as np
import pytest
from pytest import approx
from text_model import CONFIG, PROMPTS

from seedjax.errors import InputError
from seedjax.inference import slot_table, views
from seedjax.inference.engine import Engine
from seedjax.inference.in_flight import Completion
from seedjax.inference.model import Model

TEXTS = [*PROMPTS, "class A:\n", "x", "return", "for i in range(3):\n", "try:"]


@pytest.mark.representative("causal")
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


@pytest.mark.slow
def test_greedy_is_what_generate_gives(model):
    recipe = {"temperature": 0.0, "max_new_tokens": 24}
    engine = Engine(model, num_slots=2, **recipe)
    texts = {c.number: c.text for c in engine.run(TEXTS)}
    wanted = model.generate(TEXTS, **recipe).texts
    assert [texts[n] for n in range(len(TEXTS))] == wanted


@pytest.mark.slow
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


@pytest.mark.parametrize("takes_turns", [True, False])
def test_views_turns_and_batches_give_the_same(long, monkeypatch, takes_turns):
    """One slot after another, over a part of the cache or all of it, and all slots in
    one program, as an accelerator has it; with and without an eye on the text."""
    monkeypatch.setattr(slot_table, "rows_cost_time", lambda model: takes_turns)
    monkeypatch.setattr(views, "ladder", lambda capacity: (64, 256, capacity))
    prompts = ["x = 1\n", "y = 2\n" * 20, "z = 3\n" * 60]
    engine = Engine(long, num_slots=2)
    engine.warm_up()
    programs = long.num_programs
    seen = []
    for number, prompt in enumerate([*prompts, *prompts]):
        watched = {"on_text": seen.append} if number >= len(prompts) else {}
        engine.submit(prompt, **watched)
    found = finish(engine)
    assert long.num_programs == programs
    whole = [long.generate(prompt, seed=[0]).tokens[0] for prompt in prompts]
    assert [found[number] for number in sorted(found)[-6:]] == [*whole, *whole]


def test_a_request_alone_comes_back_to_python_less_often(model, monkeypatch):
    """Where nobody looks at its text, once a block's time is known."""
    monkeypatch.setattr(slot_table, "LONGEST_TURN", 1e9)
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    list(engine.run(["x"]))
    engine.submit("x")
    (alone,) = engine.step()
    assert len(alone.tokens) > 2 * model.config.block_size
    engine.submit("x", on_text=lambda text: None)
    assert engine.step() == []
    assert finish(engine)[2] == alone.tokens


@pytest.mark.slow
def test_few_programs(model):
    """To admit, to prefill, and to go on with one or with all, whatever comes."""
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
    assert model.num_programs - before <= 4
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


def worked_off(engine) -> list[Completion]:
    found = []
    while engine.num_waiting or engine.num_running:
        found += engine.step()
    return sorted(found, key=lambda each: each.number)


def finish(engine) -> dict[int, list[int]]:
    return {c.number: c.tokens for c in worked_off(engine)}


def test_a_cancelled_request_gives_its_slot_back_and_changes_no_neighbour(model):
    seeds = range(4)
    whole = Engine(model, num_slots=2, max_prompt_tokens=16)
    for text, seed in zip(TEXTS, seeds, strict=False):
        whole.submit(text, seed=seed)
    wanted = finish(whole)

    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    for text, seed in zip(TEXTS, seeds, strict=False):
        engine.submit(text, seed=seed)
    early = {c.number: c.tokens for c in engine.step()}
    assert not early and engine.num_running == 2 and engine.num_waiting == 2
    assert engine.cancel(1)  # running
    assert engine.cancel(3)  # waiting
    assert engine.num_running == 1 and engine.num_waiting == 1
    engine.step()
    assert engine.num_running == 2 and engine.num_waiting == 0  # its slot is taken
    found = early | finish(engine)
    assert found == {n: wanted[n] for n in (0, 2)}
    assert not engine.cancel(1) and not engine.cancel(0)
    for number in (-1, 4):
        with pytest.raises(InputError, match="the request is"):
            engine.cancel(number)
    with pytest.raises(InputError, match="no request to cancel"):
        Engine(model, num_slots=1).cancel(0)


@pytest.mark.slow
def test_an_abandoned_run_leaves_nothing_behind(model):
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    wanted = {c.number: c.tokens for c in engine.run(TEXTS)}
    for completion in engine.run(TEXTS):
        assert completion.tokens == wanted[completion.number]
        break
    del completion
    assert engine.num_waiting == engine.num_running == 0
    assert {c.number: c.tokens for c in engine.run(TEXTS)} == wanted
    # A prompt at fault takes those before it along.
    with pytest.raises(InputError, match="the prompt is empty"):
        list(engine.run([*TEXTS, ""]))
    assert engine.num_waiting == engine.num_running == 0


@pytest.mark.slow
def test_runs_and_requests_side_by_side_get_their_own(model):
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    zeros = [0] * len(TEXTS)
    wanted = {c.number: c.tokens for c in engine.run(TEXTS, seed=zeros)}
    number = engine.submit(TEXTS[0])
    first, second = (
        engine.run(TEXTS[:count], seed=zeros[:count]) for count in (len(TEXTS), 3)
    )
    found, rest = ({c.number: c.tokens for c in [next(r)]} for r in (first, second))
    own = {c.number: c.tokens for c in engine.step()}
    rest |= {c.number: c.tokens for c in second}
    found = {c.number: c.tokens for c in first} | found
    own |= finish(engine) | {c.number: c.tokens for c in engine.step()}
    assert own == {number: own[number]} and own[number] == wanted[0]
    assert found == wanted and rest == {n: wanted[n] for n in range(3)}


@pytest.mark.slow
def test_a_failed_step_loses_no_request(model, monkeypatch):
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    wanted = [c.tokens for c in engine.run(TEXTS[:1], seed=[0])]
    program = type(model).program

    def failing(self, function, *arguments, **named):
        made, seconds = program(self, function, *arguments, **named)

        def fail(*given):
            made(*given)  # takes the slots' memory
            raise MemoryError

        return fail, seconds

    first = [engine.submit(text, seed=n) for n, text in enumerate(TEXTS[:4])][0]
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "program", failing)
        for _ in range(2):
            with pytest.raises(MemoryError):
                engine.step()
    found = finish(engine)
    assert sorted(found) == list(range(first, first + 4))
    assert found[first] == wanted[0]


@pytest.mark.slow
def test_a_seed_and_ids_outside_their_range_are_refused(model):
    engine = Engine(model, num_slots=1, max_prompt_tokens=8)
    for seed in (-1, 2**40):
        with pytest.raises(InputError, match="seed"):
            engine.submit("x", seed=seed)
    for prompt in ([-5], [999_999], [], ""):
        with pytest.raises(InputError, match="prompt"):
            engine.submit(prompt)
    assert engine.num_waiting == 0 and len(engine.step()) == 0
    assert [c.number for c in engine.run(["x"])] == [0]  # the slot is there


@pytest.mark.slow
def test_requests_with_temperatures_of_their_own(model):
    """As `generate` at each, whatever the neighbours have; 0 draws nothing."""
    engine = Engine(model, num_slots=4, max_prompt_tokens=16)
    temperatures = [None, 0.0, 0.5]
    for seed, temperature in enumerate(temperatures):
        engine.submit("x", temperature=temperature, seed=seed)
    found = {}
    while engine.num_waiting or engine.num_running:
        found |= {c.number: c.text for c in engine.step()}
    usual = model.sampler.temperature
    for seed, temperature in enumerate(temperatures):
        at = usual if temperature is None else temperature
        alone = model.generate("x", seed=[seed], temperature=at).texts[0]
        assert found[seed] == alone
    with pytest.raises(InputError, match="temperature is -1"):
        engine.submit("x", temperature=-1.0)
    drawn = Engine(model, num_slots=1, certainty_of="draw", max_prompt_tokens=16)
    with pytest.raises(InputError, match="requests all have temperature 1"):
        drawn.submit("x", temperature=0.5)


def test_requests_that_are_drawn_in_their_own_way(model):
    """Filters as `generate` has them; biases ban and force. The neighbours' change
    nothing."""
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    ways = [
        {"top_k": 3, "temperature": 2.0},
        {"top_p": 0.5, "temperature": 2.0},
        {"top_k": 40, "top_p": 0.8},
        {},
    ]
    for seed, way in enumerate(ways):
        engine.submit("x", seed=seed, **way)
    found = finish(engine)
    whole = [
        model.generate("x", seed=[seed], **way).tokens[0]
        for seed, way in enumerate(ways)
    ]
    assert [found[number] for number in range(4)] == whole
    free = model.generate("x", temperature=0.0).tokens[0]
    banned = {token: -100.0 for token in set(free)}
    bans = engine.submit("x", temperature=0.0, logit_bias=banned)
    forces = engine.submit("x", temperature=0.0, logit_bias={77: 1000.0})
    plain = engine.submit("x", temperature=0.0)
    found = finish(engine)
    assert not set(found[bans]) & set(free)
    assert set(found[forces]) == {77}
    assert found[plain] == free
    for bias, fault in (
        ({600: 1.0}, "an id of logit_bias is 600"),
        ({5: float("inf")}, "logit_bias of 5 is inf"),
        ({token: 1.0 for token in range(65)}, "has 65 ids"),
    ):
        with pytest.raises(InputError, match=fault):
            engine.submit("x", logit_bias=bias)
    with pytest.raises(InputError, match="top_p"):
        engine.submit("x", top_p=1.5)


def test_text_comes_block_by_block(model):
    """The pieces of `stream`."""
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    pieces = {}
    text = model.generate("import", seed=[1]).texts[0]
    stop = next(letter for letter in text[4:] if letter.isalnum() and letter.isascii())
    for seed, text in enumerate(PROMPTS):
        pieces[seed] = []
        engine.submit(text, seed=seed, stop=stop, on_text=pieces[seed].append)
    while engine.num_waiting or engine.num_running:
        engine.step()
    for seed, text in enumerate(PROMPTS):
        assert pieces[seed] == list(model.stream(text, seed=[seed], stop=stop))
    assert len(pieces[0]) > 1


@pytest.mark.representative("model")
@pytest.mark.parametrize("which", ["model", "causal"])
def test_steps_come_block_by_block(which, request):
    """Those of `generate`, of the requests that ask for them, in any slot."""
    model = request.getfixturevalue(which)
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    shown, texts = {}, {}
    for seed, text in enumerate(TEXTS[:4]):
        shown[seed] = []
        watches = {} if seed == 1 else {"on_block": shown[seed].extend}
        engine.submit(text, seed=seed, **watches)
    while engine.num_waiting or engine.num_running:
        texts |= {c.number: c.tokens for c in engine.step()}
    for seed, text in enumerate(TEXTS[:4]):
        alone = model.generate(text, seed=[seed], trace=True)
        assert texts[seed] == alone.tokens[0]
        steps = [dataclasses.replace(step, row=0) for step in shown[seed]]
        if seed == 1:
            assert not steps
            continue
        for mine, wanted in zip(steps, alone.trace, strict=True):
            assert mine.confidences == approx(wanted.confidences, abs=1e-4)
            mine = dataclasses.replace(mine, confidences=wanted.confidences)
            assert mine == wanted


@pytest.fixture(scope="module")
def long(model):
    """The same model with room for prompts of several pieces."""
    config = dataclasses.replace(model.config, max_positions=640)
    return Model(model.params, config, model.tokenizer, model.sampler)


def test_prompts_share_a_prefix_and_nothing_changes(long):
    """Bit for bit; also of a prompt that is all prefix, and from another slot."""
    draws = np.random.default_rng(0)
    prefix = draws.integers(8, 300, 400).tolist()
    prompts = [prefix, prefix + [9, 9], prefix[:300] + [7] * 40, prefix, [5] * 20]
    found = {}
    for reuse in (True, False):
        engine = Engine(long, num_slots=2, reuse_prefixes=reuse, logprobs=True)
        found[reuse] = [
            completion for prompt in prompts for completion in engine.run([prompt])
        ]
    for with_reuse, without in zip(found[True], found[False], strict=True):
        assert with_reuse.tokens == without.tokens
        assert with_reuse.logprobs == without.logprobs
    assert [c.cached_tokens for c in found[False]] == [0] * 5
    # Pieces have 192 columns, the first 8 of them padding.
    assert [c.cached_tokens for c in found[True]] == [0, 376, 184, 376, 0]
    # Two at once: one takes a prefix from the slot of the other.
    engine = Engine(long, num_slots=2)
    engine.submit(prefix, seed=1)
    assert not engine.step()  # its prompt is in the cache, and one block is there
    engine.submit(prefix + [9] * 9, seed=1)
    first, second = worked_off(engine)
    assert [first.cached_tokens, second.cached_tokens] == [0, 376]


def test_a_long_prompt_keeps_nobody_waiting(long):
    """It is prefilled piece by piece, between the blocks of its neighbour."""
    engine = Engine(long, num_slots=2)
    pieces: list[str] = []
    engine.submit("x", seed=1, on_text=pieces.append)
    engine.step()
    text = "for i in range(3):\n    print(i)\n" * 20
    assert 400 < len(long.prompt_ids(text)) <= engine.max_prompt_tokens
    second = engine.submit(text, seed=2)
    steps = 1
    while not (finished := engine.step()):
        steps += 1
    assert [c.number for c in finished] == [0] and steps == 2  # as when alone
    assert "".join(pieces) == long.generate("x", seed=[1]).texts[0]
    assert finish(engine)[second] == long.generate(text, seed=[2]).tokens[0]


def test_a_client_with_many_requests_leaves_room_for_others(model):
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    many = [engine.submit("x", seed=n, client="a") for n in range(5)]
    one = engine.submit("y", client="b")
    finished = []
    while engine.num_waiting or engine.num_running:
        finished += [c.number for c in engine.step()]
    assert finished[:2] == [many[0], one] or finished[:2] == [one, many[0]]
    assert [n for n in finished if n != one] == many


def test_a_request_with_a_deadline_ends_with_its_block(model):
    engine = Engine(model, num_slots=2, max_prompt_tokens=16)
    late = engine.submit("x", seed=1, max_seconds=0.0)
    whole = engine.submit("x", seed=1)
    first, *others = engine.step()
    assert first.number == late and first.finish_reason == "length"
    rest = ({c.number: c.tokens for c in others} | finish(engine))[whole]
    assert 0 < len(first.tokens) < len(rest)
    assert rest[: len(first.tokens)] == first.tokens
