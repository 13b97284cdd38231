"""Several processes that are one JAX program: how they meet, and how they end.

    with together(coordinator="10.0.0.1:1234", count=4, index=0):
        train(...)

Every process runs the same code; the first one (`is_first`) alone writes files and
prints. They meet through JAX's coordination service, which the first process hosts. Its
key-value store is also how they agree (`Board`), how a fault of one is made known to
all, and how one that died is noticed: a thread of each process keeps a counter going.
Without that, a process whose peer is gone waits in a collective for ever.

Nothing here touches a device, and nothing does before `together`.
"""

import atexit
import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from seedjax.errors import InputError, RefusedError

MEET_S = 25.0  # until all processes must have met that were started by hand
MEET_CLUSTER_S = 300.0  # ... by a launcher: a cluster's hosts start minutes apart
POLL_S = 0.5  # between two checks for faults
SILENT_S = 25.0  # without a sign of life, after which a process counts as dead
LEAVE_S = 8.0  # that the first process waits for the others to leave after a fault
HEARTBEAT_S = 60  # JAX's own limit, which aborts without a word; ours comes first

_board: "Board | None" = None


def is_first() -> bool:
    """Whether this is the process that writes files and prints: the only one, or number
    0 of several. Also true to what called `jax.distributed.initialize` itself."""
    return process_index() == 0


def process_index() -> int:
    """The number of this process, from 0, without starting a device."""
    return _state().process_id if _is_one_of_many() else 0


def process_count() -> int:
    """How many processes there are, without starting a device."""
    return _state().num_processes if _is_one_of_many() else 1


def _is_one_of_many() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _state() -> Any:
    from jax._src import distributed  # its client has no public name

    return distributed.global_state


@dataclass(frozen=True)
class Meeting:
    """Where processes meet.

    Attributes:
      coordinator: "HOST:PORT", where process 0 listens.
      count: number of processes.
      index: of this one, from 0.
      devices: numbers of the local devices that this one takes; None for all.
      limit_s: seconds after which all must have met.
    """

    coordinator: str
    count: int
    index: int
    devices: list[int] | None = None
    limit_s: float = MEET_CLUSTER_S


def find_meeting(
    coordinator: str = "",
    count: int | None = None,
    index: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Meeting | None:
    """Where to meet, from arguments, or else from what started this process: Slurm
    (`srun`), Open MPI, a Cloud TPU slice, or the variables JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID (in an indexed Job or a JobSet of Kubernetes:
    JOB_COMPLETION_INDEX). None for a process by itself.

    Raises:
      InputError: if something is missing or out of range.
    """
    found, by_hand = _found(environment), coordinator != ""
    if not (by_hand or count or index is not None) and found is None:
        return None
    found = found or Meeting("", 0, -1)
    coordinator = coordinator or found.coordinator
    count = found.count if count is None else count
    index = found.index if index is None else index
    missing = {
        "--coordinator HOST:PORT": not coordinator,
        "--processes N": count == 0,
        "--process-index I": index < 0,
    }
    if any(missing.values()):
        names = " and ".join(name for name, lacks in missing.items() if lacks)
        raise InputError(
            f"several processes are to meet, but {names} is missing; give it to each "
            "of them, --process-index from 0"
        )
    if not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise InputError(
            f"--coordinator is {coordinator!r}; it must be HOST:PORT of process 0, "
            "such as 10.0.0.1:1234"
        )
    if not 0 <= index < count:
        raise InputError(
            f"--process-index is {index}; with --processes {count} it must be from 0 "
            f"to {count - 1}"
        )
    limit = MEET_S if by_hand else MEET_CLUSTER_S
    if count == 1:
        return None
    return Meeting(coordinator, count, index, found.devices, limit)


def _found(environment: Mapping[str, str]) -> Meeting | None:
    """A launcher's settings in the environment; parts it leaves out are empty."""

    def number(*names: str, default: int) -> int:
        values = [environment[name] for name in names if name in environment]
        return int(values[0]) if values and values[0].isdecimal() else default

    address = environment.get("JAX_COORDINATOR_ADDRESS", "")
    if address and "JAX_NUM_PROCESSES" in environment:
        index = number("JAX_PROCESS_ID", "JOB_COMPLETION_INDEX", default=-1)
        return Meeting(address, number("JAX_NUM_PROCESSES", default=0), index)
    tasks = number("SLURM_STEP_NUM_TASKS", default=1)
    if tasks > 1 and "SLURM_STEP_NODELIST" in environment:
        nodes = number("SLURM_STEP_NUM_NODES", default=1)
        local = number("SLURM_LOCALID", default=0)
        visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        # Several tasks of a node that all see its GPUs take one each.
        devices = [local] if tasks > nodes and len(visible) > 1 else None
        address = address or _coordinator_of("slurm")
        return Meeting(address, tasks, number("SLURM_PROCID", default=-1), devices)
    ranks = number("OMPI_COMM_WORLD_SIZE", default=1)
    if ranks > 1:
        if "OMPI_MCA_orte_hnp_uri" in environment:  # Open MPI 5 has none
            address = address or _coordinator_of("ompi")
        return Meeting(address, ranks, number("OMPI_COMM_WORLD_RANK", default=-1))
    return _found_tpu(environment)


def _found_tpu(environment: Mapping[str, str]) -> Meeting | None:
    names = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    # It may hold a warning in place of names.
    on_kubernetes = len(names) > 1 and all(re.fullmatch(r"[\w.:-]+", n) for n in names)
    if not on_kubernetes and "TPU_SKIP_MDS_QUERY" in environment:
        return None
    from jax._src import cloud_tpu_init  # true only where there are TPU chips

    if not cloud_tpu_init.running_in_cloud_tpu_vm:
        return None
    kind = "gketpu" if on_kubernetes else "gcetpu"
    cluster = _cluster(kind)
    try:
        if not cluster.is_env_present():
            return None
        count, index = cluster.get_process_count(), cluster.get_process_id()
        address = _coordinator_of(kind) if count > 1 else "localhost:0"
    except Exception as error:  # whatever asking a metadata server raises
        raise InputError(
            f"this is a TPU host, but its slice is unknown ({type(error).__name__}: "
            f"{error}); give --coordinator, --processes and --process-index"
        ) from error
    return Meeting(address, count, index)


def _cluster(name: str) -> Any:
    from jax._src.clusters import ClusterEnv  # what `initialize` detects with

    return next(kind for kind in ClusterEnv._cluster_types if kind.name == name)


def _coordinator_of(name: str) -> str:
    port = os.environ.get("JAX_COORDINATOR_PORT")
    return _cluster(name).get_coordinator_address(
        timeout_secs=int(MEET_CLUSTER_S), override_coordinator_port=port
    )


@contextlib.contextmanager
def together(
    coordinator: str = "", count: int | None = None, index: int | None = None
) -> Iterator[None]:
    """Joins the other processes for as long as the block lasts; does nothing for a
    process by itself. Arguments as for `find_meeting`.

    A block that raises ends all processes: each says why in one line on standard error,
    with the exit code of `InputError` or 1.

    Raises:
      InputError: if the processes have not met in time.
    """
    meeting = find_meeting(coordinator, count, index)
    if meeting is None or _is_one_of_many():
        yield
        return
    board = _meet(meeting)
    try:
        yield
    except BaseException as error:
        board.fail(error)
        raise
    board.finish()


def _meet(meeting: Meeting) -> "Board":
    global _board
    import jax

    host, _, port = meeting.coordinator.rpartition(":")
    began = time.monotonic()
    if meeting.index:
        _wait_for_listener(host.strip("[]"), int(port), meeting)

    def give_up() -> None:
        _end(
            f"after {meeting.limit_s:.0f} s fewer than {meeting.count} processes have "
            f"met at {meeting.coordinator}; start each of them, with --process-index 0 "
            f"to {meeting.count - 1}",
            InputError.exit_code,
        )

    # JAX would abort, or wait for minutes.
    left = meeting.limit_s - (time.monotonic() - began)
    timer = threading.Timer(max(left, 1.0), give_up)
    timer.daemon = True
    timer.start()
    # Its service would take SIGTERM over, which is the command's.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            meeting.coordinator,
            meeting.count,
            meeting.index,
            local_device_ids=meeting.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=2 * int(meeting.limit_s),
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{meeting.count} processes cannot meet at {meeting.coordinator} "
            f"({reason}); name a free port of the host of process 0, before anything "
            "has used JAX"
        ) from error
    finally:
        timer.cancel()
    _board = Board(meeting.index, meeting.count)
    return _board


def _wait_for_listener(host: str, port: int, meeting: Meeting) -> None:
    ends, reason = time.monotonic() + meeting.limit_s, "nobody listens"
    while time.monotonic() < ends:
        try:
            socket.create_connection((host, port), timeout=2.0).close()
            return
        except OSError as error:
            reason = str(error.strerror or error)
            time.sleep(0.2)
    raise InputError(
        f"no coordinator at {meeting.coordinator} after {meeting.limit_s:.0f} s "
        f"({reason}); start process 0 there, or correct --coordinator"
    )


def share(value: Any) -> Any:
    """The value of the first process, JSON values, in all of them."""
    return value if _board is None else _board.share(value)


def work_out(
    parts: Sequence[Any], work: Callable[[Any], Any]
) -> Iterator[tuple[int, Any]]:
    """Does parts of some work, each in one of the processes.

    Args:
      parts: alike in all processes.
      work: gives a part's result, JSON values.

    Yields:
      In the first process the number of a part and its result, as they come; in the
      others nothing.
    """
    if _board is None:
        return enumerate(map(work, parts))
    return _board.work_out(parts, work)


def board() -> "Board | None":
    """The board that the processes share, inside `together`; None for a lone one."""
    return _board


class Board:
    """A small key-value store that all processes see, and the watch over them."""

    def __init__(self, index: int, count: int):
        self.index, self.count = index, count
        self._client = _state().client
        self._code: int | None = None  # of a fault of this process
        self._ending = False  # because of another's
        self._lock = threading.Lock()  # so that one of the two says why
        self._names = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        atexit.register(self._leave)  # before JAX, which would wait for the others

    def put(self, key: str, value: str) -> None:
        """Writes a value, over one that is there."""
        self._client.key_value_set(f"seedjax/{key}", value, allow_overwrite=True)

    def get(self, key: str) -> str | None:
        """The value of a key; None if it has none."""
        try:
            return self._client.key_value_try_get(f"seedjax/{key}")
        except Exception as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def all(self, prefix: str) -> dict[str, str]:
        """The values of all keys below "PREFIX/"."""
        found = self._client.key_value_dir_get(f"seedjax/{prefix}/")
        return {key.removeprefix("seedjax/"): value for key, value in found}

    def wait(self, key: str) -> str:
        """The value of a key, once it has one. If the process that would write it dies,
        so does this one."""
        while True:
            with contextlib.suppress(Exception):  # nobody has written it yet
                return self._client.blocking_key_value_get(f"seedjax/{key}", 5_000)
            if self.get(key) is None:
                time.sleep(0.01)

    def new_name(self, kind: str) -> str:
        """A prefix that no other work uses; alike in all processes, which run the same
        code."""
        self._names += 1
        return f"{kind}-{self._names}"

    def share(self, value: Any) -> Any:
        """As the function."""
        name = f"{self.new_name('shared')}/value"
        if self.index == 0:
            self.put(name, json.dumps(value))
        return json.loads(self.wait(name))

    def work_out(
        self, parts: Sequence[Any], work: Callable[[Any], Any]
    ) -> Iterator[tuple[int, Any]]:
        """As the function."""
        name = self.new_name("work")
        others = [n for n in range(len(parts)) if n % self.count]

        def arrived() -> Iterator[tuple[int, Any]]:
            for number in list(others):
                if (value := self.get(f"{name}/{number}")) is not None:
                    others.remove(number)
                    self.drop(f"{name}/{number}")
                    yield number, json.loads(value)

        for number in range(self.index, len(parts), self.count):
            result = work(parts[number])
            if self.index == 0:
                yield number, result
                yield from arrived()
            else:
                self.put(f"{name}/{number}", json.dumps(result))
        while self.index == 0 and others:
            time.sleep(0.05)
            yield from arrived()

    def drop(self, key: str) -> None:
        """Deletes a key."""
        self._client.key_value_delete(f"seedjax/{key}")

    def fail(self, error: BaseException) -> None:
        """Makes a fault of this process known to the others. Where the fault is that
        another one is gone, waits until that is certain, which ends this process."""
        if isinstance(error, InputError | RefusedError):
            code, text = error.exit_code, " ".join(str(error).split())
        elif isinstance(error, KeyboardInterrupt):
            code, text = 130, "interrupted"
        elif isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 1
            text = f"left with exit code {code}"
        else:
            if _may_be_of_another(error):
                time.sleep(SILENT_S + 2 * LEAVE_S)  # the watch knows by then
            code, text = 1, f"{type(error).__name__}: {' '.join(str(error).split())}"
        with self._lock:
            if not self._ending:
                self._code = code
        if self._code is None:
            self._watcher.join()  # which ends the process
        fault = {"process": self.index, "code": code, "text": text[:1000]}
        with contextlib.suppress(Exception):  # the first process may be gone
            self.put("fault/first", json.dumps(fault))

    def finish(self) -> None:
        """Waits until all processes have come so far, and lets go of them."""
        import jax

        self.put(f"finished/{self.index}", "")
        while len(self.all("finished")) < self.count:
            time.sleep(0.05)
        self._over.set()
        self._watcher.join()
        jax.distributed.shutdown()
        global _board
        _board = None

    def _watch(self) -> None:
        seen: dict[str, tuple[str, float]] = {}
        count = 0
        while not self._over.wait(POLL_S):
            try:
                count += 1
                self.put(f"alive/{self.index}", str(count))
                fault = self.get("fault/first")
                if fault is None and self.index == 0:
                    fault = self._silent(seen)
            except Exception as error:
                if self._over.is_set():
                    return
                if self._code is None:
                    _end(f"process 0 cannot be reached any more ({error})", 1)
                os._exit(self._code)
            if fault is not None:
                self._end_for(json.loads(fault))
                return

    def _silent(self, seen: dict[str, tuple[str, float]]) -> str | None:
        """A fault, if a process has given no sign of life for long."""
        now, alive = time.monotonic(), self.all("alive")
        for number in range(self.count):
            key = f"alive/{number}"
            value = alive.get(key, "")
            if seen.get(key, ("no", 0.0))[0] != value:
                seen[key] = (value, now)
            elif now - seen[key][1] > SILENT_S and f"finished/{number}" not in self.all(
                "finished"
            ):
                text = (
                    f"process {number} is gone: no sign of life for {SILENT_S:.0f} s; "
                    "start all of them again, with --resume"
                )
                self.put(f"left/{number}", "")
                fault = json.dumps({"process": number, "code": 1, "text": text})
                self.put("fault/first", fault)
                return fault
        return None

    def _end_for(self, fault: dict[str, Any]) -> None:
        """Ends this process because of a fault, which may be its own."""
        with self._lock:
            self._ending = self._code is None and fault["process"] != self.index
        if self._ending:
            _say(f"{fault['text']} (process {fault['process']})")
            self._part()
            os._exit(fault["code"])
        # Its own: the main thread says so. Threads that wait for others may keep the
        # interpreter from its end.
        time.sleep(LEAVE_S)
        self._part()
        os._exit(self._code or fault["code"])

    def _leave(self) -> None:
        if self._code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            self._part()
            os._exit(self._code)

    def _part(self) -> None:
        """Leaves a sign; the first process, which hosts the store, waits for those of
        the others."""
        with contextlib.suppress(Exception):
            self.put(f"left/{self.index}", "")
            ends = time.monotonic() + LEAVE_S
            while self.index == 0 and time.monotonic() < ends:
                if len(self.all("left")) == self.count:
                    break
                time.sleep(0.05)
            time.sleep(0.2 if self.index == 0 else 0.0)


def _may_be_of_another(error: BaseException) -> bool:
    """Whether an error may come of another process's end."""
    words = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Barrier")
    return any(word in str(error) for word in words)


def _say(text: str) -> None:
    line = f"seedjax: {' '.join(text.split())}\n"
    with contextlib.suppress(OSError):
        os.write(2, line.encode(errors="backslashreplace"))


def _end(text: str, code: int) -> NoReturn:
    _say(text)
    os._exit(code)
