"""Speed and memory of reading and converting a checkpoint as wide as an 8 B model.

Makes a checkpoint of Stable-DiffCoder's width with few layers (random bfloat16 weights,
one file), then alternates three ways over it, each in a process of its own and with the
file dropped from the page cache first:

    raw      the file read from front to back in large pieces, nothing done with it
    read     every tensor read and checked, as `convert` does, then thrown away
    convert  the whole command, which also writes the model directory

Usage: python scripts/bench_convert.py --folder /tmp/wide --layers 2 --runs 5
"""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from seedjax.checkpoints.manifest import named_leaves
from seedjax.convert.checkpoint import open_checkpoint
from seedjax.convert.families import FAMILIES
from seedjax.convert.importing import convert
from seedjax.convert.layouts import layout_of, published_shapes
from seedjax.convert.shapes import WRITERS
from seedjax.nn.denoiser import abstract_params
from seedjax.nn.presets import preset
from seedjax.text.sentencepiece import train_tokenizer

WAYS = ("raw", "read", "convert")
PIECE = 16 << 20  # bytes of one raw read


def make(folder: Path, layers: int) -> None:
    """A checkpoint of full width; its tokenizer is a small one of ours."""
    shape = dataclasses.replace(
        preset("stable_diffcoder_8b"), num_layers=layers, layer_loop="unroll"
    )
    family = FAMILIES["stable-diffcoder"]
    tree = named_leaves(abstract_params(shape))
    ours = {name: tuple(leaf.shape) for name, leaf in tree.items()}
    rng = np.random.default_rng(0)
    tensors = {}
    for name, foreign in published_shapes(
        layout_of(family.layout, shape), ours
    ).items():
        row = rng.standard_normal(foreign[-1], np.float32).astype(ml_dtypes.bfloat16)
        tensors[name] = np.ascontiguousarray(np.broadcast_to(row, foreign))
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = WRITERS[family.layout](shape)
    config |= {"architectures": [family.architecture], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    train_tokenizer([Path(__file__).read_text()], vocab_size=500).save(folder)


def drop(path: Path) -> None:
    """Drops a file from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def once(way: str, folder: Path) -> tuple[float, float]:
    """Seconds, and the process's peak memory in MiB above what it began with."""
    drop(folder / "model.safetensors")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_memory()
    began = time.perf_counter()
    if way == "raw":
        buffer = bytearray(PIECE)
        with open(folder / "model.safetensors", "rb", buffering=0) as file:
            while file.readinto(buffer):
                continue
    elif way == "read":
        with open_checkpoint(folder) as checkpoint:
            for values in checkpoint.tensors.values():
                del values
    else:
        out = folder.with_name(folder.name + "-out")
        convert(folder, out)
        shutil.rmtree(out)
    seconds = time.perf_counter() - began
    return seconds, peak_memory() - before


def peak_memory() -> float:
    """Largest resident size so far, MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("wide"))
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(*once(options.once, options.folder))
        return
    if not options.folder.exists():
        make(options.folder, options.layers)
    size = (options.folder / "model.safetensors").stat().st_size
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, jax {jax.__version__}; {size / 1e9:.2f} GB in "
        f"one file, {options.layers} layers"
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peaks: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.runs):
        for way in WAYS:
            command = [sys.executable, __file__, "--folder", str(options.folder)]
            out = subprocess.run(
                [*command, "--once", way], check=True, capture_output=True, text=True
            )
            taken, peak = map(float, out.stdout.split()[-2:])
            seconds[way].append(taken)
            peaks[way].append(peak)
    for way in WAYS:
        rates = [size / 1e6 / taken for taken in seconds[way]]
        ratios = [r / t for r, t in zip(seconds["raw"], seconds[way], strict=True)]
        print(
            f"{way:8} {statistics.median(rates):7.0f} MB/s  "
            f"{statistics.median(ratios):5.2f} of raw  peak "
            f"{max(peaks[way]):6.0f} MiB ({max(peaks[way]) * 2**20 / size:.2f} of the "
            "file)"
        )


if __name__ == "__main__":
    main()
