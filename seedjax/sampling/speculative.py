r"""Speculation: several tokens are drafted, and the model checks them in one pass.

    check    last  d1 d2 d3       causal: the model's choice one token at a time
                \  \  \  \
             g1    g2 g3 g4       d1 = g1, d2 = g2, d3 ≠ g3: g1 g2 g3 are kept

The longest prefix of the draft that the check agrees with is kept, and the checking
pass adds the token after it, so a turn writes at least one token. Every position draws
with the noise that autoregressive decoding would draw it with, so the completion is,
token for token, the autoregressive one at any temperature. Drafts come from

    two_pass   a pass of its own, over masks after the last token, which see each
               other unless the model is causal. Models with a causal and a parallel
               mode in one set of weights are trained for it (I-DLM, arXiv 2604.11035;
               TiDAR, arXiv 2511.08923), and causal ones (PARD, arXiv 2504.18583)
    one_pass   the pass that checks: beside the drafts of the pass before, it drafts
               again after each of them, for every number that may be kept. A gated
               adapter (`nn.adapted`) computes the drafted rows; those of three drafts:

                   last d1 d2 d3   after last   after d1   after d2   after d3
                   ───text──────   ─ 3 masks    ─ 3 masks  ─ 3 masks  ─ 3 masks

    lookup     the text itself (`sampling.lookup`): no model, no pass
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig
from seedjax.nn.cache import Entries, write
from seedjax.nn.columns import window
from seedjax.nn.denoiser import hidden_states
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.guidance import Copies, copies_of, num_copies
from seedjax.sampling.head import Positions, head_of
from seedjax.sampling.lookup import look_up
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.refine import fold_in_rows
from seedjax.sampling.state import DecodeState, Turn
from seedjax.sampling.stopping import after_first, is_any_of
from seedjax.sampling.vocabulary import draws
from seedjax.typing import Array, Float, Int32, Key, Params


class Pass(NamedTuple):
    """Results of a forward pass of a turn.

    Attributes:
      proposal: of the token after each text row, [B, N].
      drafts: tokens after the accepted ones, if the pass drafts, by how many were:
        [B, N, k].
      entries: keys and values.
    """

    proposal: Proposal
    drafts: Int32[Array, "B N k"] | None
    entries: Entries


@dataclass(frozen=True)
class Speculative:
    """A turn is one check, and what drafts for it.

    Attributes:
      model: with shifted logits, any attention.
      sampler: a recipe with `speculation`.
    """

    model: DenoiserConfig
    sampler: SamplerConfig
    block_size: int = 1
    turns_per_piece: int = 1

    @property
    def config(self) -> DenoiserConfig:
        """The model as it checks, and as the cache is filled."""
        return dataclasses.replace(self.model, attention="causal")

    def trace_shape(self, canvas: Canvas) -> None:
        """None: `check_recipe` refuses a trace of speculation."""

    def take_turn(
        self, params: Params, canvas: Canvas, keys: Key[Array, "B"], state: DecodeState
    ) -> Turn:
        speculation = self.sampler.speculation
        assert speculation is not None and state.cache is not None
        count = speculation.draft_tokens
        turn = _Round(self, params, canvas, keys, state)
        drafts = state.drafts
        if drafts is None and speculation.drafts != "lookup":
            drafts = turn.draft(count)
        if speculation.drafts == "model":
            assert drafts is not None
            return turn.check(drafts)
        present = canvas.layout.segments > 0
        found = look_up(
            state.tokens,
            present,
            state.column,
            count,
            shortest=speculation.match_tokens,
            none=self.model.mask_token_id,
        )
        if drafts is not None:
            exists = found.exists[:, None]
            return turn.check(jnp.where(exists, found.tokens, drafts))
        # Where no row has a draft, a pass over one token does.
        return lax.cond(
            jnp.any(found.exists & ~state.done),
            lambda: turn.check(found.tokens),
            lambda: turn.check(found.tokens[:, :0]),
        )


@dataclass(frozen=True, eq=False)
class _Round:
    """The passes of one turn."""

    strategy: Speculative
    params: Params
    canvas: Canvas
    keys: Key[Array, "B"]
    state: DecodeState

    def draft(self, count: int) -> Int32[Array, "B k"]:
        """Drafts from a pass of their own."""
        config, state = self.strategy.model, self.state
        if config.attention != "causal":
            config = dataclasses.replace(config, attention="bidirectional")
        shown = window(state.tokens, state.column - 1, count + 1)
        return self._pass(config, shown, 0).proposal.tokens[:, :count]

    def check(self, drafts: Int32[Array, "B k"]) -> Turn:
        """The turn, which keeps what the model agrees with of some drafts."""
        config, canvas, state = self.strategy.config, self.canvas, self.state
        speculation = self.strategy.sampler.speculation
        assert speculation is not None and state.cache is not None
        # Of a turn; a pass may be over fewer.
        most, count = speculation.draft_tokens, drafts.shape[1]
        last, written = state.column - 1, state.column - canvas.start
        forced = window(state.tokens, state.column, most + 1)
        is_forced = forced != config.mask_token_id
        drafted = jnp.where(is_forced[:, :count], forced[:, :count], drafts)
        shown = jnp.concatenate([window(state.tokens, last, 1), drafted], axis=1)
        block = most if state.drafts is not None else 0
        found = self._pass(config, shown, block)
        checking = found.proposal
        checked = jnp.where(
            is_forced[:, : count + 1], forced[:, : count + 1], checking.tokens
        )

        agrees = jnp.cumprod(drafted == checked[:, :-1], axis=1, dtype=jnp.int32)
        accepted = 1 + jnp.sum(agrees, axis=1, dtype=jnp.int32)
        kept = jnp.arange(count + 1)[None, :] < accepted[:, None]
        kept &= window(canvas.generation_mask, written, count + 1)
        ends = is_any_of(checked, config.eos_token_ids) & kept
        kept &= ~after_first(ends) & ~state.done[:, None]
        drafts_after = state.drafts
        if found.drafts is not None:
            index = (accepted - 1)[:, None, None]
            drafts_after = jnp.take_along_axis(found.drafts, index, axis=1)[:, 0]
        confidence = state.confidence
        if confidence is not None:
            before = window(confidence, state.column, most + 1)
            is_drawn = kept & ~is_forced[:, : count + 1]
            new = jnp.where(is_drawn, checking.confidence, before[:, : count + 1])
            confidence = jnp.concatenate([new, before[:, count + 1 :]], axis=1)
        num_kept = jnp.sum(kept, axis=1, dtype=jnp.int32)
        # Keys of the last token, and of those that were accepted after it.
        layout = window(canvas.layout, last, count + 1)
        is_kept = jnp.arange(count + 1)[None, :] < num_kept[:, None]
        committed = layout._replace(segments=jnp.where(is_kept, layout.segments, 0))
        copies = self._copies
        # What was not accepted is masked again.
        tokens = jnp.where(kept, checked, forced[:, : count + 1])
        more = ((0, 0), (0, most - count))
        return Turn(
            tokens=jnp.concatenate([tokens, forced[:, count + 1 :]], axis=1),
            confidence=confidence,
            committed=jnp.pad(kept, more),
            num_columns=num_kept,
            cache=write(
                state.cache, found.entries, copies.rows(committed), copies.rows(last)
            ),
            steps=state.steps + ~state.done,
            forwards=jnp.int32(speculation.passes),
            trace=None,
            drafts=drafts_after,
        )

    @property
    def _copies(self) -> Copies:
        strategy = self.strategy
        return copies_of(strategy.config, strategy.sampler, self.canvas)

    def _pass(
        self, config: DenoiserConfig, shown: Int32[Array, "B N"], block: int
    ) -> Pass:
        """A forward pass over the last token and those after it; with a `block`, also
        over so many drafted rows after each of them."""
        state, copies, count = self.state, self._copies, shown.shape[1]
        last = state.column - 1
        text = window(self.canvas.layout, last, count)
        layout, tokens = text, copies.tokens(shown, last)
        if block:
            layout = with_drafts(text, block)
            masks = jnp.full((tokens.shape[0], count * block), self._draft_token)
            tokens = jnp.concatenate([tokens, masks.astype(tokens.dtype)], axis=1)
        forward = hidden_states(
            self.params, config, tokens, copies.rows(layout), cache=state.cache
        )
        # The rows of text predict the next tokens, those of drafts the ones after.
        place, depth = jnp.arange(count), jnp.arange(block)
        after = (place[:, None] + 1 + depth[None, :]).reshape(-1)
        if not block or self._draws:
            proposal = self._propose(config, forward.hidden[:, :count], place, shown)
            if not block:
                return Pass(proposal, None, forward.entries)
            masked = jnp.full((shown.shape[0], count * block), config.mask_token_id)
            drafts = self._propose(config, forward.hidden[:, count:], after, masked)
        else:
            # The head is read once.
            both = jnp.concatenate([place, after])
            current = jnp.pad(shown, ((0, 0), (0, count * block)))
            all_rows = self._propose(config, forward.hidden, both, current)
            proposal = jax.tree.map(lambda x: x[:, :count], all_rows)
            drafts = jax.tree.map(lambda x: x[:, count:], all_rows)
        tokens = drafts.tokens.reshape(-1, count, block)
        return Pass(proposal, tokens, forward.entries)

    @property
    def _draws(self) -> bool:
        warm = draws(self.strategy.sampler.temperature)
        return warm or self.canvas.draw is not None

    @property
    def _draft_token(self) -> int:
        speculation = self.strategy.sampler.speculation
        assert speculation is not None
        token = speculation.draft_token_id
        return self.strategy.model.mask_token_id if token is None else token

    def _propose(
        self,
        config: DenoiserConfig,
        hidden: Float[Array, "R L D"],
        index: Int32[Array, "L"],
        current: Int32[Array, "B L"],
    ) -> Proposal:
        """Candidates for places of the completion, counted from the first one that is
        not written, each drawn with the key that autoregressive decoding has there."""
        sampler, draw = self.strategy.sampler, self.canvas.draw
        batch, length = current.shape
        written = (self.state.column - self.canvas.start)[:, None] + index[None, :]
        may_end = sampler.eos.allows(written)
        if not self._draws:
            head = head_of(self.params, config, sampler)
            return head.propose(hidden, self.keys, Positions(current, may_end))
        # A place is a row of its own, as when it is the only one.
        copies = num_copies(sampler)
        apart = hidden.reshape(batch, copies, length, -1).swapaxes(1, 2)
        apart = apart.reshape(batch * length * copies, 1, -1)
        draw = jax.tree.map(lambda x: jnp.repeat(x, length, axis=0), draw)
        keys = fold_in_rows(jnp.repeat(self.keys, length), written.reshape(-1))
        head = head_of(self.params, config, sampler, draw=draw)
        found = head.propose(
            apart, keys, Positions(current.reshape(-1, 1), may_end.reshape(-1, 1))
        )
        return jax.tree.map(lambda x: x.reshape(batch, length), found)


def with_drafts(text: Layout, block: int) -> Layout:
    """The layout of some neighbouring tokens, followed by that of `block` drafted rows
    after each of them.

    Positions 5 6 and blocks of 2: 5 6 | 6 7 | 7 8, anchors 5 6 | 5 5 | 6 6.
    """
    batch, count = text.positions.shape
    first = text.positions[:, :1]
    place = jnp.repeat(jnp.arange(count, dtype=jnp.int32), block)[None, :]
    depth = jnp.tile(jnp.arange(block, dtype=jnp.int32), count)[None, :]
    anchors = jnp.broadcast_to(first + place, (batch, count * block))
    drafted = Layout(
        positions=anchors + 1 + depth,
        segments=jnp.broadcast_to(text.segments[:, :1], anchors.shape),
        noisy=jnp.ones(anchors.shape, bool),
        anchors=anchors,
    )
    own = text._replace(anchors=text.positions)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), own, drafted)


def no_drafts(
    config: DenoiserConfig, sampler: SamplerConfig, batch: int
) -> Int32[Array, "B k"] | None:
    """Drafts before the first pass: none are right. None where no pass leaves any."""
    speculation = sampler.speculation
    if speculation is None or not speculation.carries:
        return None
    return jnp.full((batch, speculation.draft_tokens), config.mask_token_id, jnp.int32)
