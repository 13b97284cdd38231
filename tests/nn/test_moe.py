"""The mixture of experts against loops over tokens and experts, and against itself in
other forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seedjax.config import DenoiserConfig, MoEConfig
from seedjax.nn import cache as kv_cache
from seedjax.nn import denoiser, moe
from seedjax.nn.layers import MixtureOfExperts, Router
from seedjax.sharding import batch_sharding, make_mesh, tree_shardings

logits_of = jax.jit(denoiser.logits, static_argnames="config")
hidden_of = jax.jit(denoiser.hidden_states, static_argnames="config")

VARIANTS = {
    "softmax": MoEConfig(num_experts=6, num_selected=2, expert_size=12),
    "softmax, normalized": MoEConfig(
        num_experts=5, num_selected=3, expert_size=12, normalize=True
    ),
    "sigmoid, shared expert": MoEConfig(
        num_experts=6,
        num_selected=2,
        expert_size=12,
        shared_size=20,
        scoring="sigmoid",
    ),
    "sigmoid, groups, bias, shared expert": MoEConfig(
        num_experts=16,
        num_selected=3,
        expert_size=8,
        shared_size=8,
        scoring="sigmoid",
        normalize=True,
        scale=2.5,
        expert_bias=True,
        num_groups=4,
        num_selected_groups=2,
    ),
}
LIKE_LLADA2 = VARIANTS["sigmoid, groups, bias, shared expert"]


def mixture_config(config, mixture, **changes):
    return dataclasses.replace(config, moe=mixture, **changes)


def random_params(config, seed=0):
    """Parameters of which none is trivial: norms and biases are random as well."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * random.normal(size=leaf.shape), leaf.dtype),
        denoiser.abstract_params(config),
    )


def random_tokens(config, shape, seed=2):
    return jax.random.randint(jax.random.key(seed), shape, 4, config.vocab_size)


def mixture_params(config, seed=0):
    """The parameters of one mixture, all of them random."""
    return random_params(dataclasses.replace(config, num_layers=1), seed)["layers_0"][
        "mlp"
    ]


@functools.partial(jax.jit, static_argnums=1)
def apply_mixture(params, config, x):
    drafted = jnp.zeros(x.shape[:2], bool)
    return MixtureOfExperts(config).apply({"params": params}, x, drafted)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def reference_route(logits, bias, config):
    """One token, step by step in the words of the published routers."""
    if config.scoring == "softmax":
        scores = np.exp(logits) / np.exp(logits).sum()
    else:
        scores = sigmoid(logits)
    ranked = scores + bias
    experts = range(config.num_experts)
    size = config.num_experts // config.num_groups
    group_scores = [
        sum(sorted(ranked[g * size : (g + 1) * size])[-2:])
        for g in range(config.num_groups)
    ]
    groups = sorted(range(config.num_groups), key=lambda g: -group_scores[g])
    groups = groups[: config.num_selected_groups]
    allowed = [e for e in experts if e // size in groups]
    chosen = sorted(allowed, key=lambda e: -ranked[e])[: config.num_selected]
    weights = np.array([scores[e] for e in chosen])
    if config.normalize:
        weights = weights / weights.sum()
    return chosen, weights * config.scale


def reference_mixture(params, config, x):
    """[tokens, D], one token and one expert after the other, in float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def feed_forward(gate, up, down, token):
        hidden = gate @ token
        return down @ (hidden * sigmoid(hidden) * (up @ token))

    result = np.zeros(x.shape)
    for i, token in enumerate(x):
        chosen, weights = reference_route(
            p["router"]["kernel"] @ token, p["router"].get("bias", 0.0), config.moe
        )
        for expert, weight in zip(chosen, weights, strict=True):
            kernels = (p["experts"][n][expert] for n in ("gate", "up", "down"))
            result[i] += weight * feed_forward(*kernels, token)
        if config.moe.shared_size:
            kernels = (p["shared"][n]["kernel"] for n in ("gate", "up", "down"))
            result[i] += feed_forward(*kernels, token)
    return result


@pytest.mark.representative("softmax", "sigmoid, groups, bias, shared expert")
@pytest.mark.parametrize("variant", VARIANTS)
def test_route_equals_reference(variant):
    config = VARIANTS[variant]
    random = np.random.default_rng(1)
    logits = random.normal(size=(40, config.num_experts)).astype(np.float32)
    bias = 0.3 * random.normal(size=config.num_experts).astype(np.float32)
    bias = bias if config.expert_bias else None
    indices, weights = moe.route(
        jnp.asarray(logits), None if bias is None else jnp.asarray(bias), config
    )
    for row in range(40):
        chosen, wanted = reference_route(
            logits[row].astype(np.float64), 0.0 if bias is None else bias, config
        )
        assert indices[row].tolist() == chosen
        np.testing.assert_allclose(weights[row], wanted, rtol=1e-5)


def test_bias_changes_the_selection_but_not_the_weights():
    config = MoEConfig(
        num_experts=4,
        num_selected=2,
        expert_size=1,
        scoring="sigmoid",
        expert_bias=True,
    )
    logits = jnp.array([[2.0, 1.0, 0.0, -1.0]])
    plain = moe.route(logits, jnp.zeros(4), config)
    biased = moe.route(logits, jnp.array([0.0, -1.0, 0.0, 1.0]), config)
    assert plain.indices.tolist() == [[0, 1]] and biased.indices.tolist() == [[3, 0]]
    np.testing.assert_allclose(plain.weights, sigmoid(np.array([[2.0, 1.0]])))
    np.testing.assert_allclose(biased.weights, sigmoid(np.array([[-1.0, 2.0]])))


def test_the_best_expert_is_passed_over_outside_the_best_groups():
    """Groups (0.9, 0.1) and (0.6, 0.5): the second has the larger sum of two."""
    config = MoEConfig(
        num_experts=4,
        num_selected=2,
        expert_size=1,
        scoring="sigmoid",
        num_groups=2,
        num_selected_groups=1,
    )
    scores = np.array([[0.9, 0.1, 0.6, 0.5]], np.float32)
    logits = jnp.asarray(np.log(scores / (1 - scores)))
    assert moe.route(logits, None, config).indices.tolist() == [[2, 3]]


def test_dispatch_of_the_drawing():
    """The example of the module docstring, A = 0, B = 1, C = 2."""
    indices = jnp.array([[0, 2], [2, 1], [0, 1], [2, 0]], jnp.int32)
    plan = moe.dispatch(indices, jnp.arange(3, dtype=jnp.int32))
    assert (plan.order // 2).tolist() == [0, 2, 3, 1, 2, 0, 1, 3]
    assert plan.sizes.tolist() == [3, 2, 3]
    assert plan.order[plan.places].tolist() == list(range(8))
    elsewhere = moe.dispatch(indices, jnp.array([1, 2], jnp.int32))
    assert (elsewhere.order // 2).tolist()[:5] == [1, 2, 0, 1, 3]
    assert elsewhere.sizes.tolist() == [2, 3]


@pytest.mark.representative("softmax", "sigmoid, groups, bias, shared expert")
@pytest.mark.parametrize("variant", VARIANTS)
def test_mixture_equals_reference(variant, tiny_config):
    config = mixture_config(tiny_config, VARIANTS[variant])
    params = mixture_params(config)
    x = jax.random.normal(jax.random.key(3), (2, 9, config.hidden_size))
    ours = apply_mixture(params, config, x)
    wanted = reference_mixture(
        params, config, np.asarray(x, np.float64).reshape(18, -1)
    )
    np.testing.assert_allclose(ours.reshape(18, -1), wanted, rtol=1e-4, atol=1e-5)


def test_a_token_does_not_depend_on_the_batch(tiny_config):
    """Alone, in company, and where all tokens crowd into the same experts."""
    config = mixture_config(tiny_config, LIKE_LLADA2)
    params = mixture_params(config)
    x = jax.random.normal(jax.random.key(3), (3, 7, config.hidden_size))
    together = apply_mixture(params, config, x)
    for row, column in ((0, 0), (1, 6), (2, 3)):
        token = x[row : row + 1, column : column + 1]
        alone = apply_mixture(params, config, token)[0, 0]
        crowd = apply_mixture(params, config, jnp.broadcast_to(token, x.shape))
        np.testing.assert_allclose(together[row, column], alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            crowd, jnp.broadcast_to(alone, x.shape), rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("layer_loop", ["unroll", "scan"])
def test_equal_experts_are_one_feed_forward(layer_loop, tiny_config):
    """With normalized weights they equal the dense model, whose first layer stays
    dense in the mixture as well."""
    mixture = MoEConfig(
        num_experts=4,
        num_selected=2,
        expert_size=tiny_config.mlp_size,
        num_dense_layers=1,
        normalize=True,
    )
    dense = dataclasses.replace(tiny_config, num_layers=3)
    config = mixture_config(dense, mixture)
    params, tokens = random_params(dense), random_tokens(dense, (2, 8))
    mixed = dict(random_params(config))
    assert set(mixed["layers_0"]["mlp"]) == {"gate", "up", "down"}
    for i in range(3):
        mlp = params[f"layers_{i}"]["mlp"]
        if i:
            copies = {n: jnp.stack([mlp[n]["kernel"]] * 4) for n in mlp}
            router = mixed[f"layers_{i}"]["mlp"]["router"]
            mlp = {"router": router, "experts": copies}
        mixed[f"layers_{i}"] = params[f"layers_{i}"] | {"mlp": mlp}
    mixed |= {n: v for n, v in params.items() if not n.startswith("layers_")}
    if layer_loop == "scan":
        mixed = denoiser.stack_layers(mixed)
        config = dataclasses.replace(config, layer_loop="scan")
    layout = denoiser.simple_layout(tokens)
    np.testing.assert_allclose(
        logits_of(mixed, config, tokens, layout),
        logits_of(params, dense, tokens, layout),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
def test_scanned_layers_equal_unrolled_ones(tiny_config):
    mixture = dataclasses.replace(VARIANTS["softmax"], num_dense_layers=1)
    config = mixture_config(tiny_config, mixture, num_layers=3)
    scanned = dataclasses.replace(config, layer_loop="scan")
    params, tokens = random_params(config), random_tokens(config, (2, 8))
    layout = denoiser.simple_layout(tokens)

    def loss(params, config):
        return jnp.mean(jnp.sin(denoiser.logits(params, config, tokens, layout)))

    stacked = denoiser.stack_layers(params)
    step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, grads = step(params, config)
    value_scanned, grads_scanned = step(stacked, scanned)
    np.testing.assert_allclose(value, value_scanned, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        grads,
        denoiser.unstack_layers(grads_scanned),
    )


@pytest.mark.representative("1")
@pytest.mark.parametrize("num_dense", [0, 1, 2])
def test_leading_dense_layers_are_not_stacked(num_dense, tiny_config):
    mixture = dataclasses.replace(LIKE_LLADA2, num_dense_layers=num_dense)
    config = mixture_config(tiny_config, mixture, num_layers=4)
    params = random_params(config)
    stacked = denoiser.stack_layers(params)
    scanned = dataclasses.replace(config, layer_loop="scan")
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(
        jnp.shape, denoiser.abstract_params(scanned)
    )
    jax.tree.map(
        np.testing.assert_array_equal, params, denoiser.unstack_layers(stacked)
    )


@pytest.mark.slow
@pytest.mark.parametrize("layer_loop", ["unroll", "scan"])
def test_cached_blocks_equal_one_pass(layer_loop, tiny_config):
    mixture = dataclasses.replace(LIKE_LLADA2, num_dense_layers=1)
    num_layers = 3 if layer_loop == "scan" else 2
    config = mixture_config(tiny_config, mixture, num_layers=num_layers)
    params, tokens = random_params(config), random_tokens(config, (2, 12))
    config = dataclasses.replace(config, layer_loop=layer_loop)
    if layer_loop == "scan":
        params = denoiser.stack_layers(params)
    whole = logits_of(params, config, tokens, denoiser.simple_layout(tokens))
    cache = kv_cache.create(config, batch_size=2, capacity=12)
    for start in range(0, 12, config.block_size):
        block = tokens[:, start : start + config.block_size]
        layout = denoiser.simple_layout(block, start=start)
        forward = hidden_of(params, config, block, layout, cache=cache)
        logits = denoiser.unembed(params, config, forward.hidden)
        wanted = whole[:, start : start + config.block_size]
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
        cache = kv_cache.write(cache, forward.entries, layout, start)


@pytest.mark.slow
def test_sharded_equals_single_device(tiny_config):
    config = mixture_config(tiny_config, LIKE_LLADA2, num_layers=1)
    params, tokens = random_params(config), random_tokens(config, (8, 8))

    def loss(params, tokens):
        layout = denoiser.simple_layout(tokens)
        return jnp.mean(jnp.sin(denoiser.logits(params, config, tokens, layout)))

    value, grads = jax.jit(jax.value_and_grad(loss))(params, tokens)
    device_mesh = make_mesh("fsdp=2,expert=2,tensor=2")
    shardings = tree_shardings(device_mesh, denoiser.logical_axes(config), params)
    with jax.set_mesh(device_mesh):
        step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))
        placed = jax.device_put(params, shardings)
        rows = jax.device_put(tokens, batch_sharding(device_mesh, tokens))
        sharded_value, sharded_grads = step(placed, rows)
    np.testing.assert_allclose(value, sharded_value, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        grads,
        sharded_grads,
    )
    experts = placed["layers_0"]["mlp"]["experts"]["gate"]
    assert experts.addressable_shards[0].data.size * 8 == experts.size


@pytest.mark.representative("expert=4,tensor=2")
@pytest.mark.parametrize("mesh", ["data=8", "expert=8", "expert=4,tensor=2"])
def test_mixture_on_any_mesh(mesh, tiny_config):
    """Six experts, of width 12: copied where a mesh axis does not divide them."""
    config = mixture_config(tiny_config, VARIANTS["softmax"])
    params = mixture_params(config)
    x = jax.random.normal(jax.random.key(3), (8, 4, config.hidden_size))
    wanted = apply_mixture(params, config, x)
    with jax.set_mesh(make_mesh(mesh)):
        ours = apply_mixture(params, config, x)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_training_learns_and_moves_the_router(tiny_config):
    """In bfloat16, whose products a CPU does not have in every layout."""
    config = mixture_config(
        tiny_config,
        LIKE_LLADA2,
        num_layers=1,
        dtype="bfloat16",
        activation_dtype="bfloat16",
    )
    tokens = random_tokens(config, (4, 8))
    layout = denoiser.simple_layout(tokens)
    optimizer = optax.adam(1e-2)

    def loss(params):
        logits = denoiser.logits(params, config, tokens, layout)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
        return jnp.mean(losses)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value, grads

    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), config)
    state, values = optimizer.init(params), []
    for _ in range(8):
        params, state, value, grads = step(params, state)
        values.append(float(value))
        mlp = grads["layers_0"]["mlp"]
        assert np.abs(mlp["router"]["kernel"]).max() > 0
        assert not mlp["router"]["bias"].any()  # it only selects
        for kernel in mlp["experts"].values():
            assert np.isfinite(kernel).all() and np.abs(kernel).max() > 0
    assert values[-1] < 0.8 * values[0]


@pytest.mark.slow
def test_routing_is_float32_in_a_bfloat16_model(tiny_config):
    wide = mixture_config(tiny_config, LIKE_LLADA2)
    narrow = dataclasses.replace(
        wide, dtype="bfloat16", activation_dtype="bfloat16", param_dtype="bfloat16"
    )
    abstract = denoiser.abstract_params(narrow)["layers_0"]["mlp"]
    assert abstract["experts"]["gate"].dtype == jnp.bfloat16
    assert {x.dtype for x in abstract["router"].values()} == {jnp.dtype("float32")}
    params = mixture_params(wide)
    x = jax.random.normal(jax.random.key(3), (2, 16, 32), jnp.bfloat16)
    routings = [
        Router(config).apply({"params": params["router"]}, x)
        for config in (wide, narrow)
    ]
    jax.tree.map(np.testing.assert_array_equal, *routings)

    close = apply_mixture(params, wide, x).astype(jnp.float32)
    rounded = apply_mixture(params, narrow, x).astype(jnp.float32)
    assert 0 < float(jnp.abs(close - rounded).mean() / jnp.abs(close).mean()) < 0.02


def test_every_parameter_has_logical_axes(tiny_config):
    mixture = dataclasses.replace(LIKE_LLADA2, num_dense_layers=1)
    for layer_loop in ("unroll", "scan"):
        config = mixture_config(tiny_config, mixture, layer_loop=layer_loop)
        axes = denoiser.logical_axes(config)
        jax.tree.map(
            lambda leaf, names: (
                None if leaf.ndim == len(names) else pytest.fail(str(names))
            ),
            denoiser.abstract_params(config),
            axes,
        )
    down = axes["layers"]["mlp"]["experts"]["down"]
    assert down == ("layers", "expert", "embed", "mlp")


@pytest.mark.slow
def test_numbers_of_parameters():
    """The 16 B of LLaDA2.0-mini, of which 1.4 B are active."""
    config = DenoiserConfig(
        vocab_size=157_184,
        hidden_size=2048,
        num_layers=20,
        num_heads=16,
        num_kv_heads=4,
        head_dim=128,
        mlp_size=5120,
        qk_norm=True,
        tie_embeddings=False,
        layer_loop="scan",
        moe=MoEConfig(
            num_experts=256,
            num_selected=8,
            expert_size=512,
            shared_size=512,
            num_dense_layers=1,
            expert_bias=True,
        ),
    )
    embeddings = 2 * 157_184 * 2048
    attention = 2048 * 128 * (16 + 4 + 4 + 16) + 2 * 128
    expert = 3 * 512 * 2048
    norms = 20 * 2 * 2048 + 2048
    shared_by_all = embeddings + 20 * attention + norms + 3 * 5120 * 2048
    shared_by_all += 19 * (expert + 256 * 2048 + 256)
    assert denoiser.num_parameters(config) == shared_by_all + 19 * 256 * expert
    assert round(denoiser.num_parameters(config) / 1e9, 1) == 16.3
