"""Axis glossary: the one place where the letters used in shapes are defined.

Shape annotations (jaxtyping), einsum strings and comments all use these letters:

    B  batch rows                    D  model width (hidden size)
    L  positions being predicted     H  query heads
    S  key positions seen            K  key/value heads
    V  vocabulary                    C  channels of one head
    G  blocks                        F  hidden width of the feed-forward layer
    N  refinement steps              E  experts
    T  tokens of all rows            R  rows of a forward pass: B, with guidance 2 B

Annotations are checked while tracing when the tests install jaxtyping's import hook; in
production they cost nothing.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key, Shaped

Params = Mapping[str, Any]
"""A tree of parameter arrays: nested dictionaries, no wrappers."""

PRNGKey = Key[Array, ""]
"""A typed random key, made by `jax.random.key`."""

__all__ = [
    "Array",
    "Bool",
    "Float",
    "Float32",
    "Int",
    "Int32",
    "Key",
    "PRNGKey",
    "Params",
    "Shaped",
]
