"""Drafted, and checked in one pass: the completion is the autoregressive one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from seedjax.errors import InputError
from seedjax.nn.adapted import adapt
from seedjax.nn.lora import LoRA, Pair, init_adapter
from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.lookup import look_up
from seedjax.sampling.recipe import SamplerConfig, Speculation
from seedjax.sampling.stopping import IgnoreEos, StopAtEos

SHIFTED = dataclasses.replace(tiny.CONFIG, logit_alignment="shifted")
CAUSAL = dataclasses.replace(SHIFTED, attention="causal")
PLAIN = SamplerConfig(max_new_tokens=14)
DRAFTED = dataclasses.replace(PLAIN, speculation=Speculation(draft_tokens=3))
LOOKUP = Speculation(draft_tokens=3, drafts="lookup")
ONE_PASS = Speculation(draft_tokens=2, mode="one_pass")


def run(params, config, recipe, prompts):
    canvas = prompt_canvas(prompts, config, recipe)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    answer = tiny.generate(params, config, recipe, canvas, keys)
    return answer, loop.new_tokens(answer)


@pytest.fixture(scope="module")
def repetitive(params):
    """Weights with which drafts are sometimes right: the mask looks like a frequent
    token."""
    table = params["embedding"]
    return params | {"embedding": table.at[0].set(table[5]).at[3].multiply(1.5)}


@pytest.fixture(scope="module")
def gated(repetitive):
    """The same with an adapter that changes drafts."""
    config = LoRA(rank=2, alpha=2.0, merge=False, gated=True)
    drawn = init_adapter(jax.random.key(1), repetitive, config)
    up = {name: jnp.full_like(pair.up, 0.1) for name, pair in drawn.items()}
    adapter = {name: Pair(pair.down, up[name]) for name, pair in drawn.items()}
    return adapt(repetitive, adapter, config)


@pytest.mark.representative("eos0")
@pytest.mark.parametrize("eos", [StopAtEos(min_new_tokens=2), IgnoreEos()])
def test_equals_the_autoregressive_sampler(repetitive, prompts, eos):
    plain = dataclasses.replace(PLAIN, eos=eos)
    _, wanted = run(repetitive, CAUSAL, plain, prompts)
    recipe = dataclasses.replace(DRAFTED, eos=eos)
    answer, rows = run(repetitive, SHIFTED, recipe, prompts)
    assert rows == wanted
    ends = isinstance(eos, StopAtEos)
    assert (len({len(row) for row in rows}) > 1) == ends
    assert answer.forwards == 2 * max(answer.steps) + 1
    # Some drafts are right, others are not.
    lengths = np.array([min(len(row) + 1, 14) if ends else 14 for row in rows])
    assert (answer.steps < lengths).any() and (answer.steps * 4 > lengths).any()


@pytest.mark.representative("one_pass-cold")
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["cold", "warm"])
@pytest.mark.parametrize(
    "speculation",
    [ONE_PASS, LOOKUP, dataclasses.replace(ONE_PASS, drafts="both")],
    ids=["one_pass", "lookup", "both"],
)
def test_drafts_change_no_token(gated, prompts, speculation, temperature):
    """Not even where tokens are drawn: they are drawn with the same noise."""
    given = [[*prompt, *prompt][:16] for prompt in prompts]
    warm = {"temperature": temperature, "eos": IgnoreEos()}
    _, wanted = run(gated, CAUSAL, dataclasses.replace(PLAIN, **warm), given)
    recipe = dataclasses.replace(PLAIN, speculation=speculation, **warm)
    answer, rows = run(gated, CAUSAL, recipe, given)
    assert rows == wanted
    assert answer.forwards == max(answer.steps) + 1
    if temperature == 0.0:
        assert min(answer.steps) < 14


def test_look_up():
    """The longest match counts, and of equal ones the last; a text in its own row."""
    tokens = jnp.array(
        [[9, 1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3, 0, 0], [7, 6, 5, 4] + [0] * 10]
    )
    present = jnp.ones(tokens.shape, bool).at[0, 0].set(False)
    found = look_up(tokens, present, jnp.array([12, 4]), 3, shortest=2, none=0)
    assert found.tokens.tolist() == [[4, 8, 2], [0, 0, 0]]
    assert found.exists.tolist() == [True, False]
    # One token that agrees is a match where the recipe says so.
    one = look_up(tokens, present, jnp.array([9, 4]), 2, shortest=1, none=0)
    assert one.exists.tolist() == [False, False]
    one = look_up(tokens, present, jnp.array([8, 4]), 2, shortest=1, none=0)
    assert one.tokens[0].tolist() == [4, 8]
    # Padding is no text.
    found = look_up(
        tokens, present.at[0, 1].set(False), jnp.array([12, 4]), 5, shortest=2, none=0
    )
    assert found.tokens[0].tolist() == [5, 1, 2, 3, 0]


def test_faults(params, prompts):
    for config, recipe, match in [
        (tiny.CONFIG, DRAFTED, "speculation takes a model with shifted logits"),
        (SHIFTED, dataclasses.replace(DRAFTED, trace=True), "keeps no trace"),
    ]:
        with pytest.raises(InputError, match=match):
            run(params, config, recipe, prompts[:1])
    with pytest.raises(InputError, match="match_tokens is 5.*from 1 to 4"):
        Speculation(match_tokens=5)
    with pytest.raises(InputError, match="draft_tokens"):
        Speculation(draft_tokens=0)
