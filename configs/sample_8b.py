"""Sampling from Stable-DiffCoder-8B on one GPU, or on a slice of TPUs.

Blocks of the model's own size behind an exact cache; a token is unmasked once the model
is 0.9 sure of it, and at least one in every denoising step.

Command:   seedjax models fetch stable-diffcoder
           seedjax generate "def add(a, b):" --model MODEL --dtype bfloat16
             --max-new-tokens 256 --threshold 0.9   (one GPU; in int8 with
             --quantization int8_weights, on eight v5e chips with --mesh tensor=8, on
             four v6e with --mesh tensor=4)
Python:    model = seedjax.load(MODEL, dtype="bfloat16", mesh="tensor=8")
           model.generate(prompts, **vars(get_config()))
Hardware:  an H100, H200 or H20; or a host of eight v5e or four v6e chips
Expect:    not run, not measured, on any of these. A forward pass over a block of 32
           compiles without the hardware, and fits: docs/results/plan.md; for blocks of
           another size seedjax plan sample-8b-h100 --set block_size=4
"""

from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.recipe import SamplerConfig


def get_config() -> SamplerConfig:
    return SamplerConfig(
        max_new_tokens=256,
        policy=ConfidenceThreshold(threshold=0.9),
    )
