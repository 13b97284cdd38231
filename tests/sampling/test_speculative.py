"""Drafted in parallel, checked one by one: the answer is the autoregressive one."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from seedjax.errors import InputError
from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.recipe import SamplerConfig, Speculation
from seedjax.sampling.stopping import IgnoreEos, StopAtEos

SHIFTED = dataclasses.replace(tiny.CONFIG, logit_alignment="shifted")
CAUSAL = dataclasses.replace(SHIFTED, attention="causal")
PLAIN = SamplerConfig(max_new_tokens=14)
DRAFTED = dataclasses.replace(PLAIN, speculation=Speculation(draft_tokens=3))


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
    # Alone as in a batch.
    assert run(repetitive, SHIFTED, recipe, prompts[6:7])[1] == wanted[6:7]


def test_faults(params, prompts):
    for config, recipe, match in [
        (tiny.CONFIG, DRAFTED, "speculation takes a model with shifted logits"),
        (SHIFTED, dataclasses.replace(DRAFTED, temperature=1.0), "for temperature 0"),
        (SHIFTED, dataclasses.replace(DRAFTED, trace=True), "keeps no trace"),
    ]:
        with pytest.raises(InputError, match=match):
            run(params, config, recipe, prompts[:1])
    with pytest.raises(InputError, match="draft_tokens"):
        Speculation(draft_tokens=0)
