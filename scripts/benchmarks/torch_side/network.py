"""The denoiser in PyTorch, with our weights: what a decode is compared with.

Written to be fast in eager mode: one product for queries, keys and values, one for gate
and up; a cache that is allocated once, head by head, and written in place; the query
heads of a group folded into the length of one `scaled_dot_product_attention`, so that
keys are not repeated (of that, its own grouping, and softmax between two products, the
fastest or as fast at every shape tried on two CPU cores).
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn.denoiser import unstack_layers
from seedjax.typing import Params

Tensor = Any  # PyTorch is optional


class TorchCache(NamedTuple):
    """Keys and values of a layer in each entry, [B, K, S, C]. Which columns hold
    something is known to the loop that writes them."""

    keys: list[Tensor]
    values: list[Tensor]


class _Layer(NamedTuple):
    attention_norm: Tensor
    mlp_norm: Tensor
    query_key_value: Tensor  # [(H + 2K) C, D]
    bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Tensor
    gate_up: Tensor  # [2F, D]
    down: Tensor


class TorchNetwork:
    """Embedding, blocks and head. Tensors are [B, L, ...] as in `seedjax.nn`."""

    def __init__(self, params: Params, config: DenoiserConfig, *, num_columns: int):
        """Copies the weights.

        Args:
          params: ours, layers stacked or not, not quantized.
          config: of the denoiser; weights, activations and cache are in its `dtype`.
          num_columns: one more than the last position.

        Raises:
          InputError: if PyTorch is missing or cannot use this device, or the network is
            a mixture of experts.
        """
        torch = import_torch()
        if config.moe is not None:
            raise InputError(
                "the PyTorch side has no mixture of experts; measure without --against"
            )
        if config.rope_scaling is not None:
            raise InputError(
                "the PyTorch side has no rope_scaling; measure without --against"
            )
        self.config = config
        self.device = torch_device()
        self.dtype = getattr(torch, config.dtype)
        if config.layer_loop == "scan":
            params = unstack_layers(params)
        self.embedding = self._tensor(params["embedding"])
        self.head = self.embedding
        if not config.tie_embeddings:
            self.head = self._tensor(params["head"])
        self.final_norm = self._tensor(params["final_norm"]["scale"])
        self.layers = [
            self._layer(params[f"layers_{i}"]) for i in range(config.num_layers)
        ]
        half = config.rotary_dim // 2
        steps = torch.arange(half, dtype=torch.float32) / half
        positions = torch.arange(num_columns, dtype=torch.float32)
        angles = positions[:, None] * config.rope_theta**-steps
        self.cos = torch.cos(angles).to(self.device, self.dtype)[:, None]  # [S, 1, R]
        self.sin = torch.sin(angles).to(self.device, self.dtype)[:, None]

    def _tensor(self, array: jax.Array) -> Tensor:
        return to_torch(np.asarray(array)).to(self.device)

    def _joined(self, arrays: list[jax.Array]) -> Tensor:
        return import_torch().cat([self._tensor(array) for array in arrays])

    def _layer(self, params: Params) -> _Layer:
        attention, mlp = params["attention"], params["mlp"]
        roles = [attention[name] for name in ("query", "key", "value")]
        norms = [None, None]
        if self.config.qk_norm:
            norms = [
                self._tensor(attention[name]["scale"])
                for name in ("query_norm", "key_norm")
            ]
        biased = self.config.attention_bias
        return _Layer(
            attention_norm=self._tensor(params["attention_norm"]["scale"]),
            mlp_norm=self._tensor(params["mlp_norm"]["scale"]),
            query_key_value=self._joined([role["kernel"] for role in roles]),
            bias=self._joined([role["bias"] for role in roles]) if biased else None,
            query_norm=norms[0],
            key_norm=norms[1],
            output=self._tensor(attention["output"]["kernel"]),
            gate_up=self._joined([mlp["gate"]["kernel"], mlp["up"]["kernel"]]),
            down=self._tensor(mlp["down"]["kernel"]),
        )

    def empty_cache(self, batch: int, num_columns: int) -> TorchCache:
        """Room for the keys and values of so many columns."""
        torch = import_torch()
        shape = (batch, self.config.num_kv_heads, num_columns, self.config.head_dim)

        def empty() -> list[Tensor]:
            return [
                torch.empty(shape, dtype=self.dtype, device=self.device)
                for _ in self.layers
            ]

        return TorchCache(empty(), empty())

    def hidden_states(
        self,
        tokens: Tensor,
        start: int,
        cache: TorchCache,
        *,
        bias: Tensor | None = None,
        entries_only: bool = False,
    ) -> Tensor:
        """Runs the blocks over tokens [B, L] and writes their keys and values into the
        cache, from column `start` on.

        Args:
          tokens: at positions `start` and after.
          start: columns in front of them, all of which they see.
          cache: keys and values, changed in place.
          bias: of the scores, from `bias_of`; None shows every token all columns.
          entries_only: compute the last layer no further than keys and values.
        """
        functional = import_torch().nn.functional
        config, width = self.config, self.config.hidden_size
        x = functional.embedding(tokens, self.embedding)
        for number, layer in enumerate(self.layers):
            normed = functional.rms_norm(
                x, (width,), layer.attention_norm, config.norm_eps
            )
            queries = self._write(normed, layer, start, cache, number)
            if entries_only and number == len(self.layers) - 1:
                return x
            stop = start + tokens.shape[1]
            mixed = functional.scaled_dot_product_attention(
                queries,
                cache.keys[number][:, :, :stop],
                cache.values[number][:, :, :stop],
                attn_mask=bias,
            )
            x = x + functional.linear(self._by_token(mixed, tokens), layer.output)
            normed = functional.rms_norm(x, (width,), layer.mlp_norm, config.norm_eps)
            gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, layer.down)
        return functional.rms_norm(x, (width,), self.final_norm, config.norm_eps)

    def bias_of(self, visible: Tensor) -> Tensor:
        """What to add to the scores of tokens that see some columns only, bool [L, S]:
        a row for each query head of a group."""
        group = self.config.num_heads // self.config.num_kv_heads
        bias = import_torch().zeros(visible.shape, dtype=self.dtype, device=self.device)
        return bias.masked_fill_(~visible, -math.inf).repeat(group, 1)

    def _write(
        self, normed: Tensor, layer: _Layer, start: int, cache: TorchCache, number: int
    ) -> Tensor:
        """Writes a layer's keys and values, and returns the queries, [B, K, GL, C]: the
        heads of a group one after the other."""
        functional = import_torch().nn.functional
        config = self.config
        heads, kv_heads, channels = (
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
        )
        batch, length, _ = normed.shape
        joined = functional.linear(normed, layer.query_key_value, layer.bias)
        joined = joined.view(batch, length, heads + 2 * kv_heads, channels)
        if layer.query_norm is None:
            rotated = self._rotate(joined[:, :, : heads + kv_heads], start)
            queries, keys = rotated.split([heads, kv_heads], dim=2)
        else:
            queries, keys, _ = joined.split([heads, kv_heads, kv_heads], dim=2)
            shape, epsilon = (channels,), config.norm_eps
            queries = functional.rms_norm(queries, shape, layer.query_norm, epsilon)
            keys = functional.rms_norm(keys, shape, layer.key_norm, epsilon)
            queries, keys = self._rotate(queries, start), self._rotate(keys, start)
        values = joined[:, :, heads + kv_heads :]
        stop = start + length
        cache.keys[number][:, :, start:stop] = keys.transpose(1, 2)
        cache.values[number][:, :, start:stop] = values.transpose(1, 2)
        return queries.transpose(1, 2).reshape(batch, kv_heads, -1, channels)

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        torch = import_torch()
        half = self.cos.shape[-1]
        cos = self.cos[start : start + x.shape[1]]
        sin = self.sin[start : start + x.shape[1]]
        first, second = x[..., :half], x[..., half : 2 * half]
        turned = [first * cos - second * sin, second * cos + first * sin]
        if 2 * half < x.shape[-1]:
            turned.append(x[..., 2 * half :])
        return torch.cat(turned, dim=-1)

    def _by_token(self, mixed: Tensor, tokens: Tensor) -> Tensor:
        """[B, K, GL, C] to [B, L, HC]."""
        batch, length = tokens.shape
        config = self.config
        by_head = mixed.view(batch, config.num_heads, length, config.head_dim)
        return by_head.transpose(1, 2).reshape(batch, length, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, [B, L, V], in the network's dtype."""
        return import_torch().nn.functional.linear(hidden, self.head)


def import_torch() -> Any:
    """PyTorch, with as many threads as XLA uses.

    Raises:
      InputError: if it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise InputError(
            "comparing with PyTorch needs it; pip install 'seedjax[torch]'"
        ) from None
    return torch


def torch_device() -> str:
    """The PyTorch device that is the one JAX uses.

    Raises:
      InputError: if PyTorch cannot use it.
    """
    torch, backend = import_torch(), jax.default_backend()
    if backend == "cpu":
        return "cpu"
    if backend == "gpu" and torch.cuda.is_available():
        return "cuda"
    raise InputError(
        f"JAX runs on {backend} and this PyTorch does not; measure without --against, "
        "or with JAX_PLATFORMS=cpu"
    )


def to_torch(array: np.ndarray) -> Tensor:
    """A tensor with the values of an array, bfloat16 included."""
    torch = import_torch()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
