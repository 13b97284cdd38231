"""Headers of GGUF files byte by byte: no count is believed before it is compared with
the bytes that are left."""

import struct

import pytest

from seedjax.convert.gguf_header import read_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(*fields: bytes, tensors: bytes = b"", num_tensors: int = 0, version=3):
    counts = struct.pack("<IQQ", version, num_tensors, len(fields))
    return b"GGUF" + counts + b"".join(fields) + tensors


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return text("a") + struct.pack("<IIQ", 9, kind, count) + values


def test_values_of_all_types(tmp_path):
    numbers = {0: ("B", 7), 1: ("b", -7), 2: ("H", 300), 3: ("h", -300), 4: ("I", 9)}
    numbers |= {5: ("i", -9), 6: ("f", 0.5), 7: ("?", True), 10: ("Q", 1 << 60)}
    numbers |= {11: ("q", -(1 << 60)), 12: ("d", 0.1)}
    fields = [
        text(str(kind)) + struct.pack(f"<I{letter}", kind, value)
        for kind, (letter, value) in numbers.items()
    ]
    fields.append(text("8") + struct.pack("<I", 8) + text("été"))
    fields.append(array(8, 2, text("x") + text("")))
    nested = struct.pack("<IQ", 5, 2) + struct.pack("<ii", 1, -1)
    fields.append(text("n") + struct.pack("<IIQ", 9, 9, 1) + nested)
    tensor = text("t") + struct.pack("<IQQIQ", 2, 3, 5, 0, 64)
    path = tmp_path / "x.gguf"
    path.write_bytes(header(*fields, tensors=tensor, num_tensors=1))
    found = read_header(path)
    wanted = {str(kind): value for kind, (_, value) in numbers.items()}
    wanted |= {"8": "été", "a": ["x", ""], "n": [[1, -1]]}
    assert found.metadata == wanted
    (entry,) = found.tensors
    assert (entry.name, entry.shape, entry.kind) == ("t", (5, 3), 0)
    size = path.stat().st_size
    assert entry.offset == -(-size // 32) * 32 + 64


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (header(array(8, 1 << 61)), "a count of 2305843009213693952"),
        (header(array(4, 1 << 61)), "a count of 2305843009213693952"),
        (header(array(9, 1 << 63)), "a count of"),
        (header(array(77, 1, b"x")), "an array of type 77"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 62),
            "a count of 4611686018427387904",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "a count of 1099511627776"),
        (header(struct.pack("<Q", 1 << 33) + bytes(9)), "a count of 8589934592"),
        (header(text("a") + struct.pack("<I", 13)), "type 13"),
        (header(array(0, 1, b"x"), array(0, 1, b"x")), "the field 'a' twice"),
        (header(version=1), "version 1"),
        (header(version=3 << 24), "big-endian"),
        (b"", "empty"),
        (b"GGUX", "begins with b'GGUX'"),
        (
            header(tensors=text("t") + struct.pack("<I", 9) + bytes(99), num_tensors=1),
            "9 dimensions",
        ),
        (
            header(text("general.alignment") + struct.pack("<II", 4, 0)),
            "general.alignment is 0",
        ),
        (
            header(text("n") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9),
            "nested more than 4 deep",
        ),
    ],
)
def test_counts_are_compared_with_the_file(tmp_path, raw, message):
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read_header(path)
