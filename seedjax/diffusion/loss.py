"""Cross-entropy from hidden states, without ever holding the logits of a whole batch.

With a vocabulary of 155k, the logits of one row of 2048 positions are 1.3 GB in
float32. The positions are therefore cut into chunks; a scan makes the logits of one
chunk at a time and the backward pass makes them again. Not here: the output
head (`unembed` is handed in) and which position has which target (`objective`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.typing import Array, Bool, Float, Float32, Int32, Shaped

Unembed = Callable[[Float[Array, "B l D"]], Float[Array, "B l V"]]
"""The output head: hidden states of some positions to their logits."""


@dataclass(frozen=True, kw_only=True)
class CertaintyForcing:
    """A term that raises a denoiser's confidence in what it already gets right, so that
    more tokens pass a threshold at once: the entropy at positions whose most likely
    token is the target (dParallel, arXiv 2509.26488, whose defaults these are; CAP of
    LLaDA2.0, arXiv 2512.15745).
    """

    weight: float = 2.0
    temperature: float = 0.5  # that the logits are divided by for the entropy

    def __post_init__(self):
        require(self.weight > 0, self, "weight", "above 0")
        require(self.temperature > 0, self, "temperature", "above 0")


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Learning from another model's distribution besides the targets (Hinton et al.,
    arXiv 1503.02531): a share of the loss at each position is

        temperature^2 * KL(teacher || student),  both at that temperature,

    over the teacher's `top_k` tokens, whose probabilities are made to add up to 1.
    """

    weight: float = 0.9  # of the teacher; the targets have the rest
    temperature: float = 1.0
    top_k: int | None = None  # None: all tokens

    def __post_init__(self):
        require(0.0 < self.weight <= 1.0, self, "weight", "in (0, 1]")
        require(self.temperature > 0, self, "temperature", "above 0")
        require(self.top_k is None or self.top_k >= 1, self, "top_k", "at least 1")


class TokenScores(NamedTuple):
    """How well each position was answered.

    Attributes:
      nll: -log p(target), in nats.
      correct: whether the most likely token is the target.
      entropy: of the distribution, in nats, if it was requested.
    """

    nll: Float32[Array, "B L"]
    correct: Bool[Array, "B L"]
    entropy: Float32[Array, "B L"] | None = None


class LossSums(NamedTuple):
    """Sums over a batch; they add up over batches and devices.

    Attributes:
      loss_sum: sum of weight * nll.
      correct_sum: number of counted positions whose most likely token is the target.
      count: number of counted positions (weight above 0).
    """

    loss_sum: Float32[Array, ""]
    correct_sum: Float32[Array, ""]
    count: Float32[Array, ""]  # type: ignore[assignment]  # hides tuple.count


def cross_entropy(
    hidden: Float[Array, "B L D"],
    targets: Int32[Array, "B L"],
    weights: Float32[Array, "B L"],
    *,
    unembed: Unembed,
    chunk_size: int | None = None,
    forbidden_token_id: int | None = None,
    certainty: CertaintyForcing | None = None,
) -> LossSums:
    """Weighted cross-entropy of the targets; see `score_tokens` for the arguments.
    `certainty` adds its term at the same positions, with the same weights.

    Gradients reach `hidden` and whatever `unembed` closes over. A position of weight 0
    adds exactly 0, even where its target is forbidden and its nll infinite.
    """
    scores = score_tokens(
        hidden,
        targets,
        unembed=unembed,
        chunk_size=chunk_size,
        forbidden_token_id=forbidden_token_id,
        entropy_temperature=None if certainty is None else certainty.temperature,
    )
    counted = weights > 0.0
    loss = jnp.where(counted, scores.nll, 0.0)
    if certainty is not None:
        assert scores.entropy is not None
        right = counted & scores.correct
        loss = loss + certainty.weight * jnp.where(right, scores.entropy, 0.0)
    return LossSums(
        loss_sum=jnp.sum(weights * loss),
        correct_sum=jnp.sum(counted & scores.correct, dtype=jnp.float32),
        count=jnp.sum(counted, dtype=jnp.float32),
    )


def score_tokens(
    hidden: Float[Array, "B L D"],
    targets: Int32[Array, "B L"],
    *,
    unembed: Unembed,
    chunk_size: int | None = None,
    forbidden_token_id: int | None = None,
    entropy_temperature: float | None = None,
) -> TokenScores:
    """Scores the targets position by position.

    Args:
      hidden: the denoiser's last hidden states.
      targets: the answer at each position.
      unembed: makes logits of hidden states.
      chunk_size: positions whose logits are alive at once; None or 0 means all.
      forbidden_token_id: a token that is never the answer, the mask token in diffusion:
        its logit counts as minus infinity (Seed Diffusion, arXiv 2508.02193, section
        3.1).
      entropy_temperature: if given, entropies are computed, of logits divided by it.
    """

    def score(
        chunk: Float[Array, "B l D"], targets_of_chunk: Int32[Array, "B l"]
    ) -> TokenScores:
        logits = _forbid(unembed(chunk), forbidden_token_id)
        chosen = jnp.take_along_axis(logits, targets_of_chunk[..., None], axis=-1)[
            ..., 0
        ]
        entropy = None
        if entropy_temperature is not None:
            entropy = _entropy(logits / entropy_temperature)
        return TokenScores(
            nll=jax.nn.logsumexp(logits, axis=-1) - chosen,
            # Far cheaper than an argmax on CPUs; equal to it but for exact ties.
            correct=chosen >= jnp.max(logits, axis=-1),
            entropy=entropy,
        )

    return by_chunks(score, chunk_size, hidden, targets)


def distill_tokens(
    hidden: Float[Array, "B L D"],
    teacher: Float[Array, "B L E"],
    distillation: Distillation,
    *,
    unembed: Unembed,
    unembed_teacher: Unembed,
    chunk_size: int | None = None,
    forbidden_token_id: int | None = None,
) -> Float32[Array, "B L"]:
    """KL(teacher || student) at each position, times the squared temperature.

    Gradients reach the student only. Arguments as `score_tokens`, of both models; the
    two may be of different width, but of one vocabulary.
    """

    def score(
        chunk: Float[Array, "B l D"], given: Float[Array, "B l E"]
    ) -> Float32[Array, "B l"]:
        theirs = jax.lax.stop_gradient(unembed_teacher(given))
        theirs = _forbid(theirs, forbidden_token_id) / distillation.temperature
        ours = _forbid(unembed(chunk), forbidden_token_id) / distillation.temperature
        ours = jax.nn.log_softmax(ours, axis=-1)
        if distillation.top_k is not None:
            theirs, ids = jax.lax.top_k(theirs, distillation.top_k)
            ours = jnp.take_along_axis(ours, ids, axis=-1)
        theirs = jax.nn.log_softmax(theirs, axis=-1)
        share = jnp.exp(theirs)
        # What has no probability is forbidden for both.
        difference = jnp.where(share > 0.0, theirs - ours, 0.0)
        return distillation.temperature**2 * jnp.sum(share * difference, axis=-1)

    return by_chunks(score, chunk_size, hidden, teacher)


def _forbid(
    logits: Float[Array, "B l V"], forbidden_token_id: int | None
) -> Float32[Array, "B l V"]:
    logits = logits.astype(jnp.float32)
    if forbidden_token_id is None:
        return logits
    forbidden = jnp.arange(logits.shape[-1]) == forbidden_token_id
    return jnp.where(forbidden[None, None], -jnp.inf, logits)


def _entropy(logits: Float32[Array, "B l V"]) -> Float32[Array, "B l"]:
    log_share = jax.nn.log_softmax(logits, axis=-1)
    share = jnp.exp(log_share)
    # What is forbidden has no probability, and its logarithm no gradient.
    return -jnp.sum(share * jnp.where(share > 0.0, log_share, 0.0), axis=-1)


def by_chunks(
    score: Callable[..., Any], chunk_size: int | None, *arrays: Shaped[Array, "B L ..."]
) -> Any:
    """`score(*arrays)`, a tree of arrays [B, L], some positions at a time."""
    rows, length = arrays[0].shape[:2]
    if not chunk_size or chunk_size >= length:
        return score(*arrays)
    num_chunks = -(-length // chunk_size)
    padding = num_chunks * chunk_size - length

    def cut(x: Shaped[Array, "B L ..."]) -> Shaped[Array, "n B l ..."]:
        padded = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
        return padded.reshape(rows, num_chunks, chunk_size, *x.shape[2:]).swapaxes(0, 1)

    # Without the checkpoint, the scan would save every chunk's logits for its backward
    # pass, which is what chunking is there to avoid.
    score_again = jax.checkpoint(score, prevent_cse=False)
    _, scores = jax.lax.scan(
        lambda _, xs: (None, score_again(*xs)), None, tuple(map(cut, arrays))
    )
    return jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(rows, num_chunks * chunk_size)[:, :length],
        scores,
    )
