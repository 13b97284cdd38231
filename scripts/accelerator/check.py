"""Checks an accelerator, step by step, each in a process of its own, and writes a
report: report.json, report.md and pictures.

    probe  the devices, their memory, what is installed
    tests  tests/accelerator: what has to be as on a CPU, kernels on and off, and floors
           of speed
    plan   `seedjax plan --measure`: predicted against measured
    bench  `seedjax bench`: blocks of 1 to 16 tokens per forward pass against token by
           token, random weights as large as the memory holds, beside PyTorch

Without an accelerator the same steps run on the CPU, at small sizes. A step that takes
longer than its share of the time is ended, and the report says so.

Exit codes: 0 all steps did what they should; 1 one of them did not; 2 packages are
missing, or a wrong argument.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEST_PACKAGES = ("pytest>=9.0", "beartype>=0.21")
PROBE = """
import json, jax
from seedjax.machine import describe_machine
from seedjax.nn.attention_choice import platform_of
from seedjax.nn.kernels import explain_kernels
from seedjax.nn.denoiser import num_parameters
from seedjax.nn.presets import PRESETS
devices = jax.devices()
stats = devices[0].memory_stats() or {}
print(json.dumps({
    "machine": describe_machine(),
    "devices": [str(d) for d in devices],
    "kernels": explain_kernels(platform_of(devices[0].platform)),
    "memory_bytes": stats.get("bytes_limit"),
    "parameters": {name: num_parameters(shape) for name, shape in PRESETS.items()},
}))
"""
SEEDJAX = "import sys; from seedjax.cli import main; sys.exit(main())"
PRESETS = ("base", "qwen2_0.5b", "stable_diffcoder_8b")
HELD = 2.5  # weights in bfloat16, once more as a causal model, cache and the rest
LINES = ["--block", "32", "--steps", "32,16,8,4,2", "--prefix", "512", "--new", "256"]
LINES_OF_CPU = ["--block", "16", "--steps", "16,4,1", "--prefix", "32", "--new", "32"]


def main() -> int:
    """Runs all steps and writes the report; the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/check_accelerator",
        description="Checks this machine's GPU or TPU and writes one report.",
        epilog="Example: scripts/check_accelerator --minutes 20 --out runs/check",
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="In all.")
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator"))
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes:g}; give more than 0")
    if missing := missing_packages():
        listed = " ".join(f"'{package}'" for package in missing)
        print(f"check_accelerator: packages are missing: pip install {listed}")
        return 2
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"check_accelerator: {options.out} cannot be made: {error.strerror}")
        return 2
    return check(options.out.resolve(), 60 * options.minutes)


def missing_packages() -> list[str]:
    """Requirements of the project, and of its tests, that are not installed."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        required = tomllib.load(file)["project"]["dependencies"]
    return [each for each in (*required, *TEST_PACKAGES) if not is_installed(each)]


def is_installed(requirement: str) -> bool:
    """Whether a package is there, in whatever version."""
    try:
        importlib.metadata.version(re.split(r"[<>=\[]", requirement)[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check(out: Path, seconds: float) -> int:
    """Runs the steps within so many seconds and writes the report into `out`."""
    began = time.monotonic()
    command = shlex.join(["scripts/check_accelerator", *sys.argv[1:]])
    steps: list[dict] = []
    report = {"command": command, "seconds": seconds, "steps": steps}

    def left() -> float:
        return seconds - (time.monotonic() - began)

    def step(name: str, command: list[str], most: float, **more: str) -> dict:
        print(f"{name}: at most {max(most, 1.0):.0f} s", flush=True)
        done = {"name": name, "command": command, **run(command, most, out, name)}
        print(f"{name}: {done['outcome']} after {done['seconds']:.0f} s", flush=True)
        steps.append(done | more)
        return done

    python = [sys.executable]
    probed = step("probe", [*python, "-c", PROBE], min(300.0, left()))
    found = last_json(out / "probe.log")
    if probed["outcome"] != "done" or found is None:
        write(out, report)
        return 1
    report |= found
    on_cpu = found["machine"]["platform"] == "cpu"

    results = out / "tests.xml"
    results.unlink(missing_ok=True)
    tests = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-v"]
    tests += ["--import-mode=importlib", "-m", "gpu or tpu or accelerator"]
    tests += [
        "--durations=0",
        "-o",
        "junit_family=xunit1",
        f"--junitxml={results}",
        str(ROOT / "tests/accelerator"),
    ]
    step("tests", [*python, *tests], 0.5 * seconds)

    seedjax = [*python, "-c", SEEDJAX]
    plan = [*seedjax, "plan", "--measure", "--json", "--out", str(out / "plan")]
    step("plan", [*plan, "--force"], min(0.2 * seconds, left()))

    for preset, arguments in benches(found, on_cpu=on_cpu):
        folder = out / f"bench-{preset}"
        bench = [*seedjax, "bench", "--preset", preset, *arguments]
        bench += ["--json", "--force", "--out", str(folder)]
        step(folder.name, bench, left(), preset=preset)
    write(out, report)
    return 0 if all(each["outcome"] == "done" for each in steps) else 1


def benches(found: dict, *, on_cpu: bool) -> list[tuple[str, list[str]]]:
    """Presets that the memory holds, the smallest first, with what is measured."""
    has_torch = is_installed("torch")
    if on_cpu:
        measures = ["decode", "ar", *(["torch:ar"] if has_torch else [])]
        lines = [*LINES_OF_CPU, "--dtype", "float32", "--rounds", "2"]
        return [("tiny", ["--measure", ",".join(measures), *lines])]
    measures = ["prefill", "block", "decode", "ar"]
    # PyTorch for TPUs is another package.
    if has_torch and found["machine"]["platform"] == "gpu":
        measures += ["torch:prefill", "torch:block", "torch:decode", "torch:ar"]
        if is_installed("transformers"):
            measures.append("transformers:ar")
    lines = [*LINES, "--dtype", "bfloat16", "--rounds", "5"]
    memory = found["memory_bytes"] or 0
    return [
        (preset, ["--measure", ",".join(measures), *lines])
        for preset in PRESETS
        if 2 * HELD * found["parameters"][preset] < memory
    ]


def run(command: list[str], most: float, out: Path, name: str) -> dict:
    """A command with its output in a log; ended with all its children at its time."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        ),
        # JAX would take most of a GPU's memory, and PyTorch has its turns as well.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    began = time.monotonic()
    with open(out / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=max(most, 1.0))
            outcome = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            outcome = "out of time"
        finally:
            # What it started, if anything is left of it.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    return {"outcome": outcome, "seconds": time.monotonic() - began}


def last_json(log: Path) -> dict | None:
    """The JSON object on a log's last line that is one."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return None


def write(out: Path, report: dict) -> None:
    """Adds what the steps left in their folders, and writes the report."""
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the report needs no accelerator
    from report import write_report

    print(write_report(report, out))


if __name__ == "__main__":
    sys.exit(main())
