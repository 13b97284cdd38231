"""Linux namespaces without bubblewrap: a command in a world of its own.

    python namespaces.py '{"binds": ["/usr"], ...}' command argument ...

The command becomes process 1 of new pid, network, IPC, host-name and mount namespaces.
Its file system holds the folders of `binds` read-only, the symbolic links of `links`,
the files of `files` read-only at other places, /proc, `devices` under /dev, and one
writable folder in memory, `scratch`. Runs by its path with the standard library alone.
Exit status 1 and one line on standard error where the system does not allow all this.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any, NoReturn

NEW_MOUNTS, NEW_NAMES, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USERS, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
NO_SUID, NO_DEVICES, BIND, RECURSIVE, PRIVATE = 2, 4, 4096, 16384, 1 << 18
DETACH = 2
SET_PARENT_DEATH_SIGNAL, DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES = 1, 24, 38
MOUNT_SETATTR = 442  # the same number on every architecture
HERE, ALL_BELOW = -100, 0x8000
READ_ONLY_ATTRIBUTES = 0x1 | 0x2  # read-only, no set-user-id
LAST_CAPABILITY = 63

library = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "users")
    ]


def call(name: str, *arguments: Any) -> None:
    """A function of the C library. Raises OSError where it fails."""
    if getattr(library, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    texts = [text.encode() for text in (source, target, kind)]
    call("mount", *texts, ctypes.c_ulong(flags), data.encode())


def make_read_only(target: str, depth: int) -> None:
    """Also all mounts below, where `depth` is ALL_BELOW."""
    attributes = MountAttributes(set=READ_ONLY_ATTRIBUTES)
    call(
        "syscall",
        ctypes.c_long(MOUNT_SETATTR),
        ctypes.c_int(HERE),
        target.encode(),
        ctypes.c_uint(depth),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def bind(source: str, target: str) -> None:
    """Shows a file or a folder of the old file system in the new one."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "a").close()
    mount(source, target, "", BIND | RECURSIVE)


def build_file_system(settings: dict[str, Any]) -> None:
    os.umask(0o022)  # folders that other users may pass
    mount("none", "/", "", RECURSIVE | PRIVATE)
    # The new root grows inside a file system in memory; the old one stays in reach
    # under /old until all is bound.
    mount("tmpfs", "/tmp", "tmpfs", NO_SUID, "mode=755")
    os.makedirs("/tmp/new")
    os.makedirs("/tmp/old")
    call("pivot_root", b"/tmp", b"/tmp/old")
    os.chdir("/")
    mount("/new", "/new", "", BIND)
    for folder in settings["binds"]:
        bind("/old" + folder, "/new" + folder)
        make_read_only("/new" + folder, ALL_BELOW)
    for source, target in settings["files"].items():
        bind("/old" + source, "/new" + target)
        make_read_only("/new" + target, 0)
    os.makedirs("/new/dev")
    for path, target in settings["links"].items():
        os.symlink(target, "/new" + path)
    for name in settings["devices"]:
        bind(f"/old/dev/{name}", f"/new/dev/{name}")
    os.makedirs("/new/proc")
    mount("proc", "/new/proc", "proc", NO_SUID | NO_DEVICES)
    scratch = "/new" + settings["scratch"]
    os.makedirs(scratch, exist_ok=True)
    size = f"mode=755,size={settings['scratch_bytes']},nr_inodes=10000"
    mount("tmpfs", scratch, "tmpfs", NO_SUID | NO_DEVICES, size)
    call("umount2", b"/old", DETACH)
    os.rmdir("/old")
    make_read_only("/new", 0)
    os.chdir("/new")
    call("pivot_root", b".", b".")
    call("umount2", b".", DETACH)
    os.chdir("/")


def become(settings: dict[str, Any], command: list[str]) -> NoReturn:
    """The work of process 1."""
    library.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    build_file_system(settings)
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in settings["kept_capabilities"]:
            # Fails for numbers that this kernel does not know.
            library.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    os.execv(command[0], command)


def main() -> int:
    settings, command = json.loads(sys.argv[1]), sys.argv[2:]
    user, group = os.getuid(), os.getgid()
    kinds = NEW_MOUNTS | NEW_NAMES | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
    try:
        if settings["privileged"]:
            call("unshare", kinds)
        else:
            call("unshare", kinds | NEW_USERS)
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        child = os.fork()
        if child == 0:
            become(settings, command)
    except OSError as fault:
        print(fault.strerror or fault, file=sys.stderr)
        os._exit(1)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(abs(main()))
