"""From autoregressive to block diffusion: SmolLM2-135M in blocks of 4.

It starts from the model's own weights with a row for the mask, sees in blocks, and
keeps the shift of its logits. Every block of a response is supervised at once, from a
clean and a noisy copy of each row; prompts are never corrupted. All weights are
trained; `--lora rank=32` trains an adapter instead. For a run without the shift, as
Efficient-DLM (arXiv 2512.14067) and OPDLM (arXiv 2606.06712) have it, convert with
`--set logit_alignment=same_position` as well.

Command:   seedjax models fetch smollm2
           seedjax convert smollm2 --as-denoiser --set block_size=4 --out start
           scripts/on_cpu train --config configs/adapt_smollm2.py --init-from start
             --set data.path=pairs.jsonl --out runs/adapted
Needs:     prompts and responses: your own, or those of scripts/code_pairs.py
Hardware:  any; the published adaptations of this kind took 66 million tokens and more
           on GPUs, where two CPU cores make some hundreds of tokens a second
Expect:    not run, not measured, nothing is claimed: neither that the model writes
           programs afterwards nor that it is faster
"""

from seedjax.config import DenoiserConfig
from seedjax.data.instructions import InstructionConfig
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.train.config import RunConfig, trainable_shape
from seedjax.train.optim import OptimizerConfig


def get_config(start: DenoiserConfig | None = None) -> RunConfig:
    start = start or trainable_shape("mini")
    return RunConfig(
        model=start,
        # Unweighted: the 1 / t weight of the bound makes small batches too noisy.
        objective=BlockDiffusion(weighting="uniform", complementary=True),
        data=InstructionConfig(
            path="instructions.jsonl",
            sequence_length=min(512, start.max_positions),
            batch_size=4,
            block_size=start.block_size,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=100, ema_decay=0.99),
        num_steps=10_000,
        init_from="mini",
        loss_chunk=256,
        eval_every=500,
        infill_spans=0,
    )
