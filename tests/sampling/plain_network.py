"""The bidirectional denoiser in numpy, float64, one row, which remembers the keys and
values of every position until it computes them anew."""

import jax
import numpy as np

from seedjax.config import DenoiserConfig


def rms_norm(x, scale, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * scale


def silu(x):
    return x / (1 + np.exp(-x))


def rotate(x, positions, theta):
    """[T, heads, C], channel i paired with i + C / 2."""
    half = x.shape[-1] // 2
    angles = positions[:, None, None] * theta ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


class Network:
    """Without biases, norms of queries and keys, or experts; embeddings tied."""

    def __init__(self, params, config: DenoiserConfig):
        self.config = config
        self.params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        self.memory: list[dict[str, dict[int, np.ndarray]]] = [
            {"key": {}, "value": {}} for _ in range(config.num_layers)
        ]

    def logits(self, tokens: list[int], columns: range) -> np.ndarray:
        """Logits [T, V] of the positions `columns`, NaN elsewhere. They see all
        positions, those outside of `columns` as they were when last computed."""
        config, positions = self.config, np.array(columns)
        table = self.params["embedding"]
        x = table[np.array(tokens)[positions]]
        for number, memory in enumerate(self.memory):
            layer = self.params[f"layers_{number}"]
            x = x + self.attention(layer, memory, x, positions, len(tokens))
            y = rms_norm(x, layer["mlp_norm"]["scale"], config.norm_eps)
            gate, up, down = (
                layer["mlp"][name]["kernel"] for name in ("gate", "up", "down")
            )
            x = x + (silu(y @ gate.T) * (y @ up.T)) @ down.T
        x = rms_norm(x, self.params["final_norm"]["scale"], config.norm_eps)
        logits = np.full((len(tokens), config.vocab_size), np.nan, np.float32)
        logits[positions] = x @ table.T
        return logits

    def attention(self, layer, memory, x, positions, length):
        config = self.config
        y = rms_norm(x, layer["attention_norm"]["scale"], config.norm_eps)
        query, key, value = (
            (y @ layer["attention"][name]["kernel"].T).reshape(
                len(y), -1, config.head_dim
            )
            for name in ("query", "key", "value")
        )
        query = rotate(query, positions, config.rope_theta)
        key = rotate(key, positions, config.rope_theta)
        memory["key"] |= zip(positions.tolist(), key, strict=True)
        memory["value"] |= zip(positions.tolist(), value, strict=True)
        mixed = np.zeros_like(query)
        for head in range(config.num_heads):
            shared = head * config.num_kv_heads // config.num_heads
            keys, values = (
                np.stack([memory[name][i][shared] for i in range(length)])
                for name in ("key", "value")
            )
            weights = np.exp(query[:, head] @ keys.T / np.sqrt(config.head_dim))
            mixed[:, head] = weights @ values / weights.sum(-1, keepdims=True)
        return mixed.reshape(len(y), -1) @ layer["attention"]["output"]["kernel"].T
