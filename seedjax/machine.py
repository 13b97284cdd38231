"""Where a measurement was made."""

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("seedjax", "jax", "jaxlib", "numpy", "torch", "transformers", "qwix")
VARIABLES = (
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "GLIBC_TUNABLES",
    "PJRT_NPROC",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
)


def describe_machine() -> dict[str, Any]:
    """Device, versions and environment, as JSON-ready values."""
    device = jax.devices()[0]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": shlex.join(["seedjax", *sys.argv[1:]]),
        "platform": device.platform,
        "device": device.device_kind,
        "processor": processor(),
        "cores": num_threads(),
        "system": platform.platform(),
        "niceness": os.nice(0) if hasattr(os, "nice") else 0,
        "python": platform.python_version(),
        "versions": versions,
        "environment": {
            name: os.environ[name] for name in VARIABLES if name in os.environ
        },
    }


def num_threads() -> int:
    """Cores that this process may use, and so the threads that XLA's CPU backend
    has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for text in listing.read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def load() -> float:
    """Processes ready to run, on average over the last minute; 0 where the system
    does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
