"""Whether layers are written out or scanned, where a recipe says "auto".

    unroll  every layer is compiled for itself and reads its weights where they lie
    scan    one layer is compiled, and looped over stacked weights

This is the one place that chooses, once it is known where the model will run and what
for. A denoiser that nobody chose for has its layers written out.
"""

import dataclasses
from typing import Literal, NamedTuple

from seedjax.config import DenoiserConfig, LayerLoop
from seedjax.nn.attention_choice import Platform

Purpose = Literal["training", "decoding"]


class LoopChoice(NamedTuple):
    """A layer loop and why it was chosen."""

    layer_loop: LayerLoop
    reason: str


def choose_layer_loop(platform: Platform, purpose: Purpose) -> LoopChoice:
    """The layer loop for a purpose on a platform."""
    if platform == "cpu":
        return LoopChoice("unroll", "a scan on CPU copies each layer's weights")
    if platform == "cuda" and purpose == "decoding":
        reason = "a scan on GPU copies each layer's weights, at every denoising step"
        return LoopChoice("unroll", reason)
    return LoopChoice("scan", "compiles one layer instead of all")


def with_layer_loop(
    config: DenoiserConfig, platform: Platform, purpose: Purpose
) -> DenoiserConfig:
    """The recipe with its `layer_loop` chosen, unless it says which itself."""
    if config.layer_loop != "auto":
        return config
    chosen = choose_layer_loop(platform, purpose).layer_loop
    return dataclasses.replace(config, layer_loop=chosen)


def explain_layer_loop(platform: Platform) -> dict[str, str]:
    """The choice and its reason, by purpose."""
    purposes: tuple[Purpose, ...] = ("training", "decoding")
    return {
        purpose: "{}: {}".format(*choose_layer_loop(platform, purpose))
        for purpose in purposes
    }
