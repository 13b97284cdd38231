"""Dropless mixture of experts: routing, sorted dispatch and the experts themselves.

Every token goes to the experts it selects, however crowded they are, so a token's
result does not depend on the rest of the batch. Tokens are sorted by expert and each
expert multiplies its run of rows (`nn.grouped_product`; the scheme of MegaBlocks, arXiv
2211.15841). Four tokens that select two of three experts each:

    token     0     1     2     3
    indices  A C   C B   A B   C A
              └┬────┴─────┴─────┘   sort by expert, stable
    rows     0 2 3   1 2   0 1 3    token of each row
    expert   A A A   B B   C C C    sizes [3, 2, 3]
              └──┬─────┴─────┘      put back, weighted sum over a token's rows
    token     0     1     2     3

Not here: the parameters (`nn.layers`), and losses that balance the load.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.config import DenoiserConfig, DType, MoEConfig
from seedjax.nn.grouped_product import grouped_product
from seedjax.nn.quantize import Quantized
from seedjax.sharding import map_shards
from seedjax.typing import Array, Bool, Float, Float32, Int32


class Routing(NamedTuple):
    """Where tokens go.

    Attributes:
      indices: the experts that each token selects, best first.
      weights: what their outputs are multiplied with.
    """

    indices: Int32[Array, "*tokens selected"]
    weights: Float32[Array, "*tokens selected"]


class ExpertKernels(NamedTuple):
    """The kernels of all experts, [out, in] each."""

    gate: Float[Array, "experts F D"] | Quantized
    up: Float[Array, "experts F D"] | Quantized
    down: Float[Array, "experts D F"] | Quantized


def route(
    logits: Float32[Array, "*tokens experts"],
    bias: Float32[Array, "experts"] | None,
    config: MoEConfig,
) -> Routing:
    """Selects `num_selected` experts for each token.

    The scores are a softmax over all experts (Mixtral-like routers: LLaDA-MoE and
    OLMoE without, Qwen3-MoE with `normalize`) or a sigmoid of each (DeepSeek-V3, arXiv
    2412.19437, section 2.1.2; LLaDA2). The bias and the groups steer which experts are
    selected; the weights are the scores without the bias. With groups, only experts of
    the `num_selected_groups` groups with the largest sum of two best biased scores can
    be selected. Among equal scores the lower index wins.
    """
    if config.scoring == "softmax":
        scores = jax.nn.softmax(logits, axis=-1)
    else:
        scores = jax.nn.sigmoid(logits)
    ranked = scores if bias is None else scores + jnp.broadcast_to(bias, scores.shape)
    if config.num_selected_groups < config.num_groups:
        ranked = jnp.where(_in_selected_groups(ranked, config), ranked, -jnp.inf)
    _, indices = jax.lax.top_k(ranked, config.num_selected)
    weights = jnp.take_along_axis(scores, indices, axis=-1)
    if config.normalize:
        # As in the published LLaDA2: the sum of sigmoids may be zero.
        weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)
    return Routing(indices, weights * config.scale)


def _in_selected_groups(
    ranked: Float32[Array, "*tokens experts"], config: MoEConfig
) -> Bool[Array, "*tokens experts"]:
    size = config.num_experts // config.num_groups
    groups = ranked.reshape(*ranked.shape[:-1], config.num_groups, size)
    best_two, _ = jax.lax.top_k(groups, min(2, size))
    _, selected = jax.lax.top_k(jnp.sum(best_two, axis=-1), config.num_selected_groups)
    kept = jnp.any(jax.nn.one_hot(selected, config.num_groups, dtype=bool), axis=-2)
    return jnp.repeat(kept, size, axis=-1)


class Dispatch(NamedTuple):
    """The order of the rows: one row for each selection, R = tokens * selected.

    Attributes:
      order: the selection in each row (its token is `order // selected`).
      places: the row of each selection, the inverse of `order`.
      sizes: rows of each expert, from the first row on. Selections of experts that
        are kept elsewhere come last and are not counted.
    """

    order: Int32[Array, "rows"]
    places: Int32[Array, "rows"]
    sizes: Int32[Array, "experts"]


def dispatch(
    indices: Int32[Array, "tokens selected"], experts: Int32[Array, "experts"]
) -> Dispatch:
    """Sorts the selections by expert; `experts` are the ones kept here, in order."""
    here = indices.reshape(-1) - experts[0]
    count = experts.shape[0]
    here = jnp.where((here >= 0) & (here < count), here, count)
    order = jnp.argsort(here, stable=True).astype(jnp.int32)
    each = jnp.arange(count, dtype=jnp.int32)
    return Dispatch(
        order=order,
        places=jnp.argsort(order).astype(jnp.int32),
        sizes=jnp.sum(here[:, None] == each[None, :], axis=0, dtype=jnp.int32),
    )


# Both directions of the reordering read rows where they lie. Left to JAX, the backward
# pass would add into them one by one, slowly and on GPUs in a random order.


@jax.custom_vjp
def to_rows(x: Float[Array, "tokens D"], plan: Dispatch) -> Float[Array, "rows D"]:
    """The tokens in the order of their experts."""
    selected = plan.order.shape[0] // x.shape[0]
    return _take(x, plan.order // selected)


@jax.custom_vjp
def from_rows(
    rows: Float[Array, "rows D"], plan: Dispatch
) -> Float[Array, "selections D"]:
    """The rows in the order of the selections: those of token 0, of token 1, ..."""
    return _take(rows, plan.places)


def _take(x: Array, indices: Array) -> Array:
    return x.at[indices].get(mode="promise_in_bounds")


def _to_rows_forward(x: Array, plan: Dispatch):
    return to_rows(x, plan), (plan, jnp.zeros((x.shape[0], 0)))


def _to_rows_backward(saved, cotangent: Array):
    plan, like = saved
    selections = _take(cotangent, plan.places)
    each = selections.reshape(like.shape[0], -1, cotangent.shape[-1])
    summed = jnp.sum(each, axis=1, dtype=jnp.float32)
    return summed.astype(cotangent.dtype), None


def _from_rows_forward(rows: Array, plan: Dispatch):
    return from_rows(rows, plan), plan


def _from_rows_backward(plan: Dispatch, cotangent: Array):
    return _take(cotangent, plan.order), None


to_rows.defvjp(_to_rows_forward, _to_rows_backward)
from_rows.defvjp(_from_rows_forward, _from_rows_backward)


def mix_experts(
    x: Float[Array, "B L D"],
    routing: Routing,
    kernels: ExpertKernels,
    config: DenoiserConfig,
) -> Float32[Array, "B L D"]:
    """The weighted sum of the selected experts' outputs for each token.

    On a mesh, every device sorts its own rows of the batch and computes what its own
    experts add to them.
    """
    rows = ("expert_batch", "length", "activation_embed")
    experts = jnp.arange(kernels.gate.shape[0], dtype=jnp.int32)
    inward = ("expert", "mlp", "activation_embed")
    axes = (inward, inward, ("expert", "activation_embed", "mlp"))
    leaves, structure = jax.tree.flatten(kernels)
    return map_shards(
        partial(
            _mix_local,
            structure=structure,
            num_experts=kernels.gate.shape[0],
            dtype=config.dtype,
            activation_dtype=config.activation_dtype,
        ),
        (x.astype(config.activation_dtype), *routing, experts, *leaves),
        (
            rows,
            *((*rows[:2], "router") for _ in routing),
            ("expert",),
            *(
                names
                for kernel, names in zip(kernels, axes, strict=True)
                for _ in jax.tree.leaves(kernel)  # integers and scales lie alike
            ),
        ),
        summed=("expert", "mlp"),
    )


def _mix_local(
    x: Array,
    indices: Array,
    weights: Array,
    experts: Array,
    *leaves: Array,
    structure: jax.tree_util.PyTreeDef,
    num_experts: int,
    dtype: DType,
    activation_dtype: DType,
) -> Array:
    """The sum that the local experts, numbered `experts`, add to each token; `leaves`
    of `structure` are their `ExpertKernels`."""
    gate, up, down = jax.tree.unflatten(structure, leaves)
    batch, length, width = x.shape
    selected = indices.shape[-1]
    plan = dispatch(indices.reshape(batch * length, selected), experts)
    rows = to_rows(x.reshape(batch * length, width), plan)
    number = jnp.arange(rows.shape[0], dtype=jnp.int32)
    # Rows after the last expert hold anything, in both directions.
    kept = (number < jnp.sum(plan.sizes))[:, None]
    everything = experts.shape[0] == num_experts
    if not everything:
        rows = jnp.where(kept, rows, 0)
    gates = grouped_product(rows, gate, plan.sizes, dtype).astype(activation_dtype)
    ups = grouped_product(rows, up, plan.sizes, dtype).astype(activation_dtype)
    outputs = grouped_product(jax.nn.silu(gates) * ups, down, plan.sizes, dtype)
    if not everything:
        outputs = jnp.where(kept, outputs, 0)
    outputs = from_rows(outputs, plan).reshape(batch, length, selected, width)
    return jnp.sum(outputs * weights[..., None], axis=2)
