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
    from seedjax.config import DenoiserConfig
    from seedjax.errors import InputError, RefusedError
    from seedjax.inference.checked import edit_checked, generate_checked, infill_checked
    from seedjax.inference.engine import Engine
    from seedjax.inference.exported import export_sampler, load_exported
    from seedjax.inference.loading import load
    from seedjax.inference.model import Generation, Model
    from seedjax.nn.presets import PRESETS, preset
    from seedjax.sampling.grammar.build import JsonSchema, Regex
    from seedjax.sampling.policy import ConfidenceThreshold, FixedCount, LeftToRight
    from seedjax.sampling.recipe import SamplerConfig
    from seedjax.sampling.stopping import IgnoreEos, StopAtEos

_HOMES = {
    "ConfidenceThreshold": "seedjax.sampling.policy",
    "DenoiserConfig": "seedjax.config",
    "Engine": "seedjax.inference.engine",
    "FixedCount": "seedjax.sampling.policy",
    "Generation": "seedjax.inference.model",
    "IgnoreEos": "seedjax.sampling.stopping",
    "InputError": "seedjax.errors",
    "JsonSchema": "seedjax.sampling.grammar.build",
    "LeftToRight": "seedjax.sampling.policy",
    "Model": "seedjax.inference.model",
    "PRESETS": "seedjax.nn.presets",
    "RefusedError": "seedjax.errors",
    "Regex": "seedjax.sampling.grammar.build",
    "SamplerConfig": "seedjax.sampling.recipe",
    "StopAtEos": "seedjax.sampling.stopping",
    "export_sampler": "seedjax.inference.exported",
    "edit_checked": "seedjax.inference.checked",
    "generate_checked": "seedjax.inference.checked",
    "infill_checked": "seedjax.inference.checked",
    "load": "seedjax.inference.loading",
    "load_exported": "seedjax.inference.exported",
    "preset": "seedjax.nn.presets",
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
