"""Accelerators by name: memory, bandwidths and peak rates, as their makers publish
them."""

from dataclasses import dataclass, field

from seedjax.errors import InputError, did_you_mean
from seedjax.files.package import package_table


@dataclass(frozen=True, kw_only=True)
class Chip:
    """The limits of one chip; `chips.toml` names the sources.

    Attributes:
      title: its name.
      platform: "tpu" or "cuda".
      memory_gib: main memory (HBM) that a program may use, GiB.
      memory_bytes: bytes per second from and to main memory.
      ring_bytes: bytes per second that it sends over one mesh axis.
      products: multiply-adds per second times two, by dtype of the operands.
      cores: multiprocessors of a GPU.
      source: where the figures are from.
      device_kinds: what JAX calls its devices.
    """

    title: str
    platform: str
    memory_gib: float
    memory_bytes: float
    ring_bytes: float
    products: dict[str, float] = field(hash=False)
    source: str
    cores: int = 0
    device_kinds: list[str] = field(default_factory=list, hash=False)

    @property
    def memory_size(self) -> int:
        """Bytes of main memory that a program may use."""
        return round(self.memory_gib * 2**30)


def chips() -> dict[str, Chip]:
    """All chips that are known, by name."""
    table = package_table("seedjax", "chips.toml")
    return {name: Chip(**values) for name, values in table.items()}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5e:2x4".

    Raises:
      InputError: for a name that is not in the table.
    """
    name, known = topology.partition(":")[0], chips()
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise InputError(f"no chip {name!r} to plan for{hint}")
    return known[name]


def chip_of_device(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`; None if it is not in the table, as a CPU.

    >>> chip_of_device("TPU v5 lite").title
    'TPU v5e'
    """
    named = (chip for chip in chips().values() if device_kind in chip.device_kinds)
    return next(named, None)
