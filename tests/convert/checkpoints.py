"""Tiny checkpoints with random weights, one a family, as published ones are laid out.
Names and shapes are written down from the families' own model code, not from our
tables."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROWS, WIDTH, HEADS, KV_HEADS, HEAD, LAYERS = 96, 32, 4, 2, 8, 2
MASK, PAD, BOS, EOS = 90, 1, 2, 3
QK_NORMS = ("qwen3", "qwen3-moe", "sdar", "sdar-moe", "llada-moe", "coda", "a2d-qwen3")


def transformers_config(architecture: str, model_type: str, **more) -> dict:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": ROWS,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": BOS,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
    } | more


def config_of(family: str) -> dict:
    """A `config.json` of the family."""
    llada = {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "d_model": WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "n_kv_heads": HEADS,
        "mlp_hidden_size": 48,
        "vocab_size": ROWS,
        "embedding_size": ROWS,
        "max_sequence_length": 256,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "weight_tying": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "attention_layer_norm": False,
        "activation_type": "silu",
        "block_type": "llama",
        "layer_norm_type": "rms",
        "rope": True,
        "alibi": False,
        "mask_token_id": MASK,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    experts = {"num_experts": 8, "num_experts_per_tok": 2}
    configs = {
        "llama": transformers_config("LlamaForCausalLM", "llama", mask_token_id=None),
        "qwen2": transformers_config("Qwen2ForCausalLM", "qwen2", mask_token_id=None),
        "qwen3": transformers_config("Qwen3ForCausalLM", "qwen3", mask_token_id=None),
        "qwen3-moe": transformers_config(
            "Qwen3MoeForCausalLM",
            "qwen3_moe",
            mask_token_id=None,
            moe_intermediate_size=24,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            **experts,
        ),
        "stable-diffcoder": transformers_config(
            "StableDiffcoderForCausalLM", "llama", mask_token_id=None
        ),
        "dream": transformers_config("DreamModel", "Dream", rope_theta=1e6),
        "fast-dllm-v2": transformers_config(
            "Fast_dLLM_QwenForCausalLM", "Fast_dLLM_Qwen", tie_word_embeddings=True
        ),
        "sdar": transformers_config("SDARForCausalLM", "sdar"),
        # Salesforce/CoDA-v0: no tie_word_embeddings in the file, and an output head.
        "coda": transformers_config(
            "CoDALanguageModel",
            "CoDA",
            rope_scaling=None,
            use_sliding_window=False,
            sliding_window=None,
            attention_bias=False,
            attention_kernel="flash_attention",
            prefix_probability=0,
            truncate_probability=0,
            block_masking_probability=[0.25, 0.5],
            mask_block_sizes=[4, 8],
            sampling_eps=[0.001, 0.25],
        ),
        # GSAI-ML/iLLaDA-8B: heads are hidden_size over num_attention_heads.
        "illada": transformers_config(
            "ILLaDAForCausalLM",
            "illada",
            head_dim=None,
            attention_bias=False,
            mlp_bias=False,
            layer_norm_eps=None,
            resid_pdrop=0.0,
            mask_token_id=None,
            tie_word_embeddings=True,
        ),
        # dllm-hub and OPDLM: Qwen's, layer_types and all; the tokenizer has the mask.
        "a2d-qwen2": transformers_config(
            "A2DQwen2LMHeadModel",
            "a2d-qwen2",
            mask_token_id=None,
            use_sliding_window=False,
            layer_types=["full_attention"] * LAYERS,
        ),
        "a2d-qwen3": transformers_config(
            "A2DQwen3LMHeadModel",
            "a2d-qwen3",
            mask_token_id=None,
            use_sliding_window=False,
            layer_types=["full_attention"] * LAYERS,
            tie_word_embeddings=True,
        ),
        "sdar-moe": transformers_config(
            "SDARMoeForCausalLM",
            "sdar_moe",
            moe_intermediate_size=24,
            norm_topk_prob=True,
            **experts,
        ),
        "llada": llada,
        "llada-moe": transformers_config(
            "LLaDAMoEModelLM",
            "llada_moe",
            dense_intermediate_size=48,
            expert_intermediate_size=24,
            shared_expert_intermediate_size=16,
            moe_layer_freq=[0, 1],
            qk_layernorm=True,
            norm_topk_prob=None,
            partial_rotary_factor=1.0,
            moe_router_score_function="softmax",
            **experts,
        ),
        "llada2": transformers_config(
            "LLaDA2MoeModelLM",
            "llada2_moe",
            moe_intermediate_size=24,
            num_shared_experts=1,
            first_k_dense_replace=1,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            score_function="sigmoid",
            moe_router_enable_expert_bias=True,
            use_qk_norm=True,
            use_qkv_bias=False,
            use_bias=False,
            partial_rotary_factor=0.5,
            num_experts=16,
            num_experts_per_tok=3,
        ),
    }
    if family == "coda":
        del configs["coda"]["tie_word_embeddings"]
    return configs[family]


def _attention(prefix: str, *, bias: bool = False, norms: bool = False) -> dict:
    shapes: dict[str, tuple[int, ...]] = {}
    for role, heads in {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}.items():
        shapes[f"{prefix}.{role}_proj.weight"] = (heads * HEAD, WIDTH)
        if bias:
            shapes[f"{prefix}.{role}_proj.bias"] = (heads * HEAD,)
    shapes[f"{prefix}.o_proj.weight"] = (WIDTH, HEADS * HEAD)
    if norms:
        shapes |= {f"{prefix}.{role}_norm.weight": (HEAD,) for role in "qk"}
    return shapes


def _swiglu(prefix: str, size: int) -> dict:
    return {
        f"{prefix}.gate_proj.weight": (size, WIDTH),
        f"{prefix}.up_proj.weight": (size, WIDTH),
        f"{prefix}.down_proj.weight": (WIDTH, size),
    }


def shapes_of(family: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors."""
    config = config_of(family)
    if family == "llada":
        return _llada_shapes()
    embedding = "word_embeddings" if family == "llada2" else "embed_tokens"
    shapes: dict[str, tuple[int, ...]] = {
        f"model.{embedding}.weight": (ROWS, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (ROWS, WIDTH)
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (WIDTH,)
        if family == "llada2":
            fused = (HEADS + 2 * KV_HEADS) * HEAD
            shapes |= {
                f"{layer}.attention.query_key_value.weight": (fused, WIDTH),
                f"{layer}.attention.query_layernorm.weight": (HEAD,),
                f"{layer}.attention.key_layernorm.weight": (HEAD,),
                f"{layer}.attention.dense.weight": (WIDTH, HEADS * HEAD),
            }
        else:
            shapes |= _attention(
                f"{layer}.self_attn",
                bias=family in ("qwen2", "dream", "fast-dllm-v2", "a2d-qwen2"),
                norms=family in QK_NORMS,
            )
        if "num_experts" not in config or (family.startswith("llada") and number == 0):
            shapes |= _swiglu(f"{layer}.mlp", 48)
            continue
        shapes[f"{layer}.mlp.gate.weight"] = (config["num_experts"], WIDTH)
        for expert in range(config["num_experts"]):
            shapes |= _swiglu(f"{layer}.mlp.experts.{expert}", 24)
        if family == "llada2":
            shapes[f"{layer}.mlp.gate.expert_bias"] = (config["num_experts"],)
            shapes |= _swiglu(f"{layer}.mlp.shared_experts", 24)
        if family == "llada-moe":
            shapes |= _swiglu(f"{layer}.shared_expert", 16)
    return shapes


def _llada_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.transformer.wte.weight": (ROWS, WIDTH),
        "model.transformer.ln_f.weight": (WIDTH,),
        "model.transformer.ff_out.weight": (ROWS, WIDTH),
    }
    for number in range(LAYERS):
        block = f"model.transformer.blocks.{number}"
        shapes |= {f"{block}.{n}.weight": (WIDTH,) for n in ("attn_norm", "ff_norm")}
        for role in ("q_proj", "k_proj", "v_proj", "attn_out"):
            shapes[f"{block}.{role}.weight"] = (WIDTH, WIDTH)
        for role in ("ff_proj", "up_proj"):
            shapes[f"{block}.{role}.weight"] = (48, WIDTH)
        shapes[f"{block}.ff_out.weight"] = (WIDTH, 48)
    return shapes


def tensors_of(family: str, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights, large enough that a swapped tensor shows in the logits."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes_of(family).items():
        values = rng.standard_normal(shape, np.float32)
        if len(shape) == 1 and "bias" not in name:
            tensors[name] = 1.0 + 0.2 * values  # norms
        elif "expert_bias" in name:
            tensors[name] = 0.3 * values
        else:
            tensors[name] = values * np.float32(1.5 / np.sqrt(shape[-1]))
    return tensors


def write_checkpoint(
    folder: Path,
    family: str,
    *,
    tensors: dict[str, np.ndarray] | None = None,
    config: dict | None = None,
) -> Path:
    """A directory with config, weights and a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config or config_of(family)
    (folder / "config.json").write_text(json.dumps(config))
    given = tensors_of(family) if tensors is None else tensors
    save_file(given, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path, size: int = 80) -> None:
    """A tokenizer that knows the letters and the special tokens."""
    letters = [chr(33 + n) for n in range(size - 4)]
    special = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "<unk>": 0}
    vocabulary = special | {c: n + 4 for n, c in enumerate(letters)}
    added = [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for text, number in sorted(special.items(), key=lambda item: item[1])
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                "<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]},
            },
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
