"""How to draft follows from what passes cost and what is accepted."""

import dataclasses
import functools

import jax
import pytest
import tiny

from seedjax.checkpoints import adapters
from seedjax.checkpoints.adapters import DraftFacts
from seedjax.checkpoints.model_directory import open_model, save_model
from seedjax.config import to_dict
from seedjax.inference import loading
from seedjax.inference.drafting import (
    ONE,
    Rows,
    best_speculation,
    candidates,
    choose,
    pass_costs,
)
from seedjax.nn import denoiser
from seedjax.nn.adapted import adapt, is_gated
from seedjax.nn.lora import LoRA, init_adapter
from seedjax.sampling.recipe import Speculation


def chosen(per_row: float, acceptance=()) -> Speculation | None:
    """With passes of 10 ms and `per_row` for each row but the first."""
    recipes = candidates(DraftFacts([*acceptance]))
    rows = {ONE} | {rows for _, rows, _ in recipes}
    return choose({r: 10.0 + per_row * (r.total - 1) for r in rows}, recipes)


def test_what_is_fastest_is_taken():
    loose = Speculation(draft_tokens=8, drafts="lookup", match_tokens=1)
    assert chosen(0.1) == loose
    assert chosen(3.0) == Speculation(draft_tokens=2, drafts="lookup")
    # As on a CPU on which a row costs nearly a pass.
    assert chosen(9.0) is None
    one_pass = functools.partial(Speculation, mode="one_pass")
    assert chosen(0.2, [0.9, 0.7]) == one_pass(draft_tokens=2)
    assert chosen(0.2, [0.7, 0.4]) == one_pass(draft_tokens=2, drafts="both")
    assert chosen(1.0, [0.9, 0.1]) == one_pass(draft_tokens=1)
    assert chosen(1.0, [0.5, 0.1]) == Speculation(draft_tokens=4, drafts="lookup")


@pytest.mark.slow
def test_costs_are_measured_on_the_model():
    config = dataclasses.replace(
        tiny.CONFIG, attention="causal", logit_alignment="shifted"
    )
    params = denoiser.init(jax.random.key(0), config)
    lora = LoRA(rank=2, merge=False, gated=True)
    gated = adapt(params, init_adapter(jax.random.key(1), params, lora), lora)
    passes = [ONE, Rows(2, 1), Rows(9)]
    assert [rows.total for rows in passes] == [1, 4, 9]
    for given in (params, gated):
        costs = pass_costs(given, config, passes)
        assert [*costs] == passes and min(costs.values()) > 0.0
    found = best_speculation(gated, config, DraftFacts([1.0]))
    assert found is None or isinstance(found, Speculation)


def test_a_bundled_adapter_drafts_for_its_weights(causal, tmp_path, monkeypatch):
    for name, factor in (("base", 1.0), ("further/base", 2.0), ("other", 1.0)):
        save_model(
            tmp_path / name,
            params=jax.tree.map(lambda x, by=factor: by * x, causal.params),
            denoiser=causal.config,
            tokenizer=causal.tokenizer,
            sampler=to_dict(causal.sampler),
            provenance={},
            card="",
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adapters, "bundled", lambda: tmp_path)
    assert adapters.bundled_drafts(open_model("base")) is None
    lora = LoRA(rank=2, merge=False, gated=True)
    adapters.save_adapter(
        "drafts",
        init_adapter(jax.random.key(1), causal.params, lora),
        lora,
        base="base",
        drafts=DraftFacts([0.5], 7),
        weights_dtype="bfloat16",
    )
    assert adapters.bundled_drafts(open_model("base")) == str(tmp_path / "drafts")
    for name in ("further/base", "other"):
        assert adapters.bundled_drafts(open_model(name)) is None

    taken = Speculation(draft_tokens=1, mode="one_pass", draft_token_id=7)
    given = []
    monkeypatch.setattr(
        loading, "best_speculation", lambda *of: given.append(of) or taken
    )
    model = loading.load("base", speculate=True)
    assert is_gated(model.params) and model.sampler.speculation == taken
    assert given[0][2] == DraftFacts([0.5], 7)
    assert not is_gated(loading.load("base").params)
    assert not is_gated(loading.load("further/base", speculate=True).params)
    assert given[1][2] == DraftFacts()
