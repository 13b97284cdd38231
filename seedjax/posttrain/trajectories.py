"""Recording decodes: one or more candidates a prompt, the best of which are kept.

    prompts x candidates ──one program──▶ answers, orders, likelihoods
                                             │ finished? passes its tests?
                                             ▼
                              of each prompt the best `keep` ──▶ a part on disk

This is the first half of Seed Diffusion's constrained-order stage (arXiv 2508.02193,
section 3.2), which draws many decodes of a sample with the trained model and keeps
those of maximal likelihood. The second half is training on them:
`seedjax.diffusion.constrained_order`.
"""

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
from seedjax.config import DenoiserConfig, require, to_dict
from seedjax.data.batching import fill_block
from seedjax.data.trajectories import (
    Trajectory,
    TrajectoryManifest,
    TrajectoryWriter,
)
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.posttrain.decodes import Decodes, decode
from seedjax.posttrain.verifiers import Submission, UnitTests, Verifier, judge_all
from seedjax.progress import Progress, silent
from seedjax.sampling.canvas import Canvas, prompt_canvas
from seedjax.sampling.loop import row_keys
from seedjax.sampling.policy import Policy, StochasticOrder
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sandbox.sandbox import Sandbox, require_isolation
from seedjax.sharding import batch_sharding, make_mesh
from seedjax.tasks.lab.stream import (
    LabConfig,
    draw_task,
    encode_task,
    task_prompt,
    with_order,
)
from seedjax.tasks.lab.tasks import MOST_TESTS, Task
from seedjax.text.tokenizer import Tokenizer
from seedjax.train.state import params_shardings
from seedjax.typing import Array, Int32, Params

Criterion = Literal["likelihood", "likelihood_per_token", "fewest_steps"]
PART_PROMPTS = 512


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """How decodes are recorded and chosen: as the model decodes by default, one of each
    prompt, which is d3LLM's teacher order (arXiv 2601.07568). For Seed Diffusion's best
    of many, draw the order (`StochasticOrder`) or the tokens (`temperature`)."""

    model: str = "mini"  # that decodes
    tasks: LabConfig = LabConfig()  # where prompts come from
    num_prompts: int = 4096
    candidates: int = 1  # decodes of each prompt
    keep: int = 1  # of them
    criterion: Criterion = "likelihood"  # the largest is kept; or the fewest steps
    verify: bool = True  # keep only answers that pass their tests
    references: bool = False  # where none is kept, the task's own answer, from the left
    policy: Policy | None = None  # None: the model's own
    temperature: float = 0.0  # of tokens
    block_size: int | None = None  # None: the model's own
    max_new_tokens: int = 128
    rows: int = 64  # decoded together, a multiple of `candidates`
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
        """The recipe that candidates are decoded with.

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


def load_for_tasks(name: str, tasks: LabConfig) -> Model:
    """The model of that name, which must have the tokenizer of the tasks.

    Raises:
      InputError: if there is no such model, or it has another tokenizer.
    """
    model = load(name)
    if tasks.tokenizer().fingerprint != model.tokenizer.fingerprint:
        raise InputError(
            f"the tasks are tokenized by {tasks.vocabulary!r}, which is not the "
            f"tokenizer of {name!r}; set tasks.vocabulary to the model"
        )
    return model


class Candidate(NamedTuple):
    """A finished decode of one prompt."""

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
    """Records decodes into a folder, or goes on with it.

    Args:
      config: the recipe.
      out: the folder.
      mesh: description of the mesh over which rows are spread.
      accept_weak_isolation: see `Sandbox`.
      report: counts the prompts, those of before included.

    Raises:
      InputError: if the folder holds other trajectories, or the model cannot be asked.
    """
    accepts = accept_weak_isolation or not config.verify  # then none is run
    require_isolation(accepts)
    model = load_for_tasks(config.model, config.tasks)
    sampler = config.sampler(model)
    block_size = sampler.tokens_per_block(model.config)
    settings = to_dict(config) | {"num_prompts": None}  # more may be recorded later
    writer = TrajectoryWriter(
        out,
        TrajectoryManifest(
            model=open_model(config.model).digest(),
            tokenizer=model.tokenizer.fingerprint,
            block_size=block_size,
            settings=json.dumps(settings, sort_keys=True),
        ),
        model.tokenizer,
    )
    recorder = Recorder(model, config, make_mesh(mesh))
    with Sandbox(accept_weak_isolation=accepts) as sandbox:
        verifier = UnitTests(sandbox) if config.verify else None
        done = writer.manifest.prompts
        report("decoding", done, config.num_prompts)
        while done < config.num_prompts:
            count = min(PART_PROMPTS, config.num_prompts - done)
            tasks = [draw_prompt(config, done + n) for n in range(count)]
            kept: list[Trajectory] = []
            decoded = done
            for samples, candidates in recorder.candidates(tasks, first=done):
                verdicts = judge(candidates, tasks, done, verifier, model.tokenizer)
                kept += choose(candidates, config, verdicts)
                decoded += len(samples)
                report("decoding", decoded, config.num_prompts)
            if config.references:
                found = {trajectory.sample for trajectory in kept}
                kept += [
                    reference(task, done + n, model.tokenizer, block_size)
                    for n, task in enumerate(tasks)
                    if done + n not in found
                ]
            writer.write(kept, count)
            done += count
    return writer.manifest


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
    """A task's own answer, decided token by token from the left. Nobody decoded it, so
    it has no likelihood."""
    whole = with_order(encode_task(task, tokenizer, block_size))
    tokens, asked = whole["tokens"], whole["supervised"]
    return Trajectory(
        sample=sample,
        prompt=tokens[~asked],
        answer=tokens[asked],
        order=whole["order"][asked],
        log_likelihood=math.nan,
        passed=None,
    )


def draw_prompt(config: RecordConfig, sample: int) -> Task:
    """The task of a sample; always the same."""
    rng = random.Random(f"{config.seed}/{config.tasks.seed}/{sample}")
    return draw_task(config.tasks, rng, "train", num_tests=MOST_TESTS)


class Recorder:
    """Decodes candidates, batch by batch; the model's weights are laid out over the
    mesh."""

    def __init__(self, model: Model, config: RecordConfig, mesh: jax.sharding.Mesh):
        self._config, self._mesh = config, mesh
        self._model = model.with_params(
            jax.device_put(model.params, params_shardings(model.config, mesh))
        )
        self._sampler = config.sampler(model)

    def candidates(
        self, tasks: Sequence[Task], *, first: int
    ) -> Iterator[tuple[list[int], list[Candidate]]]:
        """Some samples at a time with their finished candidates; prompts of like length
        go together, and a batch that is not full is filled up with its last prompt.

        Args:
          tasks: any number.
          first: sample number of the first one.
        """
        prompts = [task_prompt(task, self._model.tokenizer) for task in tasks]
        order = sorted(range(len(tasks)), key=lambda n: len(prompts[n]))
        size = self._config.rows // self._config.candidates
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            filled = [*chosen, *[chosen[-1]] * (size - len(chosen))]
            decodes = self.decode(
                [prompts[n] for n in filled], [first + n for n in filled]
            )
            given = [prompts[n] for n in chosen]
            samples = [first + n for n in chosen]
            yield samples, list(self._read(decodes, given, samples))

    def decode(self, prompts: list[list[int]], samples: list[int]) -> Any:
        """`candidates` decodes of each prompt, side by side, in one program:
        a `Decodes` of numpy arrays."""
        repeat = self._config.candidates
        rows = [prompt for prompt in prompts for _ in range(repeat)]
        canvas = prompt_canvas(rows, self._model.config, self._sampler)
        first = np.array(samples, np.int32)[:, None] * repeat
        numbers = (first + np.arange(repeat, dtype=np.int32)).reshape(-1)
        with jax.set_mesh(self._mesh):
            arguments = jax.device_put(
                (canvas, numbers, np.int32(self._config.seed)),
                batch_sharding(self._mesh, (canvas, numbers, np.int32(0))),
            )
            program, _ = self._model.program(decode_rows, self._sampler, *arguments)
            return jax.device_get(program(self._model.params, *arguments))

    def _read(
        self, decodes: Any, prompts: list[list[int]], samples: list[int]
    ) -> Iterator[Candidate]:
        eos = self._model.config.eos_token_ids[0]
        size = self._sampler.tokens_per_block(self._model.config)
        for row in range(len(samples) * self._config.candidates):
            if not decodes.finished[row]:
                continue  # it ran out of room, and says nothing of how to end
            number = row // self._config.candidates
            prompt = np.array(prompts[number], np.int32)
            length = int(decodes.lengths[row])
            yield Candidate(
                Trajectory(
                    sample=samples[number],
                    prompt=prompt,
                    **to_block_end(
                        len(prompt),
                        decodes.tokens[row, :length],
                        decodes.order[row, :length],
                        eos,
                        size,
                    ),
                    log_likelihood=float(decodes.log_likelihood[row]),
                    passed=None,
                ),
                steps=int(decodes.steps[row]),
            )


def decode_rows(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    numbers: Int32[Array, "B"],
    seed: Int32[Array, ""],
) -> Decodes:
    """Each candidate has a number of its own, so that it does not matter which others
    are decoded with it."""
    keys = row_keys(jax.random.key(seed), numbers)
    return decode(params, config, sampler, canvas, keys)


def to_block_end(
    num_given: int, tokens: np.ndarray, order: np.ndarray, eos: int, block_size: int
) -> dict[str, np.ndarray]:
    """An answer with EOS up to the end of its last block, as training has it, and its
    order; what is appended belongs to the last step of that block.

    Example: 2 given, 3 new and blocks of 4: 5 6 E in the steps 0 0 1 become 5 6 E E E E
    in the steps 0 0 1 1 1 1.
    """
    whole = fill_block(np.pad(tokens, (num_given, 0)), eos, block_size)[num_given:]
    appended = len(whole) - len(tokens)
    return {
        "answer": whole.astype(np.int32),
        "order": np.pad(order, (0, appended), mode="edge").astype(np.int32),
    }


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
      verdicts: of each candidate; None where no verifier was asked.
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
