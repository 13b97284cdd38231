"""What can be said of a program before any compiler has seen it.

There is no compiling for NVIDIA GPUs without their plugin, but a program can be lowered
for them: to StableHLO, the form that XLA starts from. It shows how loops nest, whether
anything calls back to the host, and which weights are transposed or cast as a whole
before they are used (a compiler may still fuse such an operation, or add others).
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from seedjax.plan.costs import Move, is_host_call

WHOLE = ("stablehlo.transpose", "stablehlo.convert", "stablehlo.bitcast_convert")
"""Operations that are listed if a whole weight goes through."""
PARTS = ("stablehlo.reshape", "stablehlo.slice", "stablehlo.dynamic_slice")
"""Operations behind which it is still (a part of) the same weight."""


class Loop(NamedTuple):
    """A loop whose length depends on the data, or the program around such loops.

    Attributes:
      moves: transposes and casts of arguments of the program, in loops of known length
        inside as well.
      host_transfers: operations that leave the device.
      loops: loops inside whose length depends on the data.
    """

    moves: list[Move]
    host_transfers: list[str]
    loops: list["Loop"]


def read_lowered(lowered: jax.stages.Lowered, *, least_move: int = 2**20) -> Loop:
    """Reads a lowered program.

    Args:
      lowered: from `jax.jit(...).lower(...)`.
      least_move: bytes from which on a transpose or cast is listed.
    """
    module: Any = lowered.compiler_ir("stablehlo")
    functions = {
        op.attributes["sym_name"].value: op.regions[0].blocks[0]
        for op in module.body.operations
        if op.operation.name == "func.func"
    }
    main = functions["main"]
    origins = {a: str(a.location)[5:-2] for a in main.arguments}
    program = Loop([], [], [])
    _walk(main, origins, functions, program, least_move)
    return program


def _walk(
    block: Any,
    origins: dict[Any, str],
    functions: dict[str, Any],
    loop: Loop,
    least_move: int,
) -> list[str | None]:
    """Adds a block's operations to a loop, and gives the origins of what it returns.

    `origins` names the arguments of the program that values are (parts of).
    """

    def enter(inner: Any, operands: Any, into: Loop) -> list[str | None]:
        handed = {
            argument: origins[operand]
            for argument, operand in zip(inner.arguments, operands, strict=True)
            if operand in origins
        }
        return _walk(inner, origins | handed, functions, into, least_move)

    for view in block.operations:
        op = view.operation
        operands = list(op.operands)
        results: list[str | None] = []
        if op.name in ("func.return", "stablehlo.return"):
            return [origins.get(operand) for operand in operands]
        if op.name in PARTS:
            results = [origins.get(operands[0])]
        elif op.name == "stablehlo.optimization_barrier":
            results = [origins.get(operand) for operand in operands]
        elif op.name in WHOLE and operands[0] in origins:
            size = _num_bytes(op.results[0].type)
            if size >= least_move:
                kind = op.name.removeprefix("stablehlo.")
                loop.moves.append(Move(kind, origins[operands[0]], size))
        elif op.name == "func.call":
            function = functions[op.attributes["callee"].value]
            results = enter(function, operands, loop)
        elif op.name == "stablehlo.while":
            into = loop
            if not _is_counted(op.regions[0].blocks[0]):
                into = Loop([], [], [])
                loop.loops.append(into)
            for region in op.regions:
                enter(region.blocks[0], operands, into)
            results = [origins.get(operand) for operand in operands]
        elif op.name == "stablehlo.case":
            for region in op.regions:
                results = enter(region.blocks[0], [], loop)
        if _leaves_device(op):
            loop.host_transfers.append(op.name)
        for result, origin in zip(op.results, results, strict=False):
            if origin is not None:
                origins[result] = origin
    return []


def _is_counted(condition: Any) -> bool:
    """Whether a loop goes on while a whole number is below a constant: a scan."""
    result = list(condition.operations)[-1].operation.operands[0].owner
    if getattr(result, "name", "") != "stablehlo.compare":
        return False
    if "FLOAT" in str(result.attributes["compare_type"]):
        return False
    limit = result.operands[1].owner
    return getattr(limit, "name", "") == "stablehlo.constant"


def _leaves_device(op: Any) -> bool:
    if op.name == "stablehlo.custom_call":
        return is_host_call(op.attributes["call_target_name"].value)
    name = op.name.removeprefix("stablehlo.")
    return name in ("infeed", "outfeed", "send", "recv")


def _num_bytes(tensor: Any) -> int:
    return int(np.prod(tensor.shape)) * ((tensor.element_type.width + 7) // 8)
