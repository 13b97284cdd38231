"""Block diffusion on the lab's tasks and on Python functions: what `mini` starts from.

It starts from next-token weights that learned the same tasks, keeps their shift of the
logits, learns the four tasks of the lab (generate, infill, repair, edit) with a
twentieth of the sequences from a corpus, and spends the last tenth of its steps on
masks and edits.

Command:   seedjax data build --manifest s --out corpus
               --tokenizer seedjax/bundled/mini/tokenizer
           scripts/on_cpu train --config configs/mini.py --out runs/mini_1
           scripts/on_cpu train --config configs/mini.py --out runs/mini
               --set init_from=runs/mini_1 --set data.seed=5 --set num_steps=4000
               --set optimizer.learning_rate=0.001
               --set data.infill=0.25 --set data.repair=0.3
Needs:     runs/lab/start, which `seedjax lab reproduce --budget full --out runs/lab`
           trains first
Hardware:  2 CPU cores with AVX-512 and AMX, shared
Expect:    63 minutes, and 44 for the start; scores:
           docs/results/post-training.md
"""

import dataclasses

from seedjax.diffusion.edit_stage import EditStage
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.nn.presets import preset
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        # Blocks of four, as Stable-DiffCoder's and SDAR's: the shorter they are, the
        # nearer is the task to the one that the start has learned.
        model=dataclasses.replace(
            preset("mini"),
            block_size=4,
            logit_alignment="shifted",
            dtype="bfloat16",
            max_positions=1024,
        ),
        # Prompts are asked nothing: few rows ask in more than 36 of their 64 blocks.
        objective=BlockDiffusion(
            weighting="uniform", edit=EditStage(first_token_id=14), noisy_blocks=36
        ),
        data=LabConfig(
            batch_size=8, block_size=4, seed=4, corpus="corpus", corpus_rate=0.05
        ),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=200),
        num_steps=9000,
        edit_start=0.9,
        log_every=50,
        eval_every=3000,
        init_from="runs/lab/start",
    )
