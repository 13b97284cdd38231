"""Costs of a compiled program: bytes of main memory, collectives, copies, transfers.

XLA's own `cost_analysis` says how many bytes a program accesses, but counts a loop body
once, and data that wait in a TPU's vector memory like data that come from HBM. This
count goes loop by loop, and knows memory spaces:

    program ── layers x 32 ─────────── belongs to the program, 32 times
            └─ blocks x ? ── layers x 32
                          └─ steps x ? ── layers x 32

A loop of known length (a scan, a `fori_loop`) belongs to what is around it, as often as
it runs. A loop whose length depends on the data has a `Cost` of its own, of one turn.

What a single operation reads and writes is in `seedjax.plan.traffic`.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from seedjax.plan.hlo import (
    Buffer,
    Computation,
    Instruction,
    Module,
    parameter_number,
)
from seedjax.plan.traffic import (
    HBM,
    call_target,
    outputs_of,
    read_bytes,
    written_bytes,
)

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
MOVES = ("copy", "transpose", "bitcast-convert", "convert", "pad")
HOST = ("infeed", "outfeed", "send", "recv")
GROUPS = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}")
SHORT_GROUPS = re.compile(
    r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
)
MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
SCATTERING = "all-reduce-scatter"
CHANNEL = re.compile(r"\bchannel_id=(\d+)")
ARGUMENT = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')


CollectiveKey = tuple[str, tuple[int, ...]]
"""Operation and group."""


class Move(NamedTuple):
    """A copy, a transpose or a cast that a program makes of one of its arguments.

    Attributes:
      kind: the operation.
      argument: what is copied.
      num_bytes: the size of the copy.
    """

    kind: str
    argument: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Collective:
    """Collectives of one kind over one group of devices.

    Attributes:
      operation: such as "all-gather".
      group: partitions that take part, in the first of the groups that run side by
        side; empty where the program does not say.
      count: how many.
      num_bytes: of their results, on one device.
    """

    operation: str
    group: tuple[int, ...] = ()
    count: int = 0
    num_bytes: int = 0

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends if the group is a ring.

        Every part but one's own goes around once to gather or to scatter, twice to
        reduce everywhere.
        """
        size = max(len(self.group), 1)
        others = (size - 1) / size
        if self.operation == "all-reduce":
            return 2.0 * others * self.num_bytes
        if self.operation == "reduce-scatter":
            return (size - 1.0) * self.num_bytes
        if self.operation in ("collective-permute", "collective-broadcast"):
            return float(self.num_bytes)
        return others * self.num_bytes


@dataclass
class Cost:
    """Costs of one iteration of a loop, or of the program outside such loops.

    Attributes:
      hbm_bytes: read from and written to HBM.
      reads: the part that is read from arguments of the program, argument by argument.
      collectives: by kind and group.
      moves: copies of arguments, in HBM, of at least the given size.
      staged: the same in on-chip memory, where they cost no second pass through HBM.
      host_transfers: operations that leave the device.
      loops: loops inside whose length depends on the data.
    """

    hbm_bytes: float = 0.0
    reads: dict[str, float] = field(default_factory=dict)
    collectives: dict[CollectiveKey, Collective] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    staged: list[Move] = field(default_factory=list)
    host_transfers: list[str] = field(default_factory=list)
    loops: list["Cost"] = field(default_factory=list)

    def add_read(self, argument: str, num_bytes: float) -> None:
        self.reads[argument] = self.reads.get(argument, 0.0) + num_bytes

    def add_collective(self, more: Collective) -> None:
        key = (more.operation, more.group)
        before = self.collectives.get(key)
        if before is not None:
            more = dataclasses.replace(
                more,
                count=before.count + more.count,
                num_bytes=before.num_bytes + more.num_bytes,
            )
        self.collectives[key] = more

    def add_branches(self, branches: list["Cost"], share: float = 1.0) -> None:
        """Adds a choice: the bytes of the branch that moves most, `share` of the times,
        and all that is to be found in any."""
        most = max(branches, key=lambda branch: branch.hbm_bytes)
        self.hbm_bytes += share * most.hbm_bytes
        for argument, num_bytes in most.reads.items():
            self.add_read(argument, share * num_bytes)
        for each in most.collectives.values():
            self.add_collective(each)
        for branch in branches:
            self.moves += branch.moves
            self.staged += branch.staged
            self.host_transfers += branch.host_transfers
            self.loops += branch.loops

    def all_loops(self) -> Iterator["Cost"]:
        """Itself and all loops inside, outermost first."""
        yield self
        for loop in self.loops:
            yield from loop.all_loops()


def cost_of(module: Module, *, least_move: int = 2**20, computed: float = 1.0) -> Cost:
    """Counts a program.

    Args:
      module: after optimisation, as one device runs it.
      least_move: bytes from which on a copy of an argument is listed.
      computed: of choices between products and none (attention skips a pair of chunks
        that is masked whole), the share that makes them.
    """
    entry = module.computations[module.entry]
    names: dict[int, Any] = {
        number: _argument_name(parameter)
        for number, parameter in entry.parameters().items()
    }
    cost = Cost()
    _Walk(module, least_move, computed).add(entry, names, 1, cost)
    return cost


def argument_sizes(module: Module) -> dict[str, int]:
    """The bytes of a program's arguments, by name."""
    parameters = module.computations[module.entry].parameters().values()
    return {
        _argument_name(p): sum(buffer.num_bytes for buffer in p.result)
        for p in parameters
    }


def _argument_name(parameter: Instruction) -> str:
    found = ARGUMENT.search(parameter.attributes)
    return found[1].replace("\\", "") if found else parameter.name


@dataclass(frozen=True)
class _Walk:
    module: Module
    least_move: int
    computed: float

    def add(
        self, computation: Computation, given: dict[int, Any], times: int, cost: Cost
    ) -> None:
        """Adds `times` runs of a computation to a cost.

        `given` says of each parameter which argument of the program it holds: a name,
        a tuple of such for a tuple, or None.
        """
        origins: dict[str, Any] = {}
        seen: set[tuple[str, ...]] = set()
        for instruction in computation.instructions.values():
            origins[instruction.name] = _origin(instruction, origins, given)
            self._add_traffic(computation, instruction, origins, times, cost)
            self._add_collectives(instruction, times, cost, seen)
            if instruction.opcode == "while":
                turns = trip_count(self.module, instruction)
                inside, often = cost, times * (turns or 0)
                if turns is None:
                    inside, often = Cost(), 1
                    cost.loops.append(inside)
                carried = {0: origins[instruction.operands[0]]}
                for role in ("body", "condition"):
                    body = self._called(instruction, role)
                    self.add(body, carried, often, inside)
            elif instruction.opcode == "call":
                operands = [origins[name] for name in instruction.operands]
                function = self._called(instruction, "to_apply")
                self.add(function, dict(enumerate(operands)), times, cost)
            elif instruction.opcode == "conditional":
                names = [n for group in instruction.called.values() for n in group]
                branches = [Cost() for _ in names]
                operands = [origins[name] for name in instruction.operands[1:]]
                for name, handed, branch in zip(names, operands, branches, strict=True):
                    inner = self.module.computations[name]
                    self.add(inner, {0: handed}, times, branch)
                idle = any(not _multiplies(self.module, name) for name in names)
                works = any(_multiplies(self.module, name) for name in names)
                cost.add_branches(branches, self.computed if idle and works else 1.0)

    def _called(self, instruction: Instruction, role: str) -> Computation:
        return self.module.computations[instruction.called[role][0]]

    def _add_traffic(
        self,
        computation: Computation,
        instruction: Instruction,
        origins: dict[str, Any],
        times: int,
        cost: Cost,
    ) -> None:
        for name, num_bytes in read_bytes(self.module, computation, instruction):
            cost.hbm_bytes += times * num_bytes
            origin = origins.get(name)
            if num_bytes and isinstance(origin, str):
                cost.add_read(origin, times * num_bytes)
        cost.hbm_bytes += times * written_bytes(self.module, computation, instruction)
        if _leaves_device(instruction):
            cost.host_transfers.append(f"{instruction.opcode} {instruction.name}")
        for move, buffer in moves_of(self.module, instruction, origins):
            if buffer.num_bytes >= self.least_move:
                in_hbm = buffer.memory_space == HBM
                (cost.moves if in_hbm else cost.staged).append(move)

    def _add_collectives(
        self,
        instruction: Instruction,
        times: int,
        cost: Cost,
        seen: set[tuple[str, ...]],
        fusion: Computation | None = None,
    ) -> None:
        """Adds a collective, inside fusions once: an asynchronous one stands in every
        stage of its own (start, the work that hides it, done), on the same channel. (A
        channel of `shard_map` has all collectives of a program.)"""
        kind = instruction.opcode.removesuffix("-start")
        group = first_group(instruction.attributes)
        if kind in COLLECTIVES and len(group) != 1:  # one device sends nothing
            channel = CHANNEL.search(instruction.attributes)
            source = ARGUMENT.search(instruction.attributes)
            key = tuple(found[1] if found else "" for found in (channel, source))
            if fusion is None or not any(key) or key not in seen:
                seen.add(key)
                result = instruction
                if fusion is not None and fusion.name.startswith(SCATTERING):
                    # A TPU's fused form: a sum of which each device keeps a slice.
                    kind, result = "reduce-scatter", fusion.instructions[fusion.root]
                size = sum(buffer.num_bytes for buffer in outputs_of(result))
                cost.add_collective(
                    Collective(
                        operation=kind,
                        group=group,
                        count=times,
                        num_bytes=times * size,
                    )
                )
        if instruction.opcode in ("fusion", "async-start"):
            called = self._called(instruction, "calls")
            for inner in called.instructions.values():
                self._add_collectives(inner, times, cost, seen, called)


def _multiplies(module: Module, name: str) -> bool:
    """Whether a computation has products of matrices, at any depth."""
    return any(
        each.opcode in ("dot", "convolution", "custom-call")
        or any(_multiplies(module, n) for names in each.called.values() for n in names)
        for each in module.computations[name].instructions.values()
    )


def first_group(attributes: str) -> tuple[int, ...]:
    """The partitions of a collective's first group: of `replica_groups={{0,1},{2,3}}`
    (0, 1), of the short form `[2,4]<=[4,2]T(1,0)` (0, 2, 4, 6), of the named form
    `mesh['a'=2,'b'=4] {'a'}` (0, 4), of a permutation's
    `source_target_pairs={{0,1},...}` the first pair; () for none."""
    listed = GROUPS.search(attributes)
    if listed is not None:
        return tuple(int(part) for part in listed[1].split(",") if part)
    named = MESH_GROUPS.search(attributes)
    if named is not None:
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", named[1]))
        along = re.findall(r"'([^']*)'", named[2])
        partitions = np.arange(math.prod(map(int, sizes.values())))
        partitions = partitions.reshape([int(size) for size in sizes.values()])
        first = tuple(slice(None) if name in along else 0 for name in sizes)
        return tuple(int(each) for each in partitions[first].ravel())
    short = SHORT_GROUPS.search(attributes)
    if short is None:
        return ()
    shape, of, order = (
        [int(part) for part in (text or "").split(",") if part]
        for text in (short[1], short[2], short[3])
    )
    partitions = np.arange(math.prod(of)).reshape(of)
    if order:
        partitions = partitions.transpose(order)
    return tuple(int(each) for each in partitions.reshape(shape)[0])


def trip_count(module: Module, loop: Instruction) -> int | None:
    """How often a `while` runs, if it counts from 0 in ones up to a constant, as those
    of `lax.scan` and `lax.fori_loop` do; None if its length depends on the data."""
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known is not None:
        return int(known[1])
    condition = module.computations[loop.called["condition"][0]]
    root = condition.instructions[condition.root]
    while root.opcode == "fusion":
        condition = module.computations[root.called["calls"][0]]
        root = condition.instructions[condition.root]
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    limit = condition.instructions[root.operands[1]]
    if limit.opcode != "constant" or limit.result[0].dtype[0] not in "su":
        return None
    return int(limit.attributes.partition(")")[0])


def _origin(
    instruction: Instruction, origins: dict[str, Any], given: dict[int, Any]
) -> Any:
    """Which argument of the program the result of an instruction is, if any."""
    opcode = instruction.opcode
    if opcode == "parameter":
        return given.get(parameter_number(instruction))
    operands = [origins.get(name) for name in instruction.operands]
    if opcode == "tuple":
        return tuple(operands)
    if opcode == "get-tuple-element" and isinstance(operands[0], tuple):
        found = re.search(r"index=(\d+)", instruction.attributes)
        assert found is not None
        return operands[0][int(found[1])]
    if opcode in ("bitcast", "reshape", "while", "optimization-barrier", "copy-done"):
        return operands[0]
    if opcode == "copy-start":
        # A prefetch; what reads it reads on-chip memory.
        return operands[0]
    return None


def moves_of(
    module: Module, instruction: Instruction, origins: Mapping[str, Any]
) -> Iterator[tuple[Move, Buffer]]:
    """The copies of arguments that an instruction makes, and where they go: by an
    operation of `MOVES`, a fusion of nothing but such, or by gathering.

    `origins` says which results are arguments of the program, by name.
    """
    kind, outputs = _kind_of_move(module, instruction), outputs_of(instruction)
    if kind is None:
        return
    sources: tuple[str | None, ...] = instruction.operands[: len(outputs)]
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.called["calls"][0]]
        root = inner.instructions[inner.root]
        made = root.operands if root.opcode == "tuple" else (root.name,)
        sources = tuple(_source(instruction, inner, name) for name in made)
    for source, buffer in zip(sources, outputs, strict=True):
        origin = origins.get(source or "")
        if isinstance(origin, str):
            yield Move(kind, origin, buffer.num_bytes), buffer


def _kind_of_move(module: Module, instruction: Instruction) -> str | None:
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in (*MOVES, "all-gather"):
        return opcode
    if opcode in ("slice", "dynamic-slice"):
        return "copy"
    if opcode != "fusion":
        return None
    inner = module.computations[instruction.called["calls"][0]]
    kinds = {
        _kind_of_move(module, i)
        for i in inner.instructions.values()
        if i.opcode not in ("parameter", "constant", "bitcast", "reshape", "tuple")
    }
    if not kinds or not kinds <= {*MOVES}:
        return None
    return next(iter(kinds)) if len(kinds) == 1 else "transpose"


def _source(fusion: Instruction, inner: Computation, name: str) -> str | None:
    """The operand of a fusion that a chain of moves inside begins with."""
    instruction = inner.instructions[name]
    while instruction.operands:
        instruction = inner.instructions[instruction.operands[0]]
    if instruction.opcode != "parameter":
        return None
    return fusion.operands[parameter_number(instruction)]


def _leaves_device(instruction: Instruction) -> bool:
    if instruction.opcode == "custom-call":
        return is_host_call(call_target(instruction))
    return instruction.opcode in HOST


def is_host_call(target: str) -> bool:
    """Whether a custom call of this name runs on the host: a Python callback, or a
    computation or a copy that was placed there."""
    return "callback" in target or "host" in target.lower()
