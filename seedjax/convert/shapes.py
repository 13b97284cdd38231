"""The keys of published `config.json` files: read into fields of `DenoiserConfig`, and
written from them.

One reader and one writer a layout. What no reader uses must be known to do nothing, see
`fields`.
"""

from collections.abc import Callable
from typing import Any, Literal

from seedjax.config import DenoiserConfig, MoEConfig
from seedjax.convert.fields import Fields, read_window
from seedjax.convert.rope import read_rope
from seedjax.errors import InputError

LayoutName = Literal[
    "llama", "qwen2", "qwen3", "qwen3-moe", "llada", "llada-moe", "llada2"
]


def _transformer(
    fields: Fields, *, mlp_size: str = "intermediate_size", rope_fraction: float = 1.0
) -> dict[str, Any]:
    """Fields that the layouts of transformers have in common."""
    hidden = fields.integer("hidden_size", sets="hidden_size")
    heads = fields.integer("num_attention_heads", sets="num_heads")
    layers = _num_layers(fields)
    kv_heads = fields.integer(
        "num_key_value_heads", default=0, at_least=0, sets="num_kv_heads"
    )
    return {
        "vocab_size": fields.integer("vocab_size", sets="vocab_size"),
        "hidden_size": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads or heads,
        "head_dim": fields.integer(
            "head_dim", default=hidden // heads, sets="head_dim"
        ),
        "mlp_size": fields.integer(mlp_size, sets="mlp_size"),
        "max_positions": fields.integer(
            "max_position_embeddings", sets="max_positions"
        ),
        "norm_eps": fields.number("rms_norm_eps", sets="norm_eps"),
        "tie_embeddings": fields.boolean(
            "tie_word_embeddings", default=False, sets="tie_embeddings"
        ),
        "window": read_window(fields, layers),
        **read_rope(fields, fraction=rope_fraction),
    }


def _num_layers(fields: Fields) -> int:
    return fields.integer("num_hidden_layers", sets="num_layers")


def _read_llama(fields: Fields) -> dict[str, Any]:
    fields.require("attention_bias", False)
    return _transformer(fields)


def _read_qwen2(fields: Fields) -> dict[str, Any]:
    """Qwen2 has biases on queries, keys and values whatever its config says."""
    fields.boolean("attention_bias", default=True)
    return _transformer(fields) | {"attention_bias": True}


def _read_qwen3(fields: Fields) -> dict[str, Any]:
    fields.require("attention_bias", False)
    return _transformer(fields) | {"qk_norm": True}


def _read_qwen3_moe(fields: Fields) -> dict[str, Any]:
    experts = fields.get("num_experts")
    also = fields.get("num_local_experts")  # what transformers 5 writes
    if None not in (experts, also) and experts != also:
        raise fields.fault("num_local_experts", f"num_experts, which is {experts!r}")
    moe: dict[str, Any] = dict(
        num_experts=fields.integer(
            "num_experts" if also is None else "num_local_experts"
        ),
        num_selected=fields.integer("num_experts_per_tok"),
        expert_size=fields.integer("moe_intermediate_size"),
        scoring="softmax",
        normalize=fields.boolean("norm_topk_prob", default=False),
    )
    return _read_qwen3(fields) | {"moe": moe}


def _read_llada(fields: Fields) -> dict[str, Any]:
    fields.require("include_qkv_bias", False)
    fields.require("attention_layer_norm", False)
    hidden = fields.integer("d_model", sets="hidden_size")
    heads = fields.integer("n_heads", sets="num_heads")
    rows = fields.integer("vocab_size", sets="vocab_size")
    layers = fields.integer("n_layers", sets="num_layers")
    padded = fields.integer("embedding_size", default=0, at_least=0, sets="vocab_size")
    return {
        "vocab_size": padded or rows,
        "hidden_size": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": fields.integer(
            "n_kv_heads", default=heads, sets="num_kv_heads"
        ),
        "head_dim": hidden // heads,
        "mlp_size": fields.integer("mlp_hidden_size", sets="mlp_size"),
        "max_positions": fields.integer("max_sequence_length", sets="max_positions"),
        "norm_eps": fields.number("rms_norm_eps", sets="norm_eps"),
        "tie_embeddings": fields.boolean("weight_tying", sets="tie_embeddings"),
        "window": read_window(fields, layers),
        **read_rope(fields),
    }


def _read_llada_moe(fields: Fields) -> dict[str, Any]:
    fields.require("attention_bias", False)
    fields.require("moe_router_enable_expert_bias", False)
    for key in ("router_num_group", "router_topk_group"):
        fields.require(key)
    fields.get("intermediate_size")  # of neither kind of layer, as these say
    # The published code takes the selected weights as they are, whatever these say.
    fields.boolean("norm_topk_prob", default=False)
    fields.number("routed_scaling_factor", default=1.0)
    layers = _num_layers(fields)
    sparse = fields.get("moe_layer_freq") or [1] * layers
    if not isinstance(sparse, list):
        raise fields.fault("moe_layer_freq", "a list of 0 and 1, one a layer")
    num_dense = sparse.index(1) if 1 in sparse else layers
    if sparse != [0] * num_dense + [1] * (layers - num_dense):
        raise fields.fault("moe_layer_freq", "0 of dense layers, then 1 of sparse ones")
    moe: dict[str, Any] = dict(
        num_experts=fields.integer("num_experts"),
        num_selected=fields.integer("num_experts_per_tok"),
        expert_size=fields.integer("expert_intermediate_size"),
        shared_size=fields.integer(
            "shared_expert_intermediate_size", default=0, at_least=0
        ),
        num_dense_layers=num_dense,
        scoring="softmax",
    )
    return _transformer(fields, mlp_size="dense_intermediate_size") | {
        "qk_norm": fields.boolean("qk_layernorm", sets="qk_norm"),
        "moe": moe,
    }


def _read_llada2(fields: Fields) -> dict[str, Any]:
    fields.require("use_qkv_bias", False)
    expert_size = fields.integer("moe_intermediate_size")
    shared = fields.integer("num_shared_experts", default=0, at_least=0)
    moe: dict[str, Any] = dict(
        num_experts=fields.integer("num_experts"),
        num_selected=fields.integer("num_experts_per_tok"),
        expert_size=expert_size,
        shared_size=expert_size * shared,
        num_dense_layers=fields.integer("first_k_dense_replace", default=0, at_least=0),
        scoring="sigmoid",
        normalize=fields.boolean("norm_topk_prob", default=True),
        scale=fields.number("routed_scaling_factor"),
        expert_bias=fields.boolean("moe_router_enable_expert_bias", default=True),
        num_groups=fields.integer("n_group"),
        num_selected_groups=fields.integer("topk_group"),
    )
    return _transformer(fields, rope_fraction=0.5) | {
        "qk_norm": fields.boolean("use_qk_norm", default=True, sets="qk_norm"),
        "moe": moe,
    }


def _write_transformer(denoiser: DenoiserConfig) -> dict[str, Any]:
    return {
        "vocab_size": denoiser.vocab_size,
        "hidden_size": denoiser.hidden_size,
        "num_hidden_layers": denoiser.num_layers,
        "num_attention_heads": denoiser.num_heads,
        "num_key_value_heads": denoiser.num_kv_heads,
        "head_dim": denoiser.head_dim,
        "intermediate_size": denoiser.mlp_size,
        "max_position_embeddings": denoiser.max_positions,
        "rope_theta": denoiser.rope_theta,
        "rms_norm_eps": denoiser.norm_eps,
        "tie_word_embeddings": denoiser.tie_embeddings,
        "hidden_act": "silu",
    }


def _write_qwen3_moe(denoiser: DenoiserConfig) -> dict[str, Any]:
    moe = _moe(denoiser)
    return _write_transformer(denoiser) | {
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.num_selected,
        "moe_intermediate_size": moe.expert_size,
        "norm_topk_prob": moe.normalize,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _write_llada(denoiser: DenoiserConfig) -> dict[str, Any]:
    return {
        "vocab_size": denoiser.vocab_size,
        "embedding_size": denoiser.vocab_size,
        "d_model": denoiser.hidden_size,
        "n_layers": denoiser.num_layers,
        "n_heads": denoiser.num_heads,
        "n_kv_heads": denoiser.num_kv_heads,
        "mlp_hidden_size": denoiser.mlp_size,
        "max_sequence_length": denoiser.max_positions,
        "rope_theta": denoiser.rope_theta,
        "rms_norm_eps": denoiser.norm_eps,
        "weight_tying": denoiser.tie_embeddings,
        "activation_type": "silu",
        "block_type": "llama",
        "layer_norm_type": "rms",
        "include_bias": False,
        "include_qkv_bias": False,
    }


def _write_llada_moe(denoiser: DenoiserConfig) -> dict[str, Any]:
    moe = _moe(denoiser)
    if moe.normalize or moe.scale != 1.0:
        raise InputError(
            "the model normalizes or scales the weights of its experts, which the code "
            "of LLaDA-MoE does not, whatever config.json says; name another family"
        )
    sparse = denoiser.num_layers - moe.num_dense_layers
    written = _write_transformer(denoiser) | {
        "dense_intermediate_size": denoiser.mlp_size,
        "expert_intermediate_size": moe.expert_size,
        "shared_expert_intermediate_size": moe.shared_size or None,
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.num_selected,
        "moe_layer_freq": [0] * moe.num_dense_layers + [1] * sparse,
        "norm_topk_prob": moe.normalize,
        "routed_scaling_factor": moe.scale,
        "qk_layernorm": denoiser.qk_norm,
        "partial_rotary_factor": denoiser.rope_fraction,
    }
    del written["intermediate_size"]
    return written


def _write_llada2(denoiser: DenoiserConfig) -> dict[str, Any]:
    moe = _moe(denoiser)
    return _write_transformer(denoiser) | {
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.num_selected,
        "moe_intermediate_size": moe.expert_size,
        "num_shared_experts": moe.shared_size // moe.expert_size,
        "first_k_dense_replace": moe.num_dense_layers,
        "norm_topk_prob": moe.normalize,
        "routed_scaling_factor": moe.scale,
        "moe_router_enable_expert_bias": moe.expert_bias,
        "n_group": moe.num_groups,
        "topk_group": moe.num_selected_groups,
        "score_function": "sigmoid",
        "use_qk_norm": denoiser.qk_norm,
        "use_bias": False,
        "partial_rotary_factor": denoiser.rope_fraction,
    }


def _moe(denoiser: DenoiserConfig) -> MoEConfig:
    if denoiser.moe is None:
        raise InputError(
            "the model has no experts, which the layout of this family has; name a "
            "family without"
        )
    return denoiser.moe


WRITERS: dict[LayoutName, Callable[[DenoiserConfig], dict[str, Any]]] = {
    "llama": _write_transformer,
    "qwen2": _write_transformer,
    "qwen3": _write_transformer,
    "qwen3-moe": _write_qwen3_moe,
    "llada": _write_llada,
    "llada-moe": _write_llada_moe,
    "llada2": _write_llada2,
}
"""A layout's `config.json`, from a denoiser's shape."""


READERS: dict[LayoutName, Callable[[Fields], dict[str, Any]]] = {
    "llama": _read_llama,
    "qwen2": _read_qwen2,
    "qwen3": _read_qwen3,
    "qwen3-moe": _read_qwen3_moe,
    "llada": _read_llada,
    "llada-moe": _read_llada_moe,
    "llada2": _read_llada2,
}
"""A denoiser's shape from a layout's `config.json`, as fields of
`DenoiserConfig`, and `window`: how many positions back a query sees, None for all."""
