"""The kernels in Pallas that a pass may take, and the switch that turns them off.

    SEEDJAX_KERNELS=off          all of them off: plain XLA computes everything
    SEEDJAX_KERNELS=experts      this one alone on; names are separated by commas

It is read while a program is traced; one that is compiled keeps what it has.
"""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from seedjax.errors import InputError

SWITCH = "SEEDJAX_KERNELS"


class Kernel(NamedTuple):
    """A kernel.

    Attributes:
      platform: the one that it is for.
      purpose: what it computes.
    """

    platform: str
    purpose: str


KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "decode": Kernel("cuda", "attention of a block to a long bfloat16 cache"),
        "experts": Kernel("cuda", "rows times the kernel of their expert, bfloat16"),
        "splash": Kernel("tpu", "attention of long training rows"),
    }
)


def is_on(name: str) -> bool:
    """Whether a kernel may be taken.

    Raises:
      InputError: for a switch that names no kernel.
    """
    switch = os.environ.get(SWITCH, "")
    if switch in ("", "off"):
        return switch == ""
    chosen = switch.split(",")
    if unknown := [each for each in chosen if each not in KERNELS]:
        raise InputError(
            f"{SWITCH} names {unknown[0]!r}; give off, or some of {', '.join(KERNELS)}"
        )
    return name in chosen


def explain_kernels(platform: str) -> dict[str, str]:
    """Which kernels are on, and what for, by name."""
    found = {}
    for name, kernel in KERNELS.items():
        if kernel.platform != platform:
            state = f"for {kernel.platform} only"
        else:
            state = "on" if is_on(name) else f"off ({SWITCH})"
        found[name] = f"{state}: {kernel.purpose}"
    return found
