"""A user's instructions, read from JSON lines or Parquet as conversations.

    {"prompt": "...", "response": "..."}     or     {"messages": [{"role", "content"}]}

A row that is no conversation with a response is refused by its number and the reason,
or passed over and counted. What is not here: tokens and batches (`instructions`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seedjax.data.decontaminate import evaluation_set
from seedjax.data.sources import ParquetSource
from seedjax.errors import InputError
from seedjax.files.text import brief, decode_text, open_binary, parse_json

LINES = (".jsonl", ".jsonl.gz")
PARQUET = ".parquet"
ADVICE = (
    "mend it, or pass such rows over: --set data.skip_invalid=true in `train`, "
    "--skip-invalid in `data show`"
)


class Conversation(NamedTuple):
    """One row of a file.

    Attributes:
      number: of its line or record, from 1.
      messages: each with "role" and "content"; the last one is the assistant's.
    """

    number: int
    messages: tuple[Mapping[str, Any], ...]

    @property
    def prompt(self) -> str:
        """The text of all messages but the last."""
        return "\n".join(str(message["content"]) for message in self.messages[:-1])

    @property
    def response(self) -> str:
        """The text of the last message."""
        return str(self.messages[-1]["content"])

    @property
    def key(self) -> bytes:
        """Equal for rows with equal messages."""
        return _digest([dict(message) for message in self.messages])

    @property
    def prompt_key(self) -> bytes:
        """Equal for rows with equal messages but the last."""
        return _digest([dict(message) for message in self.messages[:-1]])


class Conversations(NamedTuple):
    """The rows of a file.

    Attributes:
      rows: those that are conversations.
      invalid: number and reason of each other row.
    """

    rows: tuple[Conversation, ...]
    invalid: tuple[tuple[int, str], ...]


def read_conversations(
    path: str | Path,
    *,
    prompt_field: str = "prompt",
    response_field: str = "response",
    messages_field: str = "messages",
    skip_invalid: bool = False,
) -> Conversations:
    """Reads a file.

    Args:
      path: JSON lines (.jsonl, .jsonl.gz) or Parquet.
      prompt_field: the field with the prompt of a row.
      response_field: the field with its response.
      messages_field: the field with a conversation, which goes before the other two.
      skip_invalid: whether to pass over rows that are no conversation.

    Raises:
      InputError: if the file cannot be read, holds no conversation, or a row is none
        and is not to be passed over; names the row and the reason.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(
            f"no instructions at {str(path)!r}; give a file with a JSON object per "
            f"line ({', '.join(LINES)}) or a table ({PARQUET})"
        )
    if path.name.endswith(LINES):
        records = _lines(path)
    elif path.suffix == PARQUET:
        records = ((n, r) for n, r in enumerate(ParquetSource(path).records(), 1))
    else:
        raise InputError(
            f"{path} is of no known kind; expected {', '.join(LINES)} or {PARQUET}"
        )
    rows, invalid = [], []
    for number, record in records:
        found = _conversation(record, prompt_field, response_field, messages_field)
        if isinstance(found, str):
            if not skip_invalid:
                raise InputError(f"{path}:{number}: {found}; {ADVICE}")
            invalid.append((number, found))
        else:
            rows.append(Conversation(number, found))
    if not rows:
        raise InputError(
            f"{path} holds no instructions"
            + (f"; its row {invalid[0][0]}: {invalid[0][1]}" if invalid else "")
        )
    return Conversations(tuple(rows), tuple(invalid))


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The values in a file of JSON lines; for one that is none, why."""
    try:
        with open_binary(path) as file:
            for number, raw in enumerate(file, 1):
                try:
                    text = decode_text(raw, str(path), line=number)
                    value = parse_json(text, "the line") if text.strip() else ""
                except InputError as error:
                    value = _Fault(str(error))
                if value != "":
                    yield number, value
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None


class _Fault(str):
    """Why a line holds no JSON."""


def _conversation(
    record: Any, prompt: str, response: str, messages: str
) -> tuple[Mapping[str, Any], ...] | str:
    """The messages of a record, or why it has none."""
    if isinstance(record, _Fault):
        return str(record)
    if not isinstance(record, Mapping):
        return f"it must be an object with named fields, got {brief(record)}"
    if (name := evaluation_set(record)) is not None:
        return f"it is an item of the evaluation set {name}, not to be trained on"
    if record.get(messages) is not None:
        return _checked(record[messages], messages)
    for field in (prompt, response):
        if not isinstance(record.get(field), str):
            return (
                f"{field} is {brief(record.get(field))}, expected text; its fields are "
                f"{', '.join(map(str, record)) or 'none'}"
            )
    if not record[response].strip():
        return f"{response} is empty"
    return (
        {"role": "user", "content": record[prompt]},
        {"role": "assistant", "content": record[response]},
    )


def _checked(found: Any, field: str) -> tuple[Mapping[str, Any], ...] | str:
    """Messages up to the assistant's last one, or what is wrong with them."""
    if not isinstance(found, list) or not all(isinstance(m, Mapping) for m in found):
        return f"{field} is {brief(found)}, expected a list of objects"
    kept = []
    for number, message in enumerate(found, 1):
        if not isinstance(message.get("role"), str):
            return f"message {number} has the role {brief(message.get('role'))}"
        if not isinstance(message.get("content"), str):
            return f"message {number} has the content {brief(message.get('content'))}"
        kept.append({k: v for k, v in message.items() if v is not None})
    while kept and kept[-1]["role"] != "assistant":
        kept.pop()
    if len(kept) < 2:
        return f"{field} has no response of the assistant to anything"
    if not kept[-1]["content"].strip():
        return "the assistant's last response is empty"
    return tuple(kept)


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
