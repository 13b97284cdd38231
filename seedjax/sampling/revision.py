"""Revisions: unmasked tokens are edited, masked again, deleted, inserted.

    block ─▶ forward ─▶ candidates ─▶ policy: masks become tokens ─▶ revision ─▶ block
                            └─────────────────────────────────────────┘

A revision is a frozen dataclass with the members of `Revision`. It comes after the
policy in each step and may change what earlier steps unmasked. The model sees these
tokens, but its candidates for them are worth acting on only if it was trained on wrong
tokens too (Seed Diffusion's edit stage, LLaDA2.1): one that was trained on masks alone
never had to correct a token.
"""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.sampling.candidates import rank
from seedjax.sampling.proposal import Proposal
from seedjax.typing import Array, Bool, Float32, Int32, Key

KEY_OF_REMASKING = 2**32 - 2  # far from what candidates are drawn with


class Draft(NamedTuple):
    """Changes of a revision in one denoising step of a block.

    Attributes:
      tokens: the block after this step's acceptances.
      proposal: the model's candidates, from the block before them.
      editable: positions of the completion that were unmasked in earlier steps.
      completion: positions of the completion, masked or not.
      step: denoising steps that were taken in this block before.
      keys: one per row; they may be those that candidates are drawn with.
      mask_token_id: the mask.
    """

    tokens: Int32[Array, "B L"]
    proposal: Proposal
    editable: Bool[Array, "B L"]
    completion: Bool[Array, "B L"]
    step: Int32[Array, ""]
    keys: Key[Array, "B"]
    mask_token_id: int

    @property
    def num_accepted(self) -> Int32[Array, "B"]:
        """How many positions of each row were unmasked in this step."""
        is_token = self.tokens != self.mask_token_id
        new = self.completion & ~self.editable & is_token
        return jnp.sum(new, axis=1, dtype=jnp.int32)


@runtime_checkable
class Revision(Protocol):
    """Changes unmasked tokens."""

    @property
    def extra_steps(self) -> int:
        """Most denoising steps that a block gets after all of it is unmasked; they run
        only while something changes. What was masked again is unmasked in them too,
        where the policy's own steps are used up (`FixedCount`)."""
        ...

    def revise(self, draft: Draft) -> Int32[Array, "B L"]:
        """The tokens after the revision. In a block's last step, a revision that puts
        masks in is dropped, for they would stay."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenEdits:
    """Replaces an unmasked token by another candidate whose confidence reaches
    `threshold`: the token-to-token edits of LLaDA2.1 (arXiv 2602.08676).

    At temperature 0 the candidate is the most probable token. With sampling it may be
    any, and at a low threshold edits then do not come to rest by themselves.

    Example, threshold 0.5: of `a b c` with candidates `a x y` of confidences 0.9 0.8
    0.4 the second becomes x.
    """

    threshold: float = 0.5
    most: int | None = None  # edits of a row in one step; None is any number
    extra_steps: int = 16

    def __post_init__(self):
        require(0.0 <= self.threshold <= 1.0, self, "threshold", "in [0, 1]")
        require(
            self.most is None or self.most >= 1, self, "most", "at least 1, or None"
        )
        require(self.extra_steps >= 0, self, "extra_steps", "0 or more")

    def revise(self, draft: Draft) -> Int32[Array, "B L"]:
        proposal = draft.proposal
        edited = draft.editable & (proposal.tokens != draft.tokens)
        edited &= proposal.confidence >= self.threshold
        if self.most is not None:
            edited &= rank(proposal.confidence, edited) < self.most
        return jnp.where(edited, proposal.tokens, draft.tokens)


@dataclass(frozen=True, kw_only=True)
class Revoke:
    """Masks an unmasked token again when its probability is below `threshold`.

    The least probable tokens go first, at most `most` of a row in one step and always
    fewer than the step accepts, so that each step unmasks a position more and a block
    comes to its end (WINO's rule, arXiv 2507.18578, which counts the acceptances of the
    step before). Saber (arXiv 2510.18165) masks again the tokens whose probability has
    fallen most. In the extra steps, when nothing is left to accept, up to `most` go.

    WINO reads the probability elsewhere: from a second copy of the block, all masks,
    which sees every other position of the block but not its own token. That costs twice
    the positions and works with any masked model. Here it is read at the token itself,
    at no cost, which takes a model that was trained on wrong tokens. For others choose
    a low threshold.

    Example, threshold 0.3 and `most` 2: three masks were just accepted, the older
    tokens have 0.9 0.2 0.1 0.05; the last two become masks.
    """

    threshold: float = 0.3
    most: int = 4
    extra_steps: int = 0

    def __post_init__(self):
        require(0.0 <= self.threshold <= 1.0, self, "threshold", "in [0, 1]")
        require(self.most >= 1, self, "most", "at least 1")
        require(self.extra_steps >= 0, self, "extra_steps", "0 or more")

    def revise(self, draft: Draft) -> Int32[Array, "B L"]:
        accepted, standing = draft.num_accepted, draft.proposal.standing
        most = jnp.where(accepted > 0, jnp.minimum(accepted - 1, self.most), self.most)
        doubtful = draft.editable & (standing < self.threshold)
        revoked = doubtful & (rank(-standing, doubtful) < most[:, None])
        return jnp.where(revoked, draft.mask_token_id, draft.tokens)


@dataclass(frozen=True, kw_only=True)
class Remask:
    """Masks unmasked tokens again by chance: ReMDM (arXiv 2503.00307).

    There each token is masked with probability

        sigma = min(cap, (1 - alpha_s) / alpha_t)

    where alpha is the share of tokens that are unmasked, at a step's beginning (t) and
    end (s), by the noise schedule (the capped schedule; the second term is the most
    that leaves the marginals possible). A policy that goes by certainty has no such
    schedule, so alpha is counted in the row's block instead; and as the policy is not
    set to accept more in exchange, marginals are not those of the paper. Early in a
    block, and while much of it is being unmasked at once, more is masked; when nothing
    is accepted any more, nothing is.

    With `by="confidence"` sigma is dealt out among the row's tokens by the softmax of
    minus their probabilities: those that each has now; in the paper, that it had when
    it was unmasked. As all of them together are masked sigma times on average, this
    wants a cap of 1 (the paper's confidence-based schedule).

    Example, cap 0.1: 8 of 16 tokens were unmasked and 4 more are accepted. sigma is
    min(0.1, 0.25 / 0.5) = 0.1, and 0.8 of the 8 tokens become masks on average.
    """

    cap: float = 0.05
    by: Literal["chance", "confidence"] = "chance"
    extra_steps: int = 0

    def __post_init__(self):
        require(0.0 <= self.cap <= 1.0, self, "cap", "in [0, 1]")
        require(self.extra_steps >= 0, self, "extra_steps", "0 or more")

    def probability(self, draft: Draft) -> Float32[Array, "B L"]:
        """With what probability each position becomes a mask."""
        accepted, editable = draft.num_accepted, draft.editable
        size = jnp.maximum(jnp.sum(draft.completion, axis=1), 1)
        before = jnp.sum(editable, axis=1)
        left = size - before - accepted
        sigma = jnp.minimum(self.cap, left / jnp.maximum(before, 1))
        sigma = jnp.where(accepted > 0, sigma, 0.0)[:, None]
        if self.by == "confidence":
            doubt = jnp.where(editable, -draft.proposal.standing, -jnp.inf)
            sigma = sigma * jax.nn.softmax(doubt, axis=-1)
        return jnp.where(editable, sigma, 0.0)

    def revise(self, draft: Draft) -> Int32[Array, "B L"]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(draft.keys, KEY_OF_REMASKING)
        draw = functools.partial(jax.random.uniform, shape=draft.tokens.shape[1:])
        drawn = jax.vmap(draw)(keys)
        remasked = drawn < self.probability(draft)
        return jnp.where(remasked, draft.mask_token_id, draft.tokens)


@dataclass(frozen=True, kw_only=True)
class LevenshteinEdits:
    """Substitutes, deletes and inserts within the block's fixed length (LLaDA2.2). The
    model proposes one of two control tokens at an unmasked position:

        DELETE   the token goes, what follows it moves up, a mask enters at the end of
                 the completion's part of the block
        INSERT   a mask enters before the token, what follows moves back, the last
                 token falls off

    Any other candidate that reaches its threshold takes the token's place. Several
    edits of one step are made together, each at the token it was proposed for.

    Example: INSERT at c and DELETE at d make `a b c d e f` into `a b _ c e f`; both
    moved what follows, so nothing fell off. DELETE alone gives `a b c e f _`.

    The controls must be forbidden at masked positions (`Forbidden.edits`), or they
    would be accepted as text.
    """

    delete_token_id: int
    insert_token_id: int
    threshold: float = 0.5  # least confidence of another token
    delete_threshold: float = 0.5
    insert_threshold: float = 0.5
    extra_steps: int = 16

    def __post_init__(self):
        for name in ("delete_token_id", "insert_token_id"):
            require(getattr(self, name) >= 0, self, name, "a token id")
        require(
            self.insert_token_id != self.delete_token_id,
            self,
            "insert_token_id",
            f"another one than delete_token_id={self.delete_token_id}",
        )
        for name in ("threshold", "delete_threshold", "insert_threshold"):
            require(0.0 <= getattr(self, name) <= 1.0, self, name, "in [0, 1]")
        require(self.extra_steps >= 0, self, "extra_steps", "0 or more")

    @property
    def control_token_ids(self) -> tuple[int, int]:
        """Ids that are proposed at unmasked positions only."""
        return (self.delete_token_id, self.insert_token_id)

    def revise(self, draft: Draft) -> Int32[Array, "B L"]:
        proposal = draft.proposal

        def reaches(threshold: float) -> Array:
            return draft.editable & (proposal.confidence >= threshold)

        is_delete = proposal.tokens == self.delete_token_id
        is_insert = proposal.tokens == self.insert_token_id
        another = reaches(self.threshold) & ~is_delete & ~is_insert
        return respell(
            jnp.where(another, proposal.tokens, draft.tokens),
            deleted=is_delete & reaches(self.delete_threshold),
            inserted=is_insert & reaches(self.insert_threshold),
            completion=draft.completion,
            mask_token_id=draft.mask_token_id,
        )


AnyRevision = TokenEdits | Revoke | Remask | LevenshteinEdits | Revision
"""Revisions by name, and any other class that has the members of `Revision`."""


def respell(
    tokens: Int32[Array, "B L"],
    *,
    deleted: Bool[Array, "B L"],
    inserted: Bool[Array, "B L"],
    completion: Bool[Array, "B L"],
    mask_token_id: int,
) -> Int32[Array, "B L"]:
    """The tokens without those that are `deleted` and with a mask before those that are
    `inserted`, in the same columns of the completion: padded with masks, or cut off, at
    its end. Columns outside the completion stay as they are."""
    width = jnp.where(completion, 1 - deleted + inserted.astype(jnp.int32), 0)
    end = jnp.cumsum(width, axis=1)  # where the spelling of each column ends
    place = jnp.cumsum(completion, axis=1) - 1  # where each column is in the completion
    # At row b, column i and source j: whether i is to hold (part of) what j became.
    place, end, width = place[:, :, None], end[:, None, :], width[:, None, :]
    holds = (place < end) & (place >= end - width)
    is_new_mask = holds & (width == 2) & (place == end - 2)
    source = jnp.argmax(holds, axis=-1)
    moved = jnp.take_along_axis(tokens, source, axis=1)
    from_a_token = jnp.any(holds, axis=-1) & ~jnp.any(is_new_mask, axis=-1)
    respelled = jnp.where(from_a_token, moved, mask_token_id)
    return jnp.where(completion, respelled, tokens)
