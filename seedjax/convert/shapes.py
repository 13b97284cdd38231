"""The keys of foreign `config.json` files: read into fields of `DenoiserConfig`, and
written from them.

One reader and one writer a layout. A key that changes what the network computes is
either read or must have the value at which it does nothing; so a scaled rotary
embedding or a soft cap is refused rather than passed over.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from seedjax.config import DenoiserConfig, MoEConfig
from seedjax.errors import InputError

LayoutName = Literal[
    "llama", "qwen2", "qwen3", "qwen3-moe", "llada", "llada-moe", "llada2"
]

LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "activation_type": ("silu",),
    "rope_scaling": (None,),
    "mlp_bias": (False,),
    "use_bias": (False,),
    "norm_head": (False,),
    "include_bias": (False,),
    "bias_for_layer_norm": (False, None),
    "use_sliding_window": (False,),
    "use_mrope": (False,),
    "clip_qkv": (None,),
    "alibi": (False,),
    "rope": (True,),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "block_type": ("llama",),
    "input_emb_norm": (False,),
    "scale_logits": (False,),
    "logit_scale": (None, 1.0),
    "embedding_multiplier": (None, 1.0),
    "residual_multiplier": (None, 1.0),
    "attention_multiplier": (None,),
    "final_logit_softcapping": (None,),
    "attn_logit_softcapping": (None,),
    "quantization_config": (None,),
    "layer_types": (None,),  # beside full attention, see `_check_neutral`
    "mlp_only_layers": (None, []),
    "decoder_sparse_step": (None, 1),
    "score_function": (None, "sigmoid"),
    "moe_router_score_function": (None, "softmax"),
    "multi_query_attention": (None, False),
    "tie_encoder_decoder": (None, False),
}
"""Keys that change the network, and the values at which they do not."""

_HARMLESS = frozenset(
    {
        *("architectures", "auto_map", "model_type", "torch_dtype", "dtype"),
        *("transformers_version", "use_cache", "initializer_range", "init_std"),
        *("init_fn", "init_device", "init_cutoff_factor", "_name_or_path"),
        *("attention_dropout", "embedding_dropout", "output_dropout"),
        *("residual_dropout", "pretraining_tp", "max_window_layers", "sliding_window"),
        *("output_router_logits", "router_aux_loss_coef", "rope_full_precision"),
        *("flash_attention", "attn_implementation", "precision", "name_or_path"),
    }
)
"""Keys that say nothing about what the network computes."""


def _check_neutral(config: Mapping[str, Any]) -> None:
    for key, neutral in _NEUTRAL.items():
        value = config.get(key, neutral[0])
        if key == "layer_types" and set(value or ()) <= {"full_attention"}:
            continue
        if value not in neutral:
            raise InputError(
                f"config.json has {key}={value!r}, which seedjax does not compute; "
                f"it takes {' or '.join(repr(n) for n in neutral)}"
            )


def _get(config: Mapping[str, Any], key: str, kind: type, *, default: Any = None):
    """A value that must be there, unless there is a default, and of its type."""
    value = config.get(key)
    if value is None:
        value = default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        raise InputError(
            f"config.json has {key}={config.get(key)!r}; wanted {kind.__name__}"
        )
    return value


def _rope_theta(config: Mapping[str, Any]) -> float:
    """The base of the rotary frequencies, at either of the two places for it."""
    nested = config.get("rope_parameters")
    if nested is not None:
        if nested.get("rope_type", "default") != "default":
            raise InputError(
                f"config.json has rope_type {nested['rope_type']!r}, which seedjax "
                "does not compute; it takes 'default'"
            )
        config = {**config, **nested}
    return _get(config, "rope_theta", float)


def _transformer(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the layouts of transformers have in common."""
    _check_neutral(config)
    hidden, heads = (
        _get(config, "hidden_size", int),
        _get(config, "num_attention_heads", int),
    )
    return {
        "vocab_size": _get(config, "vocab_size", int),
        "hidden_size": hidden,
        "num_layers": _get(config, "num_hidden_layers", int),
        "num_heads": heads,
        "num_kv_heads": _get(config, "num_key_value_heads", int, default=heads)
        or heads,
        "head_dim": _get(config, "head_dim", int, default=hidden // heads),
        "mlp_size": _get(config, "intermediate_size", int),
        "max_positions": _get(config, "max_position_embeddings", int),
        "rope_theta": _rope_theta(config),
        "norm_eps": _get(config, "rms_norm_eps", float),
        "tie_embeddings": _get(config, "tie_word_embeddings", bool, default=False),
    }


def _read_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    _require(config, "attention_bias", False)
    return _transformer(config)


def _read_qwen2(config: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen2 has biases on queries, keys and values whatever its config says."""
    return _transformer(config) | {"attention_bias": True}


def _read_qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    _require(config, "attention_bias", False)
    return _transformer(config) | {"qk_norm": True}


def _read_qwen3_moe(config: Mapping[str, Any]) -> dict[str, Any]:
    moe = MoEConfig(
        num_experts=_get(config, "num_experts", int),
        num_selected=_get(config, "num_experts_per_tok", int),
        expert_size=_get(config, "moe_intermediate_size", int),
        scoring="softmax",
        normalize=_get(config, "norm_topk_prob", bool, default=False),
    )
    return _read_qwen3(config) | {"moe": moe}


def _read_llada(config: Mapping[str, Any]) -> dict[str, Any]:
    _check_neutral(config)
    _require(config, "include_qkv_bias", False)
    _require(config, "attention_layer_norm", False)
    hidden, heads = _get(config, "d_model", int), _get(config, "n_heads", int)
    rows = _get(config, "vocab_size", int)
    return {
        "vocab_size": _get(config, "embedding_size", int, default=rows) or rows,
        "hidden_size": hidden,
        "num_layers": _get(config, "n_layers", int),
        "num_heads": heads,
        "num_kv_heads": _get(config, "n_kv_heads", int, default=heads),
        "head_dim": hidden // heads,
        "mlp_size": _get(config, "mlp_hidden_size", int),
        "max_positions": _get(config, "max_sequence_length", int),
        "rope_theta": _get(config, "rope_theta", float),
        "norm_eps": _get(config, "rms_norm_eps", float),
        "tie_embeddings": _get(config, "weight_tying", bool),
    }


def _read_llada_moe(config: Mapping[str, Any]) -> dict[str, Any]:
    _require(config, "attention_bias", False)
    _require(config, "moe_router_enable_expert_bias", False)
    for key in ("router_num_group", "router_topk_group"):
        _require(config, key, None)
    layers = _get(config, "num_hidden_layers", int)
    sparse = config.get("moe_layer_freq") or [1] * layers
    num_dense = sparse.index(1) if 1 in sparse else layers
    if sparse != [0] * num_dense + [1] * (layers - num_dense):
        raise InputError(
            f"config.json has moe_layer_freq={sparse!r}; seedjax takes dense layers in "
            "front of sparse ones only"
        )
    moe = MoEConfig(
        num_experts=_get(config, "num_experts", int),
        num_selected=_get(config, "num_experts_per_tok", int),
        expert_size=_get(config, "expert_intermediate_size", int),
        shared_size=_get(config, "shared_expert_intermediate_size", int, default=0),
        num_dense_layers=num_dense,
        scoring="softmax",
        normalize=_get(config, "norm_topk_prob", bool, default=False),
        scale=_get(config, "routed_scaling_factor", float, default=1.0),
    )
    dense = _get(config, "dense_intermediate_size", int)
    return _transformer({**config, "intermediate_size": dense}) | {
        "qk_norm": _get(config, "qk_layernorm", bool),
        "rope_fraction": _get(config, "partial_rotary_factor", float, default=1.0),
        "moe": moe,
    }


def _read_llada2(config: Mapping[str, Any]) -> dict[str, Any]:
    _require(config, "use_qkv_bias", False)
    expert_size = _get(config, "moe_intermediate_size", int)
    moe = MoEConfig(
        num_experts=_get(config, "num_experts", int),
        num_selected=_get(config, "num_experts_per_tok", int),
        expert_size=expert_size,
        shared_size=expert_size * _get(config, "num_shared_experts", int, default=0),
        num_dense_layers=_get(config, "first_k_dense_replace", int, default=0),
        scoring="sigmoid",
        normalize=_get(config, "norm_topk_prob", bool, default=True),
        scale=_get(config, "routed_scaling_factor", float),
        expert_bias=_get(config, "moe_router_enable_expert_bias", bool, default=True),
        num_groups=_get(config, "n_group", int),
        num_selected_groups=_get(config, "topk_group", int),
    )
    nested = config.get("rope_parameters") or {}
    return _transformer(config) | {
        "qk_norm": _get(config, "use_qk_norm", bool, default=True),
        "rope_fraction": _get(
            {**config, **nested}, "partial_rotary_factor", float, default=0.5
        ),
        "moe": moe,
    }


def _require(config: Mapping[str, Any], key: str, wanted: Any) -> None:
    if config.get(key) not in (None, wanted):
        raise InputError(
            f"config.json has {key}={config[key]!r}; seedjax takes {wanted!r} for this "
            "family"
        )


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
"""What a layout's `config.json` says of a denoiser's shape."""


READERS: dict[LayoutName, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "llama": _read_llama,
    "qwen2": _read_qwen2,
    "qwen3": _read_qwen3,
    "qwen3-moe": _read_qwen3_moe,
    "llada": _read_llada,
    "llada-moe": _read_llada_moe,
    "llada2": _read_llada2,
}


class _Noting(dict):
    """A mapping that remembers which keys were asked for."""

    def __init__(self, values: Mapping[str, Any]):
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)


def ignored_keys(layout: LayoutName, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a `config.json` that no reader asks for and that are not known to be
    harmless, in order."""
    noting = _Noting(config)
    READERS[layout](noting)
    ids = {"mask_token_id", "pad_token_id", "bos_token_id", "eos_token_id"}
    known = noting.asked | _HARMLESS | ids | {"rope_parameters", "rope_theta"}
    return tuple(key for key in config if key not in known)
