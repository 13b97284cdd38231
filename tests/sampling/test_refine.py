"""What happens in a step beside accepting: revision, guidance, constraints."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from python_loop import logits_of

from seedjax.errors import InputError
from seedjax.sampling import loop, trace
from seedjax.sampling.canvas import forced_array, prompt_canvas, with_forced
from seedjax.sampling.grammar.decode import Automaton
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.refine import (
    OpenColumns,
    Refinement,
    masked_positions,
    needs_step,
)
from seedjax.sampling.revision import LevenshteinEdits, Remask, Revoke, TokenEdits
from seedjax.sampling.stopping import IgnoreEos, StopAtEos

PLAIN = SamplerConfig(
    max_new_tokens=14, policy=ConfidenceThreshold(threshold=0.3), eos=IgnoreEos()
)
EDITED = dataclasses.replace(
    PLAIN, revision=TokenEdits(threshold=0.25, extra_steps=2), trace=True
)
RECIPES = {
    "edits": EDITED,
    "revoke": dataclasses.replace(PLAIN, revision=Revoke(threshold=0.3, extra_steps=3)),
    "remask": dataclasses.replace(
        PLAIN, revision=Remask(cap=0.4, extra_steps=3), temperature=1.0
    ),
    "levenshtein": dataclasses.replace(
        PLAIN,
        revision=LevenshteinEdits(
            delete_token_id=40,
            insert_token_id=41,
            threshold=0.5,
            delete_threshold=0.0,
            insert_threshold=0.0,
            extra_steps=4,
        ),
    ),
}


def allowed(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits[:, :4] = -np.inf  # mask, padding, beginning, end
    return logits


def probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def edit_row(params, config, prompt: list[int]) -> tuple[list[int], int]:
    """Threshold 0.3, edits at 0.25, two extra steps; each looks at the whole text."""
    size, begin, end = config.block_size, len(prompt), len(prompt) + 14
    tokens, steps = list(prompt), 0
    for start in range(begin // size * size, end, size):
        tokens += [0] * (start + size - len(tokens))
        hole = range(max(start, begin), start + size)
        step, extra, changed = 0, 0, True
        while step < size + 2:
            waiting = [i for i in hole if tokens[i] == 0]
            if not waiting and not (changed and extra < 2):
                break
            said = probabilities(allowed(logits_of(params, config, tokens)))
            before = list(tokens)
            for i in hole:
                best = int(said[i].argmax())
                if i in waiting:
                    surest = max(waiting, key=lambda j: (said[j].max(), -j))
                    last = step == size + 1
                    if said[i, best] >= 0.3 or i == surest or last:
                        tokens[i] = best
                elif said[i, best] >= 0.25:
                    tokens[i] = best
            extra += not waiting
            changed = tokens != before
            step += 1
        steps += step
    return tokens[begin:end], steps


@pytest.mark.slow
def test_edits_equal_a_python_loop(params, config, prompts, decode):
    canvas, answer, rows = decode(prompts, EDITED)
    for row, prompt in enumerate(prompts):
        wanted, steps = edit_row(params, config, prompt)
        assert rows[row] == wanted, f"row {row}"
        assert answer.steps[row] == steps
    _, plain, others = decode(prompts, PLAIN)
    assert rows != others and answer.steps.sum() > plain.steps.sum()
    # The record tells of a position more than once, and still ends with the answer.
    said = trace.read_trace(canvas, answer.trace, config.block_size)
    places = [(s.row, p) for s in said for p in s.positions]
    assert len(places) > len(set(places))
    for row, wanted in enumerate(rows):
        assert trace.replay(said, config.eos_token_ids, row=row) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_row_does_not_depend_on_its_batch(prompts, decode, config, name):
    recipe = dataclasses.replace(RECIPES[name], trace=False)
    keys = loop.row_keys(jax.random.key(0), 12)
    _, answer, rows = decode(prompts, recipe)
    for row in (2, 9):
        _, alone, (tokens,) = decode(
            prompts[row : row + 1], recipe, keys=keys[row : row + 1]
        )
        assert tokens == rows[row]
        assert alone.steps[0] == answer.steps[row]
    plain = dataclasses.replace(recipe, revision=None)
    assert decode(prompts, plain)[2] != rows
    # Whatever was masked again or shifted, every answer is whole in the end.
    assert {len(row) for row in rows} == {14}
    special = {config.mask_token_id, 1, 2, 40, 41}
    assert name != "levenshtein" or not special & {t for row in rows for t in row}


def test_guidance_moves_away_from_what_is_said_without_the_prompt(
    params, config, prompts
):
    recipe = dataclasses.replace(
        PLAIN, guidance=1.5, policy=FixedCount(steps_per_block=4)
    )
    canvas = prompt_canvas(prompts[4:8], config, recipe)
    keys = loop.row_keys(jax.random.key(0), 4)
    answer = tiny.generate(params, config, recipe, canvas, keys)
    rows = loop.new_tokens(answer)
    for prompt, row in zip(prompts[4:8], rows, strict=True):
        begin, end = len(prompt), len(prompt) + 14
        tokens = list(prompt)
        for start in range(begin // 4 * 4, end, 4):
            tokens += [0] * (start + 4 - len(tokens))
            hole = range(max(start, begin), min(start + 4, end))
            while waiting := [i for i in hole if tokens[i] == 0]:
                given = logits_of(params, config, tokens)
                free = logits_of(params, config, [0] * begin + tokens[begin:])
                said = probabilities(allowed(free + 2.5 * (given - free)))
                surest = max(waiting, key=lambda j: (said[j].max(), -j))
                tokens[surest] = int(said[surest].argmax())
        assert row == tokens[begin:end]


# Ids 10 to 19 in pairs: (10 | 11) 20 any number of times, then the end.
CLASSES = np.zeros(64, np.int32)
CLASSES[[10, 11]], CLASSES[20], CLASSES[3] = 1, 2, 3
PAIRS = Automaton(
    classes=jnp.asarray(CLASSES),
    transitions=jnp.asarray([[-1, 1, -1, 2], [-1, -1, 0, -1], [2, 2, 2, 2]], jnp.int32),
    distance=jnp.asarray([0, 1, 0], jnp.int32),
)
CAUSAL = dataclasses.replace(tiny.CONFIG, attention="causal", logit_alignment="shifted")


@pytest.mark.representative("1.0-block")
@pytest.mark.parametrize("config", [tiny.CONFIG, CAUSAL], ids=["block", "causal"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_have_the_form_that_is_asked(params, prompts, config, temperature):
    recipe = SamplerConfig(
        max_new_tokens=13,
        policy=ConfidenceThreshold(threshold=0.3),
        temperature=temperature,
    )
    canvas = prompt_canvas(prompts, config, recipe)._replace(automaton=PAIRS)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    answer = tiny.generate(params, config, recipe, canvas, keys)
    rows = loop.new_tokens(answer)
    for row in rows:
        text = " ".join(map(str, row))
        assert re.fullmatch(r"((10|11) 20 ?)*", text), text
    assert bool(answer.fits.all())
    # The odd budget leaves room for no half pair; the model is not asked for them.
    assert max(map(len, rows)) == 12 or min(map(len, rows)) < 12
    # A form that the budget has no room for is said to be missed.
    pair = PAIRS._replace(distance=jnp.asarray([99, 99, 0], jnp.int32))
    missed = tiny.generate(
        params, config, recipe, canvas._replace(automaton=pair), keys
    )
    assert not missed.fits.all() or not any(loop.new_tokens(missed))


def test_forced_tokens_stand(params, config, prompts):
    canvas = prompt_canvas(prompts, config, PLAIN)
    tokens = forced_array({0: 33, 7: 34}, config, budget=14, width=14)
    forced = with_forced(canvas, jnp.tile(tokens, (len(prompts), 1)), config)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    rows = loop.new_tokens(tiny.generate(params, config, PLAIN, forced, keys))
    assert {(row[0], row[7], len(row)) for row in rows} == {(33, 34, 14)}
    free = loop.new_tokens(tiny.generate(params, config, PLAIN, canvas, keys))
    assert [row[1:7] for row in rows] != [row[1:7] for row in free]
    for wrong in ({14: 5}, {-1: 5}, {0: 64}):
        with pytest.raises(InputError, match="give an integer from 0 to (13|63)"):
            forced_array(wrong, config, budget=14, width=14)


def test_recipes_from_json():
    for recipe in RECIPES.values():
        said = json.loads(json.dumps(dataclasses.asdict(recipe.revision)))
        said["kind"] = type(recipe.revision).__name__
        assert PLAIN.vary(revision=said) == dataclasses.replace(
            recipe, trace=PLAIN.trace, temperature=PLAIN.temperature
        )


def test_what_is_unmasked_behind_an_end_and_a_budget(config):
    """Six columns, a budget of five, an end in the second."""
    config = dataclasses.replace(config, block_size=6)
    current = jnp.asarray([[0, 3, 0, 0, 0, 0]])
    everything = jnp.ones((1, 6), bool)
    columns = OpenColumns(
        generation_mask=everything.at[0, 5].set(False),
        fill_mask=everything,
        given=~everything,
        new_index=jnp.arange(6, dtype=jnp.int32)[None],
        working=jnp.ones((1,), bool),
        keys=jax.random.split(jax.random.key(0), 1),
        turn=jnp.int32(0),
        num_masked=jnp.asarray([5], jnp.int32),
        constraint=None,
    )
    for fill, wanted in ((True, [1, 0, 1, 1, 1, 1]), (False, [1, 0, 0, 0, 0, 0])):
        got = masked_positions(current, columns, config, fill=fill)
        assert got.astype(int).tolist() == [wanted]

    def goes_on(tokens, **fields) -> bool:
        block = Refinement(
            current=jnp.asarray([tokens]),
            step=jnp.int32(1),
            row_steps=jnp.asarray([1], jnp.int32),
            extra=jnp.asarray([0], jnp.int32),
            changed=jnp.asarray([False]),
            active=jnp.asarray([True]),
            trace=None,
            confidence=None,
        )
        recipe = dataclasses.replace(PLAIN, **fields)
        return bool(needs_step(block, columns, config, recipe)[0])

    # What follows cannot change what is before the end, unless that may be revised.
    edits = {"revision": TokenEdits(extra_steps=2)}
    assert goes_on([0, 3, 0, 0, 0, 0]) and goes_on([7, 8, 9, 0, 7, 0])
    assert not goes_on([7, 3, 0, 0, 0, 0]) and not goes_on([7, 8, 9, 4, 7, 0])
    assert goes_on([7, 3, 0, 0, 0, 0], **edits)
    assert not goes_on([7, 3, 0, 0, 0, 0], **edits, eos=StopAtEos(fill=False))
