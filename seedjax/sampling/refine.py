"""One denoising step of a block: from hidden states to tokens.

    hidden ─▶ head ─▶ candidates ─▶ policy: masks become tokens ─▶ revision ─▶ block

Everything here sees the open columns of every row: the current block and, if the recipe
works ahead (`sampling.ahead`), the next blocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.sampling.grammar.constraint import Constraint
from seedjax.sampling.head import Positions, head_of
from seedjax.sampling.policy import Candidates
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.revision import Draft
from seedjax.sampling.stopping import after_first, is_any_of
from seedjax.sampling.trace import TraceBuffer
from seedjax.sampling.vocabulary import Draw
from seedjax.typing import Array, Bool, Float, Float32, Int32, Key, Params


class OpenColumns(NamedTuple):
    """Constants while a block is denoised.

    Attributes:
      generation_mask: columns of the completion.
      fill_mask: columns that are filled: those and, in the last block, what follows.
      given: columns whose tokens were there before the decode, and stay: the prompt's
        and, within the completion, forced ones.
      new_index: place in the completion of each column.
      working: rows that are not done.
      keys: of each row, for this block.
      turn: how many blocks were denoised before.
      num_masked: positions of the current block that were masked when it began.
      constraint: what the completion has to match, if anything.
      draw: how candidates are drawn, in place of what the recipe says.
    """

    generation_mask: Bool[Array, "B L"]
    fill_mask: Bool[Array, "B L"]
    given: Bool[Array, "B L"]
    new_index: Int32[Array, "B L"]
    working: Bool[Array, "B"]
    keys: Key[Array, "B"]
    turn: Int32[Array, ""]
    num_masked: Int32[Array, "B"]
    constraint: Constraint | None
    draw: Draw | None = None


class Refinement(NamedTuple):
    """A block between two steps.

    Attributes:
      current: its tokens.
      step: steps taken.
      row_steps: of each row since the decode began.
      extra: steps of each row since its whole block was unmasked.
      changed: rows in which the last step changed something.
      active: rows that take part in the next step (`needs_step`), all that are not done
        in a block's first one.
      trace: record of the steps, if the recipe has one.
      confidence: of each token when it was unmasked or last changed, if the recipe has
        for `logprobs`.
    """

    current: Int32[Array, "B L"]
    step: Int32[Array, ""]
    row_steps: Int32[Array, "B"]
    extra: Int32[Array, "B"]
    changed: Bool[Array, "B"]
    active: Bool[Array, "B"]
    trace: TraceBuffer | None
    confidence: Float32[Array, "B L"] | None


def masked_positions(
    current: Int32[Array, "B L"],
    columns: OpenColumns,
    config: DenoiserConfig,
    *,
    fill: bool,
) -> Bool[Array, "B L"]:
    """Masked positions that are to be unmasked, in rows that are not done: all, or
    those of the completion before its first end if what follows is not filled."""
    masked = (current == config.mask_token_id) & columns.working[:, None]
    if fill:
        return masked & columns.fill_mask
    ends = is_any_of(current, config.eos_token_ids) & columns.generation_mask
    return masked & columns.generation_mask & ~after_first(ends)


def needs_step(
    block: Refinement,
    columns: OpenColumns,
    config: DenoiserConfig,
    sampler: SamplerConfig,
) -> Bool[Array, "B"]:
    """Rows whose block may still change the completion: it has masks before its first
    end or, where the recipe revises, any at all, or something changed."""
    fill = sampler.fills and sampler.revision is not None
    masked = masked_positions(block.current, columns, config, fill=fill)
    has_masks = jnp.any(masked[:, : config.block_size], axis=1)
    if sampler.revision is None:
        return has_masks
    unsettled = block.changed & (block.extra < sampler.revision.extra_steps)
    return has_masks | (unsettled & columns.working)


def refine(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    columns: OpenColumns,
    hidden: Float[Array, "R L D"],
    old: Refinement,
) -> Refinement:
    """The block after one more step.

    Args:
      params: the denoiser's parameters.
      config: from `block_denoiser`.
      sampler: the recipe.
      columns: the open columns.
      hidden: hidden states that predict them.
      old: the block before the step.
    """
    size = config.block_size
    is_last = old.step == sampler.steps_per_block(size) - 1
    step_keys = fold_in_rows(columns.keys, old.step)
    # What a row does must not depend on how many steps its neighbours need.
    active = old.active
    masked = masked_positions(old.current, columns, config, fill=sampler.fills)
    masked &= active[:, None]
    head = head_of(params, config, sampler, columns.constraint, columns.draw)
    proposal = head.propose(
        hidden,
        step_keys,
        Positions(old.current, sampler.eos.allows(columns.new_index), masked),
    )
    candidates = Candidates(
        proposal=jax.tree.map(lambda x: x[:, :size], proposal),
        masked=masked[:, :size],
        keys=step_keys,
        step=old.step,
        num_masked=columns.num_masked,
    )
    accepted = sampler.policy.accept(candidates) & candidates.masked
    accepted |= candidates.masked & is_last
    if sampler.ahead is not None:
        ahead = sampler.ahead.accept(proposal, masked, size)
        accepted = jnp.concatenate([accepted, ahead[:, size:]], axis=1)
    current = jnp.where(accepted, proposal.tokens, old.current)
    if sampler.revision is not None:
        changeable = columns.fill_mask if sampler.fills else columns.generation_mask
        changeable = changeable & ~columns.given & active[:, None]
        draft = Draft(
            tokens=current,
            proposal=proposal,
            editable=changeable & (old.current != config.mask_token_id),
            completion=changeable,
            step=old.step,
            keys=step_keys,
            mask_token_id=config.mask_token_id,
        )
        revised = sampler.revision.revise(draft)
        # A mask that is put in by a block's last step would stay.
        masks = (revised == config.mask_token_id) & columns.fill_mask
        masks = jnp.any(masks, axis=1, keepdims=True)
        current = jnp.where(is_last & masks, current, revised)
    trace, confidence = old.trace, old.confidence
    probability = proposal.confidence
    if proposal.probability is not None:
        probability = proposal.probability
    if trace is not None:
        trace = trace.write(
            columns.turn, old.step, current, probability, columns.working
        )
    if confidence is not None:
        confidence = jnp.where(current != old.current, probability, confidence)
    was_unmasked = active & ~jnp.any(masked[:, :size], axis=1)
    new = Refinement(
        current=current,
        step=old.step + 1,
        row_steps=old.row_steps + active,
        extra=old.extra + was_unmasked,
        changed=jnp.any(current != old.current, axis=1),
        active=active,
        trace=trace,
        confidence=confidence,
    )
    return new._replace(active=needs_step(new, columns, config, sampler))


def fold_in_rows(
    keys: Key[Array, "B"], number: Int32[Array, ""] | Int32[Array, "B"]
) -> Key[Array, "B"]:
    """Every row's key with a number folded in: the same for all rows, or one per
    row."""
    axes = (0, None if number.ndim == 0 else 0)
    return jax.vmap(jax.random.fold_in, axes)(keys, number)
