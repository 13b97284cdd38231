"""Which attention backend computes a pass: one table, and the reasons.

    dense    all scores of a pass at once, plain XLA
    chunked  scores of a pair of chunks at a time, plain XLA (`nn.attention_chunked`)

A platform's row lists backends in order of preference; the first that can express the
pass is taken, and `Choice.reason` says why the ones before it were not. Nothing else in
the package chooses an attention by the platform.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from seedjax.config import AttentionBackend
from seedjax.errors import InputError
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
      cached: a run is a cache that all queries of a row see alike.
    """

    queries: int
    keys: tuple[int, ...]
    cached: bool

    @property
    def phase(self) -> Phase:
        if self.queries * max(self.keys) > DENSE_SCORES:
            return "long"
        return "cached" if self.cached else "short"


class Choice(NamedTuple):
    """A backend and why it was taken."""

    backend: AttentionBackend
    reason: str


PREFERENCES: Mapping[tuple[Platform, Phase], tuple[Choice, ...]] = MappingProxyType(
    {
        ("cpu", "short"): (Choice("dense", "few scores"),),
        ("cpu", "cached"): (Choice("dense", "few scores"),),
        ("cpu", "long"): (Choice("chunked", "memory that grows with the length only"),),
        ("tpu", "short"): (Choice("dense", "few scores"),),
        ("tpu", "cached"): (Choice("dense", "few scores"),),
        ("tpu", "long"): (Choice("chunked", "memory that grows with the length only"),),
        ("cuda", "short"): (Choice("dense", "few scores"),),
        ("cuda", "cached"): (Choice("dense", "few scores"),),
        ("cuda", "long"): (
            Choice("chunked", "memory that grows with the length only"),
        ),
    }
)
"""Backends of a platform for a phase, the best first."""


def _dense_obstacle(needed: Pass) -> str | None:
    if needed.phase != "long":
        return None
    return f"{needed.queries} x {max(needed.keys)} scores of each head at once"


OBSTACLES: Mapping[str, Callable[[Pass], str | None]] = MappingProxyType(
    {"dense": _dense_obstacle, "chunked": lambda needed: None}
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
    for choice in PREFERENCES[platform, needed.phase]:
        obstacle = OBSTACLES[choice.backend](needed)
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
