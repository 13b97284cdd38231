"""Denoiser shapes by name, from a million parameters up to Stable-DiffCoder-8B."""

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError

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
    # 2.6 M: the bundled model; few wide heads, because narrow ones waste a CPU
    "mini": DenoiserConfig(
        vocab_size=4096,
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
    # Seed-Coder-8B and Stable-DiffCoder-8B (arXiv 2601.15892 and its released config):
    # the same tensors; the first is causal, the second block-causal with blocks of
    # four.
    "seed_coder_8b": DenoiserConfig(
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
        param_dtype="bfloat16",
        layer_loop="scan",
        remat="layer",
    ),
    "stable_diffcoder_8b": DenoiserConfig(
        vocab_size=155_136,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        mlp_size=14_336,
        max_positions=8192,
        rope_theta=500_000.0,
        tie_embeddings=False,
        init_scale=0.009882118,
        attention="block_causal",
        block_size=4,
        mask_token_id=5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_ids=(2,),
        dtype="bfloat16",
        activation_dtype="bfloat16",
        param_dtype="bfloat16",
        layer_loop="scan",
        remat="layer",
    ),
}


def preset(name: str) -> DenoiserConfig:
    """The denoiser shape called `name`; `dataclasses.replace` varies it.

    Raises:
      InputError: for a name that is not in `PRESETS`.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
