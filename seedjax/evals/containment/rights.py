"""What an untrusted process may no longer do, and what it leaves behind."""

import fcntl
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from seedjax.evals.containment.landlock import restrict
from seedjax.evals.containment.warm_process import (
    SET_CHILD_SUBREAPER,
    SET_NO_NEW_PRIVILEGES,
    SET_PARENT_DEATH_SIGNAL,
    control_process,
)

FOLDER_DESCRIPTORS = 200  # from here on: folders to import from


def enter(settings: dict[str, Any]) -> None:
    """What the first untrusted process does once, before it forks any child: takes in
    orphans, hides where this package lies, and sees `settings["readable"]` alone."""
    control_process(SET_CHILD_SUBREAPER, 1)
    sys.path.remove(os.environ.pop("PYTHONPATH"))
    if settings["user"] is not None:
        keep_python_in_reach()
    settings["folder"] = os.path.join(settings["scratch"], "task")
    os.umask(0o077)
    if settings["readable"]:
        restrict(settings["readable"], [settings["scratch"], os.devnull])


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
    for name, soft, hard in (
        ("CPU", cpu, cpu + 1),
        ("FSIZE", settings["file_bytes"], settings["file_bytes"]),
        ("CORE", 0, 0),
        ("NOFILE", settings["open_files"], settings["open_files"]),
        ("NPROC", settings["processes"], settings["processes"]),
        (settings["memory_limit"], settings["memory_bytes"], settings["memory_bytes"]),
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
