"""A server under load: many clients with short and long requests, some of which leave,
and some whose requests are malformed.

    python scripts/load_serve.py --clients 64 --seconds 180

It starts `seedjax serve`, prints one JSON object, and ends with status 1 if anything
but the expected happened: a status that is not expected, a broken stream, a request
after the load that fails. Memory is the resident set of the server's process.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

COMMAND = [sys.executable, "-c", "from seedjax.cli import main; main()", "serve"]
FUNCTION = 'def f(x):\n    """Return the square of x."""\n    return x * x\n\n\n'
HEAD = 'def is_prime(n):\n    """Return whether n is a prime number."""\n'
MALFORMED: list[tuple[bytes, int]] = [
    (b'{"prompt": "x', 400),
    (b'{"prompt": 3}', 400),
    (b'{"prompt": "x", "max_tokens": -1}', 400),
    (b'{"prompt": "\\ud800"}', 400),
    (b'{"prompt": "x", "model": "other"}', 404),
    (b'{"prompt": "x", "max_tokens": 99999}', 400),
    (b'{"prompt": "' + b"x " * 4000 + b'"}', 400),
    (b'{"prompt": "' + b"x" * 3_000_000 + b'"}', 413),
    (b"\xff\xfe", 400),
]


class Load:
    """Clients of one server, and the counts of what happened to them."""

    def __init__(self, url: str, clients: int, seconds: float, seed: int):
        """Starts nothing yet."""
        self.url, self.clients, self.seconds, self.seed = url, clients, seconds, seed
        self.done: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.first: list[float] = []
        self.whole: list[float] = []
        self.tokens = 0

    async def run(self) -> None:
        """All clients, until the time is over."""
        limits = httpx.Limits(max_connections=self.clients)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=300, limits=limits
        ) as http:
            end = time.monotonic() + self.seconds
            draws = [random.Random(f"{self.seed} {n}") for n in range(self.clients)]
            await asyncio.gather(*(self.client(http, each, end) for each in draws))

    async def client(
        self, http: httpx.AsyncClient, draw: random.Random, end: float
    ) -> None:
        kinds = {self.stream: 6, self.leave: 1.5, self.collect: 1, self.garble: 1.5}
        while time.monotonic() < end:
            (kind,) = draw.choices(list(kinds), list(kinds.values()))
            try:
                await kind(http, draw)
                self.done[kind.__name__] += 1
            except (httpx.HTTPError, AssertionError, ValueError) as error:
                self.faults[f"{kind.__name__}: {error!r}"[:200]] += 1

    def body(self, draw: random.Random) -> dict:
        """A request whose prompt has 0 to 4 functions before the one to write."""
        return {
            "prompt": FUNCTION * draw.randrange(5) + HEAD,
            "max_tokens": draw.choice([4, 16, 32, 64]),
            "temperature": draw.choice([0, 0, 0.8]),
            "seed": draw.randrange(1000),
        }

    async def stream(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        began, first, last = time.monotonic(), None, ""
        body = self.body(draw) | {
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with http.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200, response.status_code
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    first = first or time.monotonic()
                    event = json.loads(line[6:])
                    assert "error" not in event, event
                    self.tokens += event.get("usage", {}).get("completion_tokens", 0)
                last = line or last
        assert last == "data: [DONE]" and first is not None, last
        self.first.append(first - began)
        self.whole.append(time.monotonic() - began)

    async def leave(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        body = self.body(draw) | {"stream": True, "max_tokens": 64}
        async with http.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200, response.status_code
            async for _ in response.aiter_lines():
                return

    async def collect(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        response = await http.post("/v1/completions", json=self.body(draw))
        assert response.status_code == 200, response.text
        self.tokens += response.json()["usage"]["completion_tokens"]

    async def garble(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        content, status = draw.choice(MALFORMED)
        response = await http.post("/v1/completions", content=content)
        assert response.status_code == status, response.text
        assert "\n" not in response.json()["error"]["message"]


def cpu_seconds(pid: int) -> float:
    """The time of processors that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """The resident set of a process, in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


async def watch(pid: int, found: list[float], every: float) -> None:
    while True:
        found.append(round(resident_mb(pid), 1))
        await asyncio.sleep(every)


def quantiles(values: list[float]) -> dict[str, float]:
    """The median, and what 5 % and 1 % take longer than, in seconds."""
    ordered = sorted(values)
    places = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        name: round(ordered[int(share * (len(ordered) - 1))], 3)
        for name, share in places.items()
    }


def start(arguments: list[str]) -> tuple[subprocess.Popen, str, float]:
    """A server that is ready, its address, and the seconds until it was."""
    began = time.monotonic()
    log = tempfile.NamedTemporaryFile(prefix="serve", suffix=".log")
    server = subprocess.Popen([*COMMAND, "--port", "0", *arguments], stderr=log)
    while True:
        text = Path(log.name).read_text(errors="replace")
        if found := re.search(r"serving \S+ at (http://\S+?)/v1", text):
            break
        if server.poll() is not None:
            raise SystemExit(text)
        time.sleep(0.05)
    while httpx.get(f"{found[1]}/health", timeout=100).status_code != 200:
        time.sleep(0.1)
    return server, found[1], time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--model", default="mini")
    given = parser.parse_args()
    arguments = ["--model", given.model, "--slots", str(given.slots)]
    arguments += ["--max-new-tokens", "64", "--no-page"]
    server, url, ready = start(arguments)
    ready_cpu = cpu_seconds(server.pid)
    load = Load(url, given.clients, given.seconds, given.seed)
    memory: list[float] = []

    async def work() -> float:
        watching = asyncio.ensure_future(
            watch(server.pid, memory, max(1, given.seconds / 12))
        )
        began = time.monotonic()
        await load.run()
        watching.cancel()
        return time.monotonic() - began

    try:
        seconds = asyncio.run(work())
        after = httpx.post(
            f"{url}/v1/completions", json={"prompt": HEAD, "max_tokens": 8}, timeout=120
        )
        busy = httpx.get(f"{url}/health", timeout=100).json()
        memory.append(round(resident_mb(server.pid), 1))
    finally:
        server.terminate()
        code = server.wait(150)
    result = {
        "clients": given.clients,
        "slots": given.slots,
        "seconds": round(seconds, 1),
        "ready_seconds": round(ready, 2),
        "ready_cpu_seconds": round(ready_cpu, 2),
        "done": dict(load.done),
        "faults": dict(load.faults),
        "tokens_per_second": round(load.tokens / seconds, 1),
        "first_text_seconds": quantiles(load.first),
        "request_seconds": quantiles(load.whole),
        "resident_mb": memory,
        "request_after": after.status_code,
        "open_after": busy["running"] + busy["waiting"],
        "exit_code": code,
        "load_average": os.getloadavg(),
    }
    print(json.dumps(result, indent=2))
    fine = not load.faults and after.status_code == 200 and not result["open_after"]
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
