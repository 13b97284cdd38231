"""Token-by-token decoding by `transformers`, as its user calls it."""

from typing import Any

import jax
import numpy as np

from seedjax.bench.measure import Produced
from seedjax.bench.source import Source
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line
from seedjax.config import DenoiserConfig
from seedjax.convert.exporting import published_config
from seedjax.convert.families import FAMILIES
from seedjax.convert.layouts import layout_of
from seedjax.errors import InputError
from seedjax.machine import num_threads
from seedjax.nn.denoiser import unstack_layers
from seedjax.typing import Params
from torch_side.decodes import as_tensor, banned_ids
from torch_side.network import import_torch, to_torch, torch_device


def transformers_subject(source: Source, line: Line) -> Subject:
    """`generate` of a Llama, Qwen2 or Qwen3 model with our weights.

    Raises:
      InputError: if `transformers` is missing, or has no model of this shape.
    """
    torch = import_torch()
    torch.set_num_threads(num_threads())
    config, sampler = source.causal_config(line), source.recipe(line)
    if sampler.temperature > 0.0:
        raise InputError("transformers is measured at temperature 0; give a preset")
    prompt = as_tensor(source.prompts(line))
    model = causal_model(source.params(line.dtype, None), config)
    options: dict[str, Any] = {
        "max_new_tokens": line.new,
        "do_sample": False,
        "use_cache": True,
        "eos_token_id": None,
        "pad_token_id": config.pad_token_id,
        "suppress_tokens": banned_ids(config, sampler).tolist(),
    }

    def run() -> Produced:
        with torch.inference_mode():
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), **options
            )
        assert line.new is not None
        return Produced(output[:, line.prefix :].tolist(), line.new)

    return Subject(line, run)


def causal_model(params: Params, config: DenoiserConfig) -> Any:
    """The model of `transformers` of a causal denoiser, with its weights.

    Raises:
      InputError: if `transformers` is missing, or has no model of this shape.
    """
    try:
        import transformers
    except ImportError:
        raise InputError(
            "comparing with transformers needs it; pip install 'seedjax[torch]'"
        ) from None
    family = FAMILIES["llama"]
    if config.attention_bias:
        family = FAMILIES["qwen2"]
    if config.qk_norm:
        family = FAMILIES["qwen3"]
    described = published_config(family, config, {}, config.dtype)
    model_type = described.pop("model_type")
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(model_type, **described),
        dtype=getattr(import_torch(), config.dtype),
    )
    if config.layer_loop == "scan":
        params = unstack_layers(params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    ours = {".".join(step.key for step in path): leaf for path, leaf in leaves}
    tensors = {
        source.pieces[0].tensor: to_torch(np.asarray(ours[name]))
        for name, source in layout_of(family.layout, config).items()
    }
    found = model.load_state_dict(tensors, strict=False)
    assert not found.unexpected_keys, found
    assert set(found.missing_keys) <= {"lm_head.weight"}, found
    model.tie_weights()
    return model.to(torch_device()).eval()
