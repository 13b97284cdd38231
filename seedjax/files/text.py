"""Text and JSON in files: the one place where they are opened, decoded and written.

Text is UTF-8, with or without a byte-order mark, and "\\n" alone ends a line of JSON
lines: NEL or U+2028 inside a string is a character like any other. A file whose name
ends in .gz is decompressed. Every fault is an `InputError` that names the file and,
where there is one, the line and the byte.

Not here: binary formats (weights, corpora, archives), and what the values must be.
"""

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from seedjax.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
UNREADABLE = (OSError, EOFError, zlib.error)  # of a plain or compressed file
MOST_NAME_BYTES = 255  # of a file, on all usual file systems
MOST_NESTED = 100  # arrays and objects of JSON within each other; readers recurse


class JsonLine(NamedTuple):
    """A line of a file of JSON lines.

    Attributes:
      number: of the line, from 1.
      where: "path:number", for messages about the values.
      values: the object in the line.
    """

    number: int
    where: str
    values: dict[str, Any]


def decode_text(raw: bytes, where: str, *, line: int = 1) -> str:
    """The text in `raw`, without a byte-order mark.

    Example: `decode_text(b"a\\nb\\xe9", "x.py")` raises "x.py:2: byte 1 of the line is
    0xe9, which is not UTF-8 ...".

    Args:
      raw: UTF-8.
      where: what the bytes are, for the error.
      line: the number of their first line.

    Raises:
      InputError: for bytes that are not UTF-8, with their line and place in it.
    """
    for mark, encoding in OTHER_MARKS.items() if line == 1 else ():
        if raw.startswith(mark):
            raise InputError(f"{where} is {encoding}; convert it to UTF-8 first")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1)
        raise InputError(
            f"{where}:{line}: byte {column} of the line is 0x{raw[error.start]:02x}, "
            "which is not UTF-8; convert it to UTF-8 first"
        ) from None
    return text.removeprefix("\ufeff") if line == 1 else text


def open_binary(path: str | os.PathLike[str]) -> io.BufferedIOBase:
    """A file opened for reading bytes, decompressed if its name ends in .gz."""
    path = Path(path)
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def read_text(path: str | os.PathLike[str], *, hint: str = "") -> str:
    """The text of a file.

    Raises:
      InputError: if it cannot be read, ending in `hint`, or is not UTF-8.
    """
    return decode_text(read_bytes(path, hint=hint), str(path))


def read_bytes(path: str | os.PathLike[str], *, hint: str = "") -> bytes:
    """The bytes of a file, decompressed.

    Raises:
      InputError: if it cannot be read, ending in `hint`.
    """
    try:
        with open_binary(path) as file:
            return file.read()
    except UNREADABLE as error:
        raise _unreadable(path, error, hint) from None


def parse_json(text: str | bytes, where: str, *, hint: str = "") -> Any:
    """The value that a JSON text holds.

    Raises:
      InputError: if it is not JSON, naming the line and column, or nested too deep.
    """
    if isinstance(text, bytes):
        text = decode_text(text, where)
    try:
        value = json.loads(text)
        if not _is_nested_beyond(MOST_NESTED, value):
            return value
        reason = f"nested more than {MOST_NESTED} deep"
    except json.JSONDecodeError as error:
        place = f"column {error.colno}"
        if error.lineno > 1 or "\n" in text.rstrip("\n"):
            place = f"line {error.lineno}, {place}"
        reason = f"{error.msg}, {place}"
    except RecursionError:
        reason = f"nested more than {MOST_NESTED} deep"
    except ValueError as error:  # an integer of more digits than Python reads
        reason = str(error).partition(";")[0]
    raise InputError(f"{where}: not JSON ({reason}){_after(hint)}")


def _is_nested_beyond(most: int, value: Any) -> bool:
    """Whether arrays and objects are within more than `most` others; no recursion."""
    level = [value]
    for _ in range(most + 1):
        level = [
            part
            for outer in level
            if isinstance(outer, dict | list)
            for part in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True


def is_file_name(name: Any) -> bool:
    """Whether a value of a file may name another file beside it: no path, which would
    lead elsewhere, and short enough for a file system."""
    return (
        isinstance(name, str)
        and Path(name).name == name
        and "\0" not in name
        and len(name.encode("utf-8", "backslashreplace")) <= MOST_NAME_BYTES
    )


def first_line(error: Exception, limit: int = 200) -> str:
    """The first line of a library's error: the rest is for programmers, or the
    bytes of a file."""
    text = str(error).strip() or type(error).__name__
    text = text.splitlines()[0]
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def brief(value: Any, limit: int = 60) -> str:
    """A value as Python writes it, on one line, cut to at most `limit` characters: a
    message is for reading, whatever a file holds."""
    if isinstance(value, int) and value.bit_length() > 4 * limit:
        return f"an integer of {value.bit_length()} bits"  # too long to be written out
    if isinstance(value, str | bytes):
        value = value[: limit + 1]
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_json(path: str | os.PathLike[str], *, hint: str = "") -> Any:
    """The value in a JSON file.

    Raises:
      InputError: if it cannot be read or is not JSON; ends in `hint`.
    """
    return parse_json(read_text(path, hint=hint), str(path), hint=hint)


def read_json_object(path: str | os.PathLike[str], *, hint: str = "") -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      InputError: if it cannot be read or is not a JSON object; ends in `hint`.
    """
    found = read_json(path, hint=hint)
    if not isinstance(found, dict):
        raise InputError(f"{path}: it must be a JSON object, got {brief(found)}")
    return found


def read_json_lines(
    path: str | os.PathLike[str],
    *,
    hint: str = "",
    unfinished: bool = False,
    surrogates: bool = False,
) -> Iterator[JsonLine]:
    """The objects in a file of JSON lines, one at a time; empty lines are passed over.

    Args:
      path: the file.
      hint: what to do if it cannot be read.
      unfinished: leave out a last line without its "\\n", which an interrupted writer
        leaves.
      surrogates: admit texts with half of a surrogate pair (`"\\ud800"`), which cannot
        be written as UTF-8.

    Raises:
      InputError: if the file cannot be read, or a line is not UTF-8 or not a JSON
        object, naming the line.
    """
    try:
        with open_binary(path) as file:
            for number, raw in enumerate(file, 1):
                if unfinished and not raw.endswith(b"\n"):
                    return
                text = decode_text(raw, str(path), line=number)
                if not text.strip():
                    continue
                where = f"{path}:{number}"
                values = parse_json(text, where)
                if not isinstance(values, dict):
                    raise InputError(
                        f"{where}: it must be a JSON object, got {brief(values)}"
                    )
                if not surrogates and r"\ud" in text.lower():
                    _check_surrogates(values, where)
                yield JsonLine(number, where, values)
    except UNREADABLE as error:
        raise _unreadable(path, error, hint) from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file as UTF-8 with the line ends of `text`. A regular file is there
    whole or not at all: what was there before is lost only once the new one is written.

    Raises:
      InputError: if it cannot be written.
    """
    place = Path(os.path.realpath(path))  # a link stays a link
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = text[error.start]
        raise InputError(
            f"cannot write {str(path)!r}: the text holds {found!r}, half of a "
            "surrogate pair"
        ) from None
    try:
        if place.exists() and not place.is_file():  # a device or a pipe
            place.write_bytes(raw)
            return
        partial = place.with_name(f".{os.getpid()}.{place.name}")
        try:
            partial.write_bytes(raw)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(
    path: str | os.PathLike[str], values: Any, *, indent: int | None = 2
) -> None:
    """Writes a value as a JSON file; as `write_text` does."""
    write_text(path, json.dumps(values, indent=indent) + "\n")


def format_json_line(values: Any) -> str:
    """A value as a line of JSON lines. What is not ASCII is written as it is, unless it
    could not be: half of a surrogate pair is escaped."""
    line = json.dumps(values, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(values)
    return line + "\n"


def open_for_writing(path: str | os.PathLike[str], *, append: bool = False) -> IO[str]:
    """A file opened for writing text as UTF-8, a line at a time.

    Raises:
      InputError: if it cannot be opened.
    """
    try:
        mode = "a" if append else "w"
        return Path(path).open(mode, encoding="utf-8", newline="\n", buffering=1)
    except OSError as error:
        raise cannot_write(path, error) from error


def markdown_text(text: str) -> str:
    """A text on one line as Markdown shows it: what would be markup, a table's bar or
    HTML is escaped.

    Example: `a|b <i>*c*` becomes `a\\|b &lt;i&gt;\\*c\\*`.
    """
    plain = re.sub(r"([\\`*\[\]|~]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9]))", r"\\\1", text)
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(plain.split())


def markdown_code(text: str) -> str:
    """A text of one line as code in Markdown, whatever backticks it holds."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def fill_markdown(template: str, **values: Any) -> str:
    """A template of Markdown with values in it, which are text and no markup."""
    plain = {
        k: markdown_text(v) if isinstance(v, str) else v for k, v in values.items()
    }
    return template.format(**plain)


def printable_name(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be encoded: bytes of it that are not UTF-8 become
    escapes.

    Example: the name of the bytes `caf\\xe9.py` becomes the text `caf\\udce9.py`.
    """
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()


def cannot_write(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The error for a file that cannot be written."""
    return InputError(
        f"cannot write {os.fspath(path)!r}: {error.strerror or error}; give a path "
        "in a folder that exists and has room"
    )


def _unreadable(
    path: str | os.PathLike[str], error: Exception, hint: str
) -> InputError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"no file {os.fspath(path)!r}{_after(hint)}")
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{path} cannot be read: {reason}{_after(hint)}")


def _check_surrogates(value: Any, where: str) -> None:
    """Raises `InputError` if a text in a JSON value cannot be encoded."""
    if isinstance(value, dict):
        for pair in value.items():
            for part in pair:
                _check_surrogates(part, where)
    elif isinstance(value, list):
        for part in value:
            _check_surrogates(part, where)
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {brief(value)} holds half of a surrogate pair at character "
                f"{error.start}; remove it"
            ) from None


def _after(hint: str) -> str:
    return f"; {hint}" if hint else ""
