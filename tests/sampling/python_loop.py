"""The block sampler as a plain Python loop: one row at a time, no cache, no padding in
front, no batch. Written from the description, not from `loop.py`. Where blocks see the
whole canvas the network is `plain_network`, which can leave positions as they were."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plain_network import Network

from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.sampling.check import block_denoiser
from seedjax.sampling.policy import FixedCount
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import IgnoreEos
from seedjax.sampling.vocabulary import gumbel

WIDTH = 48  # the longest text of the tests, so that one program serves all of them


@functools.partial(jax.jit, static_argnames="config")
def all_logits(params, config, tokens, length):
    layout = denoiser.simple_layout(tokens)
    present = jnp.arange(tokens.shape[1])[None, :] < length
    layout = layout._replace(segments=present.astype(jnp.int32))
    return denoiser.logits(params, config, tokens, layout)


def logits_of(params, config, tokens: list[int]) -> np.ndarray:
    padded = np.zeros((1, WIDTH), np.int32)
    padded[0, : len(tokens)] = tokens
    return np.array(all_logits(params, config, jnp.asarray(padded), len(tokens))[0])


def computed_anew(
    sampler: SamplerConfig, columns: dict[str, int], *, step: int
) -> range:
    """The positions that a step computes where blocks see the whole canvas."""
    if step == 0 or sampler.context == "canvas":
        return range(columns["end"])
    if sampler.context == "canvas_prefix_cache":
        return range(columns["start"], columns["end"])
    return range(columns["start"], columns["stop"])


def accept(policy, confidence: dict[int, float], size: int, step: int) -> set[int]:
    surest_first = sorted(confidence, key=lambda i: (-confidence[i], i))
    if isinstance(policy, FixedCount):
        assert policy.of == "block"
        count, rest = divmod(size, policy.steps_per_block)
        return set(surest_first[: count + (step < rest)])
    sure = {i for i in confidence if confidence[i] >= policy.threshold}
    return sure | set(surest_first[:1])


def candidates(
    logits: np.ndarray, sampler: SamplerConfig, key
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and confidences from logits that hold minus infinity where forbidden."""
    if sampler.temperature == 0:
        chosen = logits.argmax(axis=-1)
    else:
        # The noise of the sampler, which is drawn tile by tile.
        noise = np.asarray(gumbel(key[None], 0, (1, *logits.shape)))[0]
        chosen = (logits / np.float32(sampler.temperature) + noise).argmax(axis=-1)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    return chosen, np.take_along_axis(probabilities, chosen[:, None], axis=-1)[:, 0]


def decode_row(
    params, config: DenoiserConfig, sampler: SamplerConfig, prompt: list[int], key
) -> tuple[list[int], list[int]]:
    """The answer of one prompt, and how many steps each of its blocks took."""
    whole = sampler.context != "decided"
    config = block_denoiser(config, sampler)
    size, mask, eos = config.block_size, config.mask_token_id, config.eos_token_ids
    begin, end = len(prompt), len(prompt) + sampler.max_new_tokens
    shift = config.logit_alignment == "shifted"
    tokens = list(prompt)
    steps_of_blocks: list[int] = []
    network = Network(params, config)
    for start in range(begin if whole else begin // size * size, end, size):
        stop = min(start + size, end) if whole else start + size
        tokens += [mask] * ((end if whole else stop) - len(tokens))
        block_key = jax.random.fold_in(key, len(steps_of_blocks))
        # Of the last block, what is behind the budget is decoded as well.
        hole = range(max(start, begin), stop)
        steps, opening = 0, np.array(0)
        while True:
            ends = [i for i in hole if tokens[i] in eos and i < end][:1]
            undecided = [i for i in hole if tokens[i] == mask]
            # What is decoded later changes nothing before the end.
            if not any(i < (ends or [end])[0] for i in undecided):
                break
            if whole:
                columns = {"end": end, "start": start, "stop": stop}
                anew = computed_anew(sampler, columns, step=steps)
                logits = network.logits(tokens, anew)
                # The position before the block may not be computed again.
                if not anew.start:
                    opening = logits[start - 1]
                logits[start - 1] = opening
            else:
                logits = logits_of(params, config, tokens)
            # Logits of the position itself, or of the one before it. What is before
            # the first token is not asked.
            logits = np.roll(logits, shift, axis=0)[start:stop]
            # A draw has the shape of a block.
            logits = np.pad(logits, ((0, start + size - stop), (0, 0)))
            logits[:, list(sampler.banned_ids(config))] = -np.inf
            logits[:, sampler.vocabulary_end or config.vocab_size :] = -np.inf
            for i in hole:
                if isinstance(sampler.eos, IgnoreEos) or (
                    i - begin < sampler.eos.min_new_tokens
                ):
                    logits[i - start, list(eos)] = -np.inf
            step_key = jax.random.fold_in(block_key, steps)
            chosen, sure = candidates(logits, sampler, step_key)
            steps += 1
            accepted = accept(
                sampler.policy,
                {i: float(sure[i - start]) for i in undecided},
                size,
                steps - 1,
            )
            if steps == sampler.max_steps_per_block:
                accepted = set(undecided)
            for i in accepted:
                tokens[i] = int(chosen[i - start])
        steps_of_blocks.append(steps)
        if ends:
            return tokens[begin : ends[0]], steps_of_blocks
    return tokens[begin:end], steps_of_blocks
