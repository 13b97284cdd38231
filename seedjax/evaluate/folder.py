"""The folder of a run.

run.json        the settings; a run with others is refused
problems.jsonl  the problems and their prompts, for the report
samples.jsonl   the completions, appended as they come (of shards: samples-2-of-4.jsonl)
verdicts.jsonl  what became of each
traces.jsonl    the denoising steps of the first few
score.json      the numbers
"""

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from seedjax.config import check_fields, from_dict
from seedjax.errors import InputError
from seedjax.evaluate.complete import Completion, Key
from seedjax.evaluate.score import Score, Verdict
from seedjax.files.locks import lock_beside, locked
from seedjax.files.output import writes
from seedjax.files.text import (
    format_json_line,
    read_json_lines,
    read_json_object,
    write_json,
    write_text,
)
from seedjax.tasks.suite import Problem, Suite

RUN, PROBLEMS, SCORE = "run.json", "problems.jsonl", "score.json"
VERDICTS, TRACES = "verdicts.jsonl", "traces.jsonl"


def start(
    folder: Path, settings: dict[str, Any], *, model_name: str, title: str
) -> None:
    """Writes `run.json`, or compares with the one that is there.

    Raises:
      InputError: if its settings differ, naming the first difference.
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
    write_json(folder / RUN, record)


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
def keep_external(
    folder: Path,
    suite: Suite,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
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
    write_text(folder / "samples.jsonl", "".join(map(to_line, completions)))
    write_score(folder, score, verdicts)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_run(folder: Path) -> dict[str, Any]:
    """The values of `run.json`.

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
    path: Path, problems: Sequence[Problem], prompts: Mapping[str, str] | None = None
) -> None:
    """The problems without their tests, each with the prompt that a model was given for
    it, by its id, where it is known: with its layout, special tokens spelled."""
    names = ("problem_id", "prompt", "suffix", "before", "instruction", "question")
    lines = []
    for problem in problems:
        line = {n: getattr(problem, n) for n in names if getattr(problem, n)}
        if prompts is not None:
            line["prompt_text"] = prompts[problem.problem_id]
        lines.append(format_json_line(line))
    write_text(path, "".join(lines))


def samples_name(shard: tuple[int, int]) -> str:
    """The file of a part of the problems."""
    part, parts = shard
    return "samples.jsonl" if parts == 1 else f"samples-{part}-of-{parts}.jsonl"


def all_completions(folder: Path) -> list[Completion]:
    """The samples of all shards, in the order of their keys; of those that two shards
    of different numbers have, one."""
    found: dict[Key, Completion] = {}
    for path in sorted(folder.glob("samples*.jsonl")):
        found |= {each.key: each for each in read_completions(path)}
    return [found[key] for key in sorted(found)]


def write_score(folder: Path, score: Score, verdicts: Sequence[Verdict]) -> None:
    """Writes `verdicts.jsonl` and `score.json`.

    Raises:
      InputError: if they cannot be written.
    """
    lines = [format_json_line(dataclasses.asdict(verdict)) for verdict in verdicts]
    write_text(folder / VERDICTS, "".join(lines))
    write_json(folder / SCORE, score.to_dict())


class CompletionFile:
    """`samples.jsonl`, open for more. One process at a time may have it.

    Raises:
      InputError: if another process has it, or it cannot be written.
    """

    def __init__(self, path: Path):
        self.path, self._lock = path, ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            hint = "give each process its own --shard"
            self._lock.enter_context(locked(lock_beside(path), path, hint=hint))
            self._file = path.open("ab")
        except OSError as error:
            self._lock.close()
            raise _cannot_write(path, error) from error
        # A last line that was cut off is no completion.
        end = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(end)
        self.completions = read_completions(path)

    def append(self, completions: Sequence[Completion]) -> None:
        """Writes lines through to the disk's cache: a killed process loses none.

        Raises:
          InputError: if there is no room; what was there before is kept.
        """
        lines = "".join(map(to_line, completions))
        try:
            self._file.write(lines.encode())
            self._file.flush()
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self.completions += completions

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _cannot_write(path: Path, error: OSError) -> InputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free some space and run again: it goes on where it was" if full else ""
    fault = f"cannot write {str(path)!r}: {error.strerror}"
    return InputError(f"{fault}; {hint}" if hint else fault)


def to_line(completion: Completion) -> str:
    """A completion as a line of JSON."""
    return format_json_line(dataclasses.asdict(completion))


def read_completions(path: Path) -> list[Completion]:
    """The completions of a file; a last line that was cut off is left out.

    Raises:
      InputError: for a line that is no completion, with its number.
    """
    found, names = [], {field.name for field in dataclasses.fields(Completion)}
    for line in read_json_lines(path, unfinished=True, surrogates=True):
        try:
            given = {k: line.values[k] for k in names & line.values.keys()}
            found.append(from_dict(Completion, given, "Completion"))
        except InputError as error:
            raise InputError(
                f"{line.where}: no completion of `seedjax eval` ({error}); remove the "
                "line, or give --out another folder"
            ) from None
    return found
