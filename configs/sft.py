"""Fine-tune any model on your own prompts and responses.

The file has one JSON object per line, with "prompt" and "response" or with "messages";
names, layout, truncation and the rest are fields of `data` (docs/guides/fine-tune.md).
Only responses are supervised. The objective follows the model to start from: next token
for an autoregressive one, block diffusion or diffusion over whole rows for the others.

Command:   scripts/on_cpu train --config configs/sft.py --init-from smollm2
           --set data.path=pairs.jsonl --out runs/tuned
Needs:     `seedjax models fetch smollm2`, and your file. Without --init-from it starts
           from `mini`, which knows no chats: add --set data.layout=plain
Hardware:  any; the batch fits two CPU cores and a model of 135 M parameters
Expect:    not measured
"""

from seedjax.config import DenoiserConfig
from seedjax.data.instructions import InstructionConfig
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
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
        optimizer=OptimizerConfig(learning_rate=2e-5, warmup_steps=20),
        num_steps=300,
        init_from="mini",
        loss_chunk=256,
        eval_every=100,
        infill_spans=0,
    )
