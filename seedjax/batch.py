"""Data between the rooms: a clean batch, and the layout of what a model is shown.

    data ──Batch──▶ diffusion ──Denoising (tokens, Layout)──▶ nn ──logits──▶ loss

Nothing here computes; these are the contracts between data, mathematics and model.
"""

from typing import NamedTuple

from seedjax.typing import Array, Bool, Int32


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
