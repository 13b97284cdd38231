"""How long the first answer takes, and how many programs prompts of many lengths need.

    python scripts/bench_startup.py [--model mini] [--runs 5]

Whole processes: `seedjax generate` with an empty compile cache each time (cold), and
with one that an earlier run has filled (warm); medians of wall time and of user CPU
time. Then, in one process each, 50 prompts of 50 lengths, cold and warm. Run it on a
quiet machine. With PYTHONPATH at another checkout it measures that one.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "\n".join(
    [
        "def vowel_count(text):",
        '    """Count the vowels in text and return the result."""',
        "",
    ]
)
COMMAND = "from seedjax.cli import main; main()"
LENGTHS = """
import json, sys, time
import jax
found = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: found.append(seconds)
    if event == "/jax/core/compile/backend_compile_duration" else None
)
import seedjax
model = seedjax.load(sys.argv[1])
loaded = len(found)
prompts, seen, count = [], set(), 0
while len(prompts) < 50:
    count += 1
    text = "\\n".join(f"x{n} = {n * n}" for n in range(count))
    number = len(model.tokenizer.encode(text))
    if number + 17 > model.config.max_positions:
        break
    if number not in seen:
        seen.add(number)
        prompts.append(text)
began, compiling, shapes = time.perf_counter(), 0.0, set()
for prompt in prompts:
    out = model.generate(prompt, max_new_tokens=16)
    compiling += out.compile_seconds
print(json.dumps({
    "prompts": len(prompts),
    "prompt tokens": [min(seen), max(seen)],
    "programs": model.num_programs,
    "compilations of XLA while loading": loaded,
    "compilations of XLA, all": len(found),
    "seconds": round(time.perf_counter() - began, 2),
    "of which compiling": round(compiling, 2),
}))
"""


def run(code: str, arguments: list[str], cache: Path) -> tuple[float, float, str]:
    """Wall seconds, user CPU seconds and standard output of one process."""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "JAX_COMPILATION_CACHE_DIR": str(cache / "seedjax" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime, done.stdout


def start_to_answer(arguments: list[str], runs: int) -> dict[str, dict[str, float]]:
    """Medians of whole processes, cold and warm."""
    rows: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            for name in rows:
                wall, user, _ = run(COMMAND, arguments, Path(cache))
                rows[name].append((wall, user))
    return {
        name: {
            "wall s": round(statistics.median(wall for wall, _ in times), 2),
            "user CPU s": round(statistics.median(user for _, user in times), 2),
            "slowest wall s": round(max(wall for wall, _ in times), 2),
        }
        for name, times in rows.items()
    }


def cpu_features() -> str:
    """What the processor is, and which of the features that decide speed it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    fields = dict(
        line.split(":", 1) for line in text.splitlines() if line.count(":") == 1
    )
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    known = [f for f in ("avx2", "avx512f", "amx_bf16", "amx_int8") if f in flags]
    return f"{fields.get('model name', '?')} ({', '.join(known)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    arguments = ["generate", PROMPT, "--model", chosen.model]
    import jax
    import jaxlib

    import seedjax

    print("seedjax     ", Path(seedjax.__file__).parent)
    print(
        "versions    ", f"jax {jax.__version__}, jaxlib {jaxlib.__version__},", end=" "
    )
    print(f"Python {platform.python_version()}")
    print("device      ", cpu_features(), len(os.sched_getaffinity(0)), "cores")
    print("load        ", os.getloadavg())
    print("command     ", "seedjax", *map(repr, arguments))
    for name, figures in start_to_answer(arguments, chosen.runs).items():
        print(f"{name:12}", json.dumps(figures), f"median of {chosen.runs}", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm"):
            wall, user, text = run(LENGTHS, [chosen.model], Path(cache))
            figures = json.loads(text.splitlines()[-1])
            figures |= {"wall s": round(wall, 2), "user CPU s": round(user, 2)}
            print(f"50 lengths, {name}", json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
