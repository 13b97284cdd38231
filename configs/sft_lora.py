"""Fine-tune an adapter (LoRA) of any model on your own prompts and responses.

As configs/sft.py, with low-rank matrices beside all projections in place of the
weights, and the larger learning rate that they take. The run writes the merged model
and, in `adapter/`, the adapter alone, which `seedjax export --adapter` writes for PEFT.

Command:   scripts/on_cpu train --config configs/sft_lora.py --init-from smollm2
           --set data.path=pairs.jsonl --out runs/tuned
Needs:     `seedjax models fetch smollm2`, and your file. Without --init-from it starts
           from `mini`, which knows no chats: add --set data.layout=plain
Hardware:  any; the batch fits two CPU cores and a model of 135 M parameters
Expect:    130 steps of two rows (--set data.batch_size=2) take 18 to 60 minutes on one
           core without AMX; docs/guides/fine-tune.md has what they changed
"""

from seedjax.config import DenoiserConfig
from seedjax.data.instructions import InstructionConfig
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
from seedjax.nn.lora import LoRA
from seedjax.train.config import RunConfig, trainable_shape
from seedjax.train.optim import OptimizerConfig


def get_config(start: DenoiserConfig | None = None) -> RunConfig:
    start = start or trainable_shape("mini")
    objectives = {
        "causal": Autoregressive(),
        # Unweighted: the 1 / t weight of the bound makes small batches too noisy.
        "block_causal": BlockDiffusion(weighting="uniform"),
        "bidirectional": MaskDiffusion(),
    }
    in_blocks = start.attention == "block_causal"
    return RunConfig(
        model=start,
        objective=objectives[start.attention],
        data=InstructionConfig(
            path="instructions.jsonl",
            sequence_length=min(512, start.max_positions),
            batch_size=8,
            block_size=start.block_size if in_blocks else 1,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=20),
        num_steps=300,
        init_from="mini",
        lora=LoRA(rank=16, alpha=32.0),
        loss_chunk=256,
        eval_every=100,
        infill_spans=0,
    )
