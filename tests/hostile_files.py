"""Every kind of file that seedjax reads, whole ones of each, and ways to damage them.

A reader must give a value or raise `InputError` of one line, within `MOST_SECONDS`.
What it does with a damaged file that it takes for whole is not said here.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from seedjax.errors import InputError

MOST_SECONDS = 5
HUGE = (0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**61, 2**63 - 1, 2**63, 2**64 - 1)
JUNK = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats()),
    st.sampled_from([*HUGE, 10**9, 10**12, 10**400, -1, 0.0, 1e300, 5e-324]),
    st.sampled_from(["", "x", "2", "\ud800", "\0", "../x", "a" * 5000, "default"]),
    st.sampled_from([[], {}, [[]], [1, "2"], {"kind": [1]}, {"kind": "x"}, [None] * 9]),
    st.lists(st.one_of(st.integers(-2, 2), st.text(max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(-1, 3), max_size=2),
)


class Format(NamedTuple):
    """A kind of file.

    Attributes:
      whole: a folder with whole ones.
      targets: those in it that get damaged, by their paths in it.
      read: reads all that is in such a folder.
    """

    whole: Path
    targets: tuple[str, ...]
    read: Callable[[Path], object]


class Outcome(NamedTuple):
    """What came of a damaged file: "read", "error", "hang", or a traceback's last
    line."""

    kind: str
    message: str


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises TimeoutError after some time."""

    def stop(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(form: Format, folder: Path) -> Outcome:
    began = time.process_time()
    try:
        with limited(60):  # for other processes want the processor, too
            form.read(folder)
        outcome = Outcome("read", "")
    except InputError as error:
        text = str(error)
        one_line = "\n" not in text and len(text) < 3000
        outcome = Outcome("error" if one_line else "long error", text[:3000])
    except TimeoutError:
        outcome = Outcome("hang", "")
    except BaseException as error:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        place = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
        outcome = Outcome("traceback", f"{type(error).__name__}: {error} {place}")
    if time.process_time() - began > MOST_SECONDS:
        return Outcome("hang", f"{time.process_time() - began:.1f} s")
    return outcome


def copy_of(form: Format, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(form.whole, folder))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of the values in a JSON value; of long lists and objects, a few."""
    yield path
    if isinstance(value, dict | list):
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, inner in pairs[:40]:
            yield from places(inner, (*path, key))


def changed(value: Any, path: tuple, new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@st.composite
def damaged_json(draw, raw: bytes) -> bytes:
    """A JSON text with another value, a member less or more, or damaged bytes."""
    value = json.loads(raw)
    way = draw(st.sampled_from(["value"] * 6 + ["less", "more", "deep", "bytes"]))
    if way == "bytes":
        return draw(damaged_bytes(raw))
    path = draw(st.sampled_from(list(places(value))))
    if way == "value":
        value = changed(value, path, draw(JUNK))
    inner = value
    for key in path if way != "value" else ():
        inner = inner[key]
    if way == "less" and isinstance(inner, dict) and inner:
        left_out = draw(st.sampled_from(sorted(inner)))
        value = changed(value, path, {k: v for k, v in inner.items() if k != left_out})
    if way == "more" and isinstance(inner, dict):
        value = changed(value, path, inner | {draw(st.text(max_size=9)): draw(JUNK)})
    text = json.dumps(value)
    if way == "deep":
        depth = draw(st.sampled_from([150, 900, 5000, 100_000]))
        value = changed(value, path, "@")
        text = json.dumps(value).replace('"@"', "[" * depth + "]" * depth, 1)
    return text.encode()


@st.composite
def damaged_lines(draw, raw: bytes) -> bytes:
    """JSON lines of which one is damaged."""
    lines = raw.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = draw(damaged_json(lines[number]))
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]))


@st.composite
def damaged_bytes(draw, raw: bytes) -> bytes:
    """Bytes cut off, overwritten, or added to, near the beginning most of the time."""
    place = draw(
        st.one_of(
            st.integers(0, min(len(raw), 64)),
            st.integers(0, min(len(raw), 4096)),
            st.integers(0, len(raw)),
        )
    )
    new = draw(
        st.one_of(
            st.sampled_from(HUGE).map(lambda n: n.to_bytes(8, "little")),
            st.sampled_from(HUGE[:6]).map(lambda n: n.to_bytes(4, "little")),
            st.binary(min_size=1, max_size=8),
        )
    )
    way = draw(st.sampled_from(["cut", "over", "over", "over", "in", "after", "mark"]))
    if way == "cut":
        return raw[:place]
    if way == "in":
        return raw[:place] + new + raw[place:]
    if way == "after":
        return raw + new
    if way == "mark":
        marks = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"")
        return draw(st.sampled_from(marks)) + raw[: draw(st.sampled_from([0, place]))]
    return raw[:place] + new + raw[place + len(new) :]


@st.composite
def damaged_safetensors(draw, raw: bytes) -> bytes:
    """A header with other values, or damaged bytes."""
    if draw(st.booleans()):
        return draw(damaged_bytes(raw))
    length = int.from_bytes(raw[:8], "little")
    header = draw(damaged_json(raw[8 : 8 + length]))
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def damaged(name: str, raw: bytes) -> st.SearchStrategy[bytes]:
    kinds = {
        ".json": damaged_json,
        ".jsonl": damaged_lines,
        ".safetensors": damaged_safetensors,
    }
    return kinds.get(Path(name).suffix, damaged_bytes)(raw)
