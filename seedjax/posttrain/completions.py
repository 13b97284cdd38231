"""A model's own greedy completions of prompts, in a file: what drafts are trained on.

    {"prompt_tokens": [...], "tokens": [...]}     a line for each prompt

Token ids, for a text that is encoded again may come out in other tokens. An
end-of-sequence token that the model wrote is among them.
"""

from pathlib import Path
from typing import Any, NamedTuple

from seedjax.errors import InputError
from seedjax.files.text import format_json_line, open_for_writing, read_json_lines
from seedjax.inference.engine import Engine
from seedjax.inference.model import Model
from seedjax.progress import Progress, silent

FILE = "completions.jsonl"

SLOTS = 16
"""Prompts that are completed together."""

ROWS = 64
"""Completions that are written together, in the order of their prompts."""


class OwnCompletion(NamedTuple):
    """A prompt and what the model wrote after it.

    Attributes:
      prompt: token ids.
      tokens: token ids.
    """

    prompt: list[int]
    tokens: list[int]


def read_own_completions(path: str | Path, vocab_size: int) -> list[OwnCompletion]:
    """The completions in a file.

    Raises:
      InputError: if there are none, or naming the line that is wrong.
    """
    found = []
    for line in read_json_lines(path, hint="write it with `posttrain completions`"):
        rows = [line.values.get(name) for name in ("prompt_tokens", "tokens")]
        for row in rows:
            if not isinstance(row, list) or not all(
                type(token) is int and 0 <= token < vocab_size for token in row
            ):
                raise InputError(
                    f"{line.where}: give `prompt_tokens` and `tokens`, lists of ids "
                    f"from 0 to {vocab_size - 1}"
                )
        found.append(OwnCompletion(*rows))  # type: ignore[arg-type]
    if not found:
        raise InputError(f"{path} holds no completions; give one of at least a line")
    return found


def write_own_completions(
    model: Model,
    prompts: str | Path,
    out: Path,
    *,
    max_new_tokens: int,
    report: Progress = silent,
) -> int:
    """Completes the prompts of a file greedily, into `completions.jsonl` in `out`.
    Given again, it goes on after the last whole line.

    Args:
      model: that writes.
      prompts: JSON lines with `prompt`, a text, or `messages`, a conversation.
      out: a folder that exists.
      max_new_tokens: longest completion.
      report: counts completions.

    Returns:
      How many there are now.

    Raises:
      InputError: for a line that has neither, or is too long for the model.
    """
    rows = [
        _prompt_ids(line.values, line.where, model)
        for line in read_json_lines(prompts, hint="give --prompts JSON lines")
    ]
    file = out / FILE
    done = 0
    if file.exists():
        kept = [*read_json_lines(file, unfinished=True)]
        done = len(kept)
        with open_for_writing(file) as whole:  # without a line that was cut short
            whole.writelines(format_json_line(line.values) for line in kept)
    eos = model.tokenizer.special.require("eos", "close a completion")
    if done >= len(rows):
        return done
    engine = Engine(
        model,
        num_slots=SLOTS,
        max_prompt_tokens=max(map(len, rows)),
        max_new_tokens=max_new_tokens,
        temperature=0.0,
    )
    with open_for_writing(file, append=True) as lines:
        for first in range(done, len(rows), ROWS):
            part = rows[first : first + ROWS]
            for written in sorted(engine.run(part), key=lambda found: found.number):
                end = [eos] if written.finish_reason == "stop" else []
                line = {
                    "prompt_tokens": part[written.number],
                    "tokens": [*map(int, written.tokens), *end],
                }
                lines.write(format_json_line(line))
            report("completing", first + len(part), len(rows))
    return len(rows)


def _prompt_ids(values: dict[str, Any], where: str, model: Model) -> list[int]:
    try:
        if "messages" in values:
            return [*map(int, model.tokenizer.encode_chat(values["messages"]))]
        return [*map(int, model.prompt_ids(values.get("prompt")))]  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
