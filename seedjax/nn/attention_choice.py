"""Which attention backend computes a pass: one table, and the reasons.

    dense    all scores of a pass at once, plain XLA
    chunked  scores of a pair of chunks at a time, plain XLA (`nn.attention_chunked`)
    decode   a Pallas kernel for GPUs, over a long cache (`nn.attention_decode`)
    splash   JAX's Pallas kernel for TPUs, for training (`nn.attention_splash`)

A row of the table lists backends in order of preference; the first that can compute the
pass is taken, and `Choice.reason` says why the ones before it were not. Nothing else in
the package chooses an attention by the platform.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from seedjax.config import AttentionBackend
from seedjax.errors import InputError
from seedjax.nn.kernels import KERNELS, SWITCH, is_on
from seedjax.nn.masks import DENSE_SCORES

Platform = Literal["cpu", "tpu", "cuda"]
Phase = Literal["short", "cached", "long"]
"""A pass of few scores without a cache, one over a cache, and one of many scores."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The needs of a pass, by which its attention is chosen.

    Attributes:
      queries: how many, L.
      keys: how many in each run.
      cached: the first run is a cache that all queries of a row see alike.
      head_dim: channels of a head.
      cache_dtype: of the keys of the first run.
      parts: how many devices share the queries of a row.
    """

    queries: int
    keys: tuple[int, ...]
    cached: bool
    head_dim: int = 128
    cache_dtype: str = "bfloat16"
    parts: int = 1

    @property
    def phase(self) -> Phase:
        if self.queries * max(self.keys) > DENSE_SCORES:
            return "long"
        return "cached" if self.cached else "short"


Backend = Literal["dense", "chunked", "decode", "splash"]


class Choice(NamedTuple):
    """A backend and why it was taken."""

    backend: Backend
    reason: str


_DENSE = Choice("dense", "few scores")
_CHUNKED = Choice("chunked", "memory that grows with the length only")
_SPLASH = Choice("splash", "a kernel that keeps scores on the chip")
_DECODE = Choice("decode", "a kernel that reads the cache once")

PREFERENCES: Mapping[Phase, tuple[Choice, ...]] = MappingProxyType(
    {"short": (_DENSE,), "cached": (_DENSE,), "long": (_CHUNKED,)}
)
"""Backends for a phase, the best first."""

BEFORE: Mapping[tuple[Platform, Phase], tuple[Choice, ...]] = MappingProxyType(
    {
        ("tpu", "short"): (_SPLASH,),
        ("tpu", "long"): (_SPLASH,),
        ("cuda", "cached"): (_DECODE,),
    }
)
"""Backends that a platform prefers to those."""

LEAST_SPLASH = 1024
"""Positions from which on a kernel is worth its tiles of 128 to 512."""


def _dense_obstacle(needed: Pass) -> str | None:
    if needed.phase != "long":
        return None
    return f"{needed.queries} x {max(needed.keys)} scores of each head at once"


LEAST_DECODE = 4096
"""Columns of a cache from which on its scores weigh beside the weights."""


def _decode_obstacle(needed: Pass) -> str | None:
    if not needed.cached or len(needed.keys) != 2:
        return "no cache that all queries see alike"
    if needed.cache_dtype != "bfloat16":
        return f"a cache of {needed.cache_dtype}"
    if needed.keys[0] < LEAST_DECODE:
        return f"a cache of fewer than {LEAST_DECODE:,} columns"
    if needed.head_dim < 16 or needed.head_dim & (needed.head_dim - 1):
        return f"heads of {needed.head_dim} channels, which is no power of two"
    return None


def _splash_obstacle(needed: Pass) -> str | None:
    if needed.cached:
        return "a cache"
    if any(count != needed.queries for count in needed.keys):
        return f"keys in {needed.keys[0]} columns, queries in {needed.queries}"
    if needed.parts > 1:
        return "positions split over devices"
    if needed.queries % 128:
        return f"{needed.queries} positions are no multiple of 128"
    if needed.queries < LEAST_SPLASH:
        return f"fewer than {LEAST_SPLASH:,} positions"
    return None


OBSTACLES: Mapping[str, Callable[[Pass], str | None]] = MappingProxyType(
    {
        "dense": _dense_obstacle,
        "chunked": lambda needed: None,
        "decode": _decode_obstacle,
        "splash": _splash_obstacle,
    }
)
"""Why a backend cannot compute a pass; None if it can."""


def choose(
    needed: Pass, platform: Platform, explicit: AttentionBackend = "auto"
) -> Choice:
    """The backend of a pass on a platform.

    Raises:
      InputError: if an explicit choice cannot compute the pass.
    """
    if explicit != "auto":
        obstacle = OBSTACLES[explicit](needed)
        if obstacle is None:
            return Choice(explicit, "attention_backend of the denoiser")
        raise InputError(
            f"attention_backend={explicit} cannot compute this pass: {obstacle}; "
            "attention_backend=auto chooses one that can"
        )
    passed_over: list[str] = []
    phase = needed.phase
    for choice in BEFORE.get((platform, phase), ()) + PREFERENCES[phase]:
        obstacle = OBSTACLES[choice.backend](needed)
        if choice.backend in KERNELS and not is_on(choice.backend):
            obstacle = f"{SWITCH} turns it off"
        if obstacle is None:
            reason = "; ".join([choice.reason, *passed_over])
            return Choice(choice.backend, reason)
        passed_over.append(f"not {choice.backend}: {obstacle}")
    raise AssertionError(f"no attention backend for {needed} on {platform}")


def platform_of(backend: str) -> Platform:
    """The table's platform for a name of JAX's default backend."""
    return {"gpu": "cuda", "cuda": "cuda", "tpu": "tpu"}.get(backend, "cpu")  # type: ignore[return-value]


def explain(platform: Platform) -> dict[str, str]:
    """The choice and its reason for typical passes, by what they are for."""
    typical = Pass(queries=1024, keys=(1024,), cached=False)
    passes = {
        "training, 1,024 positions": typical,
        "training, 8,192 positions": replace(typical, queries=8192, keys=(8192, 8192)),
        "a prompt, 1,024 positions after 7,168": replace(
            typical, queries=1024, keys=(8192, 1024), cached=True
        ),
        "decoding, block of 32 after 8,192": replace(
            typical, queries=32, keys=(8192, 32), cached=True
        ),
    }
    return {
        name: "{}: {}".format(*choose(needed, platform))
        for name, needed in passes.items()
    }
