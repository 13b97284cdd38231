"""Data between the rooms: a clean batch, and the corrupted inputs made of it.

    data ──Batch──▶ diffusion ──Denoising──▶ nn ──logits──▶ loss

Nothing here computes; these are the contracts between data, mathematics and model.
"""

from typing import NamedTuple

from seedjax.typing import Array, Bool, Float32, Int32


class Batch(NamedTuple):
    """Clean token sequences, several documents packed into a row.

    Attributes:
      tokens: token ids.
      segments: which document of the row a position belongs to, counted from 1; 0 is
        padding, which nothing sees and no loss counts.
      positions: distance from the start of the document; the block grid of block
        diffusion starts at position 0 of each document.
      supervised: positions that may be corrupted and enter the loss. False on padding
        and on prompts.
      order: for trajectories, the step, from 0, that unmasked each position; None for
        any other text.
    """

    tokens: Int32[Array, "B L"]
    segments: Int32[Array, "B L"]
    positions: Int32[Array, "B L"]
    supervised: Bool[Array, "B L"]
    order: Int32[Array, "B L"] | None = None


class Layout(NamedTuple):
    """Facts about each token that attention needs (see `nn.masks`).

    Attributes:
      positions: distance from the start of the document, also the rotary position.
      segments: document number from 1; 0 is padding.
      noisy: True for the noisy copy of a two-copy block-diffusion row and for drafted
        positions, False elsewhere.
      anchors: the last position of the text that a drafted position sees, and of any
        other token its own position; None where nothing is drafted.
    """

    positions: Int32[Array, "B L"]
    segments: Int32[Array, "B L"]
    noisy: Bool[Array, "B L"]
    anchors: Int32[Array, "B L"] | None = None


class Denoising(NamedTuple):
    """Corrupted inputs of a denoiser with their targets.

    The loss is `sum(weights * cross_entropy) / normalizer`.

    Attributes:
      tokens: the inputs (corrupted; for block diffusion the clean and the
        noisy copy side by side, so L may be twice the length of the batch).
      layout: positions, segments and copy of each input token.
      targets: the targets at the last A positions (A < L where the row starts
        with a clean copy, which has no loss), already shifted where the model's
        logits are shifted.
      weights: loss weight of each of those positions; 0 where there is no loss.
      normalizer: number of clean supervised tokens that the weights stand for, so that
        the loss is in nats per clean token.
    """

    tokens: Int32[Array, "B L"]
    layout: Layout
    targets: Int32[Array, "B A"]
    weights: Float32[Array, "B A"]
    normalizer: Float32[Array, ""]
