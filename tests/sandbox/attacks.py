"""Programs that try to hold more memory than they may, or to reach what is outside.

    python tests/sandbox/attacks.py

prints what becomes of each behind each kind of walls, as this user and, by root, as an
ordinary user too: the table of docs/concepts/sandbox.md.

Each defines `f()`, which returns how many bytes it holds beside what is counted of any
process, or whether it has reached anything: 0 where it was refused.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

MEMORY_BYTES = 128 << 20  # the limit that each tries to pass four times over

START = """
import ctypes, errno, fcntl, mmap, os, platform, resource, select, signal, socket
import struct, sys, time
GOAL = 512 << 20
MEGABYTE = b"x" * (1 << 20)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p
X86 = platform.machine() == "x86_64"
PARENT = os.getppid()
def call(result):
    if result in (-1, None, 2**64 - 1):
        raise OSError(ctypes.get_errno(), "refused")
    return result
def system_call(number, *arguments):
    return call(libc.syscall(ctypes.c_long(number), *arguments))
def fill(write):
    held = 0
    try:
        while held < GOAL:
            held += write()
    except (OSError, MemoryError):
        pass
    time.sleep(0.3)
    return held
def refused(attempt):
    try:
        attempt()
    except (OSError, MemoryError):
        return 0
    return 1
def in_children(number, work):
    # The sum of what several processes hold at the same time.
    reading, writing = os.pipe()
    done, wait = os.pipe()
    for _ in range(number):
        if os.fork() == 0:
            os.close(wait)
            try:
                held = work()
            except (OSError, MemoryError):
                held = 0
            os.write(writing, struct.pack("q", held))
            os.read(done, 1)
            os._exit(0)
    held = sum(struct.unpack("q", os.read(reading, 8))[0] for _ in range(number))
    time.sleep(0.3)
    os.close(wait)
    return held
"""

NAMESPACE = """
def fill_tmpfs():
    os.makedirs("held", exist_ok=True)
    call(libc.mount(b"none", b"held", b"tmpfs", ctypes.c_ulong(0), b"size=600m"))
    names = iter(range(1000))
    def write():
        with open(f"held/{next(names)}", "wb") as file:
            return file.write(MEGABYTE)
    return fill(write)
def map_user():
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {USER} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
USER = os.getuid()
NEW = 0x10000000 | 0x00020000
"""

# Name -> program; all but the first must end or get nothing, behind all walls.
MEMORY = {
    "tmpfs in a nested user namespace": NAMESPACE
    + """
def f():
    if refused(lambda: call(libc.unshare(NEW))):
        map_user()
        return fill_tmpfs()
    return 0
""",
    "the same by clone": NAMESPACE
    + """
def work():
    process = system_call(56 if X86 else 220, ctypes.c_long(NEW | 17), 0, 0, 0, 0)
    if process:
        return os.waitpid(process, 0) and 1
    map_user()
    os._exit(fill_tmpfs() > 0)
def f():
    return GOAL * refused(work)
""",
    "the same by clone3": NAMESPACE
    + """
def work():
    block = struct.pack("8Q", NEW, 0, 0, 0, 17, 0, 0, 0)
    process = system_call(435, block, ctypes.c_long(64))
    if process == 0:
        os._exit(0)
def f():
    return GOAL * refused(work)
""",
    "System V shared memory": """
def write():
    key = call(libc.shmget(0, ctypes.c_size_t(16 << 20), 0o1600))
    place = call(libc.shmat(key, None, 0))
    ctypes.memset(place, 1, 16 << 20)
    libc.shmdt(ctypes.c_void_p(place))
    return 16 << 20
def f():
    return fill(write)
""",
    "System V message queues": """
def write():
    key = call(libc.msgget(0, 0o1600))
    call(libc.msgsnd(key, struct.pack("q", 1) + b"x" * 8000, ctypes.c_size_t(8000), 0))
    return 8000
def f():
    return fill(write)
""",
    "POSIX message queues": """
def write():
    name = f"/q{time.monotonic_ns()}".encode()
    block = struct.pack("8q", 0, 10, 8192, 0, 0, 0, 0, 0)
    queue = call(libc.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, block))
    for _ in range(10):
        call(libc.mq_send(queue, b"x" * 8192, ctypes.c_size_t(8192), 0))
    return 81920
def f():
    return fill(write)
""",
    "anonymous files (memfd_create)": """
def write():
    file = os.memfd_create("held")
    return sum(os.write(file, MEGABYTE) for _ in range(12))
def f():
    return fill(write)
""",
    "secret anonymous files (memfd_secret)": """
def f():
    return GOAL * refused(lambda: system_call(447, 0))
""",
    "shared anonymous pages, dropped": """
def work():
    held = 0
    while held < 64 << 20:
        place = mmap.mmap(-1, 1 << 20)
        place[:] = MEGABYTE
        place.madvise(mmap.MADV_DONTNEED)
        kept.append(place)
        held += 1 << 20
    return held
kept = []
def f():
    return in_children(7, work)
""",
    "shared pages of /dev/zero": """
def work():
    with open("/dev/zero", "r+b") as file:
        for _ in range(64):
            place = mmap.mmap(file.fileno(), 1 << 20)
            place[:] = MEGABYTE
            place.madvise(mmap.MADV_DONTNEED)
            kept.append(place)
    return 64 << 20
kept = []
def f():
    return in_children(7, work)
""",
    "several processes": """
def work():
    kept.append(bytearray(b"x") * (50 << 20))
    return 50 << 20
kept = []
def f():
    return in_children(7, work)
""",
    "huge pages in pipes (vmsplice)": """
def write():
    place = call(libc.mmap(None, ctypes.c_size_t(4 << 20), 3, 0x22, -1, 0))
    start = (place + (1 << 21) - 1) >> 21 << 21
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(1 << 21), 14)
    ctypes.memset(start, 1, 1 << 21)
    _, writing = pipes.setdefault(len(pipes) // 16, os.pipe())
    block = struct.pack("2Q", start, 1)
    call(libc.vmsplice(writing, block, ctypes.c_size_t(1), 0))
    libc.munmap(ctypes.c_void_p(place), ctypes.c_size_t(4 << 20))
    return 1 << 21
pipes = {}
def f():
    return fill(write)
""",
    "pipes": """
def work():
    held = 0
    try:
        while True:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            kept.append((reading, writing))
            try:
                fcntl.fcntl(writing, 1031, 1 << 20)
            except OSError:
                pass
            try:
                while True:
                    held += os.write(writing, MEGABYTE)
            except BlockingIOError:
                pass
    except OSError:
        return held
kept = []
def f():
    return in_children(7, work)
""",
    "socket buffers": """
def work():
    held = 0
    try:
        while True:
            kept.append(socket.socketpair())
            for end in kept[-1]:
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
                try:
                    while True:
                        held += end.send(MEGABYTE)
                except BlockingIOError:
                    pass
    except OSError:
        return held
kept = []
def f():
    return in_children(7, work)
""",
    "TCP buffers": """
def work():
    held = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            while True:
                end = socket.create_connection(server.getsockname(), timeout=1)
                kept.extend([end, server.accept()[0]])
                end.setblocking(False)
                try:
                    while True:
                        held += end.send(MEGABYTE)
                except BlockingIOError:
                    pass
        except OSError:
            return held
kept = []
def f():
    return in_children(6, work)
""",
    "empty files": """
def write():
    os.makedirs(f"held{next(folders)}")
    for number in range(2000):
        os.close(os.open(f"held{folder[0]}/{number}", os.O_CREAT | os.O_WRONLY))
    folder[0] += 1
    return 2000 * 2048
folder = [0]
folders = iter(range(10**6))
def f():
    return fill(write)
""",
    "attributes of files": """
def write():
    name = f"file{next(names)}"
    open(name, "w").close()
    os.setxattr(name, "user.held", b"x" * 60000)
    return 60000
names = iter(range(10**6))
def f():
    return fill(write)
""",
    "files in the own folder": """
def write():
    with open(f"file{next(names)}", "wb") as file:
        return file.write(MEGABYTE)
names = iter(range(10**6))
def f():
    return fill(write)
""",
    "files in /dev/shm": """
def write():
    with open(f"/dev/shm/file{next(names)}", "wb") as file:
        return file.write(MEGABYTE)
names = iter(range(10**6))
def f():
    return fill(write)
""",
    "keys": """
def write():
    name = f"held{next(names)}".encode()
    system_call(248 if X86 else 217, b"user", name, b"x" * 30000, 30000, -4)
    return 30000
names = iter(range(10**6))
def f():
    return fill(write)
""",
    "rings (io_uring)": """
def write():
    block = ctypes.create_string_buffer(120)
    system_call(425, 32768, block)
    return 2 << 20
def f():
    return fill(write)
""",
    "huge pages (hugetlb)": """
def write():
    call(libc.mmap(None, ctypes.c_size_t(2 << 20), 3, 0x40022, -1, 0))
    return 2 << 20
def f():
    return fill(write)
""",
    "locked pages": """
def write():
    place = call(libc.mmap(None, ctypes.c_size_t(1 << 20), 3, 0x22, -1, 0))
    call(libc.mlock(ctypes.c_void_p(place), ctypes.c_size_t(1 << 20)))
    return 1 << 20
def f():
    return fill(write)
""",
    "kernel tables (bpf)": """
def f():
    block = struct.pack("4I", 2, 4, 1 << 20, 64) + bytes(104)
    return GOAL * refused(lambda: system_call(321 if X86 else 280, 0, block, 120))
""",
}  # fmt: skip

# Each returns 1 where it has reached what it may not.
REACH = {
    "affinity of the first process": """
def f():
    return refused(lambda: os.sched_setaffinity(PARENT, {min(os.sched_getaffinity(0))}))
""",
    "scheduler of the first process": """
def f():
    idle, parameter = os.SCHED_IDLE, os.sched_param(0)
    return refused(lambda: os.sched_setscheduler(PARENT, idle, parameter))
""",
    "scheduler of it, by sched_setattr": """
def f():
    block = struct.pack("2IQiI3Q", 48, 5, 0, 0, 0, 0, 0, 0)
    return refused(lambda: system_call(314 if X86 else 274, PARENT, block, 0))
""",
    "priority of the first process": """
def f():
    return refused(lambda: os.setpriority(os.PRIO_PROCESS, PARENT, 19))
""",
    "priority of all this user's processes": """
def f():
    return refused(lambda: os.setpriority(os.PRIO_USER, 0, 19))
""",
    "I/O priority of the first process": """
def f():
    return refused(lambda: system_call(251 if X86 else 30, 1, PARENT, 3 << 13))
""",
    "limits of the first process": """
def f():
    return refused(lambda: resource.prlimit(PARENT, resource.RLIMIT_NOFILE, (9, 9)))
""",
    "memory of the first process": """
def f():
    return refused(lambda: open(f"/proc/{PARENT}/mem", "rb"))
""",
    "tracing the first process": """
def f():
    return refused(lambda: call(libc.ptrace(16, PARENT, 0, 0)))
""",
    "hiding from it (PR_SET_DUMPABLE)": """
def f():
    return refused(lambda: call(libc.prctl(4, 0, 0, 0, 0)))
""",
    "the machine's host (vsock)": """
def f():
    return refused(lambda: socket.socket(40, socket.SOCK_STREAM))
""",
    "UDP": """
def f():
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"x", ("127.0.0.1", OUTSIDE_PORT))
            end.settimeout(0.3)
            end.recv(1)
    return refused(send)
""",
    "a UNIX socket by its path": """
def f():
    def connect():
        with socket.socket(socket.AF_UNIX) as end:
            end.connect("OUTSIDE_SOCKET")
    return refused(connect)
""",
    "mode of a file outside": """
def f():
    return refused(lambda: os.chmod("OUTSIDE_FILE", 0o777))
""",
    "times of a file outside": """
def f():
    return refused(lambda: os.utime("OUTSIDE_FILE", (0, 0)))
""",
    "signals to all": """
def f():
    return refused(lambda: os.kill(-1, 0)) if PARENT != 1 else 0
""",
    "more processes than allowed": """
def f():
    reading, writing = os.pipe()
    count = 0
    try:
        while count < 99:
            if os.fork() == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            count += 1
    except BlockingIOError:
        pass
    os.close(writing)
    return count != 7
""",
}  # fmt: skip

# What stays open, said by `Sandbox.describe()`, without walls as an ordinary user.
SAID = {
    "mode of a file outside": "change mode, times",
    "times of a file outside": "change mode, times",
    "files in the own folder": "fill the disk",
    "empty files": "fill the disk",
    "attributes of files": "fill the disk",
}


class Outside:
    """What the programs of REACH look for: a file, a UNIX socket and a UDP port of the
    user that the sandbox runs as."""

    def __init__(self, folder: Path):
        import socket

        self.file = folder / "outside"
        self.file.write_text("x")
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.bind(str(folder / "socket"))
        self.stream.listen()
        self.datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagram.bind(("127.0.0.1", 0))

    def fill_in(self, source: str) -> str:
        return (
            source.replace("OUTSIDE_FILE", str(self.file))
            .replace("OUTSIDE_SOCKET", self.stream.getsockname())
            .replace("OUTSIDE_PORT", str(self.datagram.getsockname()[1]))
        )

    def received(self) -> bool:
        import select

        return bool(select.select([self.stream, self.datagram], [], [], 0)[0])

    def close(self) -> None:
        self.stream.close()
        self.datagram.close()


def programs(outside: Outside) -> dict:
    """All attacks by name, with a test that passes where they get no more than that."""
    from seedjax.sandbox.sandbox import Program

    found = {}
    for most, sources in ((MEMORY_BYTES, MEMORY), (0, REACH)):
        for name, source in sources.items():
            found[name] = Program(
                source=START + outside.fill_in(source),
                test=f"def check(candidate):\n    assert candidate() <= {most}\n",
                entry_point="f",
            )
    return found


def verdict(outcome) -> str:
    """`outcome` of an attack in one word."""
    if outcome.passed:
        return "refused"
    return {"failed": "OPEN", "memory": "ended"}.get(outcome.reason, outcome.message)


def try_all(kind: str) -> dict[str, str]:
    """Name -> verdict behind one kind of walls, as this user."""
    import tempfile

    from seedjax.errors import InputError
    from seedjax.sandbox.sandbox import Limits, Sandbox

    limits = Limits(wall_seconds=20.0, cpu_seconds=20.0, memory_bytes=MEMORY_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        outside = Outside(Path(folder))
        attacks = programs(outside)
        try:
            with Sandbox(2, limits, kind) as sandbox:
                outcomes = sandbox.run(list(attacks.values()))
        except InputError as fault:
            return dict.fromkeys(attacks, f"not here: {fault}")
        finally:
            outside.close()
    return {n: verdict(o) for n, o in zip(attacks, outcomes, strict=True)}


def python_of_everyone() -> str | None:
    """A Python of this version that an ordinary user can start with our packages."""

    def reachable(path: str | Path) -> bool:
        place = Path(path).resolve()
        searchable = all(parent.stat().st_mode & 1 for parent in place.parents)
        return searchable and place.exists() and bool(place.stat().st_mode & 4)

    if not all(map(reachable, (Path(__file__), sysconfig.get_path("purelib")))):
        return None
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for path in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if reachable(path):
            return path
    return None


def as_ordinary_user(words: list[str], **options) -> subprocess.CompletedProcess:
    """Runs this Python's packages with `words` as nobody, by root."""
    paths = [str(Path(__file__).parents[2]), *[p for p in sys.path if p]]
    variables = {"PYTHONPATH": ":".join(paths), "PATH": os.environ["PATH"]}
    python = python_of_everyone()
    assert python is not None
    return subprocess.run(
        [python, "-B", *words],
        user=65534,
        group=65534,
        extra_groups=[],
        env=variables,
        cwd="/",
        text=True,
        **options,
    )


def main() -> None:
    from seedjax.sandbox.containment import launch

    columns = {kind: try_all(kind) for kind in launch.KINDS}
    if "--json" in sys.argv:
        print(json.dumps(columns))
        return
    users = {"root" if os.geteuid() == 0 else "user": columns}
    if os.geteuid() == 0 and python_of_everyone():
        done = as_ordinary_user([__file__, "--json"], stdout=-1, check=True)
        users["user"] = json.loads(done.stdout)
    heads = [(kind, user) for kind in launch.KINDS for user in users]
    print("| attack |", " | ".join(f"{kind}, {user}" for kind, user in heads), "|")
    print("|---" * (len(heads) + 1) + "|")
    for name in [*MEMORY, *REACH]:
        cells = [users[user][kind][name] for kind, user in heads]
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
