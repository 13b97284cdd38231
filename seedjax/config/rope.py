"""Recipes of scaled rotary embeddings, which reach beyond a model's first context.

The names and the arithmetic are those of transformers (`modeling_rope_utils`); the
frequencies are computed in `nn.rotary`.
"""

from dataclasses import dataclass

from seedjax.config.recipes import make_plain, require


def _require_scale(config: "RopeScaling") -> None:
    make_plain(config)
    require(1.0 <= config.factor <= 1e6, config, "factor", "from 1 to 1e6")
    if not isinstance(config, LinearRope):
        original = config.original_positions
        require(1 <= original <= 1 << 31, config, "original_positions", "at least 1")


@dataclass(frozen=True, kw_only=True)
class LinearRope:
    """Position interpolation (arXiv 2306.15595): frequencies divided by `factor`."""

    factor: float

    def __post_init__(self):
        _require_scale(self)


@dataclass(frozen=True, kw_only=True)
class DynamicRope:
    """Dynamic NTK: a row that is longer than `original_positions` takes a larger base,
    the larger the longer the row. Up to there nothing changes."""

    factor: float
    original_positions: int

    def __post_init__(self):
        _require_scale(self)


@dataclass(frozen=True, kw_only=True)
class Llama3Rope:
    """Llama 3.1: wavelengths longer than `original_positions / low_freq_factor` are
    stretched by `factor`, shorter ones than `/ high_freq_factor` are kept."""

    factor: float
    original_positions: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self):
        _require_scale(self)
        require(
            0.0 < self.low_freq_factor < self.high_freq_factor <= 1e6,
            self,
            "low_freq_factor",
            f"above 0 and below high_freq_factor={self.high_freq_factor:g}",
        )


@dataclass(frozen=True, kw_only=True)
class YarnRope:
    """YaRN (arXiv 2309.00071): channels that turn less than `beta_slow` times within
    `original_positions` are stretched by `factor`, those that turn more than
    `beta_fast` times are kept; cosines and sines are multiplied by
    `attention_factor`."""

    factor: float
    original_positions: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True  # round the bounds between the channels outwards

    def __post_init__(self):
        _require_scale(self)
        require(
            0.0 < self.beta_slow < self.beta_fast <= 1e6,
            self,
            "beta_slow",
            f"above 0 and below beta_fast={self.beta_fast:g}",
        )
        require(
            0.0 < self.attention_factor <= 100.0,
            self,
            "attention_factor",
            "above 0, at most 100",
        )


RopeScaling = LinearRope | DynamicRope | Llama3Rope | YarnRope
