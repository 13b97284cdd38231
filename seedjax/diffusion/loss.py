"""Cross-entropy from hidden states, without ever holding the logits of a whole batch.

With a vocabulary of 155k, the logits of one row of 2048 positions are 1.3 GB in
float32. The positions are therefore cut into chunks; a scan makes the logits of one
chunk at a time and the backward pass makes them again. What is not here: the output
head (`unembed` is handed in) and what is asked at which position (`objective`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.typing import Array, Bool, Float, Float32, Int32

Unembed = Callable[[Float[Array, "B l D"]], Float[Array, "B l V"]]
"""The output head: hidden states of some positions to their logits."""


class TokenScores(NamedTuple):
    """How well each position was answered.

    Attributes:
      nll: -log p(target), in nats.
      correct: whether the most likely token is the target.
    """

    nll: Float32[Array, "B L"]
    correct: Bool[Array, "B L"]


class LossSums(NamedTuple):
    """Sums over a batch; they add up over batches and devices.

    Attributes:
      loss_sum: sum of weight * nll.
      correct_sum: number of asked positions whose most likely token is the target.
      count: number of asked positions (weight above 0).
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
) -> LossSums:
    """Weighted cross-entropy of the targets; see `score_tokens` for the arguments.

    Gradients reach `hidden` and whatever `unembed` closes over. A position of weight 0
    adds exactly 0, even where its target is forbidden and its nll infinite.
    """
    scores = score_tokens(
        hidden,
        targets,
        unembed=unembed,
        chunk_size=chunk_size,
        forbidden_token_id=forbidden_token_id,
    )
    asked = weights > 0.0
    return LossSums(
        loss_sum=jnp.sum(weights * jnp.where(asked, scores.nll, 0.0)),
        correct_sum=jnp.sum(asked & scores.correct, dtype=jnp.float32),
        count=jnp.sum(asked, dtype=jnp.float32),
    )


def score_tokens(
    hidden: Float[Array, "B L D"],
    targets: Int32[Array, "B L"],
    *,
    unembed: Unembed,
    chunk_size: int | None = None,
    forbidden_token_id: int | None = None,
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
    """

    def score(chunk: Float[Array, "B l D"], wanted: Int32[Array, "B l"]) -> TokenScores:
        logits = unembed(chunk).astype(jnp.float32)
        if forbidden_token_id is not None:
            forbidden = jnp.arange(logits.shape[-1]) == forbidden_token_id
            logits = jnp.where(forbidden[None, None], -jnp.inf, logits)
        chosen = jnp.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
        return TokenScores(
            nll=jax.nn.logsumexp(logits, axis=-1) - chosen,
            # Far cheaper than an argmax on CPUs; equal to it but for exact ties.
            correct=chosen >= jnp.max(logits, axis=-1),
        )

    rows, length, width = hidden.shape
    if not chunk_size or chunk_size >= length:
        return score(hidden, targets)

    num_chunks = -(-length // chunk_size)
    padding = num_chunks * chunk_size - length
    chunks = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    chunks = chunks.reshape(rows, num_chunks, chunk_size, width).swapaxes(0, 1)
    wanted = jnp.pad(targets, ((0, 0), (0, padding)))
    wanted = wanted.reshape(rows, num_chunks, chunk_size).swapaxes(0, 1)
    # Without the checkpoint, the scan would save every chunk's logits for its backward
    # pass, which is what chunking is there to avoid.
    score_again = jax.checkpoint(score, prevent_cse=False)
    _, scores = jax.lax.scan(
        lambda _, xs: (None, score_again(*xs)), None, (chunks, wanted)
    )
    return TokenScores(
        *(
            x.swapaxes(0, 1).reshape(rows, num_chunks * chunk_size)[:, :length]
            for x in scores
        )
    )
