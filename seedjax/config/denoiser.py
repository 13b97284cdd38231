"""The denoiser's recipe, which every room needs."""

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from seedjax.config.recipes import make_plain, require
from seedjax.config.rope import DynamicRope, RopeScaling

Attention = Literal["bidirectional", "block_causal", "causal"]
LogitAlignment = Literal["same_position", "shifted"]
LayerLoop = Literal["auto", "unroll", "scan"]
DType = Literal["float32", "bfloat16"]
Remat = Literal["none", "layer", "dots_saved"]
Scoring = Literal["softmax", "sigmoid"]
AttentionBackend = Literal["auto", "dense", "chunked"]


LIMITS: Mapping[str, int] = types.MappingProxyType(
    {
        **dict.fromkeys(("vocab_size", "mlp_size", "expert_size"), 1 << 24),
        **dict.fromkeys(("hidden_size", "shared_size"), 1 << 24),
        **dict.fromkeys(("num_heads", "num_kv_heads", "head_dim"), 1 << 16),
        **dict.fromkeys(("num_layers", "num_dense_layers"), 1 << 10),
        "num_experts": 1 << 16,
        "block_size": 1 << 20,
        "max_positions": 1 << 31,
    }
)
"""The largest sizes of a model, well above all that are published: a damaged or hostile
file must not make a loop or an array of what it happens to hold."""
MOST_EXPERTS = 1 << 17  # over all layers; each is a tensor of a published checkpoint
RANGES: Mapping[str, tuple[float, float]] = types.MappingProxyType(
    {"rope_theta": (1e-3, 1e15), "norm_eps": (1e-20, 1.0), "init_scale": (0.0, 1e3)}
)
"""Numbers of a model with which float32 arithmetic stays finite."""


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """A mixture of SwiGLU experts in place of the feed-forward layer: how many, how
    wide, and how tokens choose among them (`nn.moe.route`)."""

    num_experts: int  # E
    num_selected: int  # experts that each token is sent to
    expert_size: int  # F, width of one expert
    shared_size: int = 0  # F of the expert that every token takes; 0: there is none
    num_dense_layers: int = 0  # leading layers with a feed-forward of `mlp_size`
    scoring: Scoring = "softmax"
    normalize: bool = False  # divide the selected weights by their sum
    scale: float = 1.0  # factor of the selected weights, after that
    expert_bias: bool = False  # a bias on the scores, for selecting only
    num_groups: int = 1  # neighbouring experts form a group; selection stays in the
    num_selected_groups: int = 1  # best ones, by the sum of their two best scores

    def __post_init__(self):
        make_plain(self)
        for name in ("num_experts", "expert_size"):
            require_count(self, name)
        for name in ("shared_size", "num_dense_layers"):
            require_count(self, name, least=0)
        require(0 < self.scale <= 1e6, self, "scale", "above 0, at most 1e6")
        require(
            self.num_groups >= 1 and self.num_experts % self.num_groups == 0,
            self,
            "num_groups",
            f"a divisor of num_experts={self.num_experts}",
        )
        require(
            1 <= self.num_selected_groups <= self.num_groups,
            self,
            "num_selected_groups",
            f"from 1 to num_groups={self.num_groups}",
        )
        eligible = self.num_experts // self.num_groups * self.num_selected_groups
        require(
            1 <= self.num_selected <= eligible,
            self,
            "num_selected",
            f"from 1 to the {eligible} experts of the selected groups",
        )


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Shape and semantics of a transformer denoiser, or of its autoregressive baseline
    (`attention="causal"`, `logit_alignment="shifted"`)."""

    vocab_size: int  # rows of the embedding table, special pieces included
    hidden_size: int  # D
    num_layers: int
    num_heads: int  # H
    num_kv_heads: int  # K, divides H
    head_dim: int  # C
    mlp_size: int  # F, width of the gated feed-forward layer
    max_positions: int = 2048  # longest document, in tokens
    rope_theta: float = 10_000.0  # base of the rotary frequencies
    rope_fraction: float = 1.0  # share of each head's channels that is rotated
    rope_scaling: RopeScaling | None = None  # how longer rows than at first are rotated
    norm_eps: float = 1e-6
    qk_norm: bool = False  # RMSNorm on each head's queries and keys
    attention_bias: bool = False  # biases on the query, key and value projections
    tie_embeddings: bool = True  # the output head is the embedding table
    init_scale: float = 0.02  # standard deviation of the initial weights
    attention: Attention = "block_causal"
    block_size: int = (
        16  # B of block diffusion and of block-causal attention, in tokens
    )
    logit_alignment: LogitAlignment = "same_position"
    mask_token_id: int = 0
    pad_token_id: int = 1
    bos_token_id: int = 2
    eos_token_ids: tuple[int, ...] = (3,)
    dtype: DType = "float32"  # operands of matrix products; accumulation is float32
    activation_dtype: DType = "float32"  # between products; "bfloat16" on accelerators
    param_dtype: DType = "float32"
    layer_loop: LayerLoop = "auto"  # "auto": see `seedjax doctor`
    remat: Remat = "none"  # what the backward pass recomputes
    attention_backend: AttentionBackend = "auto"  # "auto": see `seedjax doctor`
    moe: MoEConfig | None = None  # experts instead of the feed-forward layer

    def __post_init__(self):
        make_plain(self)
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "mlp_size",
            "max_positions",
            "block_size",
        ):
            require_count(self, name)
        require(
            self.num_heads % self.num_kv_heads == 0,
            self,
            "num_kv_heads",
            f"a divisor of num_heads={self.num_heads}",
        )
        require(
            0.0 < self.rope_fraction <= 1.0 and self.rotary_dim % 2 == 0,
            self,
            "rope_fraction",
            f"in (0, 1], rotating an even share of head_dim={self.head_dim}",
        )
        require(
            not isinstance(self.rope_scaling, DynamicRope) or self.rotary_dim > 2,
            self,
            "rope_scaling",
            "of another kind, since DynamicRope rotates more than two channels",
        )
        for name, (least, most) in RANGES.items():
            require(
                least <= getattr(self, name) <= most,
                self,
                name,
                f"from {least:g} to {most:g}",
            )
        for name in ("mask_token_id", "pad_token_id", "bos_token_id"):
            require(
                0 <= getattr(self, name) < self.vocab_size,
                self,
                name,
                f"a token id below vocab_size={self.vocab_size}",
            )
        require(
            all(0 <= i < self.vocab_size for i in self.eos_token_ids),
            self,
            "eos_token_ids",
            f"token ids below vocab_size={self.vocab_size}",
        )
        if self.moe is not None:
            require(
                self.moe.num_dense_layers < self.num_layers,
                self.moe,
                "num_dense_layers",
                f"below num_layers={self.num_layers}",
            )
            require(
                self.num_layers * self.moe.num_experts <= MOST_EXPERTS,
                self.moe,
                "num_experts",
                f"at most {MOST_EXPERTS} over all {self.num_layers} layers",
            )

    @property
    def rotary_dim(self) -> int:
        """Channels of each head that the rotary embedding turns."""
        return int(self.head_dim * self.rope_fraction)

    @property
    def num_leading_layers(self) -> int:
        """Layers that differ from the rest and stand apart from the stacked ones of
        `layer_loop="scan"`: the dense ones of a mixture of experts."""
        return 0 if self.moe is None else self.moe.num_dense_layers


def require_count(config: Any, field: str, *, least: int = 1) -> None:
    """Holds a size to `least` and to its entry in `LIMITS`; see `require`."""
    most = LIMITS[field]
    require(
        least <= getattr(config, field) <= most,
        config,
        field,
        f"at least {least} and at most {most}",
    )
