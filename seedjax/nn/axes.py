"""The sizes of a recipe that a mesh splits, by logical axis."""

from seedjax.config import DenoiserConfig


def split_sizes(config: DenoiserConfig) -> dict[str, tuple[str, int]]:
    """Name of a field: its logical axis and its size, for `sharding.refuse_uneven`.

    The vocabulary is not among them: a table whose rows a mesh does not divide is
    copied, which costs memory and no time.
    """
    sizes = {
        "num_heads": ("heads", config.num_heads),
        "num_kv_heads": ("heads", config.num_kv_heads),
        "hidden_size": ("embed", config.hidden_size),
    }
    if config.moe is None or config.num_leading_layers:
        sizes["mlp_size"] = ("mlp", config.mlp_size)
    if config.moe is not None:
        sizes["moe.expert_size"] = ("mlp", config.moe.expert_size)
        sizes["moe.num_experts"] = ("expert", config.moe.num_experts)
        if config.moe.shared_size:
            sizes["moe.shared_size"] = ("mlp", config.moe.shared_size)
    return sizes
