"""The header of a GGUF file: metadata and the list of tensors.

    "GGUF" version, count of tensors, count of fields
    name, type, value                        a field
    name, count of sizes, sizes, type, offset    a tensor

Follows https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package
reads headers too, but believes their counts: an array of 2^61 values in a file of 49
bytes keeps it busy for years. Here every count is compared with the bytes that are left
before anything is made or repeated as often.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

VERSIONS = (2, 3)  # 1 had other lengths, and was short-lived
MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
MOST_VALUES = 1 << 24  # of an array; the longest published ones have a value a token
MOST_NESTED = 4  # arrays within each other
DEFAULT_ALIGNMENT = 32
STRING, ARRAY = 8, 9
# NumPy's types by the numbers of the format.
NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
LEAST_BYTES = {STRING: 8, ARRAY: 12}  # of a value that is no number


class TensorEntry(NamedTuple):
    """A tensor as the header lists it.

    Attributes:
      name: in llama.cpp's layout.
      shape: outermost size first, as NumPy has it; the file has it inside out.
      kind: number of its type.
      offset: of its bytes in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class Header(NamedTuple):
    """The part of a GGUF file before its tensors, with metadata as plain values."""

    metadata: dict[str, Any]
    tensors: list[TensorEntry]


def read_header(path: Path) -> Header:
    """Reads the header of a file.

    Raises:
      ValueError: if the bytes are not of the format, or a count is beyond the file.
      OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        if not file.tell():
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parsed(_Cursor(data))


def _parsed(cursor: "_Cursor") -> Header:
    if (magic := cursor.take(4)) != b"GGUF":
        raise ValueError(f"it begins with {magic!r}, not with b'GGUF'")
    version = cursor.number("<u4")
    if version not in VERSIONS:
        if version & 0xFFFF == 0:
            raise ValueError(
                "it is in big-endian byte order, convert it with `gguf-convert-endian`"
            )
        raise ValueError(f"version {version}, known are 2 and 3")
    num_tensors = cursor.count(least_bytes=8 + 4 + 4 + 8)
    num_fields = cursor.count(least_bytes=8 + 4 + 1)
    metadata: dict[str, Any] = {}
    for _ in range(num_fields):
        name = cursor.text()
        if name in metadata:
            raise ValueError(f"the field {name!r} twice")
        metadata[name] = cursor.value(cursor.number("<u4"))
    entries: list[TensorEntry] = []
    names: set[str] = set()
    for _ in range(num_tensors):
        name = cursor.text()
        if name in names:
            raise ValueError(f"the tensor {name!r} twice")
        names.add(name)
        dimensions = cursor.number("<u4")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"{dimensions} dimensions of {name!r}")
        sizes = [cursor.number("<u8") for _ in range(dimensions)]
        kind, offset = cursor.number("<u4"), cursor.number("<u8")
        entries.append(TensorEntry(name, tuple(reversed(sizes)), kind, offset))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise ValueError(f"general.alignment is {alignment!r}")
    start = math.ceil(cursor.position / alignment) * alignment
    return Header(metadata, [e._replace(offset=start + e.offset) for e in entries])


class _Cursor:
    """A place in a file's bytes, which no reading goes beyond."""

    def __init__(self, data: mmap.mmap):
        self.position = 0
        self._data, self._size = data, len(data)

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self._size - self.position:
            raise ValueError(
                f"{num_bytes} bytes from byte {self.position} on, of {self._size}"
            )
        begin, self.position = self.position, self.position + num_bytes
        return self._data[begin : self.position]

    def number(self, kind: str) -> Any:
        dtype = np.dtype(kind)
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def count(self, *, least_bytes: int) -> int:
        """A count of things that take up at least so many bytes each."""
        (count,) = struct.unpack("<Q", self.take(8))
        if count * least_bytes > self._size - self.position:
            raise ValueError(
                f"a count of {count} at byte {self.position - 8} in {self._size} bytes"
            )
        return count

    def text(self) -> str:
        return self.take(self.count(least_bytes=1)).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._array(depth)
        if kind not in NUMBERS:
            raise ValueError(f"type {kind} before byte {self.position}")
        return self.number(NUMBERS[kind])

    def _array(self, depth: int) -> list[Any]:
        if depth == MOST_NESTED:
            raise ValueError(f"arrays nested more than {MOST_NESTED} deep")
        kind = self.number("<u4")
        if kind in NUMBERS:
            dtype = np.dtype(NUMBERS[kind])
            count = self._length(dtype.itemsize)
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        if kind not in LEAST_BYTES:
            raise ValueError(f"an array of type {kind} before byte {self.position}")
        count = self._length(LEAST_BYTES[kind])
        return [self.value(kind, depth + 1) for _ in range(count)]

    def _length(self, least_bytes: int) -> int:
        count = self.count(least_bytes=least_bytes)
        if count > MOST_VALUES:
            raise ValueError(f"an array of {count} values, at most {MOST_VALUES}")
        return count
