"""The compiled block sampler: equal to a plain Python loop, with and without cache,
alone and in a batch, on one device and on eight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from python_loop import decode_row
from tiny import STATIC

from seedjax.nn import denoiser
from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas, span_canvas
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import IgnoreEos, StopAtEos
from seedjax.sharding import batch_sharding, make_mesh, tree_shardings

# A threshold in the middle of this model's confidences.
UNSURE = ConfidenceThreshold(threshold=0.3)
GREEDY = SamplerConfig(max_new_tokens=14, policy=UNSURE)
DRAWN = dataclasses.replace(GREEDY, temperature=1.0)


@pytest.mark.representative("drawn")
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        (GREEDY, {}),
        (dataclasses.replace(DRAWN, eos=StopAtEos(min_new_tokens=6)), {}),
        (
            SamplerConfig(
                max_new_tokens=14,
                policy=FixedCount(steps_per_block=2),
                temperature=0.7,
                forbidden_token_ids=(60,),
                vocabulary_end=62,
            ),
            {},
        ),
        (
            SamplerConfig(
                max_new_tokens=13, policy=FixedCount(steps_per_block=3), eos=IgnoreEos()
            ),
            {},
        ),
        (dataclasses.replace(GREEDY, block_size=2), {}),
        (
            SamplerConfig(max_new_tokens=14, block_size=6, max_steps_per_block=3),
            {"attention": "bidirectional"},
        ),
        (DRAWN, {"logit_alignment": "shifted"}),
        (
            dataclasses.replace(GREEDY, cache=False),
            {"attention": "bidirectional", "logit_alignment": "shifted"},
        ),
    ],
    ids=[
        *("threshold", "drawn", "count", "ignore_eos", "halves", "free"),
        *("shifted", "shifted_free"),
    ],
)
def test_equals_a_python_loop(params, config, prompts, decode, recipe, changes):
    config = dataclasses.replace(config, **changes)
    canvas, answer, rows = decode(prompts, recipe, config=config)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    steps_of_rows = []
    for row, prompt in enumerate(prompts):
        wanted, steps = decode_row(params, config, recipe, prompt, keys[row])
        assert rows[row] == wanted, f"row {row}"
        assert answer.lengths[row] == len(wanted)
        assert answer.steps[row] == sum(steps)
        steps_of_rows.append(steps)
    # The batch works on a block as long as its slowest row; one prefill, no commits.
    slowest = np.zeros((len(prompts), 10), int)
    for row, steps in enumerate(steps_of_rows):
        slowest[row, : len(steps)] = steps
    assert answer.forwards == recipe.cache + slowest.max(axis=0).sum()
    # The test can fail: rows differ, and so do the numbers of their steps.
    assert len({tuple(row) for row in rows}) > 6
    assert len(set(answer.steps.tolist())) > 1 or isinstance(recipe.eos, IgnoreEos)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_row_does_not_depend_on_its_batch(prompts, decode, recipe):
    rows = eight_rows(prompts)
    canvas, answer, together = decode(rows, recipe, keys=key_of(slice(0, 8)))
    assert canvas.num_prefix_columns == 16
    for row in range(7):
        alone_canvas, alone, (tokens,) = decode(
            [rows[row]], recipe, keys=key_of(slice(row, row + 1))
        )
        assert alone_canvas.num_prefix_columns == 8
        assert tokens == together[row]
        assert alone.steps[0] == answer.steps[row]
        assert alone.forwards == alone.steps[0]  # no prefill: no block is finished


def eight_rows(prompts):
    """The longest forces padding on the others."""
    return [*prompts[:7], prompts[11]]


def key_of(rows: slice):
    return loop.row_keys(jax.random.key(3), 8)[rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "alignment"),
    [(GREEDY, "same_position"), (DRAWN, "same_position"), (GREEDY, "shifted")],
    ids=["greedy", "drawn", "shifted"],
)
def test_the_cache_changes_nothing(config, prompts, decode, recipe, alignment):
    config = dataclasses.replace(config, logit_alignment=alignment)
    _, cached, with_cache = decode(prompts, recipe, config=config)
    _, plain, without = decode(
        prompts, dataclasses.replace(recipe, cache=False), config=config
    )
    assert with_cache == without
    np.testing.assert_array_equal(cached.steps, plain.steps)
    assert cached.forwards == plain.forwards + 1  # the prefill


@pytest.mark.slow
def test_the_key_is_all_the_chance_there_is(prompts, decode):
    _, _, first = decode(prompts, DRAWN, seed=5)
    assert decode(prompts, DRAWN, seed=5)[2] == first
    assert decode(prompts, DRAWN, seed=6)[2] != first
    # Two rows with one prompt draw apart.
    twice = decode([prompts[5]] * 12, DRAWN, seed=5)[2]
    assert len({tuple(row) for row in twice}) > 6


@pytest.mark.slow
def test_without_early_exit_every_step_runs(prompts, decode):
    late = dataclasses.replace(GREEDY, early_exit=False)
    canvas, answer, rows = decode(prompts, late)
    _, early, wanted = decode(prompts, GREEDY)
    assert rows == wanted
    np.testing.assert_array_equal(answer.steps, early.steps)
    assert (
        answer.forwards == 1 + canvas.generation_mask.shape[1]
    )  # 4 steps a block of 4


def test_ends(prompts, decode, config):
    _, _, free = decode(prompts, DRAWN)
    assert {0} < {len(row) for row in free}  # some end at once, others later
    late = dataclasses.replace(DRAWN, eos=StopAtEos(min_new_tokens=6))
    assert min(len(row) for row in decode(prompts, late)[2]) >= 6
    exact = dataclasses.replace(DRAWN, eos=IgnoreEos())
    assert {len(row) for row in decode(prompts, exact)[2]} == {14}
    special = {config.mask_token_id, config.pad_token_id, config.bos_token_id, 3}
    assert not special & {t for row in decode(prompts, exact)[2] for t in row}


@pytest.mark.slow
def test_block_by_block_is_the_same(params, config, prompts, decode):
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    canvas, answer, rows = decode(prompts, DRAWN)
    state = jax.jit(loop.start, **STATIC)(params, config, DRAWN, canvas)
    advance = jax.jit(loop.advance, **STATIC)
    seen = [[] for _ in prompts]
    while not state.done.all():
        state = advance(params, config, DRAWN, canvas, keys, state)
        so_far = loop.finish(config, canvas, state)
        now = loop.new_tokens(so_far)
        # What was said stays said.
        assert all(b[: len(a)] == a for a, b in zip(seen, now, strict=True))
        seen = now
    assert seen == rows
    assert state.forwards == answer.forwards
    np.testing.assert_array_equal(state.steps, answer.steps)


def test_a_hole_is_filled_in_place(params, config):
    """Against one look at the whole text after another."""
    config = dataclasses.replace(config, attention="bidirectional")
    prefixes, suffixes = [[11, 12, 13], [21]], [[14, 15], [22, 23, 24, 25, 26]]
    canvas = span_canvas(prefixes, suffixes, config, length=5)
    recipe = SamplerConfig(policy=UNSURE).for_span(5, canvas.generation_mask.shape[1])
    keys = loop.row_keys(jax.random.key(0), 2)
    decode = jax.jit(loop.generate, **STATIC)
    answer = decode(params, config, recipe, canvas, keys)
    rows = loop.new_tokens(answer)
    look = jax.jit(denoiser.logits, static_argnames="config")
    for prefix, suffix, row in zip(prefixes, suffixes, rows, strict=True):
        tokens = prefix + [0] * 5 + suffix
        hole, steps = range(len(prefix), len(prefix) + 5), 0
        while 0 in tokens:
            shown = jnp.asarray([tokens], jnp.int32)
            logits = np.array(
                look(params, config, shown, denoiser.simple_layout(shown))
            )[0]
            logits[:, :4] = -np.inf
            sure = np.array(jax.nn.softmax(logits, axis=-1).max(axis=-1))
            open_places = [i for i in hole if tokens[i] == 0]
            best = max(open_places, key=lambda i: (sure[i], -i))
            for i in open_places:
                if sure[i] >= 0.3 or i == best:
                    tokens[i] = int(logits[i].argmax())
            steps += 1
        assert row == [tokens[i] for i in hole]
        assert steps > 1


def test_nothing_returns_to_the_host(params, config, prompts):
    canvas = prompt_canvas(prompts, config, GREEDY)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    program = (
        jax.jit(loop.generate, **STATIC)
        .lower(params, config, GREEDY, canvas, keys)
        .compile()
    )
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(program(params, canvas, keys))


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", ["data=8", "fsdp=8", "data=2,fsdp=2,tensor=2", "tensor=2,data=4"]
)
def test_sharded_is_the_same(params, config, prompts, decode, mesh):
    prompts = eight_rows(prompts)
    _, single, rows = decode(prompts, GREEDY)
    mesh = make_mesh(mesh)
    shardings = tree_shardings(mesh, denoiser.logical_axes(config), params)
    canvas = prompt_canvas(prompts, config, GREEDY)
    with jax.set_mesh(mesh):
        spread = jax.device_put(params, shardings)
        canvas = jax.device_put(canvas, batch_sharding(mesh, canvas))
        keys = loop.row_keys(jax.random.key(0), 8)
        program = jax.jit(loop.generate, **STATIC)
        answer = program(spread, config, GREEDY, canvas, keys)
    assert loop.new_tokens(answer) == rows
    assert answer.forwards == single.forwards


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("layer_loop", ["unroll", "scan"])
def test_lowers_for_accelerators(config, prompts, platform, layer_loop):
    config = dataclasses.replace(
        config, dtype="bfloat16", activation_dtype="bfloat16", layer_loop=layer_loop
    )
    canvas = prompt_canvas(prompts, config, GREEDY)
    program = jax.jit(loop.generate, **STATIC)
    lowered = program.trace(
        denoiser.abstract_params(config),
        config,
        DRAWN,
        canvas,
        loop.row_keys(jax.random.key(0), len(prompts)),
    ).lower(lowering_platforms=(platform,))
    assert "while" in lowered.as_text()
