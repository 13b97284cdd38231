"""The denoiser as pure functions: `init`, `hidden_states`, `unembed`, `logits`.

    tokens, layout ─▶ embedding ─▶ blocks ─▶ final norm ─▶ hidden ─▶ unembed ─▶ logits
                                     ▲ │
                              cache ─┘ └─▶ entries (what `cache.write` writes)

Parameters are nested dictionaries. Unless `layer_loop` is "scan", every layer has its
own branch (`layers_0`, `layers_1`, ...), which is also how models are stored; with
"scan" the layers are stacked on a leading axis under `layers` and the compiler sees one
of them. The leading dense layers of a mixture of experts keep their own branches then.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig, DType
from seedjax.nn.adapted import ungated
from seedjax.nn.cache import Entries, KVCache
from seedjax.nn.precision import product
from seedjax.nn.quantize import Quantized
from seedjax.sharding import constrain, num_parts, scatter_sum
from seedjax.typing import Array, Float, Float32, Int32, Params, PRNGKey


class Forward(NamedTuple):
    """Result of a pass through the blocks.

    Attributes:
      hidden: normalised hidden states, [B, L, D].
      entries: keys and values of the pass, in the shape of `KVCache.layers`.
    """

    hidden: Array
    entries: Entries


def hidden_states(
    params: Params,
    config: DenoiserConfig,
    tokens: Int32[Array, "B L"],
    layout: Layout,
    *,
    cache: KVCache | None = None,
    cache_in_front: bool = True,
    noisy: int = 0,
    both_copies: bool = False,
) -> Forward:
    """Runs the blocks over `tokens`, which also see the finished tokens in `cache`.

    Args:
      params: the denoiser's parameters; a gated adapter acts on drafted positions.
      config: the denoiser.
      tokens: what is shown.
      layout: of these tokens.
      cache: keys and values of other tokens.
      cache_in_front: whether all tokens of a row see the same of the cache, as while
        decoding, where it stands in front of them all. Otherwise each sees what the
        mask says.
      noisy: how many of the last tokens are a noisy copy, of which alone the hidden
        states are returned; 0 where there is one copy. Not with a cache.
      both_copies: return those of the clean copy, too, before them.
    """
    from seedjax.nn.stack import Denoiser

    if layout.anchors is None:
        params = ungated(params)
    denoiser = Denoiser(config, cache_in_front, noisy, both_copies)
    return Forward(*denoiser.apply({"params": params}, tokens, layout, cache))


def unembed(
    params: Params, config: DenoiserConfig, hidden: Float[Array, "B L D"]
) -> Float32[Array, "B L V"]:
    """Logits of hidden states, from any number of positions."""
    logits = product("bld,vd->blv", hidden, head_table(params, config), config.dtype)
    return constrain(logits, ("batch", "length", "vocab"))


def gathered_head(
    params: Params, config: DenoiserConfig, rows: int
) -> Callable[[Float[Array, "B l D"]], Float32[Array, "B l V"]]:
    """`unembed` for a loop over chunks of positions: on a mesh the output head is
    gathered once, and its gradient reduced once, however many chunks there are.

    Every group of rows that shares a device multiplies a copy of the head of its own,
    so that no product inside the loop sums over devices.

    Args:
      params: the denoiser's parameters.
      config: the denoiser.
      rows: B of the hidden states.
    """
    table = head_table(params, config)
    if isinstance(table, Quantized):
        return functools.partial(unembed, params, config)
    groups = num_parts("batch", rows)
    copies = _copy_for_groups(table, groups, config.dtype)

    def unembed_chunk(hidden: Float[Array, "B l D"]) -> Float32[Array, "B l V"]:
        _, length, width = hidden.shape
        grouped = hidden.reshape(groups, rows // groups, length, width)
        axes = ("batch", "group_rows", "length", "activation_embed")
        grouped = constrain(grouped, axes)
        logits = product("gbld,gvd->gblv", grouped, copies, config.dtype)
        return constrain(logits.reshape(rows, length, -1), ("batch", "length", "vocab"))

    return unembed_chunk


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _copy_for_groups(
    table: Float[Array, "V D"], groups: int, dtype: DType
) -> Float32[Array, "groups V D"]:
    # It travels in the compute dtype. The copies are float32, whose gradient is summed
    # over the chunks; the product casts them back, which XLA drops.
    gathered = constrain(table.astype(dtype), ("vocab", "activation_embed"))
    copies = jnp.broadcast_to(gathered.astype(jnp.float32), (groups, *table.shape))
    return constrain(copies, ("batch", "vocab", "activation_embed"))


def _copy_for_groups_forward(table: Array, groups: int, dtype: DType):
    return _copy_for_groups(table, groups, dtype), jnp.zeros((0,), table.dtype)


def _copy_for_groups_backward(groups: int, dtype: DType, table_like, cotangent: Array):
    total = scatter_sum(
        functools.partial(jnp.sum, axis=0),
        (cotangent,),
        (("batch", "vocab", "activation_embed"),),
        result=("vocab", "embed"),
    )
    return (total.astype(table_like.dtype),)


_copy_for_groups.defvjp(_copy_for_groups_forward, _copy_for_groups_backward)


def head_table(params: Params, config: DenoiserConfig) -> Any:
    """The output head, [V, D]: the embedding itself where they are tied. As it is
    stored, which may be quantized."""
    return params["embedding" if config.tie_embeddings else "head"]


def logits(
    params: Params,
    config: DenoiserConfig,
    tokens: Int32[Array, "B L"],
    layout: Layout,
    *,
    cache: KVCache | None = None,
) -> Float32[Array, "B L V"]:
    """`hidden_states` and `unembed` in one, for short inputs: all logits are alive."""
    forward = hidden_states(params, config, tokens, layout, cache=cache)
    return unembed(params, config, forward.hidden)


def _boxed_init(key: PRNGKey, config: DenoiserConfig):
    from seedjax.nn.stack import Denoiser

    tokens = jnp.zeros((1, config.block_size), jnp.int32)
    layout = simple_layout(tokens)
    return Denoiser(config).init(key, tokens, layout, None)["params"]


def init(key: PRNGKey, config: DenoiserConfig) -> Params:
    """Fresh parameters: normal with `init_scale`, norms at one, biases at zero."""
    from flax.core import meta

    return meta.unbox(_boxed_init(key, config))


def abstract_params(config: DenoiserConfig) -> Params:
    """Shapes and dtypes of the parameters, without making or tracing them: the table of
    what the modules of `seedjax.nn.stack` hold."""
    kernel, dtype = jax.ShapeDtypeStruct, config.param_dtype
    hidden, scanned = config.hidden_size, config.layer_loop == "scan"

    def norm(size: int, leading: tuple[int, ...]) -> dict[str, Any]:
        return {"scale": kernel((*leading, size), dtype)}

    def projection(out: int, width: int, leading: tuple[int, ...], bias: bool = False):
        found = {"kernel": kernel((*leading, out, width), dtype)}
        return found | ({"bias": kernel((*leading, out), dtype)} if bias else {})

    def feed_forward(size: int, leading: tuple[int, ...]) -> dict[str, Any]:
        up = {name: projection(size, hidden, leading) for name in ("gate", "up")}
        return up | {"down": projection(hidden, size, leading)}

    def mixture(leading: tuple[int, ...]) -> dict[str, Any]:
        moe = config.moe
        assert moe is not None
        router = {"kernel": kernel((*leading, moe.num_experts, hidden), "float32")}
        if moe.expert_bias:
            router["bias"] = kernel((*leading, moe.num_experts), "float32")
        wide = kernel((*leading, moe.num_experts, moe.expert_size, hidden), dtype)
        down = kernel((*leading, moe.num_experts, hidden, moe.expert_size), dtype)
        experts = {"gate": wide, "up": wide, "down": down}
        shared = {}
        if moe.shared_size:
            shared = {"shared": feed_forward(moe.shared_size, leading)}
        return {"router": router, "experts": experts} | shared

    def block(is_mixture: bool, *leading: int) -> dict[str, Any]:
        queries = config.num_heads * config.head_dim
        cached, bias = config.num_kv_heads * config.head_dim, config.attention_bias
        attention: dict[str, Any] = {
            "query": projection(queries, hidden, leading, bias),
            "key": projection(cached, hidden, leading, bias),
            "value": projection(cached, hidden, leading, bias),
            "output": projection(hidden, queries, leading),
        }
        if config.qk_norm:
            for name in ("query_norm", "key_norm"):
                attention[name] = norm(config.head_dim, leading)
        mlp = feed_forward(config.mlp_size, leading)
        return {
            "attention": attention,
            "attention_norm": norm(hidden, leading),
            "mlp": mixture(leading) if is_mixture else mlp,
            "mlp_norm": norm(hidden, leading),
        }

    table = kernel((config.vocab_size, hidden), dtype)
    params: dict[str, Any] = {"embedding": table, "final_norm": norm(hidden, ())}
    if not config.tie_embeddings:
        params["head"] = table
    apart = config.num_leading_layers if scanned else config.num_layers
    for i in range(apart):
        is_mixture = config.moe is not None and i >= config.num_leading_layers
        params[f"layers_{i}"] = block(is_mixture)
    if scanned:
        params["layers"] = block(config.moe is not None, config.num_layers - apart)
    return params


def logical_axes(config: DenoiserConfig) -> Params:
    """The logical axis names of every parameter, a tuple at each leaf."""
    from flax.core import meta

    boxed = jax.eval_shape(lambda: _boxed_init(jax.random.key(0), config))
    return jax.tree.map(
        lambda box: tuple(box.names),
        boxed,
        is_leaf=lambda x: isinstance(x, meta.AxisMetadata),
    )


def num_parameters(config: DenoiserConfig) -> int:
    """How many numbers the model holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))


def simple_layout(tokens: Int32[Array, "B L"], *, start: int = 0) -> Layout:
    """The layout of one document a row, without padding, whose first token stands at
    `start`."""
    positions = jnp.arange(start, start + tokens.shape[1], dtype=jnp.int32)
    positions = jnp.broadcast_to(positions[None, :], tokens.shape)
    return Layout(
        positions=positions,
        segments=jnp.ones_like(tokens),
        noisy=jnp.zeros(tokens.shape, bool),
    )


def stack_layers(params: Params) -> Params:
    """Parameters for `layer_loop="scan"` from those of "unroll". The leading dense
    layers of a mixture of experts stay as they are."""
    names = sorted(
        (n for n in params if n.startswith("layers_")), key=lambda n: int(n[7:])
    )
    mixtures = [n for n in names if "router" in params[n]["mlp"]]
    names = mixtures or names
    rest = {n: v for n, v in params.items() if n not in names}
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(params[n] for n in names)
    )
    return rest | {"layers": stacked}


def unstack_layers(params: Params) -> Params:
    """Parameters for `layer_loop="unroll"` from those of "scan"."""
    rest = {n: v for n, v in params.items() if n != "layers"}
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    apart = sum(n.startswith("layers_") for n in rest)
    layers = {
        f"layers_{apart + i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        for i in range(count)
    }
    return rest | layers
