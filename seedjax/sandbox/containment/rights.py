"""Rights that an untrusted process gives up, and what remains of it."""

import fcntl
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from seedjax.sandbox.containment import landlock, seccomp, user_namespace
from seedjax.sandbox.containment.warm_process import (
    SET_CHILD_SUBREAPER,
    SET_DUMPABLE,
    SET_NO_NEW_PRIVILEGES,
    SET_PARENT_DEATH_SIGNAL,
    control_process,
)

FOLDER_DESCRIPTORS = 200  # from here on: folders to import from
# Limits that whoever started us may have set one way or another: soft, hard.
FIXED_LIMITS = {
    "CORE": (0, 0),
    "STACK": (8 << 20, 8 << 20),
    "MEMLOCK": (64 << 10, 64 << 10),
    "MSGQUEUE": (0, 0),
    "SIGPENDING": (1024, 1024),
    "NICE": (0, 0),
    "RTPRIO": (0, 0),
}


def enter(settings: dict[str, Any]) -> None:
    """Prepares the first untrusted process before it forks any child: takes in
    orphans, hides where this package lies, and sees `settings["readable"]` alone."""
    control_process(SET_CHILD_SUBREAPER, 1)
    sys.path.remove(os.environ.pop("PYTHONPATH"))
    if settings["user"] is not None:
        keep_python_in_reach()
    settings["others"] = user_namespace.count_others(settings)
    settings["folder"] = os.path.join(settings["scratch"], "task")
    os.umask(0o077)
    if settings["readable"]:
        landlock.restrict(settings["readable"], [settings["scratch"], os.devnull])


def make_folder(settings: dict[str, Any]) -> None:
    """The folder of one task, which belongs to the user that its program runs as."""
    os.mkdir(settings["folder"])
    own(settings["folder"], settings)


def own(path: str, settings: dict[str, Any]) -> None:
    if settings["user"] is not None:
        os.chown(path, settings["user"], settings["user"])


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
    processes = settings["processes"] + settings["others"]
    limits = FIXED_LIMITS | {
        "CPU": (cpu, cpu + 1),
        "FSIZE": (settings["file_bytes"], settings["file_bytes"]),
        "NOFILE": (settings["open_files"], settings["open_files"]),
        "NPROC": (processes, processes),
        settings["memory_limit"]: (settings["memory_bytes"], settings["memory_bytes"]),
    }
    for name, (soft, hard) in limits.items():
        limit = getattr(resource, f"RLIMIT_{name}", None)
        if limit is None:
            continue  # not of this system
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
    if sys.platform == "linux" and not settings["walled"]:
        landlock.confine_signals()
    control_process(SET_DUMPABLE, 1)  # so that the first process sees what it holds
    if seccomp.is_available():
        seccomp.refuse_calls(
            walled=settings["walled"], files=settings["file_bytes"] > 0
        )
    signal.signal(signal.SIGINT, signal.default_int_handler)


def own_state() -> list[Any]:
    """Settings that a process of the same user could have changed about this one."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    state: list[Any] = [resource.getrlimit(getattr(resource, n)) for n in names]
    if sys.platform == "linux":
        state += [os.sched_getaffinity(0), os.sched_getscheduler(0)]
    return [*state, os.getpriority(os.PRIO_PROCESS, 0)]


def empty(folder: str) -> None:
    """Removes all that is in a folder, however deep and closed: it goes down and up by
    single steps, which have no length."""
    here = os.getcwd()
    os.chdir(folder)
    above: list[str] = []
    while True:
        inner = remove_files()
        if inner is not None:
            os.chmod(inner, 0o700)
            os.chdir(inner)
            above.append(inner)
        elif above:
            os.chdir("..")
            os.rmdir(above.pop())
        else:
            break
    os.chdir(here)


def remove_files() -> str | None:
    """Removes files of the current folder up to the first folder, which it returns."""
    with os.scandir(".") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name)
    return None
