"""Times the training step against a large matrix product in the same run.

Prints the achieved matmul FLOPs per second of the step as a fraction of a 1024-cubed
bfloat16-to-float32 product, the two timed in turns. FLOPs are counted by formula: three
products (forward, gradient of the input, gradient of the weight) of 2 * rows * in * out
each for every kernel and the output head, and the two attention products at their full,
unmasked size.

Command:  scripts/on_cpu scripts/bench_train.py --preset small --sequence-length 256
"""

import argparse
import dataclasses
import os
import platform
import statistics
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp

import seedjax.nn.denoiser as denoiser
from seedjax.batch import Batch
from seedjax.config import Attention, LogitAlignment
from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
from seedjax.nn.presets import PRESETS
from seedjax.train.config import RunConfig
from seedjax.train.state import first_state
from seedjax.train.step import train_step

Kind = tuple[Attention, LogitAlignment, Autoregressive | MaskDiffusion | BlockDiffusion]
OBJECTIVES: dict[str, Kind] = {
    "ar": ("causal", "shifted", Autoregressive()),
    "mask": ("bidirectional", "same_position", MaskDiffusion()),
    "block": ("block_causal", "same_position", BlockDiffusion()),
}


def step_flops(run: RunConfig, rows: int, length: int) -> float:
    """Matmul FLOPs of one training step."""
    copies = 2 if isinstance(run.objective, BlockDiffusion) else 1
    model, tokens = run.model, rows * length * copies
    params = denoiser.abstract_params(model)
    in_layers = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    )
    head = model.vocab_size * model.hidden_size * rows * length
    scores = tokens * length * copies * model.num_heads * model.head_dim
    attention = 2 * scores * model.num_layers
    return 3 * 2 * (in_layers * tokens + head + attention)


def synthetic_batch(rows: int, length: int, vocab_size: int) -> Batch:
    """Random tokens, one document a row."""
    tokens = jax.random.randint(jax.random.key(1), (rows, length), 20, vocab_size)
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (rows, length))
    ones = jnp.ones_like(tokens)
    return Batch(tokens, ones, positions, positions > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="small", choices=list(PRESETS))
    parser.add_argument("--objective", default="mask", choices=list(OBJECTIVES))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    attention, alignment, objective = OBJECTIVES[args.objective]
    model = dataclasses.replace(
        PRESETS[args.preset],
        attention=attention,
        logit_alignment=alignment,
        dtype=args.dtype,
    )
    data = DataConfig(
        corpus="none", sequence_length=args.sequence_length, batch_size=args.batch_size
    )
    run = RunConfig(model=model, objective=objective, data=data, num_steps=10_000)
    print(f"command   {' '.join(sys.argv)}")
    print(f"device    {jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores")
    print(f"versions  python {platform.python_version()}, jax {jax.__version__}")
    print(f"model     {args.preset}, {denoiser.num_parameters(model) / 1e6:.1f} M")
    print(f"batch     {args.batch_size} x {args.sequence_length}, {args.dtype}")

    batch = synthetic_batch(args.batch_size, args.sequence_length, model.vocab_size)
    state = jax.jit(partial(first_state, run=run))(
        denoiser.init(jax.random.key(0), model)
    )
    step = jax.jit(partial(train_step, run=run, stage="mask"), donate_argnums=0)
    begun = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready(state)
    print(f"compile   {time.perf_counter() - begun:.1f} s")

    side = 1024
    square = jax.random.normal(jax.random.key(2), (side, side)).astype(jnp.bfloat16)
    multiply = jax.jit(
        lambda a, b: jnp.einsum("io,bo->ib", a, b, preferred_element_type=jnp.float32)
    )
    jax.block_until_ready(multiply(square, square))
    steps, products = [], []
    for _ in range(args.rounds):
        begun = time.perf_counter()
        for _ in range(5):
            jax.block_until_ready(multiply(square, square))
        products.append((time.perf_counter() - begun) / 5)
        begun = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(state)
        steps.append(time.perf_counter() - begun)
    flops = step_flops(run, args.batch_size, args.sequence_length)
    step_rates = [flops / s for s in steps]
    product_rates = [2 * side**3 / s for s in products]
    fractions = [a / b for a, b in zip(step_rates, product_rates, strict=True)]
    tokens = args.batch_size * args.sequence_length
    print(f"step      {statistics.median(steps) * 1e3:.0f} ms median")
    print(f"tokens/s  {tokens / statistics.median(steps):.0f}")
    print(f"step      {statistics.median(step_rates) / 1e9:.0f} GFLOP/s")
    print(f"1024^3    {statistics.median(product_rates) / 1e9:.0f} GFLOP/s")
    print(f"fraction  {statistics.median(fractions):.2f} median of {args.rounds}")
    print(f"loss      {float(metrics.loss):.3f}")


if __name__ == "__main__":
    main()
