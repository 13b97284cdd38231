"""How the two sides are started, and which walls stand around the untrusted one.

bubblewrap  an own file system (the system and Python read-only, one folder in
            memory), own processes, no network: by the program `bwrap`
namespaces  the same walls, put up by namespaces.py
rlimits     none of them: limits on resources, another user where we are root, and
            what Landlock and seccomp can forbid
"""

import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from seedjax.sandbox.containment import landlock, seccomp

Isolation = Literal["bubblewrap", "namespaces", "rlimits"]
KINDS: tuple[Isolation, ...] = get_args(Isolation)

CONTAINMENT = Path(__file__).parent
ROOT = CONTAINMENT.parent.parent.parent  # of the package
INSIDE = "/sandbox"  # the same, inside walls
RUNNER = "seedjax.sandbox.containment.runner"
SCRIPT_RUNNER = "seedjax.sandbox.containment.script_runner"
CHECKER = "seedjax.sandbox.containment.checker"
GUARD = "seedjax.sandbox.containment.guard"
# -P: the folder of a script is not searched for modules; -s: nor is the home.
PYTHON = [sys.executable, "-P", "-s"]
# A worker has a user of its own, so that the limit on processes counts its own alone.
FIRST_USER, NUM_USERS = 60000, 5000
# What the untrusted side's first process needs to hand its children to that user and
# to clean up after them.
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
}
# To count a page that several of their processes share only once; does without.
SEES_SHARES = {"SYS_PTRACE": 19}
# Not /dev/zero, of which pages may be shared that nobody sees, nor terminals.
DEVICES = ("null", "full", "random", "urandom")
DEVICE_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}


def unprivileged_user(index: int) -> int | None:
    """The user that programs of worker `index` run as; None where we cannot change it,
    not being root."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return None
    user = FIRST_USER + (os.getpid() * 64 + index) % NUM_USERS
    if held_capabilities(CAPABILITIES) != CAPABILITIES:
        return None
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= user < first + count:
            return user
    return None


def held_capabilities(capabilities: dict[str, int]) -> dict[str, int]:
    """Those of them that this process has."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return {name: bit for name, bit in capabilities.items() if effective >> bit & 1}


def checker_command() -> tuple[list[str], dict[str, str]]:
    """The command that starts checker.py, and its environment."""
    variables = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONHASHSEED="0")
    return [sys.executable, "-P", "-m", CHECKER], variables


def runner_command(
    isolation: Isolation,
    settings: dict[str, Any],
    scratch_bytes: int,
    module: str = RUNNER,
    folders: Sequence[str] = (),
) -> tuple[list[str], dict[str, str]]:
    """The command that starts `module` with `settings` inside these walls, and all the
    environment variables that it has. It sees `folders` besides the system's own."""
    scratch, privileged = settings["scratch"], settings["user"] is not None
    folder = os.path.join(scratch, "task")
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT) if isolation == "rlimits" else INSIDE,
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        # One program is one process's worth of work.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if "LD_LIBRARY_PATH" in os.environ:  # some builds of Python do not start without
        variables["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    settings = settings | {"readable": [], "walled": isolation != "rlimits"}
    if isolation == "rlimits" and landlock.version():
        settings["readable"] = [*visible_folders(folders), "/proc", "/dev/urandom"]
    elif writes_nothing(isolation):
        settings["file_bytes"] = 0  # nothing else keeps files as they are
    words = [*PYTHON, "-m", module, json.dumps(settings)]
    shown = visible_folders(folders)
    if isolation == "bubblewrap":
        walls = bubblewrap(shown, scratch, scratch_bytes, privileged=privileged)
        return [*walls, "--", *words], variables
    if isolation == "namespaces":
        world = {
            "binds": shown,
            "links": visible_links() | DEVICE_LINKS,
            "files": own_files(),
            "scratch": scratch,
            "scratch_bytes": scratch_bytes,
            "devices": DEVICES,
            "kept_capabilities": list(kept_capabilities(privileged).values()),
            "privileged": privileged,
        }
        script = str(CONTAINMENT / "namespaces.py")
        return [*PYTHON, script, json.dumps(world), *words], variables
    return [*PYTHON, "-m", GUARD, scratch, *words], variables


def kept_capabilities(privileged: bool) -> dict[str, int]:
    """Of the untrusted side's first process, which programs never have."""
    return held_capabilities(CAPABILITIES | SEES_SHARES) if privileged else {}


def bubblewrap(
    folders: list[str], scratch: str, scratch_bytes: int, *, privileged: bool
) -> list[str]:
    words = [shutil.which("bwrap") or "bwrap"]
    shown = {folder: folder for folder in folders} | own_files()
    # Where bwrap makes these itself, they are closed to all users but root.
    parents = {
        str(parent) for place in shown.values() for parent in Path(place).parents
    }
    for parent in sorted(parents - {"/"}):
        if parent not in shown:
            words += ["--perms", "0755", "--dir", parent]
    for source, place in shown.items():
        words += ["--ro-bind", source, place]
    words += ["--proc", "/proc", "--perms", "0755", "--tmpfs", "/dev"]
    for name in DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for path, target in (visible_links() | DEVICE_LINKS).items():
        words += ["--symlink", target, path]
    words += ["--size", str(scratch_bytes), "--tmpfs", scratch]
    words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    words += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    words += ["--as-pid-1", "--die-with-parent", "--cap-drop", "ALL"]
    if not privileged:
        return [*words, "--unshare-user"]
    for name in kept_capabilities(privileged):
        words += ["--cap-add", f"CAP_{name}"]
    return words


def own_files() -> dict[str, str]:
    """The few files of this package that the untrusted side needs, and where it sees
    them: the whole folder would show it more of the checkout than that."""
    names = ["__init__", "runner", "script_runner", "python_script", "family"]
    names += ["rights", "wire", "warm_process", "landlock", "seccomp", "usage"]
    names += ["user_namespace"]
    files = [CONTAINMENT / f"{name}.py" for name in names]
    files += [folder / "__init__.py" for folder in list(CONTAINMENT.parents)[:2]]
    return {str(file): f"{INSIDE}/{file.relative_to(ROOT)}" for file in files}


def visible_folders(more: Sequence[str] = ()) -> list[str]:
    """The system's programs and libraries, this Python and its packages, and `more`."""
    paths = sysconfig.get_paths()
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    python += [paths["stdlib"], paths["platstdlib"]]
    folders = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store"]
    folders += ["/etc/ld.so.cache", "/etc/alternatives"]
    kept: list[str] = []
    python += more
    for folder in [*folders, *sorted(set(map(os.path.abspath, python)), key=len)]:
        if not os.path.exists(folder) or os.path.islink(folder) or folder == "/":
            continue
        if not any(folder == known or folder.startswith(known + "/") for known in kept):
            kept.append(folder)
    return kept


def visible_links() -> dict[str, str]:
    """Where the system keeps /lib and its like as links into /usr."""
    names = ("/lib", "/lib32", "/lib64", "/bin", "/sbin")
    return {name: os.readlink(name) for name in names if os.path.islink(name)}


def scratch_inside() -> str:
    """The writable folder inside walls: out of the way of a Python under /tmp."""
    under_tmp = any(folder.startswith("/tmp/") for folder in visible_folders())
    return "/scratch" if under_tmp else "/tmp"


def make_scratch(isolation: Isolation) -> str:
    """The folder that programs may write to; without walls a fresh one, which goes when
    the process that it is for has ended (see guard.py)."""
    if isolation != "rlimits":
        return scratch_inside()
    folder = tempfile.mkdtemp(prefix="seedjax-sandbox-")
    os.chmod(folder, 0o711)
    return folder


def unavailable(isolation: Isolation) -> str:
    """Why this isolation cannot be tried here; empty where it can."""
    if isolation == "bubblewrap" and shutil.which("bwrap") is None:
        return "the program bwrap is not on PATH"
    if isolation != "rlimits" and sys.platform != "linux":
        return "it needs Linux"
    return ""


def writes_nothing(isolation: Isolation) -> bool:
    """Where only that keeps programs from files that are not theirs."""
    return isolation == "rlimits" and landlock.version() == 0


def describe(isolation: Isolation, *, own_user: bool) -> str:
    """One line: what holds a program, and what does not."""
    user = "an unprivileged user" if own_user else "this user"
    filtered = seccomp.is_available()
    unbounded = "" if filtered else ", but memory that no process shows has no limit"
    if isolation != "rlimits":
        return (
            f"{isolation}, as {user}: no network, own processes, own file system with "
            "the system read-only and one folder in memory; limits on time and memory"
            f"{unbounded}"
        )
    named = [
        name
        for name, there in (("Landlock", landlock.version()), ("seccomp", filtered))
        if there
    ]
    return (
        f"{' and '.join(['rlimits', *named])}, as {user}: limits on time and memory"
        f"{unbounded}, but programs could {', '.join(left_open(own_user=own_user))}; "
        "install bubblewrap to contain them"
    )


def left_open(*, own_user: bool) -> list[str]:
    """Actions that are open to a program without walls."""
    known, filtered = landlock.version(), seccomp.is_available()
    found = ["learn which files and processes there are"]
    if known:
        found.append("fill the disk while they run")
    else:
        found.append("read this machine's files")
    if known and not own_user:
        found.append("change mode, times and attributes of this user's files")
    if known < landlock.SCOPE_VERSION and not own_user:
        found.append("stop or end this user's processes and leave their own running")
    if known == 0 and not own_user:
        found.append("find the tests in this user's memory")
    if not filtered:
        tcp = " (not by TCP)" if known >= landlock.TCP_VERSION else ""
        found.append(f"reach the network{tcp} and sockets of this machine's programs")
        found.append("leave shared memory allocated")
        if known == 0 and not own_user:
            found.append("remove this user's files")
    return found
