"""The untrusted side: forks one process a program, which answers questions about it.

It never sees a test. Whatever a program writes into its channel is an answer, right or
wrong, and never a verdict (see wire.py).
"""

import functools
import importlib
import json
import operator
import os
import random
import select
import socket
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from seedjax.sandbox.containment.family import kill_everything
from seedjax.sandbox.containment.rights import (
    FOLDER_DESCRIPTORS,
    empty,
    enter,
    give_up_rights,
    make_folder,
    own_state,
)
from seedjax.sandbox.containment.usage import LOOK_SECONDS, Watch
from seedjax.sandbox.containment.warm_process import settle, take_control
from seedjax.sandbox.containment.wire import (
    CONTROL_BYTES,
    OUT_OF_MEMORY,
    decode,
    encode,
    read_frame,
    read_frame_and_descriptors,
    write_body,
    write_frame,
)

# Imported before the first fork, so that no program pays for them.
WARM_MODULES = (
    "abc array ast base64 bisect calendar cmath collections contextlib copy "
    "dataclasses datetime decimal enum fractions functools hashlib heapq inspect io "
    "itertools math numbers pathlib queue re statistics string subprocess tempfile "
    "textwrap threading traceback typing unicodedata uuid"
).split()

OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **named: function(*arguments, **named),
    "get_attribute": getattr,
    "set_attribute": setattr,
    "get_item": operator.getitem,
    "set_item": operator.setitem,
    "delete_item": operator.delitem,
    "length": len,
    "iterate": iter,
    "next": next,
    "text": str,
    "representation": repr,
    "truth": bool,
    "equal": operator.eq,
}


class Answerer:
    """Loads one program and answers the questions that come through its channel."""

    def __init__(self, channel: socket.socket, task: dict[str, Any], limit: int):
        self.channel = channel
        self.task = task
        self.limit = limit
        self.objects: list[Any] = []
        self.spare = bytearray(1 << 20)  # freed when memory runs out, to say so

    def serve(self) -> None:
        """Answers until the other side closes the channel."""
        self.answer(self.load)
        while True:
            try:
                question = read_frame(self.channel, CONTROL_BYTES)
            except EOFError:
                return
            self.answer(functools.partial(self.operate, *question))

    def answer(self, work: Callable[[], Any]) -> None:
        try:
            reply = json.dumps(["value", *work()])
            if len(reply) > self.limit:
                raise ValueError(f"an answer of more than {self.limit} bytes")
        except MemoryError as fault:
            self.spare = bytearray()
            # The frames hold what filled the memory.
            fault.__traceback__ = fault.__context__ = None
            reply = json.dumps(["raise", ["MemoryError"], None, "out of memory"])
        except BaseException as fault:
            reply = json.dumps(self.describe(fault))
        write_body(self.channel, reply.encode())

    def describe(self, fault: BaseException) -> list[Any]:
        try:
            arguments = encode(list(fault.args), refuse)
        except Exception:
            arguments = None
        names = [kind.__name__ for kind in type(fault).__mro__]
        return ["raise", names, arguments, str(fault)[:1000]]

    def load(self) -> list[Any]:
        module = types.ModuleType("program")
        sys.modules["program"] = module
        code = compile(self.task["source"], "<program>", "exec", dont_inherit=True)
        exec(code, module.__dict__)
        name = self.task["entry_point"]
        if name not in module.__dict__:
            raise NameError(f"the program does not define {name}")
        self.objects.append(module.__dict__[name])
        return [["object", 0], None]

    def operate(self, operation: str, operands: Any, named: Any) -> list[Any]:
        find = self.objects.__getitem__
        values = decode(operands, find)
        answer = OPERATIONS[operation](*values, **decode(named, find))
        changed = None
        if self.task["in_place"] and operation == "call":
            after = encode(values, self.refer)
            changed = after if after != operands else None
        entry = self.objects[0]
        if isinstance(entry, type) and isinstance(answer, entry):
            # Also where the class derives from a plain type: its methods are needed.
            return [["object", self.refer(answer)], changed]
        return [encode(answer, self.refer), changed]

    def refer(self, value: Any) -> int:
        self.objects.append(value)
        return len(self.objects) - 1


def refuse(value: Any) -> int:
    raise TypeError(f"{type(value).__name__} is not plain data")


def run_program(
    channel: int, task: dict[str, Any], settings: dict[str, Any]
) -> NoReturn:
    """The forked process: gives up its rights, then runs the program."""
    try:
        os.setsid()
        os.dup2(channel, 3, inheritable=False)
        os.closerange(4, FOLDER_DESCRIPTORS)
        give_up_rights(settings)
        random.seed(0)  # what is drawn without a seed is the same every time
        connection = socket.socket(fileno=3)
        Answerer(connection, task, settings["answer_bytes"]).serve()
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        os._exit(1)


def await_end(
    control: socket.socket, program: int, watch: Watch, settings: dict[str, Any]
) -> str:
    """Waits for the next message; ends a program before that which holds more than it
    may, and says of what."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while not poll.poll(1000 * LOOK_SECONDS):
        over = watch.exceeded(settings["memory_bytes"], settings["processes"])
        if over:
            kill_everything(program, 0.0)
            return over
    return ""


def main() -> None:
    control = take_control()
    settings = json.loads(sys.argv[1])
    for name in WARM_MODULES:
        importlib.import_module(name)
    enter(settings)
    watch = Watch(settings["scratch"], walled=settings["walled"])
    settle(control)
    state = own_state()
    program, over = 0, ""
    while True:
        if program and not over:
            over = await_end(control, program, watch, settings)
        try:
            message, descriptors = read_frame_and_descriptors(control)
        except EOFError:
            if program and not over:
                kill_everything(program, 0.0)
            return
        if message["do"] == "run":
            make_folder(settings)
            watch.begin()
            program = os.fork()
            if program == 0:
                control.detach()
                run_program(descriptors[0], message, settings)
            os.close(descriptors[0])
        else:
            status = None
            if not over:
                status = kill_everything(program, message["patience_s"])
            reply = {"status": status, "over": over}
            program, over = 0, ""
            # What cannot be undone ends this process, and another takes its place.
            empty(settings["scratch"])
            if own_state() != state:
                return
            write_frame(control, reply)


if __name__ == "__main__":
    main()
