"""The arms of the ablation: training recipes that differ in one thing each.

    start ── next-token prediction ──┬─▶ ar            more of the same
                                     ├─▶ mask          whole sequences, masks only
                                     ├─▶ substitute    then masks and substitutions
                                     ├─▶ levenshtein   then masks, insertions, deletions
                                     ├─▶ block         clean context, masks in blocks
                                     ├─▶ block_edit    then masks and substitutions
                                     └─▶ unshifted     as block, logits in place
    random weights ────────────────────▶ scratch       as mask, several times as long

    block_edit ─┬─▶ supervised            ar ──▶ ar_more     as many steps of the same
                ├─▶ sharpened             decodes of its own, and certainty
                └─▶ ordered ──▶ on_policy its own decodes in order; shorter ones

An arm with edits is the arm without them up to the edit stage, the last fifth, and
branches off there: its first four fifths are not trained twice.

All arms of a seed read the same samples in the same order and take the same number of
steps from the same weights. What differs besides the objective follows from it: an arm
that sees both ways has a share of its samples broken off after a random block
(`lab.stream.truncate`), and the arms that know no blocks are sampled in blocks anyway,
as Seed Diffusion is.

All arms but `unshifted` keep the start's alignment: position i answers for token i + 1,
as in Dream and DiffuCoder, which start from next-token weights too.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from seedjax.config import Attention, DenoiserConfig, LogitAlignment
from seedjax.diffusion.edit_stage import EditAlignment, EditStage
from seedjax.diffusion.objective import (
    Autoregressive,
    BlockDiffusion,
    MaskDiffusion,
    ObjectiveConfig,
)
from seedjax.nn.presets import preset
from seedjax.tasks.lab.stream import LabConfig
from seedjax.text.tokenizer import Tokenizer
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig

START = "start"  # folder of the common start
POSTTRAINED = {  # arms of post-training, and what they begin from
    "supervised": "block_edit",
    "sharpened": "block_edit",
    "ordered": "block_edit",
    "on_policy": "ordered",
    "ar_more": "ar",
}
START_CYCLES = (("start_1", 1, 3e-3), (START, 11, 2e-3))  # folder, data seed, rate
MAX_NEW_TOKENS = 192  # of an answer; the longest in training fits
BLOCK_SIZE = 8  # few answers would let so small a model decide more at once
ON_POLICY_ROWS = 32  # of a step: prompts times candidates
NOISY_BLOCKS = 20  # few rows are noised in more of their 32 blocks
SCRATCH_BUDGETS = 3  # times the steps of the other arms


@dataclass(frozen=True)
class Arm:
    """An arm of the ablation.

    Attributes:
      name: as in the module's picture.
      label: the letter under which the report lists it.
      seed: of data order and corruption.
    """

    name: str
    label: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.name}_{self.seed}"

    @property
    def trunk(self) -> str:
        """The folder of the arm that this one is until its edit stage; empty if it is
        trained by itself."""
        trunk = {"substitute": "mask", "levenshtein": "mask", "block_edit": "block"}
        return f"{trunk[self.name]}_{self.seed}" if self.name in trunk else ""

    @property
    def before(self) -> str:
        """The folder of the arm that this one is a post-training of; else empty."""
        names = POSTTRAINED
        return f"{names[self.name]}_{self.seed}" if self.name in names else ""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is trained and how much is examined.

    Attributes:
      name: of the budget.
      model: shape of all arms.
      start_steps: of each of the two runs of the common start.
      arm_steps: of each arm.
      batch_size: rows of a step.
      arms: in the order in which they are trained.
      tasks: examined, of each kind and tier.
      slice_tasks: examined, of each kind in each further slice; 0 for none.
      thresholds: decode settings beside one token per step, from careful to bold.
      max_new_tokens: of an answer.
      prompts: whose decodes post-training begins with.
      ordered_steps: of constrained order, on these decodes.
      on_policy_steps: after it; 32 rows each. The other arms of post-training take as
        many steps as both together make in rows.
      verified: keep only decodes that pass their tests.
    """

    name: str
    model: DenoiserConfig
    start_steps: int
    arm_steps: int
    batch_size: int
    arms: tuple[Arm, ...]
    tasks: int
    slice_tasks: int
    thresholds: tuple[float, ...]
    max_new_tokens: int
    prompts: int
    ordered_steps: int
    on_policy_steps: int
    verified: bool = True

    @property
    def posttraining_steps(self) -> int:
        """Steps of `batch_size` rows that constrained order and on-policy learning
        come to."""
        rows = self.on_policy_steps * ON_POLICY_ROWS
        return self.ordered_steps + rows // self.batch_size


_NAMES = {
    "ar": "a",
    "mask": "b",
    "substitute": "c",
    "levenshtein": "d",
    "block": "e",
    "block_edit": "f",
    "unshifted": "g",
    "scratch": "s",
    "supervised": "h",
    "sharpened": "i",
    "ordered": "j",
    "on_policy": "k",
    "ar_more": "l",
}


def _arms(*places: tuple[str, int]) -> tuple[Arm, ...]:
    return tuple(Arm(name, _NAMES[name], seed) for name, seed in places)


def budget(name: str, tokenizer: Tokenizer) -> Budget:
    """The budget called "smoke" or "full".

    smoke shows that everything runs, in minutes; its numbers mean nothing. full is what
    the README quotes: hours on two CPU cores.
    """
    if name == "smoke":
        shape = dataclasses.replace(
            preset("tiny"), hidden_size=64, num_layers=2, num_heads=1, num_kv_heads=1
        )
        return Budget(
            name=name,
            model=_with_vocabulary(shape, tokenizer),
            start_steps=30,
            arm_steps=10,
            batch_size=4,
            # Whom no task succeeds, as these, cannot learn on policy.
            arms=_arms(
                ("ar", 2),
                ("block", 2),
                ("block_edit", 2),
                ("ordered", 2),
            ),
            tasks=1,
            slice_tasks=0,
            thresholds=(0.5,),
            max_new_tokens=16,
            prompts=128,
            ordered_steps=5,
            on_policy_steps=0,
            verified=False,
        )
    return Budget(
        name=name,
        model=_with_vocabulary(preset("mini"), tokenizer),
        start_steps=6000,
        arm_steps=2000,
        batch_size=8,
        arms=_arms(
            ("ar", 2),
            ("block", 2),
            ("block_edit", 2),
            ("mask", 2),
            ("substitute", 2),
            ("levenshtein", 2),
            ("unshifted", 2),
            ("ar", 3),
            ("mask", 3),
            ("substitute", 3),
            ("scratch", 2),
            ("ordered", 2),
            ("on_policy", 2),
            ("supervised", 2),
            ("sharpened", 2),
            ("ar_more", 2),
        ),
        tasks=50,
        slice_tasks=50,
        thresholds=(0.95, 0.9, 0.8, 0.6),
        max_new_tokens=MAX_NEW_TOKENS,
        prompts=4096,
        ordered_steps=500,
        on_policy_steps=400,
    )


def _with_vocabulary(model: DenoiserConfig, tokenizer: Tokenizer) -> DenoiserConfig:
    return dataclasses.replace(
        model,
        vocab_size=tokenizer.vocab_size,
        dtype="bfloat16",
        max_positions=1024,
        block_size=BLOCK_SIZE,
    )


def start_recipes(
    budget: Budget, vocabulary: str, out: Path
) -> list[tuple[Path, RunConfig]]:
    """The common start, next-token prediction: two runs, each with its folder, the
    second of which goes on from the first with a learning rate that rises again (warm
    restart, arXiv 1608.03983)."""
    recipes: list[tuple[Path, RunConfig]] = []
    for folder, seed, learning_rate in START_CYCLES:
        recipe = _recipe(
            budget,
            objective=Autoregressive(),
            attention="causal",
            alignment="shifted",
            data=_data(budget, vocabulary, seed),
            steps=budget.start_steps,
            learning_rate=learning_rate,
            seed=0,
            init_from=str(recipes[-1][0]) if recipes else "",
        )
        recipes.append((out / folder, recipe))
    return recipes


def arm_recipe(
    arm: Arm, budget: Budget, vocabulary: str, start: Path, tokenizer: Tokenizer
) -> RunConfig:
    """The recipe of an arm.

    Args:
      arm: which.
      budget: how much.
      vocabulary: for `LabConfig`.
      start: model directory of the common start.
      tokenizer: for the ids of the edit process.
    """

    def masks(edit: EditStage | None = None) -> MaskDiffusion:
        return MaskDiffusion(weighting="uniform", edit=edit)

    def blocks(edit: EditStage | None = None) -> BlockDiffusion:
        return BlockDiffusion(weighting="uniform", edit=edit, noisy_blocks=NOISY_BLOCKS)

    objectives: dict[str, ObjectiveConfig] = {
        "ar": Autoregressive(),
        "mask": masks(),
        "scratch": masks(),
        "substitute": masks(edit_stage("substitute", tokenizer)),
        "levenshtein": masks(edit_stage("levenshtein", tokenizer)),
        "block": blocks(),
        "block_edit": blocks(edit_stage("substitute", tokenizer)),
        "unshifted": blocks(),
    }
    attentions: dict[str, Attention] = {
        "ar": "causal",
        "block": "block_causal",
        "block_edit": "block_causal",
        "unshifted": "block_causal",
    }
    attention = attentions.get(arm.name, "bidirectional")
    data = _data(budget, vocabulary, arm.seed)
    if attention == "bidirectional":
        data = dataclasses.replace(data, truncate=0.5)
    scratch = arm.name == "scratch"
    return _recipe(
        budget,
        objective=objectives[arm.name],
        attention=attention,
        alignment="same_position" if arm.name == "unshifted" else "shifted",
        data=data,
        steps=budget.arm_steps * (SCRATCH_BUDGETS if scratch else 1),
        learning_rate=3e-3 if scratch else 1e-3,
        seed=arm.seed,
        init_from="" if scratch else str(start),
    )


def edit_stage(alignment: EditAlignment, tokenizer: Tokenizer) -> EditStage:
    """The edit stage over the ordinary pieces of a tokenizer, which come after the
    special ones."""
    special = tokenizer.special
    first = max(special.ids) + 1
    if alignment == "substitute":
        return EditStage(first_token_id=first)
    return EditStage(
        alignment="levenshtein",
        first_token_id=first,
        delete_token_id=special.delete,
        insert_token_id=special.insert,
        window_size=32,
    )


def _data(budget: Budget, vocabulary: str, seed: int) -> LabConfig:
    return LabConfig(
        vocabulary=vocabulary,
        batch_size=budget.batch_size,
        block_size=budget.model.block_size,
        seed=seed,
    )


def _recipe(
    budget: Budget,
    *,
    objective: ObjectiveConfig,
    attention: Attention,
    alignment: LogitAlignment,
    data: LabConfig,
    steps: int,
    learning_rate: float,
    seed: int,
    init_from: str,
) -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(
            budget.model, attention=attention, logit_alignment=alignment
        ),
        objective=objective,
        data=data,
        optimizer=OptimizerConfig(
            learning_rate=learning_rate, warmup_steps=min(200, steps // 5)
        ),
        num_steps=steps,
        seed=seed,
        init_from=init_from,
        log_every=50 if steps > 100 else 5,
        # So that there is a checkpoint where the edit stage begins.
        eval_every=max(1, 2 * steps // 5),
        keep_latest=8,
        infill_spans=0,
    )
