"""The untrusted side: forks one process a program, which answers questions about it.

It never sees a test. Whatever a program writes into its channel is an answer, right or
wrong, and never a verdict (see wire.py).
"""

import contextlib
import fcntl
import functools
import importlib
import json
import operator
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from seedjax.evals.containment.landlock import restrict
from seedjax.evals.containment.warm_process import (
    SET_CHILD_SUBREAPER,
    SET_NO_NEW_PRIVILEGES,
    SET_PARENT_DEATH_SIGNAL,
    control_process,
    settle,
    take_control,
)
from seedjax.evals.containment.wire import (
    CONTROL_BYTES,
    OUT_OF_MEMORY,
    decode,
    encode,
    read_frame,
    read_frame_and_descriptors,
    write_body,
    write_frame,
)

FOLDER_DESCRIPTORS = 200  # from here on: folders to import from

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
            # Also where the class derives from a plain type: its methods are wanted.
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
    """What the forked process does: gives up its rights, then runs the program."""
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


def keep_python_in_reach() -> None:
    """Where Python lies below a folder that is closed to other users, such as the home
    of root, leaves open descriptors by which they still import from it."""
    renamed = {}
    for place in sys.path:
        folders = [os.path.join(place, ""), *map(str, Path(place).parents)]
        if os.path.isdir(place) and not all(os.stat(f).st_mode & 1 for f in folders):
            opened = os.open(place, os.O_PATH | os.O_DIRECTORY)
            kept = fcntl.fcntl(opened, fcntl.F_DUPFD, FOLDER_DESCRIPTORS)
            os.close(opened)
            renamed[place] = f"/proc/self/fd/{kept}"

    def rename(path: str) -> str:
        for place, descriptor in renamed.items():
            if path == place or path.startswith(place + "/"):
                return descriptor + path[len(place) :]
        return path

    sys.path[:] = map(rename, sys.path)
    for module in list(sys.modules.values()):
        searched = getattr(module, "__path__", None)
        if isinstance(searched, list):
            searched[:] = map(rename, searched)
    sys.path_importer_cache.clear()


def give_up_rights(settings: dict[str, Any]) -> None:
    """Own folder, unprivileged user, limits; from here on nothing can be got back."""
    os.chdir(settings["folder"])
    # One second more to the hard limit: the soft one ends with a signal of its own.
    cpu = settings["cpu_seconds"]
    for name, soft, hard in (
        ("CPU", cpu, cpu + 1),
        ("FSIZE", settings["file_bytes"], settings["file_bytes"]),
        ("CORE", 0, 0),
        ("NOFILE", 64, 64),
        ("NPROC", settings["processes"], settings["processes"]),
        ("AS", settings["memory_bytes"], settings["memory_bytes"]),
    ):
        limit = getattr(resource, f"RLIMIT_{name}")
        _, most = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(limit, (soft, hard))
    if settings["user"] is not None:
        os.setgroups([])
        os.setresgid(*[settings["user"]] * 3)
        os.setresuid(*[settings["user"]] * 3)
    control_process(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    control_process(SET_NO_NEW_PRIVILEGES, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def kill_everything(program: int, patience_s: float) -> int | None:
    """Ends every process that the program has left and reaps it.

    Returns the wait status with which the program had ended by itself, waiting for that
    for `patience_s`; None if it was still running.
    """
    status = None
    deadline = time.monotonic() + patience_s
    while True:
        ended, found = os.waitpid(program, os.WNOHANG)
        if ended:
            status = found
        if ended or time.monotonic() >= deadline:
            break
        time.sleep(0.002)
    if os.getpid() == 1:
        try:
            os.kill(-1, signal.SIGKILL)  # all of this namespace, at once
        except ProcessLookupError:
            return status
    else:
        kill_family(set() if ended else {program})
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return status


def kill_family(known: set[int]) -> None:
    """Kills all descendants, those known among them. They are stopped first, for a
    stopped process cannot fork, and orphans come to this process as their reaper."""
    stopped: set[int] = set()
    while fresh := (descendants() | known) - stopped:
        for process in fresh:
            send_signal(process, signal.SIGSTOP)
        stopped |= fresh
    for process in stopped:
        send_signal(process, signal.SIGKILL)


def send_signal(process: int, number: int) -> None:
    # It may have ended in the meantime.
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def descendants() -> set[int]:
    found: set[int] = set()
    fresh = [os.getpid()]
    while fresh:
        children = children_of(fresh.pop())
        fresh += children - found
        found |= children
    return found


def children_of(process: int) -> set[int]:
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children") as file:
                found |= {int(word) for word in file.read().split()}
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def own_state() -> list[Any]:
    """What a process of the same user could have changed about this one."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    limits: list[Any] = [resource.getrlimit(getattr(resource, n)) for n in names]
    return [*limits, os.getpriority(os.PRIO_PROCESS, 0)]


def empty(folder: str) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def main() -> None:
    control = take_control()
    settings = json.loads(sys.argv[1])
    control_process(SET_CHILD_SUBREAPER, 1)
    for name in WARM_MODULES:
        importlib.import_module(name)
    sys.path.remove(os.environ.pop("PYTHONPATH"))  # where this file was found
    if settings["user"] is not None:
        keep_python_in_reach()
    folder = settings["folder"] = os.path.join(settings["scratch"], "task")
    os.umask(0o077)
    if settings["readable"]:
        restrict(settings["readable"], [settings["scratch"], os.devnull])
    settle(control)
    state = own_state()
    program = 0
    while True:
        try:
            message, descriptors = read_frame_and_descriptors(control)
        except EOFError:
            if program:
                kill_everything(program, 0.0)
            return
        if message["do"] == "run":
            os.mkdir(folder)
            if settings["user"] is not None:
                os.chown(folder, settings["user"], settings["user"])
            program = os.fork()
            if program == 0:
                control.detach()
                run_program(descriptors[0], message, settings)
            os.close(descriptors[0])
        else:
            status = kill_everything(program, message["patience_s"])
            program = 0
            # What cannot be undone ends this process, and another takes its place.
            empty(settings["scratch"])
            if own_state() != state:
                return
            write_frame(control, {"status": status})


if __name__ == "__main__":
    main()
