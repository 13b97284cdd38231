"""Denoiser shapes by name, from a million parameters up to Stable-DiffCoder-8B."""

import dataclasses

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError, did_you_mean

# arXiv 2601.15892 and the released config.
_SEED_CODER_8B = DenoiserConfig(
    vocab_size=155_136,
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_size=14_336,
    max_positions=32_768,
    rope_theta=500_000.0,
    tie_embeddings=False,
    init_scale=0.009882118,
    attention="causal",
    logit_alignment="shifted",
    mask_token_id=5,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_ids=(2,),
    dtype="bfloat16",
    activation_dtype="bfloat16",
    remat="layer",
)

PRESETS: dict[str, DenoiserConfig] = {
    # 1 M: tests and first steps
    "tiny": DenoiserConfig(
        vocab_size=2048,
        hidden_size=128,
        num_layers=3,
        num_heads=2,
        num_kv_heads=2,
        head_dim=64,
        mlp_size=352,
    ),
    # 2.1 M: the bundled model; few wide heads, because narrow ones waste a CPU
    "mini": DenoiserConfig(
        vocab_size=1536,
        hidden_size=192,
        num_layers=4,
        num_heads=3,
        num_kv_heads=3,
        head_dim=64,
        mlp_size=512,
    ),
    # 12 M and 100 M: the sizes of the speed comparisons
    "small": DenoiserConfig(
        vocab_size=4096,
        hidden_size=384,
        num_layers=7,
        num_heads=6,
        num_kv_heads=6,
        head_dim=64,
        mlp_size=1024,
        block_size=32,
    ),
    "base": DenoiserConfig(
        vocab_size=32_000,
        hidden_size=640,
        num_layers=14,
        num_heads=10,
        num_kv_heads=5,
        head_dim=64,
        mlp_size=2304,
        block_size=32,
    ),
    # 494 M, of which 136 M are the embeddings
    "qwen2_0.5b": DenoiserConfig(
        vocab_size=151_936,
        hidden_size=896,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        mlp_size=4864,
        rope_theta=1_000_000.0,
        attention_bias=True,
        max_positions=32_768,
        block_size=32,
    ),
    "seed_coder_8b": _SEED_CODER_8B,
    # The same tensors, block-causal with blocks of four.
    "stable_diffcoder_8b": dataclasses.replace(
        _SEED_CODER_8B,
        max_positions=8192,
        attention="block_causal",
        block_size=4,
        logit_alignment="same_position",
    ),
}


def preset(name: str) -> DenoiserConfig:
    """The denoiser shape called `name`; `dataclasses.replace` varies it.

    Raises:
      InputError: for a name that is not in `PRESETS`.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS) or f"; there are {', '.join(PRESETS)}"
        raise InputError(f"no preset {name!r}{hint}")
    return PRESETS[name]
