"""The folder of a run.

run.json        the settings; a run with others is refused
problems.jsonl  what was asked, for the report
samples.jsonl   the answers, appended as they come (of shards: samples-2-of-4.jsonl)
verdicts.jsonl  what became of each
traces.jsonl    how the first few were decided, step by step
score.json      the numbers
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedjax.config import check_fields
from seedjax.errors import InputError
from seedjax.evaluate.samples import Key, Sample, read_samples, to_line
from seedjax.evaluate.score import Score, Verdict
from seedjax.files.output import writes
from seedjax.files.text import format_json_line, read_json_object, write_text
from seedjax.tasks.suite import Problem, Suite

RUN, PROBLEMS, SCORE = "run.json", "problems.jsonl", "score.json"
VERDICTS, TRACES = "verdicts.jsonl", "traces.jsonl"


def start(
    folder: Path, settings: dict[str, Any], *, model_name: str, title: str
) -> None:
    """Writes `run.json`, or compares with the one that is there.

    Raises:
      InputError: if it says something else, naming the first difference.
    """
    record = folder / RUN
    settings = json.loads(json.dumps(settings))
    if record.exists():
        there = read_run(folder)["settings"]
        for name in [*settings, *there]:
            old, new = there.get(name), settings.get(name)
            if old != new:
                raise InputError(
                    f"{str(folder)!r} holds a run with {name} {_brief(old)}, and this "
                    f"one has {_brief(new)}; give --out another folder"
                )
        return
    import jax

    device = jax.devices()[0]
    machine = {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
        "jax": jax.__version__,
    }
    write_run(folder, settings, model=model_name, title=title, machine=machine)


def write_run(folder: Path, settings: dict[str, Any], **more: Any) -> None:
    """Writes `run.json` in a folder, which is made if it is not there.

    Raises:
      InputError: if it cannot be written.
    """
    make_folder(folder)
    record = {**more, "settings": settings}
    write_text(folder / RUN, json.dumps(record, indent=1) + "\n")


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it.

    Raises:
      InputError: if that is impossible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {str(folder)!r}: {error.strerror}") from error


@writes("eval", out="folder", sources=("file",))
def keep_foreign(
    folder: Path,
    suite: Suite,
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    score: Score,
    verdicts: Sequence[Verdict],
    *,
    name: str,
    file: Path,
) -> None:
    """Writes a scored file of another system's answers as a run, for reports.

    Raises:
      InputError: if the folder holds a run of other answers, or cannot be written.
    """
    settings = {
        "suite": suite.name,
        "source": f"{suite.source.project} {suite.source.version}",
        "files": dict(suite.source.files),
        "problems": len(problems),
        "recipe": "given",
        "samples": score.samples,
        "answers": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    if (folder / RUN).exists() and read_run(folder)["settings"] != settings:
        raise InputError(
            f"{str(folder)!r} holds a run of other answers; give --out another folder"
        )
    title = f"answers of another system, from {file.name}"
    write_run(folder, settings, model=name, title=title, machine={})
    write_problems(folder / PROBLEMS, problems)
    write_text(folder / "samples.jsonl", "".join(map(to_line, samples)))
    write_score(folder, score, verdicts)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
      InputError: if it is not there or not JSON.
    """
    path = folder / RUN
    if not path.exists():
        raise InputError(f"no run in {str(folder)!r}: {RUN} is not there")
    found = read_json_object(path)
    check_fields(found, {"settings": dict, "machine": dict, "title": str}, str(path))
    return found


def write_problems(
    path: Path, problems: Sequence[Problem], asked: Mapping[str, str] | None = None
) -> None:
    """The problems without their tests, each with what a model was given for it, by its
    id, as far as that is known: with its layout, special tokens spelled."""
    names = ("problem_id", "prompt", "suffix", "before", "instruction", "question")
    lines = []
    for problem in problems:
        line = {n: getattr(problem, n) for n in names if getattr(problem, n)}
        if asked is not None:
            line["asked"] = asked[problem.problem_id]
        lines.append(format_json_line(line))
    write_text(path, "".join(lines))


def samples_name(shard: tuple[int, int]) -> str:
    """The file of a part of the problems."""
    part, parts = shard
    return "samples.jsonl" if parts == 1 else f"samples-{part}-of-{parts}.jsonl"


def all_samples(folder: Path) -> list[Sample]:
    """The samples of all shards, in the order of their keys; of those that two shards
    of different numbers have, one."""
    found: dict[Key, Sample] = {}
    for path in sorted(folder.glob("samples*.jsonl")):
        found |= {sample.key: sample for sample in read_samples(path)}
    return [found[key] for key in sorted(found)]


def write_score(folder: Path, score: Score, verdicts: Sequence[Verdict]) -> None:
    """Writes `verdicts.jsonl` and `score.json`.

    Raises:
      InputError: if they cannot be written.
    """
    lines = [format_json_line(dataclasses.asdict(verdict)) for verdict in verdicts]
    write_text(folder / VERDICTS, "".join(lines))
    write_text(folder / SCORE, json.dumps(score.to_dict(), indent=1) + "\n")
