"""The recipe of on-policy learning."""

from dataclasses import dataclass

from seedjax.config import require
from seedjax.posttrain.surrogate import Surrogate
from seedjax.sampling.policy import (
    ConfidenceThreshold,
    LeftToRight,
    Policy,
)
from seedjax.tasks.lab.stream import LabConfig
from seedjax.tasks.problems import ProblemConfig
from seedjax.train.optim import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the run, with the policy by which its trajectories are drawn.

    The curriculum goes from careful to bold rules and from short to long blocks, phase
    by phase: each phase is a program of its own.
    """

    steps: int = 600
    policy: Policy = LeftToRight(threshold=0.9)
    block_size: int | None = None  # None: the model's own
    softness: float = 0.1  # of the surrogate

    def __post_init__(self):
        require(self.steps >= 1, self, "steps", "at least 1")
        known = isinstance(self.policy, LeftToRight | ConfidenceThreshold)
        require(
            known and self.policy.threshold is not None,  # type: ignore[union-attr]
            self,
            "policy",
            "LeftToRight or ConfidenceThreshold with a threshold, which the surrogate "
            "has a smooth form of",
        )
        self.surrogate  # noqa: B018 # its own checks

    @property
    def surrogate(self) -> Surrogate:
        """The rule, made smooth."""
        policy = self.policy
        assert isinstance(policy, LeftToRight | ConfidenceThreshold)
        assert policy.threshold is not None
        return Surrogate(
            order="left" if isinstance(policy, LeftToRight) else "any",
            threshold=policy.threshold,
            softness=self.softness,
        )


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """Everything that determines a run; written beside its checkpoints."""

    init_from: str = "mini"
    tasks: LabConfig | ProblemConfig = LabConfig()
    phases: tuple[Phase, ...] = (Phase(),)
    prompts: int = 16  # of a step
    candidates: int = 2  # trajectories of each prompt
    temperature: float = 0.5  # that tokens are drawn at
    max_new_tokens: int = 128
    length_weight: float = 1.0
    value_weight: float = 1.0
    divergence_weight: float = 0.05
    likelihood_weight: float = 1.0  # of the cross-entropy of answers that pass
    tests_weight: float = 1.0  # of passing the tests, in the value
    syntax_weight: float = 0.0  # of parsing
    critic: str = ""  # folder that `posttrain critic` wrote for init_from
    critic_weight: float = 1.0  # of its prediction
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-4, warmup_steps=10, weight_decay=0.0, ema_decay=0.95
    )
    loss_chunk: int = 0  # positions whose logits are alive at once; 0 for all
    seed: int = 0
    log_every: int = 5
    eval_every: int = 40
    eval_tasks: int = 240  # of the lab's test split, kinds and tiers in turns
    tolerance: float = 0.02  # by which pass@1 may fall for a model to be kept
    patience: int = 4  # evaluations below it after which the run stops itself
    checkpoint_every_s: float = 180.0

    def __post_init__(self):
        require(len(self.phases) > 0, self, "phases", "at least one")
        for name in ("prompts", "log_every", "eval_every", "eval_tasks", "patience"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.candidates >= 2, self, "candidates", "at least 2, to be compared")
        require(self.temperature > 0.0, self, "temperature", "above 0, to explore")
        require(0.0 <= self.tolerance < 1.0, self, "tolerance", "in [0, 1)")
        for name in (
            "length_weight",
            "value_weight",
            "divergence_weight",
            "likelihood_weight",
            "critic_weight",
            "tests_weight",
            "syntax_weight",
        ):
            require(getattr(self, name) >= 0.0, self, name, "0 or more")
        judged = self.tests_weight + self.syntax_weight
        require(
            judged > 0.0 or (self.critic != "" and self.critic_weight > 0.0),
            self,
            "tests_weight",
            "above 0 where no other verifier has a weight",
        )

    @property
    def num_steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> Phase:
        """The phase that a step, from 0, belongs to; the last one after the end."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]
