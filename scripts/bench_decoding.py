"""What single parts of decoding cost and save.

    python scripts/bench_decoding.py commit         # forwards a token, fused or apart
    python scripts/bench_decoding.py head           # the head over a large vocabulary
    python scripts/bench_decoding.py quantization   # pass@1, size and speed of mini
    python scripts/bench_decoding.py draft --model DIR --prompts FILE   # token by token
    python scripts/bench_decoding.py passes --model DIR        # over more rows
    python scripts/bench_decoding.py perplexity --model DIR    # in every precision

Each prints the machine, versions, shapes and load; sides take turns, medians count.
"""

import argparse
import bisect
import calendar
import collections
import dataclasses
import functools
import heapq
import inspect
import itertools
import json
import operator
import os
import platform
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.evaluate.complete import (
    Request,
    Setup,
    batches,
    complete_batch,
    form_of,
)
from seedjax.evaluate.examine import ROWS, examine
from seedjax.inference.drafting import Rows, pass_costs
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.nn.quantize import num_bytes
from seedjax.sampling.canvas import block_size
from seedjax.sampling.head import ChunkedHead, FewPositionsHead, Positions
from seedjax.sampling.recipe import Speculation
from seedjax.sampling.vocabulary import Forbidden
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import exam
from seedjax.tasks.suites.lab import by_kind

PROMPTS = [
    "def gcd(a, b):\n",
    "The capital of France is",
    "import os\nimport sys\n\n",
    "1, 2, 3, 4, 5, 6,",
    "Once upon a time",
    "class Stack:\n    def __init__(",
    "for i in range(10):\n",
    "Water boils at",
    "def fibonacci(n):\n",
    "SELECT name FROM",
    "The quick brown fox",
    "Dear Sir or Madam,",
    "def is_prime(n):\n",
    "Monday, Tuesday, Wednesday,",
    "x = [1, 2, 3]\n",
    "The largest planet is",
    "def reverse(text):\n",
    "#include <stdio.h>\n",
    "A list of fruits: apple,",
    "def area(radius):\n",
]


def say_where() -> None:
    device = jax.devices()[0]
    print("command: python", *sys.argv)
    print(f"device: {device.platform} {device.device_kind}, {os.cpu_count()} CPU cores")
    print(f"versions: Python {platform.python_version()}, jax {jax.__version__}")
    print(f"load: {os.getloadavg()[0]:.1f}")


def in_turns(
    sides: dict[str, Callable],
    rounds: int,
    clock: Callable[[], Any] = time.perf_counter,
) -> dict[str, Any]:
    """Median seconds of each side; the first round warms up and is not counted."""
    seconds: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            began = clock()
            jax.block_until_ready(side())
            if number:
                seconds[name].append(clock() - began)
    return {name: np.median(times, axis=0) for name, times in seconds.items()}


def wall_and_cpu() -> np.ndarray:
    """Both clocks: on a machine that others use, the second says more."""
    return np.array([time.perf_counter(), time.process_time()])


def commit(arguments) -> None:
    """A pass of its own for every finished block but the last is what fusing saves."""
    model = load(arguments.model)
    size = block_size(model.config, model.sampler)
    tasks = exam(arguments.n)
    sampler = model.sampler.vary(max_new_tokens=192)
    fused = tokens = blocks = 0
    for suite, members in by_kind(tasks):
        form = form_of(model, suite, members)
        setup = Setup(suite=suite, form=form, sampler=sampler, rows=ROWS)
        requests = [Request(problem=task) for task in members]
        made = batches(model, setup, requests)
        asked = [request for batch in made for request in batch.requests]
        written = [each for b in made for each in complete_batch(model, setup, b)]
        for request, found in zip(asked, written, strict=True):
            fused += found.forwards
            tokens += found.tokens + found.finished
            given = len(model.tokenizer.encode(request.problem.prompt)) % size
            blocks += (given + found.tokens) // size
    print(f"{len(tasks)} tasks, {tokens} tokens, blocks of {size}, the model's recipe")
    print(f"  fused  {fused} forwards, {fused / tokens:.3f} a token")
    apart = fused + blocks
    print(f"  apart  {apart} forwards, {apart / tokens:.3f} a token")


def head(arguments) -> None:
    """Product, softmax statistics and candidates, inside a loop as in a sampler."""
    masked = jnp.arange(32)[None, :] < 8
    ids = np.arange(155_136)
    forbidden = Forbidden(always=ids < 4, ends=ids < 4, edits=ids < 0)
    for dtype in ("float32", "bfloat16"):
        draws = np.random.default_rng(0)
        given = (
            jnp.asarray(draws.normal(size=(155_136, 896)), dtype),
            jnp.asarray(draws.normal(size=(1, 32, 896)), jnp.float32),
            jax.random.split(jax.random.key(0), 1),
            jnp.zeros((1, 32), jnp.int32),
        )

        def propose(kind, size, table, hidden, keys, current, dtype=dtype):
            head = ChunkedHead(table, forbidden, 0.0, dtype)
            positions = Positions(current, masked, masked)
            if kind == "few":
                few = FewPositionsHead(head)
                return few.propose_few(hidden, keys, positions, size)
            return head.propose_in_chunks(hidden, keys, positions, size)

        sides = {
            "all 32 positions": functools.partial(propose, "all", None),
            "all, in chunks of 4096": functools.partial(propose, "all", 4096),
            "8 masked positions": functools.partial(propose, "few", 8),
        }
        programs = {name: five_times(side, given) for name, side in sides.items()}
        medians = in_turns(programs, arguments.rounds)
        print(f"V=155136, D=896, L=32, {dtype}; ms a step")
        for name, seconds in medians.items():
            print(f"  {name:24} {1000 * seconds / 5:8.1f}")


def five_times(ask: Callable, given: tuple) -> Callable:
    """A program that asks the head five times, each after the other."""

    def repeat(table, hidden, keys, current):
        def step(_, shown):
            found = ask(table, shown, keys, current)
            return shown + found.confidence[:, :, None] * 1e-6

        return lax.fori_loop(0, 5, step, hidden)

    compiled = jax.jit(repeat).lower(*given).compile()
    return lambda: compiled(*given)


def quantization(arguments) -> None:
    """The same tasks in every precision; rows of the batch are what the exam's are."""
    tasks = exam(arguments.n)
    modes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "float32": ({"dtype": "float32"}, {}),
        "bfloat16": ({"dtype": "bfloat16"}, {}),
        "int8 weights": ({"quantization": "int8_weights"}, {}),
        "int8 weights, activations": ({"quantization": "int8"}, {}),
        "the same, int8 cache": ({"quantization": "int8"}, {"int8_cache": True}),
    }
    print(f"{len(tasks)} tasks of the lab, the model's recipe")
    with Sandbox() as sandbox:
        for name, (how, recipe) in modes.items():
            model = load(arguments.model, **how)
            sampler = model.sampler.vary(max_new_tokens=192, **recipe)
            score = examine(model, by_kind(tasks), sampler, sandbox).score()
            low, high = score.intervals[1]
            alone = {"max_new_tokens": 128, "eos": {"kind": "IgnoreEos"}, **recipe}
            seconds = in_turns(
                {name: lambda m=model, a=alone: m.generate(PROMPTS[0], **a).steps},
                arguments.rounds,
            )[name]
            print(
                f"  {name:26} pass@1 {100 * score.pass_rate:5.1f} % "
                f"({100 * low:.1f} to {100 * high:.1f}), "
                f"{score.tokens_per_forward:.2f} tokens a forward, "
                f"{num_bytes(model.params) / 1e6:.2f} MB, {128 / seconds:.0f} tokens/s "
                "alone"
            )


def perplexity(arguments) -> None:
    """Next-token perplexity on Python's own source, in every precision."""
    modules = (textwrap, heapq, bisect, calendar)
    text = "\n\n".join(map(inspect.getsource, modules))
    modes: dict[str, dict[str, Any]] = {
        "float32": {"dtype": "float32"},
        "bfloat16": {"dtype": "bfloat16"},
        "int8 weights": {"quantization": "int8_weights"},
        "int8 weights, activations": {"quantization": "int8"},
    }
    length = 512
    for name, how in modes.items():
        model = load(arguments.model, **how)
        config = dataclasses.replace(model.config, attention="causal")
        if config.logit_alignment != "shifted":
            raise SystemExit("perplexity asks for the next token: give a causal model")
        ids = model.tokenizer.encode(text)
        rows = np.array(ids[: len(ids) // length * length]).reshape(-1, length)
        logits = jax.jit(
            lambda params, shown, config=config: denoiser.logits(
                params, config, shown, denoiser.simple_layout(shown)
            )
        )
        losses = []
        for row in rows:
            log_p = jax.nn.log_softmax(logits(model.params, row[None])[0, :-1])
            asked = jnp.take_along_axis(log_p, row[1:, None], axis=-1)
            losses.append(float(-asked.mean()))
        print(
            f"  {name:26} perplexity {np.exp(np.mean(losses)):.4f} on {len(rows)} "
            f"windows of {length} tokens, {num_bytes(model.params) / 1e6:.1f} MB"
        )


def draft(arguments) -> None:
    """Completions must be those of the autoregressive sampler, token for token."""
    how = {"quantization": arguments.quantization, "adapter": arguments.adapter}
    if arguments.quantization is None:
        how["dtype"] = arguments.dtype
    model = load(arguments.model, **how)
    config = dataclasses.replace(model.config, attention="causal")
    plain = Model(model.params, config, model.tokenizer, model.sampler)
    recipe = {"max_new_tokens": arguments.new, "temperature": 0.0}
    drafting = {side: speculation_of(side) for side in arguments.sides.split(",")}
    lines = [{"prompt": prompt} for prompt in PROMPTS]
    if arguments.prompts:
        with open(arguments.prompts, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    lines = lines[: arguments.n]
    kinds = [
        [line for line in lines if ("messages" in line) is chat]
        for chat in (False, True)
    ]
    groups = [
        kind[at : at + arguments.rows]
        for kind in kinds
        for at in range(0, len(kind), arguments.rows)
    ]
    first = "token by token"
    taken: dict[str, Any] = dict.fromkeys([first, *drafting], 0.0)
    tokens, turns = dict.fromkeys(taken, 0), dict.fromkeys(taken, 0)
    kept: dict[str, collections.Counter[int]] = {
        name: collections.Counter() for name in drafting
    }
    same = dict.fromkeys(drafting, 0)
    for batch in groups:
        calls = {
            first: functools.partial(write, plain, batch, speculation=None, **recipe)
        }
        for name, drafted in drafting.items():
            calls[name] = functools.partial(
                write, model, batch, speculation=drafted, **recipe
            )
            if arguments.places:  # two more programs for each side
                for line in batch:
                    kept[name].update(turns_of(model, line["prompt"], drafted, recipe))
        found = {name: call() for name, call in calls.items()}
        timed: dict[str, Any] = {}
        if arguments.rounds:
            sides = {name: lambda c=call: c().steps for name, call in calls.items()}
            timed = in_turns(sides, arguments.rounds, clock=wall_and_cpu)
        for name, written in found.items():
            taken[name] += timed.get(name, 0.0)
            turns[name] += sum(written.steps)
            # An end that the model wrote took a place, too.
            tokens[name] += sum(written.new_tokens)
            tokens[name] += written.finish_reason.count("stop")
            if name in same:
                same[name] += sum(map(operator.eq, written.tokens, found[first].tokens))
        print(f"{len(batch)} more; same text: {same}", file=sys.stderr, flush=True)
    precision = arguments.quantization or arguments.dtype
    shape = f"{arguments.new} tokens each, {arguments.rows} at a time"
    print(f"{len(lines)} prompts, {shape}, {precision}")
    for name in taken:
        shown = f"  {name:14} "
        if arguments.rounds:
            rate = tokens[name] / taken[name]
            wall, cpu = rate * taken[first] / tokens[first]
            shown += f"{rate[0]:6.1f} tokens/s, {wall:.2f}x by the wall clock, "
            shown += f"{cpu:.2f}x in CPU time, "
        shown += f"{tokens[name] / turns[name]:.2f} tokens a turn"
        if name in same:
            shown += f", same text for {same[name]}"
        if kept.get(name):
            total, most = kept[name].total(), max(kept[name])
            shares = [
                sum(n for k, n in kept[name].items() if k > place) / total
                for place in range(1, most)
            ]
            shown += ", accepted by place " + " ".join(f"{s:.3f}" for s in shares)
        print(shown)


def write(model: Model, batch: Sequence[dict], **options):
    """Lines with `prompt`, or with `messages`, all in one program."""
    if "messages" in batch[0]:
        return model.chat([line["messages"] for line in batch], **options)
    return model.generate([line["prompt"] for line in batch], **options)


def passes(arguments) -> None:
    """What a forward pass over more rows costs, in CPU time, the shortest of some."""
    how = {"quantization": arguments.quantization, "adapter": arguments.adapter}
    if arguments.quantization is None:
        how["dtype"] = arguments.dtype
    model = load(arguments.model, **how)
    rows = [Rows(text) for text in (1, 2, 3, 5, 9, 17)]
    if arguments.adapter:
        rows += [Rows(count + 1, count) for count in (1, 2, 3)]
    costs = pass_costs(model.params, model.config, rows, clock=time.process_time)
    for each, seconds in costs.items():
        kind = f"{each.text} of text and {each.drafts} drafted after each"
        shown = kind if each.drafts else f"{each.text} of text"
        ratio = seconds / costs[rows[0]]
        print(f"  {shown:40} {1000 * seconds:6.1f} ms, {ratio:.2f}")


def speculation_of(side: str) -> Speculation:
    """`lookup:8`, `one_pass:2`, `both:2` (one pass and look-up) or `two_pass:4`."""
    kind, _, count = side.partition(":")
    fields: dict[str, dict[str, Any]] = {
        "lookup": {"drafts": "lookup"},
        "one_pass": {"mode": "one_pass"},
        "both": {"mode": "one_pass", "drafts": "both"},
        "two_pass": {},
    }
    return Speculation(draft_tokens=int(count), **fields[kind])


def turns_of(model, prompt: str, drafted: Speculation, recipe: dict) -> list[int]:
    """How many tokens each turn of a completion wrote."""
    sampler = model.sampler.vary(speculation=drafted, **recipe)
    state, canvas, _ = model.begin(model.prompt_ids(prompt), sampler)
    columns = [int(state.column[0])]
    while not bool(state.done.all()):
        state, _, _ = model.advance(canvas, sampler, state, seed=0)
        columns.append(int(state.column[0]))
    # The last turn does not move.
    return [after - before for before, after in itertools.pairwise(columns[:-1])]


def main() -> None:
    parts = {"commit": commit, "head": head, "quantization": quantization}
    parts |= {"draft": draft, "passes": passes, "perplexity": perplexity}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("part", choices=parts)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--n", type=int, default=20, help="tasks of each kind and tier")
    parser.add_argument("--new", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quantization", help="draft: int8")
    parser.add_argument("--adapter", help="draft: a gated one")
    parser.add_argument(
        "--prompts", help="draft: JSON lines with `prompt` or `messages`"
    )
    parser.add_argument("--rows", type=int, default=1, help="draft: prompts at a time")
    parser.add_argument("--places", action="store_true", help="draft: acceptance")
    parser.add_argument(
        "--sides", default="lookup:4,lookup:8", help="draft: see speculation_of"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="draft: 0 compares the texts alone"
    )
    arguments = parser.parse_args()
    say_where()
    parts[arguments.part](arguments)


if __name__ == "__main__":
    main()
