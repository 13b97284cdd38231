"""Messages between the trusted and the untrusted side, and their encoding.

A question names an operation and its operands ("call object 0 with [1, 2]"); an answer
is plain data, the number of an object that stays where it is, or an exception. The
encoding is JSON for what JSON has, a pair [tag, content] for the rest. Decoding builds
exact built-in types only, so that no comparison of the trusted side runs a method which
the program wrote, and runs nothing that it reads (no pickle).
"""

import json
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

HEADER = struct.Struct(">Q")
CONTROL_BYTES = 1 << 30
OUT_OF_MEMORY = 137  # exit status of a program with no memory left to say so

WORD = 1 << 63  # integers outside +-2**63 travel as hexadecimal text
CONTAINERS: dict[type, str] = {
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
}
BUILDERS: dict[str, Callable[[Iterable], Any]] = {
    name: kind for kind, name in CONTAINERS.items()
}
BUFFERS: dict[type, str] = {bytes: "bytes", bytearray: "bytearray"}
TYPES: dict[str, type] = {
    "bool": bool,
    "bytes": bytes,
    "complex": complex,
    "dict": dict,
    "float": float,
    "frozenset": frozenset,
    "int": int,
    "list": list,
    "set": set,
    "str": str,
    "tuple": tuple,
}


def encode(value: Any, refer: Callable[[Any], int]) -> Any:
    """`value` as JSON data; `refer` gives the number of an object that is not plain.

    [1, (2, 3)] becomes ["list", [1, ["tuple", [2, 3]]]]. An instance of a subclass of a
    plain type goes as its plain value.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -WORD <= value < WORD else ["int", hex(value)]
    if kind in CONTAINERS:
        return [CONTAINERS[kind], [encode(item, refer) for item in value]]
    if kind is dict:
        return [
            "dict",
            [[encode(k, refer), encode(v, refer)] for k, v in value.items()],
        ]
    if kind in BUFFERS:
        return [BUFFERS[kind], value.hex()]
    if kind is complex:
        return ["complex", [value.real, value.imag]]
    if kind is type:
        for name, known in TYPES.items():
            if known is value:
                return ["type", name]
    plain = as_plain(value)
    if plain is not value:
        return encode(plain, refer)
    return ["object", refer(value)]


def as_plain(value: Any) -> Any:
    """The plain value under an instance of a subclass (or a NumPy scalar), got through
    methods of the plain type; any other `value` as it is."""
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return dict(dict.items(value))
    for kind in (*CONTAINERS, *BUFFERS):
        if isinstance(value, kind):
            return kind(kind.__iter__(value))  # type: ignore[attr-defined]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    return value


def decode(data: Any, resolve: Callable[[int], Any]) -> Any:
    """The value that `encode` gave as `data`; `resolve` finds an object by its number.

    Raises ValueError or TypeError for anything that `encode` cannot have written.
    """
    if type(data) is not list:
        if type(data) is dict:
            raise ValueError("not an encoded value: a JSON object")
        return data
    tag, content = data
    if tag in BUILDERS:
        return BUILDERS[tag](decode(item, resolve) for item in content)
    match tag:
        case "dict":
            return {decode(k, resolve): decode(v, resolve) for k, v in content}
        case "int":
            return int(content, 16)
        case "bytes":
            return bytes.fromhex(content)
        case "bytearray":
            return bytearray.fromhex(content)
        case "complex":
            real, imaginary = content
            return complex(float(real), float(imaginary))
        case "type":
            return TYPES[content]
        case "object":
            return resolve(content)
    raise ValueError(f"not an encoded value: tag {tag!r}")


def write_frame(
    connection: socket.socket, message: Any, descriptors: Sequence[int] = ()
) -> None:
    """Sends one JSON message, with open files to hand over."""
    write_body(connection, json.dumps(message).encode(), descriptors)


def write_body(
    connection: socket.socket, body: bytes, descriptors: Sequence[int] = ()
) -> None:
    if descriptors:
        socket.send_fds(connection, [HEADER.pack(len(body))], descriptors)
        connection.sendall(body)
    else:
        connection.sendall(HEADER.pack(len(body)) + body)


def read_frame(connection: socket.socket, limit: int) -> Any:
    """One JSON message. Raises EOFError at the end, ValueError above `limit` bytes."""
    return read_body(connection, read_exactly(connection, HEADER.size), limit)


def read_frame_and_descriptors(connection: socket.socket) -> tuple[Any, list[int]]:
    """One JSON message of the trusted side, and the open files that came with it."""
    header, descriptors, _, _ = socket.recv_fds(connection, HEADER.size, 4)
    header += read_exactly(connection, HEADER.size - len(header)) if header else b""
    return read_body(connection, header, CONTROL_BYTES), list(descriptors)


def read_body(connection: socket.socket, header: bytes, limit: int) -> Any:
    if not header:
        raise EOFError("the other side has closed the connection")
    (size,) = HEADER.unpack(header)
    if size > limit:
        raise ValueError(f"a message of {size} bytes, at most {limit} are taken")
    return json.loads(read_exactly(connection, size))


def read_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise EOFError("the other side has closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
