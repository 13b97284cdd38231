"""Seed Diffusion in JAX: train and sample discrete-diffusion language models for code.

    import seedjax
    model = seedjax.load("mini")
    print(model.generate("def gcd(a, b):\\n", max_new_tokens=64).texts[0])

Names are imported when they are first used, so that `import seedjax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from seedjax.checked import edit_checked, generate_checked, infill_checked
    from seedjax.config import DenoiserConfig
    from seedjax.engine import Engine
    from seedjax.errors import InputError, RefusedError
    from seedjax.exported import export_sampler, load_exported
    from seedjax.grammar import JsonSchema, Regex
    from seedjax.model import Generation, Model, load
    from seedjax.presets import PRESETS, preset
    from seedjax.sampling.policy import ConfidenceThreshold, FixedCount, LeftToRight
    from seedjax.sampling.recipe import SamplerConfig
    from seedjax.sampling.stopping import IgnoreEos, StopAtEos

_HOMES = {
    "ConfidenceThreshold": "seedjax.sampling.policy",
    "DenoiserConfig": "seedjax.config",
    "Engine": "seedjax.engine",
    "FixedCount": "seedjax.sampling.policy",
    "Generation": "seedjax.model",
    "IgnoreEos": "seedjax.sampling.stopping",
    "InputError": "seedjax.errors",
    "JsonSchema": "seedjax.grammar",
    "LeftToRight": "seedjax.sampling.policy",
    "Model": "seedjax.model",
    "PRESETS": "seedjax.presets",
    "RefusedError": "seedjax.errors",
    "Regex": "seedjax.grammar",
    "SamplerConfig": "seedjax.sampling.recipe",
    "StopAtEos": "seedjax.sampling.stopping",
    "export_sampler": "seedjax.exported",
    "edit_checked": "seedjax.checked",
    "generate_checked": "seedjax.checked",
    "infill_checked": "seedjax.checked",
    "load": "seedjax.model",
    "load_exported": "seedjax.exported",
    "preset": "seedjax.presets",
}

__all__ = [
    "PRESETS",
    "ConfidenceThreshold",
    "DenoiserConfig",
    "Engine",
    "FixedCount",
    "Generation",
    "IgnoreEos",
    "InputError",
    "JsonSchema",
    "LeftToRight",
    "Model",
    "RefusedError",
    "Regex",
    "SamplerConfig",
    "StopAtEos",
    "export_sampler",
    "edit_checked",
    "generate_checked",
    "infill_checked",
    "load",
    "load_exported",
    "preset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seedjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
