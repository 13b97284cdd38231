"""A run of `fit` that several processes take together, small enough to start often.

python fitted.py OUT NUM_STEPS COORDINATOR COUNT INDEX [--resume]
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seedjax.batch import Batch
from seedjax.data.shards import ShardedBatches
from seedjax.train.fit import Fitted, Step, fit
from seedjax.train.placement import rows_of_processes, to_devices

BATCH, SHARDS, WIDTH = 8, 4, 4


class Numbered:
    """Rows of one shard of the numbers 0, 1, 2, ..., as an iterator of Grain."""

    def __init__(self, shard: int):
        self.shard, self.place = shard, 0

    def __iter__(self):
        return self

    def __next__(self):
        share = BATCH // SHARDS
        ids = (self.place * share + np.arange(share)) * SHARDS + self.shard
        self.place += 1
        tokens = (ids[:, None] * 7 + np.arange(WIDTH)) % 11
        return {
            "tokens": tokens.astype(np.int32),
            "segments": np.broadcast_to(ids[:, None], tokens.shape).astype(np.int32),
            "positions": np.ones_like(tokens, np.int32),
            "supervised": tokens > 0,
        }

    def get_state(self):
        return {"place": self.place}

    def set_state(self, state):
        self.place = state["place"]

    def close(self):
        pass


@partial(jax.jit, donate_argnums=0)
def take(weights: jax.Array, batch: Batch):
    def loss_of(weights):
        scores = jnp.take(weights, batch.tokens, axis=0).sum(axis=(1, 2))
        return jnp.mean((scores - batch.tokens[:, 0] / 5.0) ** 2)

    loss, gradient = jax.value_and_grad(loss_of)(weights)
    ids = jnp.sum(batch.segments[:, 0])  # of the rows of this step
    metrics = {"loss": loss, "ids": ids.astype(jnp.float32)}
    return weights - 0.01 * gradient, metrics, jnp.sum(batch.supervised)


def run(out: Path, num_steps: int, mesh: Mesh, **options) -> Fitted:
    """Fits a table of 16 rows, split over the devices of `mesh`."""
    out.mkdir(parents=True, exist_ok=True)
    batches = ShardedBatches(
        Numbered,
        batch_size=BATCH,
        num_shards=SHARDS,
        rows=rows_of_processes(mesh, BATCH),
        process=jax.process_index(),
    )
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    first = np.linspace(-1, 1, 16 * WIDTH, dtype=np.float32).reshape(16, WIDTH)

    def step_function(weights: jax.Array, rows: dict, step: int) -> Step:
        batch = to_devices(rows, mesh, rows=batches.rows, batch_size=BATCH)
        weights, metrics, tokens = take(weights, batch)
        return Step(weights, metrics, tokens=tokens)

    return fit(
        lambda: jax.make_array_from_callback(first.shape, split, lambda i: first[i]),
        step_function,
        batches,
        num_steps=num_steps,
        log_every=1,
        out=out,
        evaluate=lambda weights, step: {"score": 0.0},
        eval_every=4,
        keep_latest=4,
        **options,
    )


if __name__ == "__main__":
    from seedjax.cli.stopping import stop_on_signal
    from seedjax.processes import together
    from seedjax.sharding import make_mesh

    out, num_steps, where, count, index, *more = sys.argv[1:]
    with together(where, int(count), int(index)), stop_on_signal() as stop:
        mesh = make_mesh(f"fsdp={count}")
        fitted = run(
            Path(out), int(num_steps), mesh, resume="--resume" in more, stop=stop
        )
        print(fitted.step, fitted.finished, fitted.tokens)
