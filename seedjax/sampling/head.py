"""The output head: from hidden states to candidate tokens.

    WholeHead         logits of the whole vocabulary: filters, guidance, grammars
    ChunkedHead       the vocabulary in chunks; [B, L, V] never exists where it is large
    FewPositionsHead  the same, of the masked positions alone where these are few

`head_of` chooses by the recipe. Where two of them can serve a recipe, they draw the
same tokens from the same noise.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import get_abstract_mesh

from seedjax.config import DenoiserConfig, DType
from seedjax.nn.denoiser import head_table, unembed
from seedjax.nn.precision import product
from seedjax.nn.quantize import Quantized
from seedjax.sampling.grammar.constraint import Constraint
from seedjax.sampling.guidance import combine
from seedjax.sampling.proposal import (
    Proposal,
    Statistics,
    add_logits,
    no_statistics,
    proposal_of,
    propose,
)
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.vocabulary import (
    TILE,
    Draw,
    Forbidden,
    Temperature,
    draws,
    keep_most_probable,
    noise,
    scaled,
    table_of_ids,
)
from seedjax.sharding import constrain
from seedjax.typing import Array, Bool, Float, Float32, Int32, Key, Params

CHUNK = 4096
"""Tokens of a large vocabulary in one chunk (`chunk_for`)."""


class Positions(NamedTuple):
    """The positions that a head proposes candidates for.

    Attributes:
      current: the token of each position now, the mask where there is none.
      may_end: whether an end-of-sequence token may be drawn there.
      masked: positions that need a candidate; None is all. For the others a proposal
        is unspecified.
    """

    current: Int32[Array, "B L"]
    may_end: Bool[Array, "B L"]
    masked: Bool[Array, "B L"] | None = None


@runtime_checkable
class Head(Protocol):
    """Proposes a candidate token per position."""

    def propose(
        self,
        hidden: Float[Array, "R L D"],
        keys: Key[Array, "B"],
        positions: Positions,
    ) -> Proposal:
        """The candidates.

        Args:
          hidden: normalised hidden states that predict the positions; with guidance
            two rows for each row of the canvas.
          keys: one per row, for this step.
          positions: to be predicted.
        """
        ...


def head_of(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    constraint: Constraint | None = None,
    draw: Draw | None = None,
) -> Head:
    """The head of a model, for a recipe.

    Args:
      params: the denoiser's parameters.
      config: the denoiser.
      sampler: the recipe.
      constraint: what the completions have to match, if anything.
      draw: how candidates are drawn, in place of what the recipe says.
    """
    if draw is not None:
        return WholeHead(params, config, sampler, constraint, draw)
    warmth = sampler.temperature
    filters = draws(warmth) and (sampler.top_k is not None or sampler.top_p < 1.0)
    other_certainty = sampler.certainty_of != "model" or sampler.last_token_ids
    if filters or other_certainty or sampler.guidance or constraint is not None:
        return WholeHead(params, config, sampler, constraint)
    head = ChunkedHead(
        head_table(params, config),
        forbidden_of(config, sampler),
        warmth,
        config.dtype,
    )
    # Noise goes by column, and a revision needs candidates for unmasked tokens, too.
    if draws(warmth) or sampler.revision is not None:
        return head
    return FewPositionsHead(head)


def forbidden_of(config: DenoiserConfig, sampler: SamplerConfig) -> Forbidden:
    """Ids that a recipe may not draw from a model."""
    num_ids, end = config.vocab_size, sampler.vocabulary_end
    return Forbidden(
        always=table_of_ids(num_ids, sampler.banned_ids(config), vocabulary_end=end),
        ends=table_of_ids(num_ids, config.eos_token_ids),
        edits=table_of_ids(num_ids, sampler.control_ids),
    )


@dataclass(frozen=True, eq=False)
class WholeHead:
    """Logits of the whole vocabulary at once, under every recipe."""

    params: Params
    config: DenoiserConfig
    sampler: SamplerConfig
    constraint: Constraint | None = None
    draw: Draw | None = None

    def propose(
        self,
        hidden: Float[Array, "R L D"],
        keys: Key[Array, "B"],
        positions: Positions,
    ) -> Proposal:
        sampler, current = self.sampler, positions.current
        forbidden = forbidden_of(self.config, sampler)
        logits = combine(unembed(self.params, self.config, hidden), sampler)
        how: dict[str, Any] = {
            "temperature": sampler.temperature,
            "top_k": sampler.top_k,
            "top_p": sampler.top_p,
        }
        if self.draw is not None:
            logits = self.draw.add_bias(logits)
            how = {name: getattr(self.draw, name) for name in how}
        is_masked = forbidden.is_masked(current)
        logits = forbidden.exclude(logits, positions.may_end, is_masked)
        certainty = certainty_logits(logits, sampler)
        proposal = propose(
            logits,
            keys,
            current,
            certainty=certainty,
            **how,
        )
        if self.constraint is None:
            return proposal
        return self.constraint.fit(
            logits,
            logits if certainty is None else certainty,
            keys,
            current,
            proposal,
            mask_token_id=self.config.mask_token_id,
            **how,
        )


def certainty_logits(
    logits: Float32[Array, "B L V"], sampler: SamplerConfig
) -> Float32[Array, "B L V"] | None:
    """The logits of the distribution that the certainty of candidates is read from;
    None if it is the model's own."""
    if sampler.certainty_of == "model" and not sampler.last_token_ids:
        return None
    if sampler.certainty_of == "draw":
        logits = logits / (sampler.temperature or 1.0)
        logits = keep_most_probable(logits, top_k=sampler.top_k, top_p=sampler.top_p)
    if sampler.last_token_ids:
        last = table_of_ids(logits.shape[-1], sampler.last_token_ids)
        logits = jnp.where(last[None, None, :], -jnp.inf, logits)
    return logits


@dataclass(frozen=True, eq=False)
class ChunkedHead:
    """Product, `Forbidden.exclude` and `propose` in one, a part of a large vocabulary
    at a time. No filters.

    The draws are those of `propose`, from the same noise, however the vocabulary is
    cut: candidates differ only where the logits do, by rounding of the product.

    Attributes:
      table: one row per token; quantized or not.
      forbidden: what may not be drawn.
      temperature: of all rows, or of each; 0 is greedy.
      dtype: what the operands of the product are cast to.
    """

    table: Float[Array, "V D"] | Quantized
    forbidden: Forbidden
    temperature: Temperature
    dtype: DType

    def propose(
        self,
        hidden: Float[Array, "B L D"],
        keys: Key[Array, "B"],
        positions: Positions,
    ) -> Proposal:
        # A vocabulary that is spread over devices is taken whole.
        size = chunk_for(positions.current.size, self.table.shape[0])
        size = size if get_abstract_mesh().empty else None
        return self.propose_in_chunks(hidden, keys, positions, size)

    def propose_in_chunks(
        self,
        hidden: Float[Array, "B L D"],
        keys: Key[Array, "B"],
        positions: Positions,
        chunk_size: int | None,
    ) -> Proposal:
        """`propose`, `chunk_size` tokens of the vocabulary at a time: a multiple of
        128, or None for all at once."""
        assert chunk_size is None or (chunk_size > 0 and chunk_size % TILE == 0)
        current, may_end = positions.current, positions.may_end
        is_masked = self.forbidden.is_masked(current)

        def add_rows(
            statistics: Statistics, rows: Any, bans: Forbidden, first: Array | int
        ) -> Statistics:
            logits = product("bld,vd->blv", hidden, rows, self.dtype)
            logits = constrain(logits, ("batch", "length", "vocab"))
            logits = bans.exclude(logits, may_end, is_masked)
            scores = None
            if draws(self.temperature):
                scores = scaled(logits, self.temperature)
                scores += noise(keys, first, logits.shape, self.temperature)
            return add_logits(statistics, logits, first, current, scores)

        num_ids = self.table.shape[0]
        bans = jax.tree.map(jnp.asarray, self.forbidden)
        none = no_statistics(current)
        if chunk_size is None or chunk_size >= num_ids:
            return proposal_of(add_rows(none, self.table, bans, 0))

        # XLA's CPU backend widens a bfloat16 table to float32, the whole of it, where
        # it sees a part being taken in a loop; integers it leaves alone. The barrier
        # keeps the taking apart from the product, which is slow otherwise.
        def as_bits(leaf: Array) -> Array:
            is_bfloat16 = leaf.dtype == jnp.bfloat16
            return lax.bitcast_convert_type(leaf, jnp.uint16) if is_bfloat16 else leaf

        tables = jax.tree.map(as_bits, (self.table, bans))

        def add_chunk(number: Array, statistics: Statistics) -> Statistics:
            first = number * chunk_size
            parts = jax.tree.map(
                lambda leaf: lax.dynamic_slice_in_dim(leaf, first, chunk_size), tables
            )
            rows, some = jax.tree.map(
                lambda part, leaf: lax.bitcast_convert_type(part, leaf.dtype),
                lax.optimization_barrier(parts),
                (self.table, bans),
            )
            return add_rows(statistics, rows, some, first)

        whole_chunks = num_ids // chunk_size
        statistics = lax.fori_loop(0, whole_chunks, add_chunk, none)
        rest = whole_chunks * chunk_size
        if rest < num_ids:
            rows, some = jax.tree.map(lambda leaf: leaf[rest:], (self.table, bans))
            statistics = add_rows(statistics, rows, some, rest)
        return proposal_of(statistics)


@dataclass(frozen=True, eq=False)
class FewPositionsHead:
    """A `ChunkedHead` that is applied to the masked positions alone as soon as no row
    has more than a few of them. Temperature 0 only, for noise goes by column."""

    head: ChunkedHead

    def propose(
        self,
        hidden: Float[Array, "B L D"],
        keys: Key[Array, "B"],
        positions: Positions,
    ) -> Proposal:
        few = few_for(positions.current.shape[1], self.head.table.shape[0])
        if few is None or positions.masked is None:
            return self.head.propose(hidden, keys, positions)
        return self.propose_few(hidden, keys, positions, few)

    def propose_few(
        self,
        hidden: Float[Array, "B L D"],
        keys: Key[Array, "B"],
        positions: Positions,
        few: int,
    ) -> Proposal:
        """`propose`, of the masked positions where no row has more than `few`; of the
        others then token 0, all numbers 0.

        Two masked of eight, `few` 2: the head is given 2 hidden states instead of 8.
        """
        current, masked = positions.current, positions.masked
        assert masked is not None and few <= masked.shape[1]
        columns = jnp.argsort(~masked, axis=1, stable=True)[:, :few]

        def take(x: Array) -> Array:
            return jnp.take_along_axis(x, columns, axis=1)

        def of_all() -> Proposal:
            return self.head.propose(hidden, keys, positions)

        def of_few() -> Proposal:
            chosen = jnp.take_along_axis(hidden, columns[:, :, None], axis=1)
            found = self.head.propose(
                chosen, keys, Positions(take(current), take(positions.may_end))
            )
            rows = jnp.arange(columns.shape[0])[:, None]
            return jax.tree.map(
                lambda x: jnp.zeros(current.shape, x.dtype).at[rows, columns].set(x),
                found,
            )

        count = jnp.max(jnp.sum(masked, axis=1))
        return lax.cond(count <= few, of_few, of_all)


def few_for(block_size: int, num_ids: int) -> int | None:
    """For how many masked positions of a block the head is applied to them alone: a
    quarter of the block, where the head is worth it; else None."""
    if block_size >= 16 and num_ids >= 8 * CHUNK:
        return block_size // 4
    return None


def chunk_for(num_positions: int, num_ids: int) -> int | None:
    """The chunk size for B times L positions and a vocabulary: 4,096 where the logits
    would fill 64 MiB and more, and the vocabulary is worth cutting; else None.

    On two CPU cores, with 155,136 tokens of 896 channels, one block of 32 positions (19
    MiB of logits) takes a quarter longer in chunks, and eight blocks take two thirds
    of the time and none of the memory. Accelerators, not measured, may want larger
    chunks.
    """
    if num_ids >= 8 * CHUNK and 4 * num_positions * num_ids >= 2**26:
        return CHUNK
    return None
