"""The foreign networks in plain numpy, float64, one token's experts at a time; written
from the families' own model code and reading their tensor names. A visibility matrix
says which position sees which."""

import numpy as np


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def rotate(x, positions, theta, fraction):
    """Half-split rotary form on the first channels of [T, heads, C]."""
    turned = int(x.shape[-1] * fraction)
    half = turned // 2
    angles = positions[:, None] * theta ** (-np.arange(half) / half)[None]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:turned]
    return np.concatenate(
        [a * cos - b * sin, b * cos + a * sin, x[..., turned:]], axis=-1
    )


def attention(q, k, v, visible):
    """[T, H, C] queries, [T, K, C] keys and values; query head h reads h // (H / K)."""
    group = q.shape[1] // k.shape[1]
    out = np.zeros_like(q)
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // group].T / np.sqrt(q.shape[-1])
        out[:, head] = softmax(np.where(visible, scores, -1e30)) @ v[:, head // group]
    return out.reshape(len(q), -1)


def swiglu(w, prefix, x, gate="gate_proj", up="up_proj", down="down_proj"):
    hidden = silu(x @ w[f"{prefix}.{gate}.weight"].T) * (
        x @ w[f"{prefix}.{up}.weight"].T
    )
    return hidden @ w[f"{prefix}.{down}.weight"].T


def softmax_experts(w, config, prefix, x):
    """LLaDA-MoE: the best of a softmax over all experts, not normalized again."""
    out = np.zeros_like(x)
    for t, token in enumerate(x):
        probabilities = softmax(w[f"{prefix}.gate.weight"] @ token)
        for expert in np.argsort(-probabilities)[: config["num_experts_per_tok"]]:
            part = swiglu(w, f"{prefix}.experts.{expert}", token)
            out[t] += probabilities[expert] * part
    return out


def grouped_experts(w, config, prefix, x):
    """LLaDA2: sigmoid scores, a bias that counts for the choice alone, the best groups
    by their two best, then the best experts in them, normalized and scaled."""
    out = np.zeros_like(x)
    groups = config["n_group"]
    for t, token in enumerate(x):
        scores = 1 / (1 + np.exp(-(w[f"{prefix}.gate.weight"] @ token)))
        biased = scores + w[f"{prefix}.gate.expert_bias"]
        by_group = biased.reshape(groups, -1)
        strength = np.sort(by_group, axis=1)[:, -2:].sum(1)
        kept = np.argsort(-strength)[: config["topk_group"]]
        eligible = np.full_like(by_group, -np.inf)
        eligible[kept] = by_group[kept]
        chosen = np.argsort(-eligible.ravel())[: config["num_experts_per_tok"]]
        weights = scores[chosen] / (scores[chosen].sum() + 1e-20)
        for expert, weight in zip(chosen, weights, strict=True):
            part = swiglu(w, f"{prefix}.experts.{expert}", token)
            out[t] += config["routed_scaling_factor"] * weight * part
    return out


def llada(w, config, tokens, positions, visible):
    w = {name: value.astype(np.float64) for name, value in w.items()}
    heads, eps = config["n_heads"], config["rms_norm_eps"]
    x = w["model.transformer.wte.weight"][tokens]
    for n in range(config["n_layers"]):
        block = f"model.transformer.blocks.{n}"
        y = rms_norm(x, w[f"{block}.attn_norm.weight"], eps)
        q, k, v = (
            (y @ w[f"{block}.{r}_proj.weight"].T).reshape(len(y), heads, -1)
            for r in "qkv"
        )
        q, k = (rotate(h, positions, config["rope_theta"], 1.0) for h in (q, k))
        x = x + attention(q, k, v, visible) @ w[f"{block}.attn_out.weight"].T
        y = rms_norm(x, w[f"{block}.ff_norm.weight"], eps)
        x = x + swiglu(w, block, y, "ff_proj", "up_proj", "ff_out")
    x = rms_norm(x, w["model.transformer.ln_f.weight"], eps)
    return x @ w["model.transformer.ff_out.weight"].T


def mixture(w, config, tokens, positions, visible):
    """LLaDA-MoE and LLaDA2."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    second = config["model_type"] == "llada2_moe"
    eps, size = config["rms_norm_eps"], config["head_dim"]
    counts = [config["num_attention_heads"]] + [config["num_key_value_heads"]] * 2
    fraction = config.get("partial_rotary_factor", 1.0)
    x = w["model.word_embeddings.weight" if second else "model.embed_tokens.weight"]
    x = x[tokens]
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        y = rms_norm(x, w[f"{layer}.input_layernorm.weight"], eps)
        if second:
            fused = y @ w[f"{layer}.attention.query_key_value.weight"].T
            cuts = np.cumsum(np.array(counts) * size)[:-1]
            q, k, v = np.split(fused, cuts, axis=-1)
            norms = ("attention.query_layernorm", "attention.key_layernorm")
            out = "attention.dense"
        else:
            q, k, v = (y @ w[f"{layer}.self_attn.{r}_proj.weight"].T for r in "qkv")
            norms, out = (
                ("self_attn.q_norm", "self_attn.k_norm"),
                "self_attn.o_proj",
            )
        q, k, v = (
            h.reshape(len(y), c, size) for h, c in zip((q, k, v), counts, strict=True)
        )
        q, k = (
            rms_norm(h, w[f"{layer}.{norm}.weight"], eps)
            for h, norm in zip((q, k), norms, strict=True)
        )
        q, k = (rotate(h, positions, config["rope_theta"], fraction) for h in (q, k))
        x = x + attention(q, k, v, visible) @ w[f"{layer}.{out}.weight"].T
        y = rms_norm(x, w[f"{layer}.post_attention_layernorm.weight"], eps)
        if f"{layer}.mlp.gate.weight" not in w:
            x = x + swiglu(w, f"{layer}.mlp", y)
        elif second:
            x = x + grouped_experts(w, config, f"{layer}.mlp", y)
            x = x + swiglu(w, f"{layer}.mlp.shared_experts", y)
        else:
            x = x + softmax_experts(w, config, f"{layer}.mlp", y)
            x = x + swiglu(w, f"{layer}.shared_expert", y)
    return rms_norm(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T
