"""The trusted side: runs a test against a stand-in for what the program defines.

The test and its expected answers live here, in a process of their own; the program runs
in another, contained one. `check(candidate)` gets a `Remote`, which carries each call
over and brings plain data back (see wire.py). The verdict is the end of `check`
itself, so there is nothing that a program could forge.

What a test may do with an answer that is not plain data: call it, read and set its
attributes, index it, iterate, `len`, `str`, `repr`, `bool`, and `==` between two of
them. Against plain data `==` is always False, `in` goes through iteration, and
arithmetic and order are a TypeError: a method of the program's would else be told the
expected answer, and could agree with it.
"""

import builtins
import contextlib
import functools
import json
import math
import os
import random
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from types import CodeType
from typing import Any

from seedjax.sandbox.containment.warm_process import settle, take_control
from seedjax.sandbox.containment.wire import (
    decode,
    encode,
    read_frame,
    read_frame_and_descriptors,
    write_frame,
)

MESSAGE_LENGTH = 200


class ProgramFault(Exception):
    """An exception of a program that is no built-in one."""


class Ended(ProgramFault):
    """The program's process has gone, or its channel carries no answers."""


class Unsupported(Exception):
    """The test needs something that cannot be carried over."""


class Channel:
    """Questions to the program's process, and its answers."""

    def __init__(self, connection: socket.socket, answer_bytes: int, in_place: bool):
        self.connection = connection
        self.answer_bytes = answer_bytes
        self.in_place = in_place
        self.fault: Exception | None = None  # the first that ends the whole task
        self.raised: Exception | None = None  # the last one that the program raised
        self.raised_text = ""

    def ask(self, operation: str, *operands: Any, **named: Any) -> Any:
        if self.fault is not None:
            raise self.fault
        try:
            question = [operation, encode(list(operands), number_of)]
            question.append(encode(named, number_of))
        except Unsupported as fault:
            self.fault = fault
            raise
        # Where it has gone, `receive` sees whether it has left an answer.
        with contextlib.suppress(OSError):
            write_frame(self.connection, question)
        answer, changed = self.receive(ends_iteration=operation == "next")
        if self.in_place and changed is not None:
            for old, new in zip(operands, changed, strict=True):
                copy_back(old, new)
        return answer

    def receive(self, *, ends_iteration: bool = False) -> tuple[Any, Any]:
        """The answer, and the operands as the program has left them, if changed."""
        try:
            reply = read_frame(self.connection, self.answer_bytes)
            kind, *parts = reply
            if kind == "value":
                answer, changed = (decode(part, self.remote) for part in parts)
                return answer, changed
            names, arguments, text = parts
            if not ends_iteration and "StopIteration" in names:
                # It would quietly end the loop of a test that maps `candidate`.
                fault: Exception = ProgramFault(f"{names[0]}: {text}")
            else:
                fault = rebuild(names, decode(arguments, self.remote), str(text))
            fault_text = f"{names[0]}: {text}"
        except (EOFError, OSError):
            self.fault = Ended("the program ended before its test did")
            raise self.fault from None
        except (ValueError, TypeError, LookupError, RecursionError) as why:
            self.fault = Ended(f"no answer can be read: {why}")
            raise self.fault from None
        self.raised, self.raised_text = fault, fault_text
        raise fault

    def remote(self, number: Any) -> "Remote":
        if type(number) is not int:
            raise ValueError(f"not the number of an object: {number!r}")
        return Remote(self, number)


class Remote:
    """Stands for an object that stays in the program's process."""

    __slots__ = ("__channel", "__number")

    def __init__(self, channel: Channel, number: int):
        object.__setattr__(self, "_Remote__channel", channel)
        object.__setattr__(self, "_Remote__number", number)

    def __call__(self, /, *arguments: Any, **named: Any) -> Any:
        return self.__channel.ask("call", self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return self.__channel.ask("get_attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__channel.ask("set_attribute", self, name, value)

    def __getitem__(self, index: Any) -> Any:
        return self.__channel.ask("get_item", self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.__channel.ask("set_item", self, index, value)

    def __delitem__(self, index: Any) -> None:
        self.__channel.ask("delete_item", self, index)

    def __len__(self) -> int:
        return self.__channel.ask("length", self)

    def __iter__(self) -> Iterator[Any]:
        return self.__channel.ask("iterate", self)

    def __next__(self) -> Any:
        return self.__channel.ask("next", self)

    def __str__(self) -> str:
        return self.__channel.ask("text", self)

    def __repr__(self) -> str:
        return self.__channel.ask("representation", self)

    def __bool__(self) -> bool:
        return self.__channel.ask("truth", self)

    def __eq__(self, other: object) -> bool:
        if type(other) is not Remote:
            return False
        return self.__channel.ask("equal", self, other) is True

    def __hash__(self) -> int:
        return hash(number_of(self))


def number_of(value: Any) -> int:
    if type(value) is Remote:
        return object.__getattribute__(value, "_Remote__number")
    kind = type(value).__name__
    raise Unsupported(f"an argument of type {kind} cannot be handed to the program")


def rebuild(names: list[str], arguments: Any, text: str) -> Exception:
    """The nearest built-in exception of those named, most special first."""
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(*(arguments if arguments is not None else [text]))
            except TypeError:
                break
    return ProgramFault(f"{names[0]}: {text}")


def copy_back(old: Any, new: Any) -> None:
    """Gives a mutable argument the content that the program left in it."""
    if type(old) is not type(new):
        return
    if isinstance(old, list | bytearray):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)


@functools.lru_cache(maxsize=32)
def compile_test(test: str) -> CodeType:
    return compile(test, "<test>", "exec", dont_inherit=True)


def judge(code: CodeType, task: dict[str, Any], channel: Channel) -> tuple[str, str]:
    """Runs the test. The reason and the message of the outcome."""
    try:
        candidate, _ = channel.receive()
        namespace = {"__name__": "test", task["entry_point"]: candidate}
        exec(code, namespace)
        check = namespace["check"]
        # The test may bring a stub of that name, as a HumanEval prompt is one.
        namespace[task["entry_point"]] = candidate
        check(candidate)
    except BaseException as fault:
        return explain(fault, task["test"], channel)
    # A test that swallows every exception has not seen that the program is gone.
    if channel.fault is not None:
        return explain(channel.fault, task["test"], channel)
    return "passed", ""


def explain(fault: BaseException, test: str, channel: Channel) -> tuple[str, str]:
    if channel.fault is not None:
        fault = channel.fault
    if isinstance(fault, Ended):
        return "crashed", str(fault)
    if isinstance(fault, Unsupported):
        return "unsupported", str(fault)
    if fault is channel.raised:
        reason = "memory" if isinstance(fault, MemoryError) else "error"
        return reason, channel.raised_text
    text = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
    where = [
        frame.lineno
        for frame in traceback.extract_tb(fault.__traceback__)
        if frame.filename == "<test>" and frame.lineno is not None
    ]
    if where:
        text += f" at line {where[-1]} of the test: " + test.splitlines()[where[-1] - 1]
    if isinstance(fault, MemoryError):
        return "memory", text
    return ("unsupported" if isinstance(fault, NameError) else "failed"), text


def run_test(descriptors: list[int], task: dict[str, Any]) -> None:
    """The forked process: one test, whose verdict goes into a pipe."""
    channel_end, verdict_end = descriptors
    cpu = math.ceil(task["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (task["memory_bytes"],) * 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed(0)
    channel = Channel(
        socket.socket(fileno=channel_end), task["answer_bytes"], task["in_place"]
    )
    reason, message = judge(compile_test(task["test"]), task, channel)
    message = " ".join(message.split())[:MESSAGE_LENGTH]
    # Part of it is the program's: it may not write to a terminal what it likes.
    message = "".join(letter if letter.isprintable() else "?" for letter in message)
    with os.fdopen(verdict_end, "w") as file:
        json.dump([reason, message], file)


def main() -> None:
    control = take_control()
    settle(control)
    child = 0
    while True:
        try:
            message, descriptors = read_frame_and_descriptors(control)
        except EOFError:
            if child:
                os.kill(child, signal.SIGKILL)
            return
        if message["do"] == "run":
            compile_test(message["test"])  # before the fork, for the samples to come
            child = os.fork()
            if child == 0:
                try:
                    control.close()
                    run_test(descriptors, message)
                finally:
                    os._exit(0)
            for descriptor in descriptors:
                os.close(descriptor)
            write_frame(control, {"started": True})
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
            write_frame(control, {"status": None})


if __name__ == "__main__":
    main()
