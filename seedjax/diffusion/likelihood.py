"""How likely is a text: Monte-Carlo upper bounds of -log p(x), in nats.

A masked denoiser defines p(x) through random orders of decoding, and the mask ELBO
bounds it. Instead of a time, the estimators draw the *number* of masked tokens: of m
tokens, n uniform on 1..m are masked at uniformly chosen places, and the sum of their
negative log-likelihoods is multiplied by m / n. The expectation is the continuous-time
bound, whatever the schedule (MD4, arXiv 2406.04329), and the variance is lower, because
the share of masked tokens is the one that was drawn (LLaDA, arXiv 2502.09992, scores
its benchmarks this way). If the denoiser's conditionals agree with one another, the
expectation is exactly -log p(x).

Not here: the clipped training loss of block diffusion, which bounds nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig
from seedjax.diffusion.corruption import choose, hide, split_columns
from seedjax.diffusion.denoising import Denoising
from seedjax.diffusion.inputs import (
    Noised,
    count_maskable,
    find_maskable,
    inputs_in_copies,
    inputs_in_place,
)
from seedjax.diffusion.schedule import sample_times
from seedjax.errors import InputError
from seedjax.typing import Array, Bool, Float32, Int32, PRNGKey

Denoise = Callable[[Denoising], Float32[Array, "B A"]]
"""The denoiser: inputs to -log p(target) at each of their A target positions (for
instance `loss.score_tokens` of its hidden states), the mask token forbidden."""


class Likelihood(NamedTuple):
    """An estimate for each row.

    Attributes:
      nll: estimated upper bound of -log p(row), in nats.
      error: standard error of that estimate, erring on the large side; nan for a single
        sample.
      num_tokens: how many tokens it covers, for nats per token.
    """

    nll: Float32[Array, "B"]
    error: Float32[Array, "B"]
    num_tokens: Int32[Array, "B"]


def mask_elbo(
    key: PRNGKey,
    batch: Batch,
    *,
    denoise: Denoise,
    model: DenoiserConfig,
    num_samples: int,
) -> Likelihood:
    """The bound of a denoiser of whole rows. Each sample is one forward pass.

    What is not supervised (a prompt) is given, so this bounds -log p(answer | prompt).
    A row of several documents gets the sum over them. With shifted logits the first
    token of a document is given too.

    Example: of m = 3 tokens, n = 2 are masked and have nll 0.5 and 0.7; the sample is
    3 / 2 * (0.5 + 0.7) = 1.8.
    """
    maskable = find_maskable(batch, model.logit_alignment)
    normalizer = count_maskable(maskable)

    def make_inputs(noised: Noised) -> Denoising:
        return inputs_in_place(noised, normalizer, alignment=model.logit_alignment)

    return _estimate(
        key,
        batch,
        maskable,
        group_size=batch.tokens.shape[1],
        make_inputs=make_inputs,
        denoise=denoise,
        mask_token_id=model.mask_token_id,
        num_samples=num_samples,
    )


def block_elbo(
    key: PRNGKey,
    batch: Batch,
    *,
    denoise: Denoise,
    model: DenoiserConfig,
    num_samples: int,
) -> Likelihood:
    """The bound of a block-diffusion denoiser: the sum over the blocks of the bound of
    each given the clean text before it (BD3-LM, arXiv 2503.09573), all blocks in
    one two-copy pass a sample. Otherwise as `mask_elbo`.

    Example: two blocks of two tokens; in the first both are masked, with nll 0.2 and
    0.3, in the second one, with nll 0.4: the sample is 2/2 * 0.5 + 2/1 * 0.4 = 1.3.
    """
    maskable = find_maskable(batch, model.logit_alignment)
    normalizer = count_maskable(maskable)

    def make_inputs(noised: Noised) -> Denoising:
        return inputs_in_copies(batch, noised, normalizer, model=model)

    return _estimate(
        key,
        batch,
        maskable,
        group_size=model.block_size,
        make_inputs=make_inputs,
        denoise=denoise,
        mask_token_id=model.mask_token_id,
        num_samples=num_samples,
    )


def _estimate(
    key: PRNGKey,
    batch: Batch,
    maskable: Bool[Array, "B L"],
    *,
    group_size: int,
    make_inputs: Callable[[Noised], Denoising],
    denoise: Denoise,
    mask_token_id: int,
    num_samples: int,
) -> Likelihood:
    """Sums the estimates of the groups of columns of each row. The numbers of masks of
    a group are spread evenly over the samples."""
    if num_samples < 1:
        raise InputError(f"num_samples is {num_samples}; it must be at least 1")
    groups = split_columns(maskable, group_size)
    sizes = groups.sum(axis=-1, dtype=jnp.int32)  # m of each group
    key_times, key_places = jax.random.split(key)
    times = jax.vmap(lambda key: sample_times(key, num_samples))(
        jax.random.split(key_times, sizes.size)
    )
    times = times.T.reshape(num_samples, *sizes.shape)

    def sample(_, drawn):
        time, key = drawn
        number = 1 + jnp.floor(time * sizes).astype(jnp.int32)
        number = jnp.minimum(number, sizes)  # rounding; and none in an empty group
        chosen = choose(key, groups, number)
        weight = sizes / jnp.maximum(number, 1)
        weights = jnp.where(chosen, weight[..., None], 0.0).reshape(maskable.shape)
        noised = Noised(
            tokens=hide(
                batch.tokens, weights > 0.0, mask_token_id=mask_token_id
            ).tokens,
            positions=batch.positions,
            segments=batch.segments,
            targets=batch.tokens,
            weights=weights,
        )
        inputs = make_inputs(noised)
        nll = jnp.where(inputs.weights > 0.0, denoise(inputs), 0.0)
        return None, jnp.sum(inputs.weights * nll, axis=-1)

    keys = jax.random.split(key_places, num_samples)
    _, sums = jax.lax.scan(sample, None, (times, keys))
    return Likelihood(
        nll=sums.mean(axis=0),
        error=sums.std(axis=0, ddof=1) / num_samples**0.5,
        num_tokens=sizes.sum(axis=-1, dtype=jnp.int32),
    )
