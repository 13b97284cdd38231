"""What serving costs, and what batching brings.

    python scripts/bench_serve.py client       # one client against Model.generate
    python scripts/bench_serve.py slots        # many clients: 8 slots against 1
    python scripts/bench_serve.py continuous   # continuous against static batching

Servers are `seedjax serve` in processes of their own, on the same cores as the client.
Each prints the machine, versions, shapes and load; sides take turns, medians count.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import jax

from seedjax.inference.engine import Engine
from seedjax.inference.loading import load

PROMPTS = [
    "def gcd(a, b):\n",
    "def is_prime(n):\n",
    "def fibonacci(n):\n",
    "def reverse(text):\n",
    "class Stack:\n    def __init__(",
    "for i in range(10):\n",
    "import os\nimport sys\n\n",
    "def area(radius):\n",
]


def say_where() -> None:
    device = jax.devices()[0]
    print("command: python", *sys.argv)
    print(f"device: {device.platform} {device.device_kind}, {os.cpu_count()} CPU cores")
    print(f"versions: Python {platform.python_version()}, jax {jax.__version__}")
    print(f"load: {os.getloadavg()[0]:.1f}")


@contextlib.contextmanager
def serving(model: str, slots: int, tokens: int) -> Iterator[str]:
    """The address of a server that is ready."""
    command = [sys.executable, "-c", "import sys; from seedjax.cli import main; main()"]
    command += ["serve", "--model", model, "--port", "0", "--slots", str(slots)]
    command += ["--max-new-tokens", str(tokens), "--timeout", "600"]
    began = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = ""
            for line in process.stderr:
                if found := re.search(r"(http://\S+)/v1", line):
                    address = found[1]
                    break
            # Its log is read all the time, or it would stop at a full pipe.
            reader = concurrent.futures.ThreadPoolExecutor(1)
            reader.submit(process.stderr.read)
            while not is_ready(address):
                time.sleep(0.2)
            seconds = time.monotonic() - began
            print(f"{slots} slots ready after {seconds:.1f} s", flush=True)
            complete(address, "x = ", 16)
            yield address
        finally:
            process.terminate()


def is_ready(address: str) -> bool:
    """Whether a server answers that it is."""
    try:
        with urllib.request.urlopen(address + "/health"):
            return True
    except OSError:
        return False


def complete(address: str, prompt: str, tokens: int) -> int:
    """How many tokens a server writes to a prompt."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(
        address + "/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["usage"]["completion_tokens"]


def client(args: argparse.Namespace) -> None:
    """One client, request after request, against `generate` of the same prompts."""
    model = load(args.model)
    for slots in (1, args.slots):
        with serving(args.model, slots, args.tokens) as address:
            rates: dict[str, list[float]] = {"generate": [], "server": []}
            for _ in range(args.rounds + 1):
                seconds = dict.fromkeys(rates, 0.0)
                tokens = dict.fromkeys(rates, 0)
                for prompt in PROMPTS:
                    began = time.perf_counter()
                    out = model.generate(prompt, max_new_tokens=args.tokens)
                    seconds["generate"] += time.perf_counter() - began
                    tokens["generate"] += out.new_tokens[0]
                    began = time.perf_counter()
                    tokens["server"] += complete(address, prompt, args.tokens)
                    seconds["server"] += time.perf_counter() - began
                assert tokens["server"] == tokens["generate"]
                for name, found in rates.items():
                    found.append(tokens[name] / seconds[name])
            report(rates, "server", "generate", f"{slots} slots, one client")


def slots(args: argparse.Namespace) -> None:
    """As many clients as slots, against one slot."""
    rates: dict[str, list[float]] = {"1 slot": [], f"{args.slots} slots": []}
    names = list(rates)
    with (
        serving(args.model, 1, args.tokens) as one,
        serving(args.model, args.slots, args.tokens) as many,
        concurrent.futures.ThreadPoolExecutor(args.slots) as clients,
    ):
        for _ in range(args.rounds + 1):
            for name, address in zip(names, (one, many), strict=True):
                began = time.perf_counter()
                work = [
                    clients.submit(complete, address, prompt, args.tokens)
                    for prompt in PROMPTS * 3
                ]
                tokens = sum(each.result() for each in work)
                rates[name].append(tokens / (time.perf_counter() - began))
    report(rates, names[1], names[0], f"{args.slots} clients")


def continuous(args: argparse.Namespace) -> None:
    """One trace of requests, admitted as slots get free or all together."""
    draws = random.Random(0)
    trace = [
        (
            draws.choice(PROMPTS),
            min(args.tokens, int(draws.lognormvariate(3.0, 1.0)) + 4),
        )
        for _ in range(6 * args.slots)
    ]
    engine = Engine(load(args.model), num_slots=args.slots, max_new_tokens=args.tokens)
    rates: dict[str, list[float]] = {"static": [], "continuous": []}
    groups = {"static": args.slots, "continuous": len(trace)}
    for _ in range(args.rounds + 1):
        for name, size in groups.items():
            tokens, began = 0, time.perf_counter()
            for first in range(0, len(trace), size):
                for prompt, budget in trace[first : first + size]:
                    engine.submit(prompt, max_new_tokens=budget)
                while engine.num_waiting or engine.num_running:
                    tokens += sum(len(each.tokens) for each in engine.step())
            rates[name].append(tokens / (time.perf_counter() - began))
    lengths = sorted(budget for _, budget in trace)
    print(f"{len(trace)} requests of {lengths[0]} to {lengths[-1]} tokens, ", end="")
    print(f"median {statistics.median(lengths):g}")
    report(rates, "continuous", "static", f"{args.slots} slots")


def report(rates: dict[str, list[float]], mine: str, other: str, title: str) -> None:
    """Prints medians of all rounds but the first, and their ratio."""
    print(title)
    for name, found in rates.items():
        shown = " ".join(f"{rate:.0f}" for rate in found[1:])
        print(f"  {name:12} {statistics.median(found[1:]):7.1f} tokens/s  ({shown})")
    ratios = [a / b for a, b in zip(rates[mine][1:], rates[other][1:], strict=True)]
    print(f"  {mine} / {other}: {statistics.median(ratios):.2f}")
    print(f"  load: {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["client", "slots", "continuous"])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    say_where()
    print(f"model {args.model}, at most {args.tokens} new tokens, temperature 0")
    globals()[args.what](args)


if __name__ == "__main__":
    main()
