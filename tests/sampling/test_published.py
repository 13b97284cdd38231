"""Every family's decode against a plain transcription of its published loop, over a
grid of settings, on a tiny random model in float32: answers of all rows, token for
token. A few cells are tried by default, all of them with `-m slow`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import published
import pytest
import tiny
from plain_network import Network
from published import Setting
from python_loop import logits_of

from seedjax.convert.families import FAMILIES
from seedjax.sampling import loop
from seedjax.sampling.candidates import KEY_OF_ORDER
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.policy import (
    AnyOf,
    ConfidenceThreshold,
    FixedCount,
    StochasticOrder,
    SubBlocks,
    TimeSchedule,
)
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.revision import TokenEdits
from seedjax.sampling.stopping import IgnoreEos
from seedjax.sampling.vocabulary import gumbel

ENDS = (3, *range(40, 50))  # many, so that answers end early
BLOCKS = dataclasses.replace(tiny.CONFIG, eos_token_ids=ENDS)
FREE = dataclasses.replace(BLOCKS, attention="bidirectional")
SHIFTED = dataclasses.replace(FREE, logit_alignment="shifted")
SHIFTED_BLOCKS = dataclasses.replace(BLOCKS, logit_alignment="shifted", block_size=8)
LATE = (3, 41)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A setting of a family: our recipe for a model, and the published loop's."""

    family: str
    config: Any
    recipe: SamplerConfig
    loop: Callable[..., list[int]]
    given: dict[str, Any]
    quick: bool = False

    @property
    def name(self) -> str:
        words = [f"{name}={value}" for name, value in self.given.items()]
        recipe = self.recipe
        words += [f"new={recipe.max_new_tokens}", f"temperature={recipe.temperature}"]
        words += [f"top_p={recipe.top_p}"] if recipe.top_p < 1 else []
        words += ["ends=ignored"] if isinstance(recipe.eos, IgnoreEos) else []
        return "-".join([self.family, *words]).replace(" ", "")


def kinds_of_draws() -> list[tuple[float, Any]]:
    """Temperatures, and what ends are."""
    stops = SamplerConfig().eos
    return [(0.0, stops), (0.7, stops), (0.0, IgnoreEos())]


def llada_cells() -> Iterator[Cell]:
    def cell(size, steps, policy, given, **fields):
        quick = fields.pop("quick", False)
        recipe = SamplerConfig(
            context=fields.pop("context", "canvas"),
            block_size=size,
            max_new_tokens=24,
            policy=policy,
            **fields,
        )
        given = {"block_length": size, "steps": steps * (24 // size), **given}
        return Cell(
            family="llada",
            config=FREE,
            recipe=recipe,
            loop=published.llada,
            given=given,
            quick=quick,
        )

    counted = [(24, 24), (24, 9), (12, 12), (12, 5), (8, 8), (8, 3), (4, 4), (4, 3)]
    for (size, steps), (heat, eos) in itertools.product(counted, kinds_of_draws()):
        policy = FixedCount(steps_per_block=steps, of="masked")
        quick = (size, steps, heat, eos) == (12, 5, 0.0, SamplerConfig().eos)
        yield cell(size, steps, policy, {}, temperature=heat, eos=eos, quick=quick)
    for (size, steps), scale in itertools.product(counted[1:6:2], (0.5, 1.5)):
        policy = FixedCount(steps_per_block=steps)
        yield cell(size, steps, policy, {"guidance": scale}, guidance=scale)
    for (size, steps), heat in itertools.product(counted[1:6:2], (0.0, 0.7)):
        policy = FixedCount(steps_per_block=steps)
        late = {"late": LATE}
        yield cell(
            size,
            steps,
            policy,
            late,
            last_token_ids=LATE,
            temperature=heat,
            quick=(size, heat) == (8, 0.0),
        )
    for size, sure in itertools.product((24, 8, 4), (0.05, 0.3, 0.9)):
        policy = ConfidenceThreshold(threshold=sure)
        yield cell(size, size, policy, {"threshold": sure})
    for size, sure, kind in itertools.product(
        (24, 8, 4), (None, 0.3), ("prefix", "dual")
    ):
        policy = ConfidenceThreshold(threshold=0.3)
        if sure is None:
            policy = FixedCount(steps_per_block=3)
        given = {"threshold": sure, "cache": kind}
        context = f"canvas_{kind}_cache"
        quick = (size, sure, kind) == (8, 0.3, "prefix")
        yield cell(size, 3, policy, given, context=context, quick=quick)


def dream_cells() -> Iterator[Cell]:
    def cell(steps, alg, policy, given, **fields):
        quick = fields.pop("quick", False)
        recipe = SamplerConfig(
            context="canvas",
            block_size="answer",
            policy=policy,
            certainty_of="draw",
            **fields,
        )
        return Cell(
            family="dream",
            config=SHIFTED,
            recipe=recipe,
            loop=published.dream,
            given={"steps": steps, "alg": alg, **given},
            quick=quick,
        )

    by = {
        "entropy": "entropy",
        "maskgit_plus": "confidence",
        "topk_margin": "margin",
        "origin": "chance",
    }
    drawn = ((0.0, 1.0), (0.0, 0.8), (0.2, 0.95), (1.0, 0.9))
    settings = itertools.product(by, (8, 24), (24,), drawn)
    for alg, steps, count, (heat, share) in settings:
        policy = TimeSchedule(steps_per_block=steps, by=by[alg])
        fields = {"temperature": heat, "top_p": share, "max_new_tokens": count}
        yield cell(
            steps,
            alg,
            policy,
            {},
            **fields,
            quick=(steps, count, heat) == (8, 24, 0.2) and alg in ("entropy", "origin"),
        )
    for steps, eos in itertools.product((5, 24), (SamplerConfig().eos, IgnoreEos())):
        policy = TimeSchedule(steps_per_block=steps, eps=0.1)
        yield cell(steps, "entropy", policy, {"eps": 0.1}, max_new_tokens=20, eos=eos)
    for steps in (5, 24):
        policy = TimeSchedule(steps_per_block=steps)
        mixed = StochasticOrder(policy=policy, temperature=0.5)
        yield cell(steps, "entropy", mixed, {"alg_temp": 0.5}, max_new_tokens=20)


def dream_cached_cells() -> Iterator[Cell]:
    for size, sure, kind, heat in itertools.product(
        (8, 4), (0.05, 0.3, 0.9), ("prefix", "dual"), (0.0, 0.7)
    ):
        yield Cell(
            family="dream-cached",
            config=SHIFTED,
            recipe=SamplerConfig(
                context=f"canvas_{kind}_cache",
                block_size=size,
                max_new_tokens=24,
                policy=SubBlocks(policy=ConfidenceThreshold(threshold=sure), size=size),
                temperature=heat,
            ),
            loop=published.dream_cached,
            given={"block_length": size, "threshold": sure, "cache": kind},
            quick=(size, sure, kind, heat) == (8, 0.3, "dual", 0.0),
        )


def diffcoder_cells() -> Iterator[Cell]:
    for steps, count, (heat, eos), sure in itertools.product(
        (1, 2, 3, 4), (16,), kinds_of_draws(), (None, 0.3)
    ):
        policy = FixedCount(steps_per_block=steps, of="masked")
        if sure is not None:
            policy = ConfidenceThreshold(threshold=sure)
            if steps != 4:
                continue
        yield Cell(
            family="stable-diffcoder",
            config=BLOCKS,
            recipe=SamplerConfig(
                max_new_tokens=count,
                policy=policy,
                temperature=heat,
                eos=eos,
                last_block="cut",
            ),
            loop=published.diffcoder,
            given={"block_length": 4, "steps": steps, "threshold": sure},
            quick=(steps, count, heat, sure, eos)
            == (3, 16, 0.0, None, SamplerConfig().eos),
        )


def sdar_cells() -> Iterator[Cell]:
    strategies = ("low_confidence_static", "low_confidence_dynamic", "sequential")
    sizes = ((4, 4), (4, 3), (8, 5), (8, 3))
    stops = SamplerConfig().eos
    draws = (
        (14, 0.0, 1.0, stops),
        (14, 0.0, 0.8, IgnoreEos()),
        (14, 1.0, 1.0, stops),
        (24, 0.7, 0.9, stops),
    )
    settings = itertools.product(sizes, strategies, draws)
    for (size, steps), strategy, (count, heat, share, eos) in settings:
        policy = FixedCount(steps_per_block=steps)
        if strategy == "low_confidence_dynamic":
            policy = AnyOf(policies=(policy, ConfidenceThreshold(threshold=0.3)))
        if strategy == "sequential":
            policy = dataclasses.replace(policy, by="left")
        quick = (size, steps, count, heat) == (4, 3, 14, 0.0)
        yield Cell(
            family="sdar",
            config=dataclasses.replace(BLOCKS, block_size=size),
            recipe=SamplerConfig(
                max_new_tokens=count,
                policy=policy,
                temperature=heat,
                top_p=share,
                certainty_of="draw",
                eos=eos,
            ),
            loop=published.sdar,
            given={
                "block_length": size,
                "steps": steps,
                "strategy": strategy,
                "threshold": 0.3,
            },
            quick=quick and strategy != "sequential" and not isinstance(eos, IgnoreEos),
        )


def llada2_cells() -> Iterator[Cell]:
    def cell(policy, given, size, **fields):
        quick = fields.pop("quick", False)
        return Cell(
            family="llada2",
            config=dataclasses.replace(BLOCKS, block_size=size),
            recipe=SamplerConfig(policy=policy, **fields),
            loop=published.llada2,
            given={"block_length": size, **given},
            quick=quick,
        )

    eos, ignored = SamplerConfig().eos, IgnoreEos()
    budgets = ((14, eos), (24, eos), (14, ignored))
    settings = itertools.product((4, 8), (0.1, 0.4), budgets)
    for size, sure, (count, eos) in settings:
        threshold = ConfidenceThreshold(threshold=sure)
        given = {"threshold": sure}
        yield cell(threshold, given, size, max_new_tokens=count, eos=eos)
        steps = 3
        policy = AnyOf(policies=(FixedCount(steps_per_block=steps), threshold))
        given = {"threshold": sure, "steps": steps}
        yield cell(policy, given, size, max_new_tokens=count, eos=eos)
        for editing in (0.0, 0.2, 0.5) if count == 14 else (0.2,):
            given = {"threshold": sure, "editing": editing, "post_steps": 4}
            yield cell(
                threshold,
                given,
                size,
                max_new_tokens=count,
                eos=eos,
                revision=TokenEdits(threshold=editing, extra_steps=4),
                quick=(size, sure, count, editing) == (8, 0.4, 14, 0.2)
                and not isinstance(eos, IgnoreEos),
            )


def fast_dllm_v2_cells() -> Iterator[Cell]:
    eos, ignored = SamplerConfig().eos, IgnoreEos()
    budgets = ((14, eos), (24, eos), (14, ignored))
    settings = itertools.product((2, 4, 8), (0.05, 0.3), budgets)
    for part, sure, (count, eos) in settings:
        yield Cell(
            family="fast-dllm-v2",
            config=SHIFTED_BLOCKS,
            recipe=SamplerConfig(
                max_new_tokens=count,
                policy=SubBlocks(policy=ConfidenceThreshold(threshold=sure), size=part),
                eos=eos,
            ),
            loop=published.fast_dllm_v2,
            given={"block_length": 8, "part": part, "threshold": sure},
            quick=(part, sure, count) == (4, 0.3, 14)
            and not isinstance(eos, IgnoreEos),
        )


CELLS = [
    *llada_cells(),
    *dream_cells(),
    *dream_cached_cells(),
    *diffcoder_cells(),
    *sdar_cells(),
    *llada2_cells(),
    *fast_dllm_v2_cells(),
]


def step_key(key, block: int, step: int):
    return jax.random.fold_in(jax.random.fold_in(key, block), step)


@functools.partial(jax.jit, static_argnums=(3, 4))
def noise_of(key, block, step, size: int, num_ids: int):
    return gumbel(step_key(key, block, step)[None], 0, (1, size, num_ids))[0]


@functools.partial(jax.jit, static_argnums=(2, 3))
def chance_of(key, step, count: int, draw):
    return draw(jax.random.fold_in(step_key(key, 0, step), KEY_OF_ORDER), (count,))


def published_answer(params, cell: Cell, prompt: list[int], key) -> list[int]:
    config, recipe = cell.config, cell.recipe
    size = recipe.tokens_per_block(config)

    def noise(block: int, step: int, columns: range, num_ids: int) -> np.ndarray:
        shape = (columns.stop - columns.start, num_ids)
        if recipe.temperature == 0.0:
            return np.zeros(shape)
        drawn = noise_of(key, block, step, size, num_ids)
        return np.asarray(drawn)[columns.start : columns.stop]

    def chance(step: int, count: int) -> np.ndarray:
        draw = jax.random.gumbel if "alg_temp" in cell.given else jax.random.uniform
        return np.asarray(chance_of(key, step, count, draw))

    never = recipe.banned_ids(config)
    if isinstance(recipe.eos, IgnoreEos):
        never = (*never, *config.eos_token_ids)
    setting = Setting(
        mask=config.mask_token_id,
        ends=config.eos_token_ids,
        never=never,
        shifted=config.logit_alignment == "shifted",
        temperature=recipe.temperature,
        noise=noise,
        top_p=recipe.top_p,
        count=recipe.max_new_tokens,
    )
    see: Any = functools.partial(logits_of, params, config)
    given = dict(cell.given)
    cached = Network(params, config).logits
    if cell.loop is published.dream_cached:
        see = cached
    elif "cache" in given:
        given["cached"] = cached
    if cell.loop is published.dream:
        given["chance"] = chance
    return cell.loop(see, prompt, setting, **given)


def compared(params, prompts, cell: Cell) -> tuple[list[list[int]], list[list[int]]]:
    """Our answers, and the published loop's."""
    canvas = prompt_canvas(prompts, cell.config, cell.recipe)
    keys = loop.row_keys(jax.random.key(5), len(prompts))
    answer = tiny.generate(params, cell.config, cell.recipe, canvas, keys)
    wanted = [
        published_answer(params, cell, prompt, key)
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    return loop.new_tokens(answer), wanted


DECODED = {
    "llada": {"llada", "llada-moe", "illada"},
    "dream": {"dream"},
    "stable-diffcoder": {"stable-diffcoder"},
    "sdar": {"sdar", "sdar-moe"},
    "llada2": {"llada2", "llada2.1"},
    "fast-dllm-v2": {"fast-dllm-v2"},
}


def test_families_that_are_shown_by_decode_are_here():
    """Those that are autoregressive are compared with transformers."""
    shown = {
        family.name
        for family in FAMILIES.values()
        if "decode" in family.proof and family.denoiser.get("attention") != "causal"
    }
    assert shown == set().union(*DECODED.values())
    assert {cell.family for cell in CELLS} == {*DECODED, "dream-cached"}


def test_default_recipes_are_cells_of_the_grid():
    """With other numbers: the same strategies, and fields that change them."""

    def kind(recipe: SamplerConfig) -> tuple[Any, ...]:
        policy = recipe.policy
        inner = getattr(policy, "policies", ()) or (getattr(policy, "policy", None),)
        return (
            type(policy),
            tuple(type(part) for part in inner),
            getattr(policy, "of", None),
            getattr(policy, "by", None),
            recipe.context,
            recipe.block_size,
            recipe.last_block,
            type(recipe.revision),
            recipe.temperature > 0,
            recipe.top_p < 1,
        )

    for name, families in DECODED.items():
        tried = {kind(cell.recipe) for cell in CELLS if cell.family == name}
        for family in families:
            published_recipe = SamplerConfig().vary(**FAMILIES[family].sampler)
            whole = dataclasses.replace(published_recipe, block_size=None)
            grids = {k[:5] + (None, *k[6:]) for k in tried}
            assert kind(published_recipe) in tried or kind(whole) in grids, family


@pytest.fixture(scope="module")
def some(prompts):
    """Lengths 1, 2, 3, 4, 7, 8, 10 and 12: every place in a block."""
    return [prompts[n - 1] for n in (1, 2, 3, 4, 7, 8, 10, 12)]


@pytest.mark.representative(
    "llada2-block_length=8-threshold=0.4-editing=0.2-post_steps=4-new=14-temperature=0.0",
    "stable-diffcoder-block_length=4-steps=3-threshold=None-new=16-temperature=0.0",
    "llada-block_length=12-steps=10-new=24-temperature=0.0",
    "sdar-block_length=4-steps=3-strategy=low_confidence_dynamic-threshold=0.3-new=14-temperature=0.0",
)
@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=cell.name, marks=() if cell.quick else pytest.mark.slow)
        for cell in CELLS
    ],
)
def test_equals_the_published_loop(params, some, cell):
    got, wanted = compared(params, some, cell)
    assert got == wanted
    # The comparison means something: rows differ and, if they may, end early.
    assert len({tuple(row) for row in wanted}) > 3
    lengths = {len(row) for row in wanted}
    ended = lengths - {cell.recipe.max_new_tokens}
    assert bool(ended) != isinstance(cell.recipe.eos, IgnoreEos)


if __name__ == "__main__":
    # The table of docs/results/parity.md: rows that are equal, of rows, a family.
    rows = [np.random.default_rng(n).integers(4, 64, n).tolist() for n in range(1, 13)]
    chosen = [rows[n - 1] for n in (1, 2, 3, 4, 7, 8, 10, 12)]
    weights, table = tiny.init_params(), {}
    for each in CELLS:
        ours, theirs = compared(weights, chosen, each)
        equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
        known = table.get(each.family, (0, 0, 0))
        table[each.family] = known[0] + 1, known[1] + equal, known[2] + len(ours)
        if equal < len(ours):
            print(each.name, f"{equal} of {len(ours)}")
    for family, (cells, equal, count) in table.items():
        print(f"| {family} | {cells} | {equal} of {count} |")
