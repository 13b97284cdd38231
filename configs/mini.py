"""The bundled model `mini`: block diffusion on the lab's tasks and on Python functions.

It starts from the autoregressive weights that all arms of the ablation start from,
learns the four tasks of the lab (generate, infill, repair, edit) with a tenth of the
sequences from a corpus, and spends the last fifth of its steps on masks and edits.

Command:   seedjax data build --manifest s --out corpus
               --tokenizer seedjax/bundled/mini/tokenizer
           scripts/launch train --config configs/mini.py --out runs/mini
Needs:     runs/lab/start, which `seedjax lab reproduce --budget full --out runs/lab`
           trains first
Hardware:  2 CPU cores with AVX-512 and AMX, shared
Expect:    29 minutes, and 45 for the start; the scores are in the README
"""

import dataclasses

from seedjax.diffusion.edit_stage import EditStage
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.lab.stream import LabConfig
from seedjax.presets import preset
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        # Short blocks: a small model learns them sooner, and few answers would let it
        # decide more than eight tokens at once.
        model=dataclasses.replace(
            preset("mini"), block_size=8, dtype="bfloat16", max_positions=1024
        ),
        # Prompts are asked nothing: few rows ask in more than twenty of their blocks.
        objective=BlockDiffusion(
            weighting="uniform", edit=EditStage(first_token_id=14), noisy_blocks=20
        ),
        data=LabConfig(
            batch_size=8, block_size=8, seed=4, corpus="corpus", corpus_rate=0.1
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=200),
        num_steps=7000,
        log_every=50,
        eval_every=2000,
        init_from="runs/lab/start",
    )
