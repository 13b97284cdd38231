"""The untrusted side of whole programs: writes their files, starts them one at a time,
and tells how each ended.

A command gets `seconds` of wall-clock time, counted here, and its memory for all its
processes and new files together (see usage.py), looked at fifty times a second: a limit
of one process does not hold many, and of the address space none holds a virtual
machine's that reserves more than it uses.
"""

import json
import os
import random
import select
import socket
import stat
import sys
import time
import traceback
from typing import Any, NoReturn

from seedjax.sandbox.containment import python_script
from seedjax.sandbox.containment.family import kill_everything
from seedjax.sandbox.containment.rights import (
    FOLDER_DESCRIPTORS,
    empty,
    enter,
    give_up_rights,
    make_folder,
    own,
    own_state,
)
from seedjax.sandbox.containment.usage import Watch
from seedjax.sandbox.containment.warm_process import settle, take_control
from seedjax.sandbox.containment.wire import (
    OUT_OF_MEMORY,
    read_frame_and_descriptors,
    write_frame,
)

OUTPUT = "output"  # beside the folder of the task, out of reach of its program
SHOWN_BYTES = 64 << 10  # of the output, from its end
NOT_STARTED = 127  # exit status
MODE = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def write_files(files: dict[str, str], settings: dict[str, Any]) -> None:
    for name, text in files.items():
        path = os.path.join(settings["folder"], name)
        missing = []
        folder = os.path.dirname(path)
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            os.mkdir(folder)
            own(folder, settings)
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
        own(path, settings)


def start(
    message: dict[str, Any], descriptors: list[int], settings: dict[str, Any]
) -> NoReturn:
    """The forked process: gives up its rights and becomes the program."""
    try:
        os.setsid()
        for number in (1, 2):
            os.dup2(message["output"], number)
        if descriptors:
            os.dup2(descriptors[0], 3, inheritable=False)
        os.closerange(4 if descriptors else 3, FOLDER_DESCRIPTORS)
        give_up_rights(settings | message["limits"])
        if descriptors:
            random.seed(0)
            python_script.run(socket.socket(fileno=3), message)
            os._exit(0)
        words = message["words"]
        try:
            os.execve(words[0], words, os.environ | message["variables"])
        except OSError as fault:
            os.write(2, f"{words[0]} cannot be started: {fault.strerror}\n".encode())
            os._exit(NOT_STARTED)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def execute(
    control: socket.socket,
    message: dict[str, Any],
    descriptors: list[int],
    settings: dict[str, Any],
    watch: Watch,
) -> dict[str, Any]:
    """Runs one command until all its processes are gone. How that came about."""
    path = os.path.join(settings["scratch"], OUTPUT)
    place = os.devnull if settings["file_bytes"] == 0 else path
    message["output"] = os.open(place, MODE, 0o600)
    watch.begin()
    begin = time.monotonic()
    program = os.fork()
    if program == 0:
        control.detach()
        start(message, descriptors, settings)
    for descriptor in descriptors:
        os.close(descriptor)
    memory_bytes = message["limits"]["memory_bytes"]
    poll = select.poll()
    poll.register(control, select.POLLHUP)
    over = ""

    def spoiled() -> bool:
        nonlocal over
        over = watch.exceeded(memory_bytes, settings["processes"])
        return over != "" or bool(poll.poll(0))

    status = kill_everything(program, message["seconds"], spoiled)
    reply = {
        "status": status,
        "over": over,
        "seconds": time.monotonic() - begin,
        "output": end_of(message["output"]),
    }
    os.close(message["output"])
    emitted = message.get("emitted", "")
    path = os.path.join(settings["folder"], emitted)
    reply["emitted"] = emitted != "" and os.path.exists(path)
    return reply


def end_of(file: int) -> str:
    state = os.fstat(file)
    if not stat.S_ISREG(state.st_mode):
        return ""
    size = state.st_size
    data = os.pread(file, SHOWN_BYTES, max(0, size - SHOWN_BYTES))
    return data.decode(errors="replace")


def main() -> None:
    control = take_control()
    settings = json.loads(sys.argv[1])
    enter(settings)
    if settings["open_scratch"]:
        os.chmod(settings["scratch"], 0o1777)  # tests may write to /tmp by name
    watch = Watch(settings["scratch"], walled=settings["walled"])
    settle(control)
    state = own_state()
    while True:
        try:
            message, descriptors = read_frame_and_descriptors(control)
        except EOFError:
            return
        if message["do"] == "begin":
            make_folder(settings)
            write_files(message["files"], settings)
            write_frame(control, {})
        elif message["do"] == "execute":
            reply = execute(control, message, descriptors, settings, watch)
            write_frame(control, reply)
        else:
            # What cannot be undone ends this process, and another takes its place.
            empty(settings["scratch"])
            if own_state() != state:
                return
            write_frame(control, {})


if __name__ == "__main__":
    main()
