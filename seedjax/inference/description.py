"""A model in a line, and in several: what `repr` and `print` show of it."""

import jax

from seedjax.config import DenoiserConfig
from seedjax.nn.quantize import num_bytes
from seedjax.sampling.recipe import SamplerConfig
from seedjax.typing import Params


def one_line(name: str, params: Params, config: DenoiserConfig) -> str:
    """As `<Model mini: 2.1 M parameters, causal>`."""
    count = _counted(num_parameters(params))
    return f"<Model {name}: {count} parameters, {config.attention}>"


def several_lines(
    name: str, params: Params, config: DenoiserConfig, sampler: SamplerConfig
) -> str:
    """Name, size, shape, vocabulary, arithmetic and default policy, a line each."""
    tree = jax.tree.leaves(params)
    stored = ", ".join(sorted({str(leaf.dtype) for leaf in tree}))
    block = "" if config.attention == "causal" else f" in blocks of {config.block_size}"
    layers = "layer" if config.num_layers == 1 else "layers"
    experts = f", {config.moe.num_experts} experts" if config.moe else ""
    facts = {
        "parameters": f"{_counted(num_parameters(params))} "
        f"({num_bytes(params) / 2**20:.1f} MiB as {stored})",
        "shape": f"{config.num_layers} {layers} x {config.hidden_size} wide{experts}",
        "attention": config.attention + block,
        "vocabulary": f"{config.vocab_size:,} tokens",
        "positions": f"at most {config.max_positions:,}",
        "computes in": config.dtype,
        "layers": "scanned" if config.layer_loop == "scan" else "written out",
        "policy": str(sampler.policy),
    }
    lines = [f"  {label:<12} {fact}" for label, fact in facts.items()]
    return "\n".join([f"Model {name}", *lines])


def num_parameters(params: Params) -> int:
    """Weights of a model; a quantized one counts as one, its scale as another."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _counted(number: int) -> str:
    """As 2.1 M."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
