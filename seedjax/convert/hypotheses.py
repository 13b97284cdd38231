"""Is a checkpoint what its recipe says? Losses under other readings of it.

A wrong mask id or a wrong alignment of the logits raises no error; the model only
writes nonsense. But on ordinary text the right reading has by far the lowest loss:

    text      def add ( a , b ) :
    inputs    def M   ( a M b ) :        one pass, each reading its own targets:
    read at   i or i - 1, with M = 5 or 126336 or ...
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.config import DenoiserConfig, LogitAlignment
from seedjax.convert.families import FAMILIES
from seedjax.nn import denoiser
from seedjax.typing import Array, Bool, Float32, Int32, Params

LENGTH = 256  # tokens of a window
MASKED = 0.25  # share of them that is masked
MARGIN = 0.1  # nats per token by which another reading must be better to be believed


class Hypothesis(NamedTuple):
    """A reading of a checkpoint and its loss.

    Attributes:
      logit_alignment: where a token's prediction is read.
      mask_token_id: of the inputs; None for an autoregressive model, whose input is
        the text itself.
      loss: nats per token, over the masked tokens.
      configured: whether it is the recipe's own reading.
    """

    logit_alignment: LogitAlignment
    mask_token_id: int | None
    loss: float
    configured: bool


def measure(
    params: Params,
    config: DenoiserConfig,
    tokens: Sequence[int],
    *,
    masks: Sequence[int] = (),
    seed: int = 0,
) -> list[Hypothesis]:
    """The losses of all readings on a text, the best first.

    Args:
      params: the denoiser's parameters.
      config: its recipe as it stands.
      tokens: an ordinary text of the kind that the model was trained on, at least 16
        tokens; up to eight windows of it are used.
      masks: further ids to try as the mask, such as the tokenizer's.
      seed: of the choice of masked tokens.
    """
    windows = _windows(tokens)
    masked = np.random.default_rng(seed).random(windows.shape) < MASKED
    masked[:, 0] = False  # nothing before the first token could predict it
    causal = config.attention == "causal"
    tried: list[int | None] = [None] if causal else [*_mask_ids(config, masks)]
    found = []
    for mask in tried:
        inputs = windows if mask is None else np.where(masked, mask, windows)
        losses = _losses(params, config, jnp.asarray(inputs), windows, masked)
        for alignment, loss in losses.items():
            configured = alignment == config.logit_alignment and mask in (
                None,
                config.mask_token_id,
            )
            found.append(Hypothesis(alignment, mask, loss, configured))
    return sorted(found, key=lambda h: h.loss)


def verdict(found: Sequence[Hypothesis], vocab_size: int) -> str:
    """A warning of one line; empty if the losses agree with the recipe."""
    best = found[0]
    own = next(h for h in found if h.configured)
    if best.loss > 0.9 * np.log(vocab_size):
        return (
            f"no reading predicts text (best {best.loss:.2f} nats per token, chance is "
            f"{np.log(vocab_size):.2f}): the weights are untrained, or in wrong places"
        )
    if best.configured or own.loss - best.loss < MARGIN:
        return ""
    with_mask = "" if best.mask_token_id is None else f" and mask {best.mask_token_id}"
    return (
        f"the recipe's reading has {own.loss:.2f} nats per token, but logits "
        f"{best.logit_alignment}{with_mask} have {best.loss:.2f}: the recipe is "
        "probably wrong; convert again with --set"
    )


def _windows(tokens: Sequence[int]) -> Int32[np.ndarray, "B L"]:
    length = min(LENGTH, len(tokens))
    count = min(8, len(tokens) // length)
    return np.array(tokens[: count * length], np.int32).reshape(count, length)


def _mask_ids(config: DenoiserConfig, further: Sequence[int]) -> list[int]:
    """The recipe's mask, further ones, and those of all families, as far as the
    embedding table goes."""
    known = {family.ids.get("mask_token_id") for family in FAMILIES.values()}
    others = sorted(i for i in known if i is not None and i < config.vocab_size)
    return list(dict.fromkeys([config.mask_token_id, *further, *others]))


def _losses(
    params: Params,
    config: DenoiserConfig,
    inputs: Int32[Array, "B L"],
    targets: Int32[np.ndarray, "B L"],
    masked: Bool[np.ndarray, "B L"],
) -> dict[LogitAlignment, float]:
    """Mean losses of predictions read in place and one position earlier."""
    pairs = zip(inputs, targets, strict=True)
    sums = [_row_losses(params, config, s[None], t) for s, t in pairs]
    in_place, earlier = (np.concatenate([s[n] for s in sums]) for n in (0, 1))
    return {
        "same_position": float(in_place[masked].mean()),
        "shifted": float(earlier[masked].mean()),
    }


@functools.partial(jax.jit, static_argnames="config")
def _row_losses(
    params: Params,
    config: DenoiserConfig,
    inputs: Int32[Array, "1 L"],
    targets: Int32[Array, "L"],
) -> tuple[Float32[Array, "1 L"], Float32[Array, "1 L"]]:
    logits = denoiser.logits(params, config, inputs, denoiser.simple_layout(inputs))
    log_p = jax.nn.log_softmax(logits, axis=-1)
    positions = jnp.arange(targets.shape[0])
    in_place = -log_p[0, positions, targets]
    earlier = -log_p[0, positions - 1, targets]
    return in_place[None], earlier[None]
