"""Grouped-query attention over one or two runs of keys.

`attend` is the one entrance: `nn.attention_choice` says which backend computes a pass
on which platform. The dense form is here: the cached keys and the fresh keys are scored
apart and joined at the scores, so that the cache is read where it lies.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.config import AttentionBackend, DType
from seedjax.nn.attention_choice import Pass, choose
from seedjax.nn.attention_chunked import Run, attend_chunked
from seedjax.nn.attention_decode import Softmax, attend_cache, join
from seedjax.nn.attention_splash import attend_splash
from seedjax.nn.masks import MASKED_SCORE, Visibility
from seedjax.nn.precision import product
from seedjax.nn.quantize import Quantized
from seedjax.sharding import map_shards, num_parts
from seedjax.typing import Array, Bool, Float, Float32


class Keys(NamedTuple):
    """A run of keys and values with what says which queries see them."""

    keys: Float[Array, "B K S C"] | Quantized
    values: Float[Array, "B K S C"] | Quantized
    visibility: Visibility


def attend(
    queries: Float[Array, "B H L C"],
    runs: tuple[Keys, ...],
    *,
    dtype: DType,
    backend: AttentionBackend = "auto",
) -> Float32[Array, "B H L C"]:
    """Softmax attention of `queries` over all `runs` of keys together.

    Scores and softmax are float32 whatever `dtype` the products take. Query head h
    reads key head h // (H / K).

    Raises:
      InputError: if `backend` cannot compute this pass.
    """
    needed = pass_of(queries, runs)
    per_platform = {
        platform: functools.partial(
            BACKENDS[choose(needed, platform, backend).backend], dtype=dtype
        )
        for platform in ("cpu", "tpu", "cuda")
    }
    default = per_platform.pop("cpu")
    others = {
        name: compute
        for name, compute in per_platform.items()
        if compute.func is not default.func
    }
    if not others:
        return default(queries, runs)
    return lax.platform_dependent(queries, runs, default=default, **others)


def pass_of(queries: Array, runs: tuple[Keys, ...]) -> Pass:
    """The needs of a pass, by which its backend is chosen."""
    seen = [run.visibility for run in runs]
    return Pass(
        queries=queries.shape[2],
        keys=tuple(one.shape[1] for one in seen),
        cached=any(one.alike for one in seen),
        head_dim=queries.shape[3],
        cache_dtype=str(getattr(runs[0].keys, "dtype", "int8")),
        parts=num_parts("length", queries.shape[2]),
    )


def _attend_dense(queries: Array, runs: tuple[Keys, ...], dtype: DType) -> Array:
    batch, _, _, head_dim = queries.shape
    num_kv_heads = runs[0].keys.shape[1]
    # The queries of a group become one long sequence. Rows and heads stay apart: a
    # mesh that splits the heads could not split their product, and would gather the
    # whole cache at every step.
    grouped = (queries * head_dim**-0.5).reshape(batch, num_kv_heads, -1, head_dim)
    masked = tuple(_Masked(run.keys, run.values, run.visibility.dense) for run in runs)
    return _attend_groups(grouped, masked, dtype).reshape(queries.shape)


def _attend_chunked(queries: Array, runs: tuple[Keys, ...], dtype: DType) -> Array:
    batch, _, length, head_dim = queries.shape
    num_kv_heads = runs[0].keys.shape[1]
    grouped = (queries * head_dim**-0.5).reshape(
        batch, num_kv_heads, -1, length, head_dim
    )
    first = runs[0].visibility
    chunked = tuple(Run(run.keys, run.values, run.visibility.key) for run in runs)
    output = attend_chunked(grouped, first.query, chunked, spec=first.spec, dtype=dtype)
    return output.reshape(queries.shape)


def _attend_splash(
    queries: Array, runs: tuple[Keys, ...], dtype: DType, *, interpret: bool = False
) -> Array:
    batch, _, length, head_dim = queries.shape
    num_kv_heads = runs[0].keys.shape[1]
    grouped = (queries * head_dim**-0.5).reshape(
        batch, num_kv_heads, -1, length, head_dim
    )
    keys, values = (
        jnp.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
        for parts in zip(*((run.keys, run.values) for run in runs), strict=True)
    )
    seen = runs[-1].visibility
    output = attend_splash(
        grouped,
        keys,
        values,
        seen.query,
        spec=seen.spec,
        copies=len(runs),
        dtype=dtype,
        interpret=interpret,
    )
    return output.reshape(queries.shape)


def _attend_decode(
    queries: Array, runs: tuple[Keys, ...], dtype: DType, *, interpret: bool = False
) -> Array:
    batch, _, _, head_dim = queries.shape
    num_kv_heads = runs[0].keys.shape[1]
    grouped = (queries * head_dim**-0.5).reshape(batch, num_kv_heads, -1, head_dim)
    cached, fresh = (
        _Masked(run.keys, run.values, run.visibility.dense) for run in runs
    )
    output = _attend_cache_and_fresh(grouped, cached, fresh, dtype, interpret)
    return output.reshape(queries.shape)


BACKENDS = {
    "dense": _attend_dense,
    "chunked": _attend_chunked,
    "decode": _attend_decode,
    "splash": _attend_splash,
}


class _Masked(NamedTuple):
    """A run of keys and values with its dense mask."""

    keys: Float[Array, "B K S C"] | Quantized
    values: Float[Array, "B K S C"] | Quantized
    mask: Bool[Array, "B #L S"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attend_groups(queries: Array, runs: tuple[_Masked, ...], dtype: DType) -> Array:
    """Attention of [B, K, Q, C] queries, Q = H / K * L of a group, to the runs' keys.

    The backward pass makes the probabilities again from the scores and one number a
    query, instead of keeping them (FlashAttention, arXiv 2205.14135, section 3.1).
    """
    return _attend_groups_forward(queries, runs, dtype)[0]


def _scores(queries: Array, run: _Masked, dtype: DType) -> Array:
    """Masked scores, [B, K, Q, S] float32."""
    scores = product("bkqc,bksc->bkqs", queries, run.keys, dtype)
    batch, length, seen = run.mask.shape
    num_kv_heads = scores.shape[1]
    bias = jnp.where(run.mask, 0.0, MASKED_SCORE)[:, None, None]
    by_position = scores.reshape(batch, num_kv_heads, -1, length, seen)
    return (by_position + bias).reshape(scores.shape)


def _apart(queries: Array) -> Array:
    """The queries as XLA:GPU shall not know them: it joins products that share an
    operand, and would copy a cache next to the fresh keys for that."""
    return lax.platform_dependent(
        queries, cuda=lax.optimization_barrier, default=lambda same: same
    )


def _attend_groups_forward(queries: Array, runs: tuple[_Masked, ...], dtype: DType):
    scores = [_scores(queries, run, dtype) for run in runs[:1]]
    scores += [_scores(_apart(queries), run, dtype) for run in runs[1:]]
    highest = functools.reduce(
        jnp.maximum, [jnp.max(s, axis=-1, keepdims=True) for s in scores]
    )
    weights = [jnp.exp(s - highest) for s in scores]
    total = sum(jnp.sum(w, axis=-1, keepdims=True) for w in weights)
    mixed = sum(
        product("bkqs,bksc->bkqc", w, run.values, dtype)
        for w, run in zip(weights, runs, strict=True)
    )
    output = mixed / total
    return output, (queries, runs, output, highest + jnp.log(total))


def _attend_groups_backward(dtype: DType, saved, cotangent: Array):
    queries, runs, output, log_total = saved
    # Softmax gradient: p * (dp - <dp, p>), and <dp, p> is <cotangent, output>.
    mean = jnp.sum(cotangent * output, axis=-1, keepdims=True)
    to_queries, to_runs = jnp.zeros_like(queries, jnp.float32), []
    for run in runs:
        probabilities = jnp.exp(_scores(queries, run, dtype) - log_total)
        to_probabilities = product("bkqc,bksc->bkqs", cotangent, run.values, dtype)
        to_scores = probabilities * (to_probabilities - mean)
        to_queries += product("bkqs,bksc->bkqc", to_scores, run.keys, dtype)
        to_keys = product("bkqs,bkqc->bksc", to_scores, queries, dtype)
        to_values = product("bkqs,bkqc->bksc", probabilities, cotangent, dtype)
        to_runs.append(
            _Masked(
                to_keys.astype(run.keys.dtype),
                to_values.astype(run.values.dtype),
                np.zeros(run.mask.shape, jax.dtypes.float0),  # type: ignore[arg-type]
            )
        )
    return to_queries.astype(queries.dtype), tuple(to_runs)


_attend_groups.defvjp(_attend_groups_forward, _attend_groups_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend_cache_and_fresh(
    queries: Array, cached: _Masked, fresh: _Masked, dtype: DType, interpret: bool
) -> Array:
    """`_attend_groups` with a kernel for the cache, whose mask has one row."""

    def local(queries: Array, *leaves: Array) -> Array:
        keys, values, seen = leaves[:3]
        fresh = _Masked(*leaves[3:])
        before = attend_cache(
            queries.astype(dtype),
            keys.astype(dtype),
            values.astype(dtype),
            seen[:, 0],
            interpret=interpret,
        )
        scores = _scores(queries, fresh, dtype)
        highest = jnp.max(scores, axis=-1)
        weights = jnp.exp(scores - highest[..., None])
        mixed = product("bkqs,bksc->bkqc", weights, fresh.values, dtype)
        own = Softmax(highest, jnp.sum(weights, axis=-1), mixed)
        both = join(jax.tree.map(lambda *x: jnp.stack(x), before, own), axis=0)
        return both.mixed / both.total[..., None]

    arrays: tuple[Any, ...] = (queries, *cached, *fresh)
    axes = [
        ("batch", "heads", "whole_length", "head_dim")
        if x.ndim == 4
        else ("batch", "whole_length", "whole_length")
        for x in arrays
    ]
    return map_shards(local, arrays, tuple(axes), summed=())


def _attend_cache_and_fresh_forward(queries, cached, fresh, dtype, interpret):
    output = _attend_cache_and_fresh(queries, cached, fresh, dtype, interpret)
    return output, (queries, cached, fresh)


def _attend_cache_and_fresh_backward(dtype, interpret, saved, cotangent):
    # Nothing is trained through a cache but small heads: scores are made whole.
    queries, *runs = saved
    _, pull_back = jax.vjp(
        lambda queries, runs: _attend_groups(queries, runs, dtype),
        queries,
        tuple(runs),
    )
    to_queries, to_runs = pull_back(cotangent)
    return to_queries, *to_runs


_attend_cache_and_fresh.defvjp(
    _attend_cache_and_fresh_forward, _attend_cache_and_fresh_backward
)
