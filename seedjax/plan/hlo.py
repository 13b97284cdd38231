"""A reader of HLO text: what a compiled program does, without running it.

    HloModule jit_step, is_scheduled=true, ...

    %body (p: (s32[], f32[8])) -> (s32[], f32[8]) {          a Computation
      %p = (s32[], f32[8]{0}) parameter(0)                   Instructions
      %x = f32[8]{0:T(128)S(1)} get-tuple-element(%p), index=1
      ROOT %t = (s32[], f32[8]{0}) tuple(%i, %x)
    }

    ENTRY %main (a: f32[8]) -> f32[8] { ... }

It knows the text form that XLA prints and as much of the meaning of the operations as
`seedjax.plan.counts` needs; anything else stays in `Instruction.attributes`, unread.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from seedjax.errors import InputError

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_LEAF = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<=]*)\](?:\{([^{}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation|"
    r"branch_computations|called_computations)=(\{[^{}]*\}|%?[\w.\-]+)"
)


class Buffer(NamedTuple):
    """One array of an instruction's result.

    Attributes:
      dtype: as HLO calls it, such as "bf16" or "s32".
      shape: its dimensions.
      memory_space: 0 is the device's main memory (HBM). On a TPU 1 is the vector memory
        on the chip, and others hold scalars and flags.
    """

    dtype: str
    shape: tuple[int, ...]
    memory_space: int

    @property
    def num_elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def num_bytes(self) -> int:
        """Bytes without padding."""
        return (self.num_elements * _bits(self.dtype) + 7) // 8


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: without the per cent sign.
      opcode: such as "fusion" or "all-reduce".
      result: the arrays of its result; a tuple, nested or not, has several.
      operands: names of the instructions whose results it takes.
      called: computations that it runs, by role: "calls", "body", "condition", ...
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    result: tuple[Buffer, ...]
    operands: tuple[str, ...]
    called: dict[str, tuple[str, ...]]
    attributes: str


class Computation(NamedTuple):
    """A named list of instructions, in the order of the text, which is a schedule where
    the module says `is_scheduled=true`."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    def parameters(self) -> dict[int, Instruction]:
        """Its parameters by number."""
        return {
            parameter_number(i): i
            for i in self.instructions.values()
            if i.opcode == "parameter"
        }

    def users(self, name: str) -> Iterator[Instruction]:
        """The instructions that take a result."""
        return (i for i in self.instructions.values() if name in i.operands)


def parameter_number(parameter: Instruction) -> int:
    """Which argument of its computation a parameter stands for."""
    return int(parameter.attributes.partition(")")[0])


class Module(NamedTuple):
    """A program: its computations by name, and which one is run."""

    computations: dict[str, Computation]
    entry: str


def read_module(text: str) -> Module:
    """The module in HLO text.

    Raises:
      InputError: for text without an entry computation, or lines that are no HLO.
    """
    computations: dict[str, Computation] = {}
    entry, name, root = "", "", ""
    instructions: dict[str, Instruction] = {}
    for line in _whole_lines(text):
        header = _HEADER.match(line)
        if header is not None:
            name, root, instructions = header[2], "", {}
            entry = name if header[1] else entry
        elif line == "}":
            computations[name] = Computation(name, instructions, root)
            name = ""
        elif name and line.strip():
            instruction, is_root = _read_instruction(line)
            instructions[instruction.name] = instruction
            root = instruction.name if is_root else root
    if not entry:
        raise InputError("this is no HLO text: it has no ENTRY computation")
    return Module(computations, entry)


def _whole_lines(text: str) -> Iterator[str]:
    """The lines of a module; an instruction whose attributes are broken over several
    lines, as those of kernels are, is one."""
    held = ""
    for line in text.splitlines():
        if (
            held
            and _INSTRUCTION.match(line) is None
            and held.count("{") > held.count("}")
        ):
            held += line
            continue
        if held:
            yield held
        held = line if _INSTRUCTION.match(line) else ""
        if not held:
            yield line
    if held:
        yield held


def _read_instruction(line: str) -> tuple[Instruction, bool]:
    head = _INSTRUCTION.match(line)
    if head is None:
        raise InputError(f"this is no line of HLO: {line.strip()[:60]!r}")
    rest = line[head.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, arguments = rest.partition("(")
    end = _closing("(" + arguments) - 2
    inside, attributes = arguments[:end], arguments[end + 1 :]
    if opcode in ("parameter", "constant"):
        operands, attributes = (), f"{inside}){attributes}"
    else:
        operands = tuple(_NAME.findall(inside))
    called = {
        role: tuple(re.findall(r"[\w.\-]+", names))
        for role, names in _CALLS.findall(attributes.partition("backend_config=")[0])
    }
    instruction = Instruction(
        head[2], opcode, read_shape(shape), operands, called, attributes.lstrip(", ")
    )
    return instruction, head[1] is not None


def _closing(text: str) -> int:
    """Where the bracket that `text` begins with is closed: one past it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place + 1
    raise InputError(f"a bracket is not closed in {text[:60]!r}")


def read_shape(text: str) -> tuple[Buffer, ...]:
    """The arrays of a shape, such as `(bf16[8,128]{1,0:T(8,128)S(1)}, s32[])`."""
    buffers = []
    for dtype, sizes, layout in _LEAF.findall(text):
        space = _SPACE.search(layout)
        shape = tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size)
        buffers.append(Buffer(dtype, shape, int(space[1]) if space else 0))
    return tuple(buffers)


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    found = re.search(r"\d+", dtype)
    if found is None:
        raise InputError(f"unknown element type {dtype!r} in HLO text")
    return int(found[0])
