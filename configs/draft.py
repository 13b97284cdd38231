"""A gated adapter that drafts for a causal model, on one NVIDIA H100.

The defaults of `seedjax posttrain draft` are for SmolLM2-135M on a CPU; here are longer
blocks, a larger rank and many more rows, for Qwen2.5-Coder-0.5B or an 8 B model. Rows
cost 4 N floating-point operations, N the model's parameters, and the text 2 N a token:

    model   N         a step: 20,736 rows, 32,768 tokens   rows a second   20 M rows
    0.5 B   0.49e9    73 TFLOP                             57,000          6 min
    8 B     7.6e9     1,128 TFLOP                          3,700           91 min

at 200 TFLOP/s, which is an assumption. A drafted row's logits are alive 256 at a time.

Command:   seedjax posttrain completions --model coder --prompts prompts.jsonl --out own
           seedjax posttrain draft --config configs/draft.py --set model=coder
             --set completions=own --out runs/draft
Hardware:  one H100 of 80 GB; has not been run on any
Expect:    not measured
"""

from seedjax.nn.lora import LoRA
from seedjax.posttrain.draft import DraftConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> DraftConfig:
    return DraftConfig(
        model="coder",
        completions="own",
        lora=LoRA(rank=64, alpha=256.0, merge=False, gated=True),
        blocks=(2, 4),
        anchors=256,
        batch_size=32,
        sequence_length=1024,
        num_steps=950,
        optimizer=OptimizerConfig(
            learning_rate=2e-4, warmup_steps=50, weight_decay=0.0, ema_decay=0.99
        ),
        eval_every=200,
    )
