"""Opens a model: its directory, parameters and tokenizer become a `Model`."""

import dataclasses

import jax
from jax.sharding import Mesh, SingleDeviceSharding
from jax.typing import DTypeLike

from seedjax.backend import require_backend
from seedjax.checkpoints.adapters import (
    DraftFacts,
    bundled_drafts,
    draft_facts,
    with_adapter,
    with_drafts,
)
from seedjax.checkpoints.model_directory import open_model
from seedjax.config import DType, from_dict
from seedjax.errors import InputError
from seedjax.inference.compile_cache import use_compile_cache
from seedjax.inference.drafting import best_speculation
from seedjax.inference.model import Model
from seedjax.nn.attention_choice import platform_of
from seedjax.nn.axes import split_sizes
from seedjax.nn.denoiser import abstract_params, logical_axes, stack_layers
from seedjax.nn.layer_loop import with_layer_loop
from seedjax.nn.quantize import quantize_params, quantized_axes
from seedjax.progress import Progress, silent
from seedjax.sampling import arguments
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sharding import open_mesh, refuse_uneven, tree_shardings
from seedjax.text.loading import load_tokenizer


def load(
    model: str = "mini",
    *,
    device: str | jax.Device | None = None,
    dtype: DType | DTypeLike | None = None,
    quantization: str | None = None,
    adapter: str | None = None,
    speculate: bool = False,
    mesh: str | Mesh | None = None,
    max_programs: int | None = None,
    compile_cache: bool = True,
    report: Progress = silent,
) -> Model:
    """A model from its directory, or one of the bundled ones by name.

    Args:
      model: a name or a directory.
      device: where the parameters are put and all is computed: "cpu", "gpu", "cuda:1",
        "tpu", or one of `jax.devices()`; None is JAX's default.
      dtype: what to compute in, by name or as `jax.numpy` has it; None is what the
        model directory says.
      quantization: "int8_weights", "int8" or "fp8", see `seedjax.nn.quantize`; None
        leaves the weights as they are.
      adapter: folder of a LoRA adapter of this model, which is merged in. A gated one
        drafts where that is faster here, as with `speculate`.
      speculate: draft tokens of a causal model as it is fastest on this device, which
        takes some seconds to measure (`seedjax.inference.drafting`), by a gated adapter
        that comes with the package for these weights, if one does; the text is the
        same. What the model's directory or a call says of speculation goes before.
      mesh: devices over which the weights are split and on which all is computed, such
        as "tensor=4,data=2" (`seedjax.sharding.make_mesh`) or a mesh of JAX; each
        device reads only its part. None is one device.
      max_programs: compiled programs that are kept in memory, see `Model`.
      compile_cache: keep compiled programs on disk, unless JAX has a cache of the
        user's own or is switched off (`seedjax.inference.compile_cache`).
      report: called with "loading ...", the weights read and their number.

    Raises:
      InputError: if there is no such model, device, dtype or quantization, the model's
        directory is damaged, a package is missing, the adapter is another model's, or
        the mesh does not divide the model.
    """
    require_backend()
    if compile_cache:
        use_compile_cache()
    place = arguments.device(device)
    directory = open_model(arguments.path(model, "model"))
    config = directory.denoiser
    if dtype is not None:
        config = dataclasses.replace(config, dtype=arguments.dtype(dtype))
    platform = platform_of(place.platform if place else jax.default_backend())
    config = with_layer_loop(config, platform, "decoding")
    stored = dataclasses.replace(config, layer_loop="unroll")
    abstract, where = abstract_params(stored), None
    if mesh is not None:
        if place is not None:
            raise InputError("give a device or a mesh, not both; a mesh has devices")
        mesh = open_mesh(arguments.mesh(mesh))
        if mesh.shape.get("sequence", 1) > 1:
            raise InputError(
                "the mesh splits `sequence`, which is for training; give those devices "
                "to data or tensor"
            )
        refuse_uneven(mesh, split_sizes(config))
        where = tree_shardings(mesh, logical_axes(stored), abstract)
    elif place is not None:
        where = SingleDeviceSharding(place)
    params = directory.load_params(abstract, shardings=where, report=report)
    if adapter is not None:
        adapter = arguments.path(adapter, "adapter")
    elif speculate and mesh is None:
        adapter = bundled_drafts(directory)
    drafts = None if adapter is None else draft_facts(adapter)
    if adapter is not None and drafts is None:
        params = with_adapter(params, adapter, directory)
    if quantization is not None:
        params = quantize_params(params, config, quantization)
    sampler = from_dict(
        SamplerConfig, directory.sampler, f"sampler of {directory.path}"
    )
    if adapter is not None and drafts is not None:
        params = with_drafts(params, adapter, directory)
        speculate = True
    if speculate and sampler.speculation is None:
        if config.attention != "causal" or mesh is not None:
            raise InputError(
                f"speculate is for a causal model on one device; {directory.path.name} "
                f"has {config.attention} attention"
                + (" and lies on a mesh" if mesh is not None else "")
                + ": drop it"
            )
        found = best_speculation(params, config, drafts or DraftFacts())
        sampler = dataclasses.replace(sampler, speculation=found)
    if config.layer_loop == "scan":
        params = stack_layers(params)
    if mesh is not None:
        axes = quantized_axes(logical_axes(config), params)
        params = jax.device_put(params, tree_shardings(mesh, axes, params))
    return Model(
        params,
        config,
        load_tokenizer(directory.tokenizer),
        sampler,
        name=directory.path.name,
        max_programs=max_programs,
    )
