"""Completions that people accepted or rejected, in a SQLite file on this machine.

    page, editor ──▶ POST /v1/feedback ──▶ store ──▶ seedjax feedback export
                                                         └▶ posttrain preference

Nothing is kept unless the server is started with a store. A choice that has been
answered with status 200 is on disk: it survives the end of the process at any moment.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from seedjax.errors import InputError
from seedjax.files.replacing import json_lines_with, replaced_file
from seedjax.files.text import format_json_line, open_for_writing

APPLICATION = 0x5EED0001  # marks a SQLite file as a store of ours
VERSION = 2
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS choice (
  number INTEGER PRIMARY KEY,
  time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
  model TEXT NOT NULL,
  prompt TEXT NOT NULL,
  suffix TEXT,
  instruction TEXT,
  completion TEXT NOT NULL,
  accepted INTEGER NOT NULL CHECK (accepted IN (0, 1)),
  messages TEXT
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
SECOND_VERSION = """
BEGIN IMMEDIATE;
ALTER TABLE choice ADD COLUMN messages TEXT;
PRAGMA user_version = 2;
COMMIT;
"""


class Choice(NamedTuple):
    """A completion, and whether it was accepted.

    Attributes:
      model: that wrote it.
      prompt: the text it continues, the text before a hole, or the program to edit.
      completion: what the model wrote.
      accepted: by whoever read it.
      suffix: the text after the hole; None if there was none.
      instruction: what to change in the program; None if it is no edit.
      messages: of the chat that it replies to, as JSON, and the prompt is empty; None
        if it is no chat.
    """

    model: str
    prompt: str
    completion: str
    accepted: bool
    suffix: str | None = None
    instruction: str | None = None
    messages: str | None = None


FIELDS = ", ".join(Choice._fields)


class FeedbackStore:
    """Choices in a file; safe to use from several threads and processes."""

    def __init__(self, path: str | Path, *, create: bool = True):
        """Opens the file, which only its owner may read.

        Args:
          path: of the file.
          create: whether to make it if it is not there.

        Raises:
          InputError: if it cannot be read and written, or holds something else.
        """
        self.path = Path(path).expanduser()
        if not create and not self.path.exists():
            raise InputError(
                f"no file {str(path)!r}; name what `seedjax serve --feedback` wrote"
            )
        self._lock = threading.Lock()
        try:
            flags = os.O_RDWR | (os.O_CREAT if create else 0)
            os.close(os.open(self.path, flags, 0o600))
        except OSError as error:
            raise InputError(
                f"cannot write the feedback store {str(path)!r}: {error.strerror}; "
                "name a file in a folder that you may write to"
            ) from None
        try:
            self._open()
        except sqlite3.Error as error:
            raise InputError(
                f"{str(path)!r} is no feedback store: {error}; name another file"
            ) from None

    def _open(self) -> None:
        self._database = database = sqlite3.connect(
            self.path, timeout=10, isolation_level=None, check_same_thread=False
        )
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if (application, version, tables) == (0, 0, 0):
            # A power cut loses no choice either: each waits for the disk.
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(SCHEMA)
        elif application != APPLICATION:
            self.close()
            raise InputError(
                f"{str(self.path)!r} is the database of another program; name another "
                "file"
            )
        elif version == 1:  # without chats
            database.executescript(SECOND_VERSION)
        elif version != VERSION:
            self.close()
            raise InputError(
                f"{str(self.path)!r} has version {version} of the feedback store, and "
                f"this seedjax reads version {VERSION}; name another file"
            )
        database.execute("PRAGMA synchronous = FULL")

    def add(self, choice: Choice) -> None:
        """Stores a choice; it is on disk when this returns.

        Raises:
          sqlite3.Error: if the disk is full, or the file was taken away.
        """
        marks = ", ".join("?" for _ in choice)
        with self._lock:
            self._database.execute(
                f"INSERT INTO choice ({FIELDS}) VALUES ({marks})", choice
            )

    def counts(self) -> tuple[int, int]:
        """How many choices were accepted, and how many rejected."""
        query = "SELECT coalesce(sum(accepted), 0), count(*) FROM choice"
        with self._lock:
            accepted, total = self._database.execute(query).fetchone()
        return accepted, total - accepted

    def choices(self) -> Iterator[Choice]:
        """All choices, in the order in which they came."""
        query = f"SELECT {FIELDS} FROM choice ORDER BY number"
        with self._lock:
            rows = self._database.execute(query).fetchall()
        for row in rows:
            choice = Choice(*row)
            yield choice._replace(accepted=bool(choice.accepted))

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


def export(
    path: str | Path, out: str | Path, *, force: bool = False
) -> tuple[int, int]:
    """Writes the choices of a store as JSON lines, which `posttrain preference` reads;
    returns how many were accepted and rejected. Of files that are there already only
    one of choices is replaced, unless `force`.

    Raises:
      InputError: if there is no store or nothing in it, or the file cannot be written.
    """
    is_ours = json_lines_with("completion", "accepted")
    counts = [0, 0]
    with (
        replaced_file(out, sources=[path], force=force, is_ours=is_ours) as partial,
        closing(FeedbackStore(path, create=False)) as store,
        open_for_writing(partial) as file,
    ):
        for choice in store.choices():
            kept = {k: v for k, v in choice._asdict().items() if v is not None}
            if choice.messages is not None:
                kept["messages"] = json.loads(choice.messages)
                del kept["prompt"]
            file.write(format_json_line(kept))
            counts[not choice.accepted] += 1
        if not any(counts):
            raise InputError(f"{str(path)!r} holds no choices yet")
    return counts[0], counts[1]
