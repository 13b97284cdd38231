"""`mini` widened, on everyday code beside the lab, from the left: its successor.

It starts from `mini` with twice its width and a layer more, which computes the same
(`seedjax posttrain widen`), and learns everyday functions, classes, scripts, tests,
edits and repairs, the lab's tasks, and functions with docstrings from a corpus.

Command:   seedjax posttrain widen --model mini --factor 2 --add-layers 1
               --out runs/wide
           seedjax data build --manifest s --out corpus
               --tokenizer seedjax/bundled/mini/tokenizer
           scripts/on_cpu train --config configs/mini_everyday.py
               --out runs/everyday
Hardware:  2 CPU cores
Expect:    not measured
"""

import dataclasses

from seedjax.diffusion.constrained_order import ConstrainedOrder
from seedjax.nn.presets import preset
from seedjax.posttrain.widen import wider_config
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(
            wider_config(preset("mini"), 2),
            num_layers=5,
            block_size=8,
            logit_alignment="shifted",
            dtype="float32",  # where the CPU has no bfloat16 units
            max_positions=1024,
        ),
        objective=ConstrainedOrder(
            weighting="share", first_token_id=14, noisy_blocks=24
        ),
        data=LabConfig(
            batch_size=8,
            block_size=8,
            order="left",
            seed=211,
            everyday=0.7,
            names=0.2,
            generate=0.4,
            infill=0.2,
            repair=0.18,
            edit=0.22,
            corpus="corpus",
            corpus_rate=0.08,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1.0e-3, warmup_steps=100, weight_decay=0.01, ema_decay=0.995
        ),
        num_steps=20000,
        log_every=20,
        eval_every=2000,
        eval_batches=4,
        infill_spans=0,
        weights_dtype="int8",
        init_from="runs/wide",
    )
