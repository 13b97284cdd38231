"""Recipes: the denoiser's own, and what all of them share."""

from seedjax.config.denoiser import (
    LIMITS,
    Attention,
    AttentionBackend,
    DenoiserConfig,
    DType,
    LayerLoop,
    LogitAlignment,
    MoEConfig,
)
from seedjax.config.recipes import (
    check_field_name,
    check_fields,
    coerce,
    from_dict,
    make_plain,
    merge_assignments,
    override,
    parse_assignments,
    require,
    to_dict,
)

__all__ = [
    "LIMITS",
    "Attention",
    "AttentionBackend",
    "DType",
    "LayerLoop",
    "DenoiserConfig",
    "LogitAlignment",
    "MoEConfig",
    "check_field_name",
    "check_fields",
    "coerce",
    "from_dict",
    "make_plain",
    "merge_assignments",
    "override",
    "parse_assignments",
    "require",
    "to_dict",
]
