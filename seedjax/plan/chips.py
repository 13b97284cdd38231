"""Devices to compile for, of accelerators that need not be here.

A topology is a chip and a shape: "v5e:2x4" is eight TPU v5e chips, "h100:8" a node of
eight GPUs. Libtpu compiles for TPUs; for GPUs it is JAX's CUDA plugin, which takes a
description of the device in place of the device. Neither needs the hardware.
"""

import contextlib
import importlib.util
import os
from importlib import metadata
from string import Template

import jax

from seedjax.chips import Chip, chip_of
from seedjax.errors import InputError
from seedjax.files.package import package_text

PACKAGE = "seedjax.plan"
COMPILERS = {
    "tpu": ("libtpu", "libtpu"),
    "cuda": ("jax_plugins.xla_cuda13", "jax-cuda13-plugin"),
}
"""Module and package of each platform's compiler."""


def topology_devices(topology: str) -> list[jax.Device]:
    """The devices of a topology, to compile for.

    Raises:
      InputError: for an unknown chip or shape, or if its compiler is not installed.
    """
    from jax.experimental import topologies

    chip = chip_of(topology)
    _require_compiler(chip)
    shape = topology.partition(":")[2] or "1"
    try:
        if chip.platform == "tpu":
            # Without this, libtpu asks the network which TPU it runs on.
            os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
            found = topologies.get_topology_desc(topology, "tpu")
        else:
            found = topologies.get_topology_desc(
                platform="cuda",
                target_config=target_description(chip),
                topology=f"1x1x{_num_gpus(topology, shape)}",
            )
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise InputError(
            f"no topology {topology!r} to compile for: "
            f"{str(error).splitlines()[0].rstrip('.')} (names are like v5e:2x4 and "
            "h100:8)"
        ) from None
    return list(found.devices)


def _require_compiler(chip: Chip) -> None:
    module, package = COMPILERS[chip.platform]
    with contextlib.suppress(ModuleNotFoundError):  # of the package around it
        if importlib.util.find_spec(module) is not None:
            return
    raise InputError(
        f"no compiler for {chip.title}: {package} is not installed; "
        "pip install 'seedjax[plan]'"
    )


def _num_gpus(topology: str, shape: str) -> int:
    if not shape.isdecimal() or not 1 <= int(shape) <= 8:
        raise InputError(
            f"the topology {topology!r} is no node of 1 to 8 GPUs, as in h100:8"
        )
    return int(shape)


def target_description(chip: Chip) -> str:
    """The description of a GPU that XLA compiles for, as protocol-buffer text."""
    return Template(package_text(PACKAGE, "hopper.txtpb")).substitute(
        title=chip.title,
        cores=chip.cores,
        memory_bytes=round(chip.memory_bytes),
        memory_size=chip.memory_size,
    )


def compiler_of(platform: str) -> str:
    """The package that compiles for a platform, and JAX, with their versions."""
    kind = "cuda" if platform == "gpu" else platform
    name = COMPILERS[kind][1] if kind in COMPILERS else "jaxlib"
    return f"{name} {metadata.version(name)}, jax {metadata.version('jax')}"
