"""HBM traffic of one operation of a compiled program.

It reads its operands and writes its result, where these lie in HBM. Of an operand that
is only sliced, be it inside a fusion, the slices are read: XLA fuses the slice of a
layer out of stacked weights into the product that takes it. An update in place reads
and writes the update. What a compiler makes into nothing (bitcasts, tuples) and the
second halves of asynchronous pairs are free.
"""

import re
from collections.abc import Iterator

from seedjax.plan.hlo import Buffer, Computation, Instruction, Module

HBM = 0
"""The memory space of a device's main memory."""

FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "while",
    "conditional",
    "call",
    "add-dependency",
    "optimization-barrier",
    "domain",
}
FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")
SLICES = ("dynamic-slice", "slice", "gather")
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
"""Operations that can be done in place, and which operand is the update."""
FLAGS = ("u32", "s32")


def read_bytes(
    module: Module, computation: Computation, instruction: Instruction
) -> Iterator[tuple[str, float]]:
    """Bytes that an instruction reads from HBM, operand by operand."""
    if _is_free(instruction):
        return
    needed = _needed_of_operands(module, computation, instruction, 1.0, True)
    for name, share in zip(instruction.operands, needed, strict=True):
        operand = computation.instructions[name]
        yield name, share * sum(b.num_bytes for b in operand.result if _in_hbm(b))


def written_bytes(
    module: Module, computation: Computation, instruction: Instruction
) -> float:
    """Bytes that an instruction writes to HBM."""
    if _is_free(instruction):
        return 0.0
    outputs, roots = outputs_of(instruction), [(computation, instruction)]
    if instruction.opcode in ("fusion", "async-start"):
        roots = _roots_of(module, module.computations[instruction.called["calls"][0]])
    if len(roots) != len(outputs):
        return float(sum(b.num_bytes for b in outputs if _in_hbm(b)))
    total = 0
    for buffer, (inner, root) in zip(outputs, roots, strict=True):
        if _in_hbm(buffer):
            update = _update_of(inner, root)
            total += (update or buffer).num_bytes
    return float(total)


def _in_hbm(buffer: Buffer) -> bool:
    return buffer.memory_space == HBM


def _is_free(instruction: Instruction) -> bool:
    opcode = instruction.opcode
    if opcode == "custom-call":
        return call_target(instruction) in FREE_CALLS
    return opcode in FREE or opcode.endswith(("-done", "-update"))


def outputs_of(instruction: Instruction) -> tuple[Buffer, ...]:
    """The arrays that an instruction makes. The result of the first half of an
    asynchronous pair also holds its operands and a few flags."""
    result = instruction.result
    if instruction.opcode in ("all-reduce-start", "fusion"):
        return result
    if instruction.opcode == "copy-start":
        return result[:1]
    if instruction.opcode.endswith("-start"):
        count = len(instruction.operands)
        return tuple(b for b in result[count:] if b.shape or b.dtype not in FLAGS)
    return result


def _roots_of(
    module: Module, computation: Computation
) -> list[tuple[Computation, Instruction]]:
    """The instructions that make the outputs of a fused computation, seen through
    nested fusions, tuples and bitcasts."""
    roots: list[tuple[Computation, Instruction]] = []

    def follow(inner: Computation, name: str) -> None:
        root = inner.instructions[name]
        if root.opcode == "tuple":
            for part in root.operands:
                follow(inner, part)
        elif root.opcode == "bitcast":
            follow(inner, root.operands[0])
        elif root.opcode == "fusion" and len(root.result) == 1:
            deeper = module.computations[root.called["calls"][0]]
            follow(deeper, deeper.root)
        else:
            roots.append((inner, root))

    follow(computation, computation.root)
    return roots


def _update_of(computation: Computation, root: Instruction) -> Buffer | None:
    """Bytes that an update in place writes; None for other instructions."""
    if root.opcode not in UPDATES or len(root.result) > 1:
        return None
    return computation.instructions[root.operands[UPDATES[root.opcode]]].result[0]


def _needed_of_operands(
    module: Module,
    computation: Computation,
    user: Instruction,
    share: float,
    is_output: bool,
) -> list[float]:
    """The share of each operand that is read to make a share of the result.

    `is_output` says that the result leaves its fusion, so that an update may be made in
    place.
    """
    if user.opcode in ("fusion", "async-start"):
        inner = module.computations[user.called["calls"][0]]
        needed = _needed(module, inner, share, is_output)
        parameters = inner.parameters()
        return [
            needed.get(parameters[number].name, 0.0)
            for number in range(len(user.operands))
        ]
    size = sum(b.num_elements for b in outputs_of(user))
    slices = user.opcode.removesuffix("-start") in SLICES
    shares = []
    for number, name in enumerate(user.operands):
        operand = sum(b.num_elements for b in computation.instructions[name].result)
        if slices and number == 0:
            shares.append(share * size / max(operand, 1))
        elif user.opcode in UPDATES and number == 0 and is_output:
            shares.append(0.0)
        elif operand == size or user.opcode in ("tuple", "reduce"):
            shares.append(share)
        elif user.opcode == "broadcast":
            shares.append(min(1.0, share * size / max(operand, 1)))
        else:
            shares.append(1.0)
    return shares


def _needed(
    module: Module, computation: Computation, share: float, is_output: bool
) -> dict[str, float]:
    """For every instruction of a fused computation the share of its result that is
    made for a share of the computation's."""
    outputs = {computation.root} if is_output else set()
    needed = {computation.root: share}
    for name in reversed(computation.instructions):
        if not needed.get(name):
            continue
        user = computation.instructions[name]
        if name in outputs and user.opcode in ("tuple", "bitcast"):
            outputs |= {*user.operands}
        shares = _needed_of_operands(
            module, computation, user, needed[name], name in outputs
        )
        for operand, part in zip(user.operands, shares, strict=True):
            needed[operand] = min(1.0, needed.get(operand, 0.0) + part)
    return needed


def call_target(instruction: Instruction) -> str:
    """The target of a custom call."""
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return found[1] if found else ""
