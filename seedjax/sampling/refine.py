"""One refinement step of a block: from hidden states to tokens.

    hidden ─▶ logits ─▶ combine ─▶ forbid ─▶ propose ─▶ fit ─▶ accept ─▶ revise ─▶ block
                                                        form   policy    revision

Everything here sees the open columns of every row: the working block and, if the recipe
works ahead (`sampling.ahead`), the blocks behind it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import get_abstract_mesh

from seedjax.config import DenoiserConfig
from seedjax.nn.denoiser import head_table, unembed
from seedjax.sampling.credit import Credits
from seedjax.sampling.grammar.decode import Automaton, best_string
from seedjax.sampling.guidance import combine
from seedjax.sampling.proposal import (
    Proposal,
    chunk_for,
    few_for,
    forbid,
    forbidden_ids,
    gumbel,
    keep_most_probable,
    probability_of,
    propose,
    propose_hidden,
    propose_undecided,
)
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.schedules import Progress
from seedjax.sampling.stopping import behind_first, is_any_of
from seedjax.sampling.trace import TraceBuffer
from seedjax.typing import Array, Bool, Float, Float32, Int32, Key, Params

DROPPED = 1e5  # off the score of a token that top-k or top-p drops


class Form(NamedTuple):
    """What the answers of all rows have to look like.

    Attributes:
      automaton: that admits them.
      state: of each row, in front of the open columns.
      counted: columns of the answer.
      remaining: tokens that each answer may have behind the open columns.
    """

    automaton: Automaton
    state: Int32[Array, "B"]
    counted: Bool[Array, "B L"]
    remaining: Int32[Array, "B"]

    def fit(
        self,
        logits: Float32[Array, "B L V"],
        sure: Float32[Array, "B L V"],
        keys: Key[Array, "B"],
        current: Int32[Array, "B L"],
        proposal: Proposal,
        config: DenoiserConfig,
        sampler: SamplerConfig,
    ) -> Proposal:
        """The proposal with the tokens of the best string that is admitted; `sure` are
        the logits that say how sure each is."""
        scores = logits
        if sampler.temperature > 0.0:
            scaled = logits / sampler.temperature
            kept = keep_most_probable(scaled, top_k=sampler.top_k, top_p=sampler.top_p)
            # The form may leave nothing else than what the filters drop.
            scores = jnp.where(jnp.isfinite(kept), scaled, scaled - DROPPED)
            scores += gumbel(keys, 0, logits.shape)
        tokens = best_string(
            self.automaton,
            scores,
            current,
            self.counted,
            self.state,
            self.remaining,
            mask_token_id=config.mask_token_id,
        ).tokens
        probability = None
        if proposal.probability is not None:
            probability = probability_of(tokens, logits)
        return proposal._replace(
            tokens=tokens,
            confidence=probability_of(tokens, sure),
            probability=probability,
        )


class OpenColumns(NamedTuple):
    """What does not change while a block is refined.

    Attributes:
      wanted: columns of the answer.
      unmasked: columns that are unmasked: those and, in the last block, what follows.
      given: columns whose tokens were there before the decode, and stand: the prompt's
        and, within the answer, forced ones.
      new_index: place in the answer of each column, where it is wanted.
      working: rows that are not done.
      keys: of each row, for this block.
      turn: how many blocks were worked on before.
      masked: positions of the working block that were masked when it began.
      form: what the answer has to look like, if anything.
    """

    wanted: Bool[Array, "B L"]
    unmasked: Bool[Array, "B L"]
    given: Bool[Array, "B L"]
    new_index: Int32[Array, "B L"]
    working: Bool[Array, "B"]
    keys: Key[Array, "B"]
    turn: Int32[Array, ""]
    masked: Int32[Array, "B"]
    form: Form | None


class Refinement(NamedTuple):
    """A working block between two steps.

    Attributes:
      current: its tokens.
      step: steps taken.
      row_steps: of each row since the decode began.
      extra: steps of each row since all of its block was decided.
      changed: rows in which the last step changed something.
      active: rows that take part in the next step (`needs_step`), all that are not done
        in a block's first one.
      credits: what the recipe's credit remembers, if it gives any.
      trace: record of the steps, if the recipe asks for one.
      confidence: of each token when it was decided or last changed, if the recipe asks
        for `logprobs`.
    """

    current: Int32[Array, "B L"]
    step: Int32[Array, ""]
    row_steps: Int32[Array, "B"]
    extra: Int32[Array, "B"]
    changed: Bool[Array, "B"]
    active: Bool[Array, "B"]
    credits: Credits | None
    trace: TraceBuffer | None
    confidence: Float32[Array, "B L"] | None


def undecided(
    current: Int32[Array, "B L"],
    columns: OpenColumns,
    config: DenoiserConfig,
    *,
    fill: bool,
) -> Bool[Array, "B L"]:
    """Masked positions that are to be unmasked, in rows that are not done: all, or
    those of the answer before its first end if what follows is not to be filled."""
    masked = (current == config.mask_token_id) & columns.working[:, None]
    if fill:
        return masked & columns.unmasked
    ends = is_any_of(current, config.eos_token_ids) & columns.wanted
    return masked & columns.wanted & ~behind_first(ends)


def needs_step(
    block: Refinement,
    columns: OpenColumns,
    config: DenoiserConfig,
    sampler: SamplerConfig,
) -> Bool[Array, "B"]:
    """Rows whose working block may still change the answer: it has masks before its
    first end or, where the recipe revises, any at all, or something changed."""
    fill = sampler.fills and sampler.revision is not None
    waiting = undecided(block.current, columns, config, fill=fill)
    waits = jnp.any(waiting[:, : config.block_size], axis=1)
    if sampler.revision is None:
        return waits
    unsettled = block.changed & (block.extra < sampler.revision.extra_steps)
    return waits | (unsettled & columns.working)


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
      hidden: what answers for them.
      old: the block before the step.
    """
    size, mask = config.block_size, config.mask_token_id
    is_last = old.step == sampler.steps_per_block(size) - 1
    step_keys = fold_in_rows(columns.keys, old.step)
    # What a row does must not depend on how many steps its neighbours need.
    active = old.active
    waiting = undecided(old.current, columns, config, fill=sampler.fills)
    waiting &= active[:, None]
    proposal, credits = draw(
        params,
        config,
        sampler,
        hidden,
        step_keys,
        current=old.current,
        new_index=columns.new_index,
        form=columns.form,
        credits=old.credits,
        undecided=waiting,
    )
    leading = sampler.policy.accept(
        jax.tree.map(lambda x: x[:, :size], proposal),
        waiting[:, :size],
        step_keys,
        Progress(old.step, columns.masked),
    )
    leading |= waiting[:, :size] & is_last
    accepted = leading
    if sampler.ahead is not None:
        behind = sampler.ahead.accept(proposal, waiting, size)
        accepted = jnp.concatenate([leading, behind[:, size:]], axis=1)
    current = jnp.where(accepted, proposal.tokens, old.current)
    if sampler.revision is not None:
        changeable = columns.unmasked if sampler.fills else columns.wanted
        changeable = changeable & ~columns.given & active[:, None]
        editable = changeable & (old.current != mask)
        revised = sampler.revision.revise(
            current,
            proposal,
            editable,
            old.step,
            step_keys,
            mask,
            answer=changeable,
        )
        # A mask that is put in by a block's last step would stay.
        masks = jnp.any((revised == mask) & columns.unmasked, axis=1, keepdims=True)
        current = jnp.where(is_last & masks, current, revised)
    trace = old.trace
    probability = proposal.confidence
    if proposal.probability is not None:
        probability = proposal.probability
    if trace is not None:
        trace = trace.write(
            columns.turn, old.step, current, probability, columns.working
        )
    confidence = old.confidence
    if confidence is not None:
        confidence = jnp.where(current != old.current, probability, confidence)
    was_decided = active & ~jnp.any(waiting[:, :size], axis=1)
    new = Refinement(
        current=current,
        step=old.step + 1,
        row_steps=old.row_steps + active,
        extra=old.extra + was_decided,
        changed=jnp.any(current != old.current, axis=1),
        active=active,
        credits=credits,
        trace=trace,
        confidence=confidence,
    )
    return new._replace(active=needs_step(new, columns, config, sampler))


def draw(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    hidden: Float[Array, "R L D"],
    keys: Key[Array, "B"],
    *,
    current: Int32[Array, "B L"],
    new_index: Int32[Array, "B L"],
    form: Form | None = None,
    credits: Credits | None = None,
    undecided: Bool[Array, "B L"] | None = None,
) -> tuple[Proposal, Credits | None]:
    """A candidate at every position, by the rules of the recipe.

    Args:
      params: the denoiser's parameters.
      config: the denoiser.
      sampler: the recipe.
      hidden: what answers for the positions.
      keys: of each row, for this step.
      current: what stands at the positions.
      new_index: their places in the answer.
      form: what the answer has to look like, if anything.
      credits: of the positions, where the recipe gives credit.
      undecided: positions that need a candidate; the others may be left out.

    Returns:
      The candidates, and the credits behind this look.
    """
    num_ids = config.vocab_size
    never = forbidden_ids(
        num_ids, sampler.banned_ids(config), vocabulary_end=sampler.vocabulary_end
    )
    ends = forbidden_ids(num_ids, config.eos_token_ids)
    may_end = sampler.eos.allows(new_index)
    controls = forbidden_ids(num_ids, sampler.control_ids)
    filtered = sampler.temperature > 0.0 and (
        sampler.top_k is not None or sampler.top_p < 1.0
    )
    own = sampler.certainty_of == "model" and not sampler.last_token_ids
    plain = not (filtered or sampler.guidance) and own
    if plain and form is None and credits is None:
        head = head_table(params, config)
        # A vocabulary that is spread over devices is taken whole.
        whole = not get_abstract_mesh().empty
        rules: dict[str, Any] = {
            "never": never,
            "sometimes": ends,
            "allowed": may_end,
            "controls": controls,
            "temperature": sampler.temperature,
            "dtype": config.dtype,
            "chunk_size": None if whole else chunk_for(current.size, num_ids),
        }
        few = few_for(current.shape[1], num_ids)
        # Where decided tokens may be revised, they are asked about as well.
        if (
            few
            and undecided is not None
            and not (sampler.temperature or sampler.revision)
        ):
            proposal = propose_undecided(
                head, hidden, keys, current, undecided, few=few, **rules
            )
        else:
            proposal = propose_hidden(head, hidden, keys, current, **rules)
        return proposal, None
    logits = combine(unembed(params, config, hidden), sampler)
    logits = forbid(logits, never, sometimes=ends, allowed=may_end)
    stands = ~jnp.asarray(never)[current]
    logits = forbid(logits, never, sometimes=controls, allowed=stands)
    if credits is not None:
        assert sampler.credit is not None and undecided is not None
        credits = sampler.credit.update(credits, logits, undecided)
        logits = sampler.credit.apply(credits, logits, undecided)
    sure = None if own else certainty_logits(logits, sampler)
    proposal = propose(
        logits,
        keys,
        current,
        temperature=sampler.temperature,
        top_k=sampler.top_k,
        top_p=sampler.top_p,
        sure=sure,
    )
    if form is not None:
        seen = logits if sure is None else sure
        proposal = form.fit(logits, seen, keys, current, proposal, config, sampler)
    return proposal, credits


def certainty_logits(
    logits: Float32[Array, "B L V"], sampler: SamplerConfig
) -> Float32[Array, "B L V"]:
    """The logits of the distribution that says how sure each candidate is."""
    if sampler.certainty_of == "draw":
        logits = logits / (sampler.temperature or 1.0)
        logits = keep_most_probable(logits, top_k=sampler.top_k, top_p=sampler.top_p)
    if sampler.last_token_ids:
        last = forbidden_ids(logits.shape[-1], sampler.last_token_ids)
        logits = jnp.where(last[None, None, :], -jnp.inf, logits)
    return logits


def fold_in_rows(
    keys: Key[Array, "B"], number: Int32[Array, ""] | Int32[Array, "B"]
) -> Key[Array, "B"]:
    """Every row's key with a number folded in: the same for all rows, or one a row."""
    axes = (0, None if number.ndim == 0 else 0)
    return jax.vmap(jax.random.fold_in, axes)(keys, number)
