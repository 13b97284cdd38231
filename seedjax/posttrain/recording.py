"""Recording trajectories: of several candidates of each prompt the best are kept.

    prompts x candidates ──one program──▶ completions, orders, likelihoods
                                             │ finished? passes its tests?
                                             ▼
                              of each prompt the best `keep` ──▶ a part on disk

This is the first half of Seed Diffusion's constrained-order stage (arXiv 2508.02193,
section 3.2), which draws many trajectories of a sample with the trained model and
keeps those of maximal likelihood. The second half is training on them:
`seedjax.diffusion.constrained_order`.
"""

import base64
import functools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from seedjax.checkpoints.model_directory import open_model
from seedjax.config import require, to_dict
from seedjax.data.trajectories import (
    Trajectory,
    TrajectoryManifest,
    TrajectoryWriter,
    pack_trajectory,
    unpack_trajectory,
)
from seedjax.files.output import writes
from seedjax.inference.model import Model
from seedjax.posttrain.trajectories import (
    draw,
    load_for_tasks,
    to_block_end,
)
from seedjax.posttrain.verifiers import Submission, UnitTests, Verifier, judge_all
from seedjax.processes import is_first, share, work_out
from seedjax.progress import Progress, silent
from seedjax.sampling.policy import Policy, StochasticOrder
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sandbox.sandbox import Sandbox, require_isolation
from seedjax.sharding import make_mesh
from seedjax.tasks.lab.stream import (
    LabConfig,
    draw_task,
    encode_task,
    task_prompt,
    with_order,
)
from seedjax.tasks.lab.tasks import MOST_TESTS, Task
from seedjax.tasks.problems import ProblemConfig, numbered
from seedjax.text.tokenizer import Tokenizer
from seedjax.train.state import params_shardings

Criterion = Literal["likelihood", "likelihood_per_token", "fewest_steps"]
PART_PROMPTS = 512


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """How trajectories are drawn and chosen: by the model's default recipe, one of each
    prompt, which is d3LLM's teacher order (arXiv 2601.07568). For Seed Diffusion's best
    of many, draw the order (`StochasticOrder`) or the tokens (`temperature`)."""

    model: str = "mini"  # that draws
    tasks: LabConfig | ProblemConfig = LabConfig()  # where prompts come from
    num_prompts: int = 4096
    candidates: int = 1  # trajectories of each prompt
    keep: int = 1  # of them
    criterion: Criterion = "likelihood"  # the largest is kept; or the fewest steps
    verify: bool = True  # keep only answers that pass their tests
    references: bool = False  # where none is kept, the task's own answer, from the left
    policy: Policy | None = None  # None: the model's own
    temperature: float = 0.0  # of tokens
    block_size: int | None = None  # None: the model's own
    max_new_tokens: int = 128
    rows: int = 64  # drawn together, a multiple of `candidates`
    seed: int = 0

    def __post_init__(self):
        for name in ("num_prompts", "candidates", "keep", "max_new_tokens"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.keep <= self.candidates, self, "keep", "at most `candidates`")
        require(
            self.rows >= 1 and self.rows % self.candidates == 0,
            self,
            "rows",
            f"a multiple of candidates={self.candidates}",
        )

    def sampler(self, model: Model) -> SamplerConfig:
        """The recipe that candidates are drawn with.

        Raises:
          InputError: if nothing in it is drawn, so that all candidates were the same.
        """
        policy = self.policy or model.sampler.policy
        require(
            self.candidates == 1
            or self.temperature > 0
            or isinstance(policy, StochasticOrder),
            self,
            "candidates",
            "1 where neither order nor tokens are drawn; give temperature or "
            "StochasticOrder",
        )
        return model.sampler.vary(
            policy=policy,
            temperature=self.temperature,
            block_size=self.block_size,
            max_new_tokens=self.max_new_tokens,
            trace=True,
            ahead=None,
            speculation=None,
            guidance=0.0,
            revision=None,
        )


class Candidate(NamedTuple):
    """A finished trajectory of one prompt."""

    trajectory: Trajectory
    steps: int


@writes("posttrain trajectories", sources=("config.model",))
def record(
    config: RecordConfig,
    out: str | Path,
    *,
    mesh: str = "",
    accept_weak_isolation: bool = False,
    report: Progress = silent,
) -> TrajectoryManifest:
    """Records trajectories into a folder, or continues it. Of several processes each
    draws and judges a part of the prompts, and the first one writes.

    Args:
      config: the recipe.
      out: the folder.
      mesh: description of the mesh, of a process's devices, over which rows are spread.
      accept_weak_isolation: see `Sandbox`.
      report: counts the prompts, those of before included.

    Raises:
      InputError: if the folder holds other trajectories, or the model does not take
        the prompts.
    """
    accepts = accept_weak_isolation or not config.verify  # then none is run
    require_isolation(accepts)
    model = load_for_tasks(config.model, config.tasks)
    sampler = config.sampler(model)
    block_size = sampler.tokens_per_block(model.config)
    settings = to_dict(config) | {"num_prompts": None}  # more may be recorded later
    manifest = TrajectoryManifest(
        model=open_model(config.model).digest(),
        tokenizer=model.tokenizer.fingerprint,
        block_size=block_size,
        settings=json.dumps(settings, sort_keys=True),
    )
    writer = TrajectoryWriter(out, manifest, model.tokenizer) if is_first() else None
    recorder = Recorder(model, config, make_mesh(mesh, jax.local_devices()))
    with Sandbox(accept_weak_isolation=accepts) as sandbox:
        verifier = UnitTests(sandbox) if config.verify else None
        done = share(writer.manifest.prompts if writer else 0)
        report("decoding", done, config.num_prompts)
        while done < config.num_prompts:
            count = min(PART_PROMPTS, config.num_prompts - done)
            tasks = [draw_prompt(config, done + n) for n in range(count)]
            batches, decoded = recorder.batches(tasks), done
            keep = functools.partial(
                keep_of_batch, recorder, tasks=tasks, first=done, verifier=verifier
            )
            parts: dict[int, list[Trajectory]] = {}
            for number, packed in work_out(batches, keep):
                records = map(base64.b64decode, packed)
                parts[number] = [unpack_trajectory(record) for record in records]
                decoded += len(batches[number])
                report("decoding", decoded, config.num_prompts)
            kept = [each for number in sorted(parts) for each in parts[number]]
            if config.references:
                found = {trajectory.sample for trajectory in kept}
                kept += [
                    reference(task, done + n, model.tokenizer, block_size)
                    for n, task in enumerate(tasks)
                    if done + n not in found and task.reference
                ]
            if writer is not None:
                writer.write(kept, count)
            done += count
    return writer.manifest if writer is not None else manifest


def keep_of_batch(
    recorder: "Recorder",
    chosen: list[int],
    *,
    tasks: Sequence[Task],
    first: int,
    verifier: Verifier | None,
) -> list[str]:
    """The trajectories that are kept of a batch of tasks, as records in base 64.
    Arguments as for `Recorder.candidates`."""
    candidates = recorder.candidates(tasks, chosen, first=first)
    verdicts = judge(candidates, tasks, first, verifier, recorder.tokenizer)
    kept = choose(candidates, recorder.config, verdicts)
    return [base64.b64encode(pack_trajectory(each)).decode() for each in kept]


def judge(
    candidates: Sequence[Candidate],
    tasks: Sequence[Task],
    first: int,
    verifier: Verifier | None,
    tokenizer: Tokenizer,
) -> list[bool | None]:
    """Whether a verifier accepts each candidate; None for each if there is none."""
    if verifier is None:
        return [None] * len(candidates)
    ends = tokenizer.special.require("eos", "close an answer")
    submissions = []
    for candidate in candidates:
        trajectory = candidate.trajectory
        answer = trajectory.answer[trajectory.answer != ends].tolist()
        submissions.append(
            Submission(
                task=tasks[trajectory.sample - first],
                text=tokenizer.decode(answer),
                tokens=[*trajectory.prompt.tolist(), *answer],
            )
        )
    return [bool(value >= 0.5) for value in judge_all(verifier, submissions)]


def reference(
    task: Task, sample: int, tokenizer: Tokenizer, block_size: int
) -> Trajectory:
    """A task's own answer, unmasked token by token from the left. It was not drawn, so
    it has no likelihood."""
    whole = with_order(encode_task(task, tokenizer, block_size))
    tokens, supervised = whole["tokens"], whole["supervised"]
    return Trajectory(
        sample=sample,
        prompt=tokens[~supervised],
        answer=tokens[supervised],
        order=whole["order"][supervised],
        log_likelihood=math.nan,
        passed=None,
    )


def draw_prompt(config: RecordConfig, sample: int) -> Task:
    """The task of a sample; always the same."""
    if isinstance(config.tasks, ProblemConfig):
        return numbered(config.tasks, sample)
    rng = random.Random(f"{config.seed}/{config.tasks.seed}/{sample}")
    return draw_task(config.tasks, rng, "train", num_tests=MOST_TESTS)


class Recorder:
    """Draws candidates, batch by batch; the model's weights are laid out over the
    mesh."""

    def __init__(self, model: Model, config: RecordConfig, mesh: jax.sharding.Mesh):
        self.config, self.tokenizer, self._mesh = config, model.tokenizer, mesh
        self._model = model.with_params(
            jax.device_put(model.params, params_shardings(model.config, mesh))
        )
        self._sampler = config.sampler(model)
        self._size = config.rows // config.candidates

    def batches(self, tasks: Sequence[Task]) -> list[list[int]]:
        """The numbers of the tasks of each batch; prompts of like length go
        together."""
        lengths = [len(task_prompt(task, self.tokenizer)) for task in tasks]
        order = sorted(range(len(tasks)), key=lambda n: lengths[n])
        return [order[n : n + self._size] for n in range(0, len(order), self._size)]

    def candidates(
        self, tasks: Sequence[Task], chosen: Sequence[int], *, first: int
    ) -> list[Candidate]:
        """The finished candidates of a batch; one that is not full is filled up with
        its last prompt.

        Args:
          tasks: any number.
          chosen: which of them.
          first: sample number of the first one.
        """
        given = [task_prompt(tasks[n], self.tokenizer) for n in chosen]
        samples = [first + n for n in chosen]
        missing = self._size - len(chosen)
        drawn = self.draw(
            [*given, *[given[-1]] * missing], [*samples, *[samples[-1]] * missing]
        )
        return list(self._read(drawn, given, samples))

    def draw(self, prompts: list[list[int]], samples: list[int]) -> Any:
        """`candidates` trajectories of each prompt, side by side: `Trajectories` of
        numpy arrays."""
        repeat = self.config.candidates
        first = np.array(samples, np.int32)[:, None] * repeat
        return draw(
            self._model,
            self._sampler,
            [prompt for prompt in prompts for _ in range(repeat)],
            (first + np.arange(repeat, dtype=np.int32)).reshape(-1),
            seed=self.config.seed,
            mesh=self._mesh,
        )

    def _read(
        self, drawn: Any, prompts: list[list[int]], samples: list[int]
    ) -> Iterator[Candidate]:
        eos = self._model.config.eos_token_ids[0]
        size = self._sampler.tokens_per_block(self._model.config)
        for row in range(len(samples) * self.config.candidates):
            if not drawn.finished[row]:
                continue  # it ran out of room, and says nothing of how to end
            number = row // self.config.candidates
            prompt = np.array(prompts[number], np.int32)
            length = int(drawn.lengths[row])
            completion, order = to_block_end(
                len(prompt),
                drawn.tokens[row, :length],
                drawn.order[row, :length],
                eos,
                size,
            )
            yield Candidate(
                Trajectory(
                    sample=samples[number],
                    prompt=prompt,
                    answer=completion,
                    order=order,
                    log_likelihood=float(drawn.log_likelihood[row]),
                    passed=None,
                ),
                steps=int(drawn.steps[row]),
            )


def choose(
    candidates: Sequence[Candidate],
    config: RecordConfig,
    verdicts: Sequence[bool | None],
) -> list[Trajectory]:
    """The best of each prompt's candidates, of those that no verifier refused; of equal
    answers in equal order, one.

    Args:
      candidates: of any prompts.
      config: how many are kept, and by what.
      verdicts: of each candidate; None where there is no verifier.
    """
    by_sample: dict[int, dict[Any, Candidate]] = {}
    for candidate, passed in zip(candidates, verdicts, strict=True):
        if passed is not False:
            trajectory = candidate.trajectory._replace(passed=passed)
            content = trajectory.answer.tobytes(), trajectory.order.tobytes()
            others = by_sample.setdefault(trajectory.sample, {})
            others[content] = candidate._replace(trajectory=trajectory)
    kept = []
    for sample in sorted(by_sample):
        best = sorted(
            by_sample[sample].values(), key=lambda c: worth(c, config.criterion)
        )
        kept += [candidate.trajectory for candidate in best[: -config.keep - 1 : -1]]
    return kept


def worth(candidate: Candidate, criterion: Criterion) -> float:
    """By what candidates of a prompt are compared; more is better."""
    trajectory = candidate.trajectory
    if criterion == "fewest_steps":
        return -float(candidate.steps)
    if criterion == "likelihood_per_token":
        return trajectory.log_likelihood / len(trajectory.answer)
    return trajectory.log_likelihood
